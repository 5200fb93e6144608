//! Files in a folder that others may write to as well: opened and created without following what they planted there.
//!
//! A symbolic link under the name of one of our files would have us overwrite a file elsewhere; a pipe would have us wait
//! for ever. Whatever is opened by name in an output folder is opened here, or replaced whole by
//! [`crate::atomic_file`].

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::path::Path;

use wattle_data::error::{Error, Result};

/// Creates a file that does not exist yet, not even as a link. `None` if something of its name exists.
pub fn create_new(path: &Path) -> Result<Option<File>> {
    // Creating and not replacing does not follow a link (open(2), O_EXCL).
    match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(Error::writing(path, &error)),
    }
}

/// Opens a file for reading; `None` if there is none.
///
/// # Errors
/// When the name belongs to a link, a folder, a pipe or a device, or the file cannot be read.
pub fn open(path: &Path) -> Result<Option<File>> {
    opened(path, OpenOptions::new().read(true), Error::reading)
}

/// Opens a file for reading and writing where it is, creating it if there is none.
///
/// # Errors
/// As those of [`open`].
pub fn open_or_create(path: &Path) -> Result<File> {
    loop {
        if let Some(file) = create_new(path)? {
            return Ok(file);
        }
        // Between the two it may have been removed.
        if let Some(file) = opened(path, OpenOptions::new().read(true).write(true), Error::writing)? {
            return Ok(file);
        }
    }
}

/// Refuses to put a file in the place of a folder, a pipe or a device. A link is replaced, not followed.
pub(crate) fn check_replaceable(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() && !found.is_symlink() => Err(refused(path, found.file_type())),
        _ => Ok(()),
    }
}

fn opened(
    path: &Path,
    options: &mut OpenOptions,
    failed: fn(&Path, &io::Error) -> Error,
) -> Result<Option<File>> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Err(refused(path, found.file_type())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, &error)),
    }
    // The name may change hands after that look: then the system refuses a link, and a pipe does not block.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::OFlags;
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    }
    match options.open(path) {
        Ok(file) => {
            let kind = file.metadata().map_err(|error| failed(path, &error))?.file_type();
            if kind.is_file() { Ok(Some(file)) } else { Err(refused(path, kind)) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

fn refused(path: &Path, kind: FileType) -> Error {
    let found = if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a folder"
    } else {
        "a pipe, a socket or a device"
    };
    Error::input(path.display(), found)
        .expected("a file, or nothing of this name")
        .remedy("remove it, or choose another output directory")
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_planted_link_is_neither_followed_nor_created_through() {
        let folder = tempfile::tempdir().unwrap();
        let [victim, link] = ["victim", "metrics.jsonl"].map(|name| folder.path().join(name));
        fs::write(&victim, b"precious").unwrap();
        for target in [victim.clone(), folder.path().join("absent")] {
            symlink(&target, &link).unwrap();
            for error in [open(&link).unwrap_err(), open_or_create(&link).unwrap_err()] {
                assert!(error.to_string().contains("metrics.jsonl: a symbolic link"), "{error}");
            }
            assert!(create_new(&link).unwrap().is_none());
            fs::remove_file(&link).unwrap();
        }
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(!folder.path().join("absent").exists());
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("a pipe"));
        assert!(check_replaceable(&path).is_err());
    }
}
