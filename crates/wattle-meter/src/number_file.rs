//! A small file that holds one number and is read over and over: kept open, one system call a reading.

use std::fs::File;
use std::io;
use std::path::PathBuf;

/// Longer than any 64-bit number with its newline.
const LONGEST: usize = 64;

/// The file; opened again after any failure, since a counter may vanish and return.
#[derive(Debug)]
pub(crate) struct NumberFile {
    path: PathBuf,
    open: Option<File>,
}

impl NumberFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        NumberFile { path, open: None }
    }

    /// The number in the file now.
    pub(crate) fn read(&mut self) -> io::Result<u64> {
        let number = self.try_read();
        if number.is_err() {
            self.open = None;
        }
        number
    }

    fn try_read(&mut self) -> io::Result<u64> {
        let file = match &self.open {
            Some(file) => file,
            None => self.open.insert(File::open(&self.path)?),
        };
        let mut bytes = [0; LONGEST];
        let length = read_at(file, &mut bytes, 0)?;
        let invalid = |e: String| io::Error::new(io::ErrorKind::InvalidData, e);
        let text = std::str::from_utf8(&bytes[..length]).map_err(|e| invalid(e.to_string()))?;
        text.trim().parse().map_err(|e: std::num::ParseIntError| invalid(e.to_string()))
    }
}

/// Reads from a place in a file, wherever its cursor stands.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, offset)
}

/// Reads from a place in a file, wherever its cursor stands.
#[cfg(not(unix))]
pub(crate) fn read_at(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_vanishes_and_returns_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("energy_uj");
        fs::write(&path, "12\n").unwrap();
        let mut file = NumberFile::new(path.clone());
        assert_eq!(file.read().unwrap(), 12);
        fs::write(&path, "nonsense").unwrap();
        assert!(file.read().is_err());
        fs::remove_file(&path).unwrap();
        assert!(file.read().is_err());
        fs::write(&path, "34").unwrap();
        assert_eq!(file.read().unwrap(), 34);
    }
}
