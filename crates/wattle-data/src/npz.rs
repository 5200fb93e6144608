//! Named NumPy arrays: an `.npz` file (a zip of `.npy` files), or a directory of such `.npy` files.
//!
//! Samples and targets are looked for under `x_train, y_train`, `train_images, train_labels`, `x, y` or
//! `images, labels`; own validation and test parts under `x_val, y_val` / `val_images, val_labels` and `x_test, y_test`
//! / `test_images, test_labels`. Other arrays are not read.
//!
//! Samples of rank 2 are features, of rank 3 gray images, of rank 4 images with the channels first or, if the last
//! extent is 1 or 3 and the second is not, last. Integer targets are classes counted from 0, others are values.

use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::dataset::{Dataset, SampleShape, Samples, SourceParts, Targets, numbered_classes};
use crate::error::{Error, Result};
use crate::npy::{Array, Values};
use crate::spec::Task;

const TRAIN: [[&str; 2]; 4] =
    [["x_train", "y_train"], ["train_images", "train_labels"], ["x", "y"], ["images", "labels"]];
const VALIDATION: [[&str; 2]; 2] = [["x_val", "y_val"], ["val_images", "val_labels"]];
const TEST: [[&str; 2]; 2] = [["x_test", "y_test"], ["test_images", "test_labels"]];

/// Loads the arrays.
pub(super) fn load(path: &Path, task: Option<Task>) -> Result<Dataset> {
    let mut archive = Archive::open(path)?;
    let train = read_pair(&mut archive, &TRAIN)?.ok_or_else(|| {
        let found: Vec<&str> = archive.names().collect();
        Error::input(path.display(), format_args!("arrays named {}", found.join(", ")))
            .expected("x_train and y_train, train_images and train_labels, x and y, or images and labels")
            .remedy("rename the arrays, e.g. numpy.savez(file, x=images, y=labels)")
    })?;
    let validation = read_pair(&mut archive, &VALIDATION)?;
    let test = read_pair(&mut archive, &TEST)?;
    let mut whole = train;
    let train = whole.count();
    let mut append = |part: Option<Part>| part.map(|part| whole.append(part)).transpose();
    let (validation, test) = (append(validation)?, append(test)?);
    whole.into_dataset(path, task, SourceParts::consecutive(train, validation, test))
}

/// Whether an archive holds a pair of arrays under the usual names.
pub(super) fn is_usual(archive: &Archive) -> bool {
    TRAIN.iter().any(|pair| pair.iter().all(|name| archive.find(name).is_some()))
}

/// Whether a directory holds a training pair as `.npy` files.
pub(super) fn detect(directory: &Path) -> bool {
    TRAIN.iter().any(|pair| pair.iter().all(|name| directory.join(format!("{name}.npy")).is_file()))
}

