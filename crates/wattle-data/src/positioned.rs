//! Arrays left in their file: each sample is read from its own place, and none is kept.
//!
//! Mapping the file into memory would need `unsafe`, since another process may cut it short; a read from a stated
//! position gives an error then, and the system's cache holds what is used often either way.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::columns::Cells;
use crate::error::{Error, Result};
use crate::npy::Element;

/// The samples of an array, one after the other in a file.
#[derive(Debug)]
pub(crate) struct Positioned {
    path: PathBuf,
    file: Arc<File>,
    /// Where the first element lies, bytes from the start of the file.
    start: u64,
    element: Element,
    /// Bytes of one sample in the file.
    stride: usize,
}

impl Positioned {
    pub(crate) fn new(path: &Path, file: Arc<File>, start: u64, element: Element, elements: usize) -> Self {
        Self { path: path.to_owned(), file, start, element, stride: elements * element.size() }
    }
}

impl Cells for Positioned {
    fn read(&self, sample: usize, out: &mut [u8]) -> Result<()> {
        let at = self.start + (sample * self.stride) as u64;
        if self.element.is_native() {
            return read_at(&self.path, &self.file, at, out);
        }
        let mut stored = vec![0; self.stride];
        read_at(&self.path, &self.file, at, &mut stored)?;
        self.element.decode(&stored, out);
        Ok(())
    }
}

/// Fills `out` from a position in a file.
pub(crate) fn read_at(path: &Path, file: &File, mut at: u64, mut out: &mut [u8]) -> Result<()> {
    while !out.is_empty() {
        match positioned(file, out, at) {
            Ok(0) => {
                return Err(Error::input(path.display(), format_args!("the file ends at byte {at}"))
                    .expected("as many bytes as when it was opened")
                    .remedy("leave the file alone while it is in use, and start again"));
            }
            Ok(read) => {
                out = &mut out[read..];
                at += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::reading(path, &error)),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn positioned(file: &File, out: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, at)
}

#[cfg(windows)]
fn positioned(file: &File, out: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, at)
}

/// The bytes above which arrays are left in their file: half of this machine's memory, or 4 GiB where it does not say.
pub(crate) fn half_the_memory() -> u64 {
    let information = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = information.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.map_or(4 << 30, |kibibytes| kibibytes * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_from_their_places_in_any_byte_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let mut bytes = vec![9, 9, 9];
        bytes.extend((1..7u16).flat_map(u16::to_be_bytes));
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let cells = Positioned::new(&path, file, 3, Element::parse(">u2").unwrap(), 2);
        let mut out = [0; 4];
        cells.read(2, &mut out).unwrap();
        assert_eq!(out.as_chunks().0.iter().map(|b| u16::from_ne_bytes(*b)).collect::<Vec<_>>(), [5, 6]);
        assert!(cells.read(3, &mut out).unwrap_err().to_string().contains("the file ends at byte 15"));
    }

    #[test]
    fn some_memory_is_found() {
        assert!(half_the_memory() >= 64 << 20);
    }
}
