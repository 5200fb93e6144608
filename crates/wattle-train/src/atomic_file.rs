//! Files that are either the old one or the new one, never half of each.
//!
//! The bytes go to a temporary name in the same directory, are synced to disk, and only then take the final name; the
//! directory is synced last, so that the rename itself survives a power cut.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::output_file::check_replaceable;
use wattle_data::error::{Error, Result};

const MARK: &str = ".wattle-partial-";

/// Writes `bytes` to `path`, replacing what was there in one instant.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// Like [`write_atomically`], for contents that are produced piece by piece. If `fill` fails, `path` is untouched and
/// nothing is left behind.
pub fn write_atomically_with(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    check_replaceable(path)?;
    let temporary = partial_name(path);
    let written = write_and_rename(path, &temporary, fill);
    if written.is_err() {
        // The first error is the one worth reporting; a leftover is swept when the directory is next opened.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|error| Error::writing(path, &error))
}

fn write_and_rename(
    path: &Path,
    temporary: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufWriter::new(File::create_new(temporary)?);
    fill(&mut file)?;
    file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
    fs::rename(temporary, path)?;
    sync_directory(path)
}

/// Whether a file of this name is one that is being written, or was when its writer died.
pub(crate) fn is_partial(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(MARK)
}

/// Removes what killed processes left half written in `directory`. Call it only while holding the directory's lease.
pub(crate) fn sweep_partial_files(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_partial(&entry.file_name()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Only Unix lets a directory be opened and synced; elsewhere the rename is as durable as the system makes it.
    if cfg!(unix) { File::open(parent)?.sync_all() } else { Ok(()) }
}

/// A name beside `path` for a file that is to become it; no other call gives the same.
pub(crate) fn partial_name(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!("{MARK}{}-{count}-{name}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.json");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_leaves_the_earlier_file_alone_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.json");
        write_atomically(&path, b"precious").unwrap();
        let error = write_atomically_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.to_string().contains("out.json") && error.hint().unwrap().contains("free some space"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named_in_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plain");
        fs::write(&file, b"").unwrap();
        let error = write_atomically(&file.join("out.json"), b"").unwrap_err();
        assert!(error.to_string().contains("plain"), "{error}");
    }

    #[test]
    fn leftovers_of_killed_writers_are_swept() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(partial_name(&directory.path().join("a")), b"torn").unwrap();
        fs::write(directory.path().join("kept"), b"").unwrap();
        sweep_partial_files(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