/// Reads the first pair of which the samples are there.
fn read_pair(archive: &mut Archive, pairs: &[[&'static str; 2]]) -> Result<Option<Part>> {
    let find = |name: &str| archive.find(name).map(String::from);
    let Some(([x, y], samples)) = pairs.iter().find_map(|pair| Some((pair, find(pair[0])?))) else {
        return Ok(None);
    };
    let Some(targets) = find(y) else {
        return Err(Error::input(archive.path.display(), format_args!("an array `{x}` without `{y}`"))
            .expected("both")
            .remedy("add the missing array"));
    };
    let (samples, targets) = (archive.read(&samples)?, archive.read(&targets)?);
    Ok(Some(Part::new(&archive.path, [x, y], samples, targets)?))
}

/// Integers as floats; the first that no float is equal to, with its sample.
fn exact(data: &[i64], elements: usize) -> std::result::Result<Vec<f32>, (usize, i64)> {
    let float = |(at, &value): (usize, &i64)| {
        let float = value as f32;
        // The largest numbers saturate on the way back.
        if i128::from(value) == float as i128 { Ok(float) } else { Err((at / elements.max(1), value)) }
    };
    data.iter().enumerate().map(float).collect()
}

/// One matched pair of arrays.
struct Part {
    path: PathBuf,
    names: [&'static str; 2],
    x: Array,
    y: Array,
}

impl Part {
    fn new(path: &Path, names: [&'static str; 2], x: Array, y: Array) -> Result<Self> {
        let rank = x.shape.len();
        if !(2..=4).contains(&rank) || x.shape[1..].contains(&0) {
            return Err(Error::input(
                format_args!("{}, array `{}`", path.display(), names[0]),
                format_args!("shape {:?}", x.shape),
            )
            .expected(
                "[samples, features], [samples, rows, columns] or [samples, channels, rows, columns]",
            ));
        }
        if y.shape.is_empty() || y.shape.len() > 2 || y.shape[0] != x.shape[0] || y.shape[1..].contains(&0) {
            return Err(Error::input(
                format_args!("{}, array `{}`", path.display(), names[1]),
                format_args!("shape {:?}", y.shape),
            )
            .expected(format_args!(
                "[{0}] or [{0}, width], one row a sample of `{1}`",
                x.shape[0], names[0]
            )));
        }
        for (name, array) in names.into_iter().zip([&x, &y]) {
            let Values::Floats(values) = &array.values else { continue };
            if let Some(at) = values.iter().position(|x| !x.is_finite()) {
                let elements = array.shape[1..].iter().product::<usize>().max(1);
                let (sample, element) = (at / elements, at % elements);
                return Err(Error::input(
                    format_args!("{}, array `{name}`, sample {sample}, element {element}", path.display()),
                    format_args!("the value {}", values[at]),
                )
                .expected("finite numbers")
                .remedy("remove the sample or fill the value in"));
            }
        }
        Ok(Self { path: path.to_owned(), names, x, y })
    }

    fn count(&self) -> usize {
        self.x.shape[0]
    }

    /// Appends another part of the same form; returns its number of samples.
    fn append(&mut self, other: Part) -> Result<usize> {
        let count = other.count();
        for (name, mine, theirs) in
            [(other.names[0], &mut self.x, other.x), (other.names[1], &mut self.y, other.y)]
        {
            let form = |array: &Array| (array.shape[1..].to_vec(), std::mem::discriminant(&array.values));
            if form(mine) != form(&theirs) {
                return Err(Error::input(
                    format_args!("{}, array `{name}`", self.path.display()),
                    format_args!(
                        "shape {:?} or element type differs from the training part's {:?}",
                        theirs.shape, mine.shape
                    ),
                )
                .expected("the same element type and extents after the first"));
            }
            mine.shape[0] += theirs.shape[0];
            match (&mut mine.values, theirs.values) {
                (Values::Bytes(a), Values::Bytes(b)) => a.extend(b),
                (Values::Integers(a), Values::Integers(b)) => a.extend(b),
                (Values::Floats(a), Values::Floats(b)) => a.extend(b),
                // The discriminants were just compared.
                _ => unreachable!("parts of different element types"),
            }
        }
        Ok(count)
    }

    fn into_dataset(self, path: &Path, task: Option<Task>, parts: SourceParts) -> Result<Dataset> {
        let (shape, channels_last) = match self.x.shape[1..] {
            [features] => (SampleShape::Features(features), false),
            [height, width] => (SampleShape::Image { channels: 1, height, width }, false),
            [height, width, channels @ (1 | 3)] if !matches!(height, 1 | 3) => {
                (SampleShape::Image { channels, height, width }, channels > 1)
            }
            [channels, height, width] => (SampleShape::Image { channels, height, width }, false),
            // Ranks 2 to 4 were checked when the part was made.
            _ => unreachable!("samples of rank 2 to 4"),
        };
        let samples = match self.x.values {
            Values::Bytes(data) => {
                Samples::Bytes { data: channels_first(data, shape, channels_last), full_scale: 255 }
            }
            Values::Integers(data) => {
                let place = format!("{}, array `{}`", path.display(), self.names[0]);
                let floats = exact(&data, shape.elements()).map_err(|(sample, value)| {
                    Error::input(
                        format_args!("{place}, sample {sample}"),
                        format_args!("{value}, which no f32 is equal to"),
                    )
                    .expected("numbers that f32 holds")
                    .remedy("store it as float32, or as numbers that are smaller")
                })?;
                Samples::Floats(channels_first(floats, shape, channels_last))
            }
            Values::Floats(data) => Samples::Floats(channels_first(data, shape, channels_last)),
        };
        let width = self.y.shape.get(1).copied().unwrap_or(1);
        let place = format!("{}, array `{}`", path.display(), self.names[1]);
        let task = task.unwrap_or(match self.y.values {
            Values::Floats(_) => Task::Values,
            _ => Task::Classes,
        });
        let targets = match task {
            Task::Values => Targets::Values { values: self.y.into_floats(), width },
            Task::Classes if width != 1 => {
                return Err(Error::input(place, format_args!("{width} columns of integers"))
                    .expected("one class a sample, counted from 0")
                    .remedy("for one-hot rows save labels.argmax(axis=1)"));
            }
            Task::Classes => classes(&place, self.y.values)?,
        };
        Dataset::new(format!("npz:{}", path.display()), shape, samples, targets, parts)
    }
}

fn classes(place: &str, values: Values) -> Result<Targets> {
    let fault = |sample: usize, found: String| {
        Error::input(format_args!("{place}, sample {sample}"), format_args!("class {found}"))
            .expected("a whole number from 0 to 65535")
            .remedy("number the classes from 0 without gaps")
    };
    let class = |(sample, value): (usize, i64)| {
        u16::try_from(value).map(u32::from).map_err(|_| fault(sample, value.to_string()))
    };
    let labels: Vec<u32> = match values {
        Values::Bytes(values) => values.into_iter().map(u32::from).collect(),
        Values::Integers(values) => values.into_iter().enumerate().map(class).collect::<Result<_>>()?,
        Values::Floats(values) => values
            .into_iter()
            .enumerate()
            .map(|(sample, value)| {
                if value.fract() == 0.0 {
                    class((sample, value as i64))
                } else {
                    Err(fault(sample, value.to_string()))
                }
            })
            .collect::<Result<_>>()?,
    };
    let names = numbered_classes(&labels);
    Ok(Targets::Classes { labels, names })
}

fn channels_first<T: Copy>(data: Vec<T>, shape: SampleShape, channels_last: bool) -> Vec<T> {
    if !channels_last {
        return data;
    }
    let (channels, pixels) = (shape.channels(), shape.channel_elements());
    let mut out = Vec::with_capacity(data.len());
    for sample in data.chunks_exact(channels * pixels) {
        for channel in 0..channels {
            out.extend(sample.iter().skip(channel).step_by(channels));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npy;
    use proptest::prelude::*;
    use std::io::{Cursor, Write};

    fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in arrays {
            zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn loaded(arrays: &[(&str, Vec<u8>)], task: Option<Task>) -> Result<Dataset> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("set.npz");
        std::fs::write(&path, npz(arrays)).unwrap();
        load(&path, task)
    }

    #[test]
    fn images_with_own_parts_are_read() {
        let set = loaded(
            &[
                ("x_train", npy::encode("|u1", "(2, 2, 2, 3)", &(0..24).collect::<Vec<u8>>())),
                ("y_train", npy::encode("|u1", "(2, 1)", &[0, 1])),
                ("x_test", npy::encode("|u1", "(1, 2, 2, 3)", &[7; 12])),
                ("y_test", npy::encode("|u1", "(1, 1)", &[1])),
                ("notes", npy::encode("|O", "(1,)", &[])),
            ],
            None,
        )
        .unwrap();
        assert_eq!(set.shape, SampleShape::Image { channels: 3, height: 2, width: 2 });
        assert_eq!(set.parts, SourceParts::consecutive(2, None, Some(1)));
        let Samples::Bytes { data, .. } = &set.samples else { panic!("bytes") };
        assert_eq!(data[..12], [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11], "channels come first");
    }

    #[test]
    fn floating_targets_are_values_unless_classes_are_asked_for() {
        let floats = |values: [f32; 2]| npy::encode("<f4", "(2,)", &values.map(f32::to_le_bytes).concat());
        let x = npy::encode("|i1", "(2, 3)", &[1, 2, 3, 4, 5, 6]);
        let set = loaded(&[("x", x.clone()), ("y", floats([0.0, 1.0]))], None).unwrap();
        assert_eq!(set.targets, Targets::Values { values: vec![0.0, 1.0], width: 1 });
        let set = loaded(&[("X", x.clone()), ("Y", floats([0.0, 1.0]))], Some(Task::Classes)).unwrap();
        assert_eq!(set.targets.class_count(), Some(2));
        let error = loaded(&[("x", x), ("y", floats([0.0, f32::NAN]))], None).unwrap_err().to_string();
        assert!(error.contains("array `y`, sample 1, element 0: the value NaN"), "{error}");
    }

    #[test]
    fn faults_name_the_array_and_the_sample() {
        let x = || ("x", npy::encode("<f4", "(2, 1)", &[0; 8]));
        let nan = npy::encode("<f4", "(2, 1)", &[0f32.to_le_bytes(), f32::INFINITY.to_le_bytes()].concat());
        let y = || ("y", npy::encode("|u1", "(2,)", &[0, 1]));
        for (arrays, message) in [
            (vec![x()], "`x` without `y`"),
            (vec![("data", vec![])], "arrays named data"),
            (vec![x(), ("y", npy::encode("|u1", "(3,)", &[0, 1, 1]))], "array `y`: shape [3]"),
            (vec![x(), ("y", npy::encode("|i1", "(2,)", &[0, 255]))], "sample 1: class -1"),
            (vec![("x", nan), y()], "sample 1, element 0: the value inf"),
            (vec![x(), ("y", npy::encode("|u1", "(2, 2)", &[0, 1, 1, 0]))], "2 columns"),
        ] {
            let error = loaded(&arrays, None).unwrap_err().to_string();
            assert!(error.contains(message), "{message}: {error}");
        }
    }

    #[test]
    fn a_directory_of_arrays_is_the_same_thing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x.npy"), npy::encode("|u1", "(2, 4)", &[0; 8])).unwrap();
        std::fs::write(directory.path().join("y.npy"), npy::encode("|u1", "(2,)", &[0, 1])).unwrap();
        assert!(detect(directory.path()));
        assert_eq!(load(directory.path(), None).unwrap().count(), 2);
    }

    proptest! {
        #[test]
        fn mutated_archives_never_panic(at in 0usize..400, byte: u8, cut in 0usize..800) {
            let mut bytes = npz(&[
                ("x", npy::encode("|u1", "(2, 4)", &[0; 8])),
                ("y", npy::encode("|u1", "(2,)", &[0, 1])),
            ]);
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut);
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("set.npz");
            std::fs::write(&path, bytes).unwrap();
            let _ = load(&path, None);
        }
    }
}
