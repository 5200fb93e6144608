//! The binary form of CIFAR-10 and CIFAR-100: records of one or two label bytes and 3 x 32 x 32 pixel bytes
//! (A. Krizhevsky 2009, "Learning multiple layers of features from tiny images"; the data's own page).

use std::fs;
use std::path::{Path, PathBuf};

use crate::bounded;
use crate::dataset::{Dataset, SampleShape, Samples, SourceParts, Targets};
use crate::error::{Error, Result};

const SHAPE: SampleShape = SampleShape::Image { channels: 3, height: 32, width: 32 };
const PIXELS: usize = 3 * 32 * 32;

/// How the two sets differ on disk.
struct Kind {
    /// Bytes before the pixels; the last of them is the class.
    label_bytes: usize,
    classes: usize,
    test: &'static str,
    names: &'static str,
}

const CIFAR_10: Kind =
    Kind { label_bytes: 1, classes: 10, test: "test_batch.bin", names: "batches.meta.txt" };
/// The fine label is used; the coarse one before it is skipped.
const CIFAR_100: Kind =
    Kind { label_bytes: 2, classes: 100, test: "test.bin", names: "fine_label_names.txt" };

/// Loads `data_batch_*.bin` and `test_batch.bin` (10 classes) or `train.bin` and `test.bin` (100 classes).
pub(super) fn load(directory: &Path) -> Result<Dataset> {
    let batches = training_batches(directory)?;
    let (kind, files) = if !batches.is_empty() {
        (CIFAR_10, batches)
    } else if directory.join("train.bin").is_file() {
        (CIFAR_100, vec![directory.join("train.bin")])
    } else {
        return Err(Error::input(directory.display(), "no CIFAR training file")
            .expected("data_batch_1.bin to data_batch_5.bin, or train.bin")
            .remedy("name the directory that holds the unpacked binary version of the set"));
    };
    let (mut data, mut labels) = (Vec::new(), Vec::new());
    for file in &files {
        parse(file, &bounded::read(file)?, &kind, &mut data, &mut labels)?;
    }
    let train = labels.len();
    let test_file = directory.join(kind.test);
    let test = if test_file.is_file() {
        parse(&test_file, &bounded::read(&test_file)?, &kind, &mut data, &mut labels)?;
        Some(labels.len() - train)
    } else {
        None
    };
    let names = class_names(&directory.join(kind.names), kind.classes);
    Dataset::new(
        format!("cifar:{}", directory.display()),
        SHAPE,
        Samples::Bytes { data, full_scale: 255 },
        Targets::Classes { labels, names },
        SourceParts::consecutive(train, None, test),
    )
}

/// Whether a directory holds one of the two sets.
pub(super) fn detect(directory: &Path) -> bool {
    training_batches(directory).is_ok_and(|batches| !batches.is_empty())
        || directory.join("test_batch.bin").is_file()
        || (directory.join("train.bin").is_file() && directory.join("test.bin").is_file())
}

fn training_batches(directory: &Path) -> Result<Vec<PathBuf>> {
    let reading = |error| Error::reading(directory, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("data_batch_") && name.ends_with(".bin") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn parse(path: &Path, bytes: &[u8], kind: &Kind, data: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    let record = kind.label_bytes + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        return Err(Error::input(path.display(), format_args!("{} bytes", bytes.len()))
            .expected(format_args!("a positive multiple of {record}, the size of one record"))
            .remedy("the file is cut short or of another kind; download it again"));
    }
    for (index, bytes) in bytes.chunks_exact(record).enumerate() {
        let label = bytes[kind.label_bytes - 1];
        if usize::from(label) >= kind.classes {
            return Err(Error::input(
                format_args!("{}, record {index}", path.display()),
                format_args!("class {label}"),
            )
            .expected(format_args!("0 to {}", kind.classes - 1))
            .remedy("the file is damaged or of another kind; download it again"));
        }
        labels.push(u32::from(label));
        data.extend_from_slice(&bytes[kind.label_bytes..]);
    }
    Ok(())
}

/// The names in the set's own text file; numbers if that file is absent or does not fit.
fn class_names(path: &Path, classes: usize) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if names.len() == classes { names } else { (0..classes).map(|class| class.to_string()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(kind: &Kind, labels: impl IntoIterator<Item = u8>) -> Vec<u8> {
        let record = |label: u8| {
            let mut bytes = vec![0; kind.label_bytes - 1];
            bytes.push(label);
            bytes.extend((0..PIXELS).map(|i| (i % 251) as u8 ^ label));
            bytes
        };
        labels.into_iter().flat_map(record).collect()
    }

    #[test]
    fn cifar_10_is_read_with_its_class_names() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
        put("data_batch_1.bin", &records(&CIFAR_10, 0..6));
        put("data_batch_2.bin", &records(&CIFAR_10, 6..10));
        put("test_batch.bin", &records(&CIFAR_10, [3]));
        put("batches.meta.txt", b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n");
        assert!(detect(directory.path()));
        let set = load(directory.path()).unwrap();
        assert_eq!(set.parts, SourceParts::consecutive(10, None, Some(1)));
        let Targets::Classes { labels, names } = &set.targets else { panic!("classes") };
        assert_eq!((labels[10], names[3].as_str()), (3, "cat"));
    }

    #[test]
    fn cifar_100_uses_the_fine_label() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("train.bin"), records(&CIFAR_100, 0..100)).unwrap();
        fs::write(directory.path().join("test.bin"), records(&CIFAR_100, [99])).unwrap();
        assert!(detect(directory.path()));
        assert_eq!(load(directory.path()).unwrap().targets.class_count(), Some(100));
    }

    #[test]
    fn a_cut_file_and_a_strange_class_are_named() {
        let (mut data, mut labels) = (Vec::new(), Vec::new());
        let mut parse =
            |bytes: &[u8]| super::parse(Path::new("b.bin"), bytes, &CIFAR_10, &mut data, &mut labels);
        assert!(
            parse(&[0; 3000])
                .unwrap_err()
                .to_string()
                .contains("3000 bytes; expected a positive multiple of 3073")
        );
        assert!(parse(&records(&CIFAR_10, [1, 10])).unwrap_err().to_string().contains("record 1: class 10"));
    }

    proptest! {
        #[test]
        fn mutated_bytes_never_panic(at in 0usize..6148, byte: u8, cut in 0usize..6149) {
            let mut bytes = records(&CIFAR_100, [1, 2]);
            bytes[at] = byte;
            bytes.truncate(cut);
            let _ = parse(Path::new("x"), &bytes, &CIFAR_100, &mut Vec::new(), &mut Vec::new());
        }
    }
}
