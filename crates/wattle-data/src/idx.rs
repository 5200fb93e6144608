//! The IDX format of MNIST and its relatives: a big-endian header, then bytes; raw or gzipped.
//!
//! Header: two zero bytes, the element type (0x08 = unsigned byte), the number of axes, then one 32-bit extent an axis
//! (Y. LeCun, "The MNIST database", section "File formats").

use std::path::{Path, PathBuf};

use crate::bounded;
use crate::dataset::{Dataset, SampleShape, Samples, SourceParts, Targets, numbered_classes};
use crate::error::{Error, Result};

/// Loads `train-images`, `train-labels` and, if present, `t10k-images`, `t10k-labels` from a directory.
pub(super) fn load(directory: &Path) -> Result<Dataset> {
    let train_images = require(directory, "train-images", 3)?;
    let train_labels = require(directory, "train-labels", 1)?;
    let (mut shape, mut data) = read_images(&train_images)?;
    let mut labels = read_labels(&train_labels)?;
    let train = pair(&train_images, data.len() / shape.elements().max(1), labels.len())?;
    let names = numbered_classes(&labels);
    let mut test = None;
    if let Some(test_images) = find(directory, "t10k-images", 3).or_else(|| find(directory, "test-images", 3))
    {
        let stem = if file_name(&test_images).starts_with("t10k") { "t10k-labels" } else { "test-labels" };
        let (test_shape, test_data) = read_images(&test_images)?;
        if test_shape != shape {
            return Err(Error::input(
                test_images.display(),
                format_args!("images of shape {:?}", test_shape.dims()),
            )
            .expected(format_args!("{:?}, as in the training part", shape.dims())));
        }
        let test_labels = read_labels(&require(directory, stem, 1)?)?;
        test = Some(pair(&test_images, test_data.len() / test_shape.elements().max(1), test_labels.len())?);
        shape = test_shape;
        data.extend_from_slice(&test_data);
        labels.extend_from_slice(&test_labels);
    }
    let name = format!("idx:{}", directory.display());
    let samples = Samples::Bytes { data, full_scale: 255 };
    Dataset::new(
        name,
        shape,
        samples,
        Targets::Classes { labels, names },
        SourceParts::consecutive(train, None, test),
    )
}

/// Whether a directory holds IDX files.
pub(super) fn detect(directory: &Path) -> bool {
    find(directory, "train-images", 3).is_some()
}

/// The file `<stem>-idx<n>-ubyte` or `<stem>.idx<n>-ubyte`, with or without `.gz`.
fn find(directory: &Path, stem: &str, axes: usize) -> Option<PathBuf> {
    candidates(stem, axes).map(|name| directory.join(name)).find(|path| path.is_file())
}

fn require(directory: &Path, stem: &str, axes: usize) -> Result<PathBuf> {
    if !directory.is_dir() {
        return Err(
            Error::input(directory.display(), "no such directory").expected("a directory of IDX files")
        );
    }
    find(directory, stem, axes).ok_or_else(|| {
        let names: Vec<String> = candidates(stem, axes).collect();
        Error::input(directory.display(), format_args!("no {stem} file"))
            .expected(format_args!("one of {}", names.join(", ")))
            .remedy("download the missing file into this directory")
    })
}

