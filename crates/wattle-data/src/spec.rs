//! The `--data` text: which source, and how its kind is detected when it is not stated.

use std::fmt;
use std::path::{Path, PathBuf};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::archive::Archive;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::mapping::{Mapped, Wanted};
use crate::options::{Missing, TableOptions};
use crate::table::Table;
use crate::{arrays, cifar, csv, digits, folder, idx, jsonl, masks, npz, rows, text};

/// Where data comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSpec {
    /// The embedded handwritten digits.
    Digits,
    /// A directory of IDX files (MNIST, Fashion-MNIST), raw or gzipped.
    Idx(PathBuf),
    /// A directory with CIFAR-10 or CIFAR-100 in binary form.
    Cifar(PathBuf),
    /// A directory with one sub-directory of PNG or JPEG images a class.
    Folder(PathBuf),
    /// An `.npz` file, or a directory with the same arrays as `.npy` files.
    Npz(PathBuf),
    /// A text table with a label column.
    Csv(PathBuf),
    /// One JSON object a line.
    Jsonl(PathBuf),
    /// A folder of text files, by class or not, or a file with a text a line.
    Text(PathBuf),
    /// A directory with images and masks of the same names.
    Masks(PathBuf),
}

/// What the model wants of a source that could be read in more than one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadOptions {
    /// `[channels, height, width]` to which images of a folder are brought; by default see [`DataSpec::Folder`]'s rule
    /// in the documentation of [`crate::ImageFiles`].
    pub image_shape: Option<[usize; 3]>,
    /// What the targets are; by default integers and words are classes, and numbers with a fraction are values.
    pub task: Option<Task>,
}

/// What is to be learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One class a sample.
    Classes,
    /// Numbers a sample.
    Values,
}

