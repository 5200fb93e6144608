//! Where NumPy arrays are found by name: in an `.npz` file (a zip of `.npy` files), or in a directory of such files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wattle_graph::DType;
use zip::{CompressionMethod, ZipArchive};

use crate::bounded;
use crate::columns::{Cells, Memory};
use crate::error::{Error, Result};
use crate::npy::{self, Array, Header};
use crate::positioned::Positioned;

/// The most bytes of an array in Fortran order that is turned in memory although the rest stays in its file: 2 GiB.
const LARGEST_TURNED: u64 = 2 << 30;

/// The arrays of a file or a directory.
pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    /// Names of the arrays, and of the files or members they are in.
    entries: BTreeMap<String, String>,
    zip: Option<ZipArchive<File>>,
}

/// An array that is ready to be read sample by sample.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) dtype: DType,
    /// The samples first.
    pub(crate) shape: Vec<usize>,
    pub(crate) cells: Box<dyn Cells>,
    /// Bytes that stay in the file.
    pub(crate) in_file: u64,
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let reading = |error| Error::reading(path, &error);
        let (names, zip) = if path.is_dir() {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(path).map_err(reading)? {
                names.push(entry.map_err(reading)?.file_name().to_string_lossy().into_owned());
            }
            (names, None)
        } else {
            let zip = ZipArchive::new(bounded::open_file(path)?).map_err(|error| damaged(path, error))?;
            let names = zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
            (names, Some(zip))
        };
        let key = |name: String| Some((name.strip_suffix(".npy")?.to_owned(), name));
        Ok(Self { path: path.to_owned(), entries: names.into_iter().filter_map(key).collect(), zip })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The array of this name, or else the first whose name differs from it in upper and lower case only.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        match self.entries.get_key_value(name) {
            Some((own, _)) => Some(own),
            None => self.names().find(|own| own.eq_ignore_ascii_case(name)),
        }
    }

    /// Reads an array whole; `name` is one that [`Archive::find`] gave.
    pub(crate) fn read(&mut self, name: &str) -> Result<Array> {
        let (place, bytes) = self.bytes(name)?;
        npy::parse_stored(&place, bytes)?.into_array(&place)
    }

    /// Bytes that an array takes in its file.
    pub(crate) fn size(&mut self, name: &str) -> Result<u64> {
        let (place, entry) = self.entry(name);
        match &mut self.zip {
            None => Ok(bounded::open_file(&place)?.metadata().map_err(|e| Error::reading(&place, &e))?.len()),
            Some(zip) => Ok(zip.by_name(&entry).map_err(|error| damaged(&place, error))?.size()),
        }
    }

    /// An array to be read sample by sample: from memory, or from its file if `in_file` and nothing is packed.
    pub(crate) fn array(&mut self, name: &str, in_file: bool) -> Result<Opened> {
        if in_file && let Some(opened) = self.in_file(name)? {
            return Ok(opened);
        }
        let (place, bytes) = self.bytes(name)?;
        let npy::Stored { dtype, shape, bytes } = npy::parse_stored(&place, bytes)?;
        Ok(Opened { dtype, shape, cells: Box::new(Memory(bytes)), in_file: 0 })
    }

    /// An array left in its file; `None` if it is compressed.
    fn in_file(&mut self, name: &str) -> Result<Option<Opened>> {
        let (place, entry) = self.entry(name);
        let (file_path, start, length) = match &mut self.zip {
            None => {
                let length = std::fs::metadata(&place).map_err(|e| Error::reading(&place, &e))?.len();
                let mut mark = [0; 2];
                let gzipped =
                    bounded::open_file(&place)?.read_exact(&mut mark).is_ok() && mark == [0x1f, 0x8b];
                if gzipped {
                    return Ok(None);
                }
                (place.clone(), 0, length)
            }
            Some(zip) => {
                let member = zip.by_name(&entry).map_err(|error| damaged(&place, error))?;
                if member.compression() != CompressionMethod::Stored || member.encrypted() {
                    return Ok(None);
                }
                match member.data_start() {
                    Some(start) => (self.path.clone(), start, member.size()),
                    None => return Ok(None),
                }
            }
        };
        let file = bounded::open_file(&file_path)?;
        let there = file.metadata().map_err(|error| Error::reading(&file_path, &error))?.len();
        if start.checked_add(length).is_none_or(|end| end > there) {
            return Err(damaged(&place, format_args!("{length} bytes of {there} in the file")));
        }
        let beginning = length.min(npy::LONGEST_HEADER as u64 + 12) as usize;
        let mut head = vec![0; beginning];
        crate::positioned::read_at(&file_path, &file, start, &mut head)?;
        let told = |found: String, remedy: &str| {
            Error::input(place.display(), found).expected("a complete .npy array of numbers").remedy(remedy)
        };
        let header = Header::parse(&head).map_err(|(found, remedy)| told(found, remedy))?;
        let elements = header.elements().map_err(|(found, remedy)| told(found, remedy))?;
        let data = length - header.start as u64;
        if (elements as u64).checked_mul(header.element.size() as u64) != Some(data) {
            return Err(told(
                format!("{data} bytes of data, which do not fill its shape"),
                "write it again with numpy.save",
            ));
        }
        if header.fortran && length <= LARGEST_TURNED {
            return Ok(None);
        }
        if header.fortran {
            return Err(told(
                "an array in Fortran order that is too large to be turned in memory".into(),
                "save numpy.ascontiguousarray(array) instead",
            ));
        }
        let sample = header.shape.iter().skip(1).product();
        let start = start + header.start as u64;
        let cells = Positioned::new(&file_path, Arc::new(file), start, header.element, sample);
        let dtype = header.element.dtype;
        Ok(Some(Opened { dtype, shape: header.shape, cells: Box::new(cells), in_file: data }))
    }

    fn bytes(&mut self, name: &str) -> Result<(PathBuf, Vec<u8>)> {
        let (place, entry) = self.entry(name);
        let bytes = match &mut self.zip {
            None => bounded::read(&place)?,
            Some(zip) => {
                let member = zip.by_name(&entry).map_err(|error| damaged(&place, error))?;
                bounded::read_all(member, bounded::MAX_BYTES, &place)?
            }
        };
        Ok((place, bytes))
    }

    fn entry(&self, name: &str) -> (PathBuf, String) {
        let entry = self.entries.get(name).cloned().unwrap_or_else(|| format!("{name}.npy"));
        (self.path.join(&entry), entry)
    }
}

fn damaged(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::input(path.display(), format_args!("not a readable zip archive ({error})"))
        .expected("a file written by numpy.savez or numpy.savez_compressed")
        .remedy("write it again")
}
