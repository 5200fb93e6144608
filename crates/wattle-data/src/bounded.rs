//! Reading foreign files with bounds: gzip is undone, and no file can expand beyond a stated number of bytes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};

/// The most that one decoded file may occupy: 4 GiB. A larger file is refused rather than swallowed.
pub(crate) const MAX_BYTES: u64 = 4 << 30;

/// Opens a plain file. A pipe or a device would wait for somebody, or never end.
///
/// # Errors
/// If there is none, it may not be read, or it is a directory, a pipe or a device.
pub fn open_file(path: &Path) -> Result<File> {
    let reading = |error| Error::reading(path, &error);
    let kind = std::fs::metadata(path).map_err(reading)?.file_type();
    if !kind.is_file() {
        let found = if kind.is_dir() { "a directory" } else { "a pipe, a socket or a device" };
        return Err(Error::input(path.display(), found)
            .expected("a file")
            .remedy("write its content to a file and name that"));
    }
    File::open(path).map_err(reading)
}

/// Opens a file, unpacking it on the fly if it starts with the gzip mark (whatever its name).
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    let reading = |error| Error::reading(path, &error);
    let mut file = BufReader::with_capacity(1 << 16, open_file(path)?);
    let start = io::BufRead::fill_buf(&mut file).map_err(reading)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(MultiGzDecoder::new(file)))
    } else {
        Ok(Box::new(file))
    }
}

/// Reads a whole file (unpacked) of at most [`MAX_BYTES`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    read_all(open(path)?, MAX_BYTES, path)
}

/// Reads `reader` to its end, refusing more than `limit` bytes; memory grows with what arrives, not with what a header
/// promises.
pub(crate) fn read_all(reader: impl Read, limit: u64, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes).map_err(|error| damaged(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Error::input(path.display(), format_args!("it unpacks to more than {limit} bytes"))
            .expected(format_args!("at most {limit} bytes"))
            .remedy("split it, or check that it is what it claims to be"));
    }
    Ok(bytes)
}

/// A read error in the middle of a file: a broken gzip stream is the file's fault, anything else the machine's.
fn damaged(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::input(
                path.display(),
                format_args!("its compressed data is damaged or cut short ({error})"),
            )
            .remedy("download it again")
        }
        _ => Error::reading(path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn gzip_is_recognised_by_content_and_a_cut_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("no-extension");
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&[7; 100_000]).unwrap();
        let packed = packer.finish().unwrap();
        std::fs::write(&path, &packed).unwrap();
        assert_eq!(read(&path).unwrap(), vec![7; 100_000]);
        std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("cut short"));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_and_a_directory_are_no_files() {
        for (path, found) in [("/dev/zero", "a device"), ("/", "a directory")] {
            assert!(open_file(Path::new(path)).unwrap_err().to_string().contains(found), "{path}");
        }
    }

    #[test]
    fn a_bomb_is_refused_at_its_limit() {
        let error = read_all(io::repeat(0), 1000, Path::new("bomb")).unwrap_err();
        assert!(error.to_string().contains("more than 1000 bytes"));
    }
}