impl DataSpec {
    /// Reads a `--data` text: `digits`, `idx:DIR`, `cifar:DIR`, `folder:DIR`, `npz:FILE`, `csv:FILE`, `jsonl:FILE`,
    /// `text:PATH`, `masks:DIR`, or a bare path whose kind is detected by looking at it.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "digits" {
            return Ok(Self::Digits);
        }
        if let Some((kind, path)) = text.split_once(':')
            && let Some(make) = Self::constructor(kind)
        {
            if path.is_empty() {
                return Err(Error::input(format_args!("data `{text}`"), "no path after the colon")
                    .expected(format_args!("{kind}:PATH")));
            }
            return Ok(make(PathBuf::from(path)));
        }
        Self::detect(Path::new(text))
    }

    /// Reads the whole set (of image folders: the headers).
    pub fn load(&self, options: &LoadOptions) -> Result<Dataset> {
        match self {
            Self::Digits => digits::load(),
            Self::Idx(path) => idx::load(path),
            Self::Cifar(path) => cifar::load(path),
            Self::Folder(path) => folder::load(path, options.image_shape),
            Self::Npz(path) => npz::load(path, options.task),
            Self::Csv(path) => csv::load(path, options.task),
            Self::Jsonl(_) | Self::Text(_) | Self::Masks(_) => {
                Err(Error::input(self, "data of named columns").expected("images or rows of numbers"))
            }
        }
    }

    /// Reads the set as a table with the inputs that a model wants, in their order, and its targets.
    ///
    /// Images, and arrays under the usual names (`x` and `y`, `x_train` and so on) for a model of one input, come as
    /// [`DataSpec::load`] reads them; arrays under the model's own names, text tables, text and masks as the options say.
    ///
    /// # Errors
    /// When something cannot be read, or does not fit what is wanted.
    pub fn table(&self, wanted: &[Wanted], options: &TableOptions) -> Result<Arc<dyn Table>> {
        options.columns.check(wanted)?;
        self.check(options)?;
        let whole = || self.load(&options.load).map(|set| Arc::new(set) as Arc<dyn Table>);
        let table: Arc<dyn Table> = match self {
            Self::Digits | Self::Idx(_) | Self::Cifar(_) | Self::Folder(_) => whole()?,
            Self::Npz(path) => {
                let plain = wanted.len() == 1 && options.targets.is_empty() && options.ignore_index.is_none();
                let archive = Archive::open(path)?;
                if plain
                    && options.columns == crate::ColumnMap::default()
                    && !arrays::feeds(&archive, wanted)
                    && npz::is_usual(&archive)
                {
                    whole()?
                } else {
                    Arc::new(arrays::load(path, wanted, options)?)
                }
            }
            Self::Csv(path) => Arc::new(rows::load(path, wanted, options)?),
            Self::Jsonl(path) => Arc::new(jsonl::load(path, wanted, options)?),
            Self::Text(path) => Arc::new(text::load(path, wanted, options)?),
            Self::Masks(path) => Arc::new(masks::load(path, wanted, options)?),
        };
        Ok(Arc::new(Mapped::new(table, wanted)?))
    }

    /// Refuses options that data of this kind cannot follow.
    fn check(&self, options: &TableOptions) -> Result<()> {
        let has_names = matches!(self, Self::Npz(_) | Self::Csv(_) | Self::Jsonl(_));
        let has_gaps = matches!(self, Self::Csv(_) | Self::Jsonl(_));
        let has_text = matches!(self, Self::Text(_) | Self::Jsonl(_));
        let refused = [
            (
                "target",
                !options.targets.is_empty() && !has_names,
                "its samples have one target each, without a name",
            ),
            (
                "columns",
                options.columns.inputs().next().is_some() && !has_names,
                "its samples have no columns by name",
            ),
            ("missing", options.missing != Missing::Refuse && !has_gaps, "it cannot leave values out"),
            ("tokenizer", options.text.tokenizer.is_some() && !has_text, "it has no text"),
        ];
        match refused.into_iter().find(|(_, is_refused, _)| *is_refused) {
            Some((option, _, why)) => {
                Err(Error::input(format_args!("option `{option}`"), format_args!("{self}: {why}"))
                    .remedy("leave the option out"))
            }
            None => Ok(()),
        }
    }

    fn constructor(kind: &str) -> Option<fn(PathBuf) -> Self> {
        Some(match kind {
            "idx" => Self::Idx,
            "cifar" => Self::Cifar,
            "folder" => Self::Folder,
            "npz" => Self::Npz,
            "csv" => Self::Csv,
            "jsonl" => Self::Jsonl,
            "text" => Self::Text,
            "masks" => Self::Masks,
            _ => return None,
        })
    }

    fn detect(path: &Path) -> Result<Self> {
        let expected = "digits, idx:DIR, cifar:DIR, folder:DIR, npz:FILE, csv:FILE, jsonl:FILE, text:PATH, masks:DIR, or a path of one of these kinds";
        let unknown = |found: &str| {
            Error::input(path.display(), found)
                .expected(expected)
                .remedy("if the kind is one of these, state it before the path")
        };
        if path.is_dir() {
            let make: fn(PathBuf) -> Self = if idx::detect(path) {
                Self::Idx
            } else if cifar::detect(path) {
                Self::Cifar
            } else if npz::detect(path) {
                Self::Npz
            } else if masks::detect(path) {
                Self::Masks
            } else if folder::detect(path) {
                Self::Folder
            } else if text::detect(path) {
                Self::Text
            } else {
                return Err(unknown("a directory of no known kind"));
            };
            return Ok(make(path.to_owned()));
        }
        if !path.exists() {
            return Err(Error::input(path.display(), "no such file or directory").expected(expected));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.') {
            Some((_, "npz")) => Ok(Self::Npz(path.to_owned())),
            Some((_, "csv" | "tsv" | "data")) => Ok(Self::Csv(path.to_owned())),
            Some((_, "jsonl" | "ndjson")) => Ok(Self::Jsonl(path.to_owned())),
            Some((_, "txt")) => Ok(Self::Text(path.to_owned())),
            _ => Err(unknown("a file of no known kind")),
        }
    }
}

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digits => write!(f, "digits"),
            Self::Idx(path) => write!(f, "idx:{}", path.display()),
            Self::Cifar(path) => write!(f, "cifar:{}", path.display()),
            Self::Folder(path) => write!(f, "folder:{}", path.display()),
            Self::Npz(path) => write!(f, "npz:{}", path.display()),
            Self::Csv(path) => write!(f, "csv:{}", path.display()),
            Self::Jsonl(path) => write!(f, "jsonl:{}", path.display()),
            Self::Text(path) => write!(f, "text:{}", path.display()),
            Self::Masks(path) => write!(f, "masks:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn stated_kinds_are_taken_at_their_word() {
        for text in [
            "digits",
            "idx:a",
            "cifar:b c",
            "folder:/d",
            "npz:e.npz",
            "csv:f:g.csv",
            "jsonl:a",
            "text:b",
            "masks:c",
        ] {
            assert_eq!(DataSpec::parse(text).unwrap().to_string(), text);
        }
        assert!(DataSpec::parse("csv:").is_err());
    }

    #[test]
    fn kinds_of_bare_paths_are_detected() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"").unwrap();
        };
        for file in [
            "i/train-images-idx3-ubyte.gz",
            "c/data_batch_1.bin",
            "f/cat/1.png",
            "n/x.npy",
            "n/y.npy",
            "t.csv",
            "t.CSV.gz",
            "z.npz",
            "m/images/1.png",
            "m/masks/1.png",
            "l/good/1.txt",
            "l.txt",
            "o.jsonl",
            "odd.bin",
            "empty/sub/x.bin",
        ] {
            put(file);
        }
        for (name, kind) in [
            ("i", "idx"),
            ("c", "cifar"),
            ("f", "folder"),
            ("n", "npz"),
            ("t.csv", "csv"),
            ("t.CSV.gz", "csv"),
            ("z.npz", "npz"),
            ("m", "masks"),
            ("l", "text"),
            ("l.txt", "text"),
            ("o.jsonl", "jsonl"),
        ] {
            let path = root.path().join(name);
            let spec = DataSpec::parse(path.to_str().unwrap()).unwrap();
            assert_eq!(spec.to_string(), format!("{kind}:{}", path.display()));
        }
        for name in ["odd.bin", "empty", "absent"] {
            assert!(DataSpec::parse(root.path().join(name).to_str().unwrap()).is_err(), "{name}");
        }
    }

    /// The real set in its standard place on Debian (package `dataset-fashion-mnist`).
    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test must be seen")]
    fn fashion_mnist_has_its_published_size_and_moments() {
        let directory = Path::new("/usr/share/datasets/fashion-mnist");
        if !directory.is_dir() {
            eprintln!(
                "SKIPPED fashion_mnist_has_its_published_size_and_moments: apt-get install dataset-fashion-mnist"
            );
            return;
        }
        let set =
            DataSpec::parse(directory.to_str().unwrap()).unwrap().load(&LoadOptions::default()).unwrap();
        assert_eq!((set.parts.train.len(), set.parts.test.clone().unwrap().len()), (60_000, 10_000));
        assert_eq!(set.targets.class_count(), Some(10));
        let everything: Vec<u32> = (0..60_000).collect();
        let moments = crate::Normalisation::measure(&set, &everything).unwrap();
        assert!(
            (moments.mean[0] - 0.2860).abs() < 5e-5 && (moments.std[0] - 0.3530).abs() < 5e-5,
            "{moments:?}"
        );
    }
}
