//! Files that somebody names: plain files of a bounded size. A pipe would have a job wait for ever, a device never end.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{JobError, Result};

/// Most bytes of a table, a description or a list: 64 MiB.
const LARGEST: u64 = 64 << 20;

/// Opens a plain file.
///
/// # Errors
/// If there is none, it may not be read, or it is a folder, a pipe or a device.
pub fn open(path: &Path) -> Result<File> {
    let at = |e: std::io::Error| JobError::at(path.display(), e);
    refuse_others(path)?;
    File::open(path).map_err(at)
}

/// Refuses what is no plain file.
///
/// # Errors
/// If it is a folder, a pipe or a device, or cannot be looked at.
pub fn refuse_others(path: &Path) -> Result<()> {
    let kind = std::fs::metadata(path).map_err(|e| JobError::at(path.display(), e))?.file_type();
    match () {
        () if kind.is_file() => Ok(()),
        () if kind.is_dir() => Err(JobError::at(path.display(), "found a folder, expected a file")),
        () => Err(JobError::at(path.display(), "found a pipe, a socket or a device, expected a file")),
    }
}

/// The text of a plain file of at most 64 MiB.
///
/// # Errors
/// As those of [`open`]; if it is larger, or no UTF-8.
pub fn text(path: &Path) -> Result<String> {
    let mut bytes = vec![];
    open(path)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|e| JobError::at(path.display(), e))?;
    if bytes.len() as u64 > LARGEST {
        return Err(JobError::at(path.display(), "found more than 64 MiB, expected less of such a file"));
    }
    String::from_utf8(bytes)
        .map_err(|_| JobError::at(path.display(), "found other bytes, expected text in UTF-8"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_file_is_refused_at_once() {
        for (path, found) in [("/dev/zero", "a device"), ("/", "a folder"), ("/nowhere", "No such file")] {
            let error = text(Path::new(path)).unwrap_err();
            assert!(error.to_string().contains(path) && error.to_string().contains(found), "{error}");
        }
    }
}