fn candidates(stem: &str, axes: usize) -> impl Iterator<Item = String> {
    ["-", "."].into_iter().flat_map(move |separator| {
        ["", ".gz"].into_iter().map(move |ending| format!("{stem}{separator}idx{axes}-ubyte{ending}"))
    })
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn pair(images: &Path, samples: usize, labels: usize) -> Result<usize> {
    if samples == labels {
        return Ok(samples);
    }
    Err(Error::input(images.display(), format_args!("{samples} images but {labels} labels"))
        .expected("one label an image")
        .remedy("check that both files come from the same download"))
}

fn read_images(path: &Path) -> Result<(SampleShape, Vec<u8>)> {
    let (extents, bytes) = parse(path, bounded::read(path)?)?;
    let (channels, height, width) = match extents[..] {
        [_, height, width] => (1, height, width),
        [_, channels, height, width] => (channels, height, width),
        _ => return Err(axes_error(path, extents.len(), "3 axes (images, rows, columns)")),
    };
    Ok((SampleShape::Image { channels, height, width }, bytes))
}

fn read_labels(path: &Path) -> Result<Vec<u32>> {
    let (extents, bytes) = parse(path, bounded::read(path)?)?;
    if extents.len() != 1 {
        return Err(axes_error(path, extents.len(), "1 axis (labels)"));
    }
    Ok(bytes.into_iter().map(u32::from).collect())
}

fn axes_error(path: &Path, found: usize, expected: &str) -> Error {
    Error::input(path.display(), format_args!("an IDX file with {found} axes"))
        .expected(expected)
        .remedy("check that images and labels were not exchanged")
}

/// Splits an IDX file of bytes into extents and elements.
fn parse(path: &Path, mut bytes: Vec<u8>) -> Result<(Vec<usize>, Vec<u8>)> {
    let fault = |found: String, expected: String| {
        Err(Error::input(path.display(), found).expected(expected).remedy("download it again"))
    };
    let axes = match bytes[..] {
        [0, 0, 0x08, axes, ..] if (1..=4).contains(&axes) => usize::from(axes),
        _ => {
            let magic = &bytes[..bytes.len().min(4)];
            return fault(
                format!("it starts with {magic:02x?}"),
                "00 00 08 (bytes) and 01 to 04 axes".into(),
            );
        }
    };
    let header = 4 + 4 * axes;
    if bytes.len() < header {
        return fault(format!("{} bytes", bytes.len()), format!("a header of {header} bytes"));
    }
    let extents: Vec<usize> = bytes[4..header]
        .chunks_exact(4)
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .collect();
    let elements = extents.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    let found = bytes.len() - header;
    if elements != Some(found) {
        let expected = elements.map_or("a representable number of".to_owned(), |n| n.to_string());
        return fault(
            format!("{found} bytes after the header"),
            format!("{expected} bytes for the extents {extents:?} its header states"),
        );
    }
    bytes.drain(..header);
    Ok((extents, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;
    use proptest::prelude::*;
    use std::fs;

    fn file(extents: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, extents.len() as u8];
        bytes.extend(extents.iter().flat_map(|e| e.to_be_bytes()));
        bytes.extend_from_slice(data);
        bytes
    }

    fn tiny() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: Vec<u8>| fs::write(directory.path().join(name), bytes).unwrap();
        put("train-images-idx3-ubyte", file(&[4, 2, 3], &(0..24).collect::<Vec<u8>>()));
        put("train-labels.idx1-ubyte", file(&[4], &[0, 1, 1, 0]));
        put("t10k-images-idx3-ubyte", file(&[1, 2, 3], &[9; 6]));
        put("t10k-labels-idx1-ubyte", file(&[1], &[1]));
        directory
    }

    #[test]
    fn both_naming_styles_and_the_test_part_are_read() {
        let directory = tiny();
        assert!(detect(directory.path()));
        let set = load(directory.path()).unwrap();
        assert_eq!(set.shape.dims(), [1, 2, 3]);
        assert_eq!(set.parts, SourceParts::consecutive(4, None, Some(1)));
        assert_eq!(set.count(), 5);
    }

    #[test]
    fn each_damage_is_named() {
        for (name, bytes, message) in [
            ("train-images-idx3-ubyte", file(&[4, 2, 3], &[0; 23]), "23 bytes after the header; expected 24"),
            ("train-images-idx3-ubyte", vec![1, 2, 3], "it starts with [01, 02, 03]"),
            ("train-images-idx3-ubyte", file(&[24], &[0; 24]), "1 axes"),
            ("train-images-idx3-ubyte", file(&[u32::MAX, u32::MAX, u32::MAX], &[]), "representable"),
            ("train-images-idx3-ubyte", file(&[3, 2, 3], &[0; 18]), "3 images but 4 labels"),
            ("train-labels.idx1-ubyte", file(&[4], &[1, 2, 2, 1]), "classes from 1 to 2"),
            ("t10k-labels-idx1-ubyte", file(&[1], &[7]), "label of sample 4: class 7"),
            ("t10k-images-idx3-ubyte", file(&[1, 3, 2], &[0; 6]), "as in the training part"),
        ] {
            let directory = tiny();
            fs::write(directory.path().join(name), bytes).unwrap();
            let error = load(directory.path()).unwrap_err().to_string();
            assert!(error.contains(message), "{message}: {error}");
        }
    }

    #[test]
    fn a_class_without_samples_is_a_remark() {
        let directory = tiny();
        fs::write(directory.path().join("train-labels.idx1-ubyte"), file(&[4], &[0, 2, 2, 0])).unwrap();
        let set = load(directory.path()).unwrap();
        assert_eq!((set.targets.class_count(), set.remarks().len()), (Some(3), 1));
        assert!(set.remarks()[0].contains("class 1"));
    }

    #[test]
    fn a_missing_file_lists_the_names_that_would_do() {
        let directory = tiny();
        fs::remove_file(directory.path().join("train-labels.idx1-ubyte")).unwrap();
        let error = load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("train-labels-idx1-ubyte.gz"), "{error}");
    }

    proptest! {
        #[test]
        fn mutated_bytes_never_panic(at in 0usize..40, byte: u8, cut in 0usize..41) {
            let mut bytes = file(&[4, 2, 3], &[5; 24]);
            bytes[at] = byte;
            bytes.truncate(cut);
            let _ = parse(Path::new("x"), bytes);
        }
    }
}
