//! A small text file that the kernel writes anew for every reader: kept open and read over and over into the same
//! memory, so that a reading costs one or two system calls and no allocation.

use std::fs::File;
use std::path::PathBuf;

use crate::number_file::read_at;

/// Most files of `/proc` fit; larger ones grow the memory once.
const USUAL: usize = 1024;

/// The file; opened again after any failure, since its process may have ended and its number may be used again.
#[derive(Debug)]
pub(crate) struct TextFile {
    path: PathBuf,
    open: Option<File>,
    bytes: Vec<u8>,
}

impl TextFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        TextFile { path, open: None, bytes: Vec::new() }
    }

    /// What the file says now; `None` if it cannot be read or is no text.
    pub(crate) fn read(&mut self) -> Option<&str> {
        let length = self.fill();
        if length.is_none() {
            self.open = None;
        }
        std::str::from_utf8(&self.bytes[..length?]).ok()
    }

    /// Lets the file go; the next reading opens it again.
    pub(crate) fn close(&mut self) {
        self.open = None;
        self.bytes = Vec::new();
    }

    fn fill(&mut self) -> Option<usize> {
        if self.open.is_none() {
            self.open = Some(File::open(&self.path).ok()?);
        }
        let file = self.open.as_ref()?;
        if self.bytes.is_empty() {
            self.bytes.resize(USUAL, 0);
        }
        let mut length = 0;
        loop {
            let read = read_at(file, &mut self.bytes[length..], length as u64).ok()?;
            length += read;
            if length < self.bytes.len() || read == 0 {
                return Some(length);
            }
            self.bytes.resize(2 * length, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_of_any_length_is_read_whole_and_again_after_it_returned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat");
        let mut file = TextFile::new(path.clone());
        assert_eq!(file.read(), None);
        for length in [0, 5, USUAL - 1, USUAL, USUAL + 1, 5 * USUAL] {
            fs::write(&path, "x".repeat(length)).unwrap();
            assert_eq!(file.read().map(str::len), Some(length));
        }
        fs::write(&path, [0xFF]).unwrap();
        assert_eq!(file.read(), None);
    }
}
