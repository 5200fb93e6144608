//! A data set in memory (or, for image folders, on disk): samples of one shape, and what is to be learnt of each.

use std::ops::Range;

use wattle_graph::DType;

use crate::column::ColumnInfo;
use crate::error::{Error, Result};
use crate::folder::ImageFiles;
use crate::table::{Classes, Picture, Table};

/// Samples and targets, whatever file they came from.
///
/// Invariant: `samples` holds as many samples as `targets` holds targets, and `parts` are disjoint ranges of them.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What it is called in messages and receipts: the data specification that was loaded.
    pub name: String,
    /// The shape of one sample.
    pub shape: SampleShape,
    /// The samples, one after the other.
    pub samples: Samples,
    /// What is to be learnt of each sample.
    pub targets: Targets,
    /// The parts its source came in.
    pub parts: SourceParts,
    columns: Vec<ColumnInfo>,
    remarks: Vec<String>,
}

/// The name of the column of a [`Dataset`]'s samples.
pub const INPUT: &str = "input";

/// The name of the column of what is to be learnt.
pub const TARGETS: &str = "targets";

/// The shape of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleShape {
    /// An image, stored channel by channel, row by row (CHW).
    Image {
        /// 1 for gray, 3 for red, green, blue.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A plain list of numbers.
    Features(usize),
}

impl SampleShape {
    /// `[channels, height, width]` or `[features]`.
    pub fn dims(&self) -> Vec<usize> {
        match *self {
            SampleShape::Image { channels, height, width } => vec![channels, height, width],
            SampleShape::Features(count) => vec![count],
        }
    }

    /// Numbers in one sample.
    pub fn elements(&self) -> usize {
        self.channels() * self.channel_elements()
    }

    /// Groups that are normalised together: the channels of an image, or each feature by itself.
    pub fn channels(&self) -> usize {
        match *self {
            SampleShape::Image { channels, .. } => channels,
            SampleShape::Features(count) => count,
        }
    }

    /// Numbers in one such group.
    pub fn channel_elements(&self) -> usize {
        match *self {
            SampleShape::Image { height, width, .. } => height * width,
            SampleShape::Features(_) => 1,
        }
    }
}

/// The samples themselves.
#[derive(Clone, Debug)]
pub enum Samples {
    /// Bytes; a byte b stands for the value b / `full_scale`.
    Bytes {
        /// `count * elements` bytes.
        data: Vec<u8>,
        /// The byte that stands for 1.0: 255 for photographs, 16 for the digits.
        full_scale: u8,
    },
    /// Floating-point values as they are; all finite.
    Floats(Vec<f32>),
    /// Image files, decoded each time they are needed to bytes of full scale 255.
    Files(ImageFiles),
}

/// What is to be learnt.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// One class a sample.
    Classes {
        /// Each below `names.len()`.
        labels: Vec<u32>,
        /// The classes, in the order of their numbers.
        names: Vec<String>,
    },
    /// `width` numbers a sample, all finite.
    Values {
        /// `count * width` values.
        values: Vec<f32>,
        /// Numbers a sample.
        width: usize,
    },
}

impl Targets {
    /// Samples that have a target.
    pub fn count(&self) -> usize {
        match self {
            Targets::Classes { labels, .. } => labels.len(),
            Targets::Values { values, width } => values.len() / width.max(&1),
        }
    }

    /// The number of classes; `None` for values.
    pub fn class_count(&self) -> Option<usize> {
        match self {
            Targets::Classes { names, .. } => Some(names.len()),
            Targets::Values { .. } => None,
        }
    }
}

/// The parts a source came in, as ranges of sample indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceParts {
    /// Samples for training, from which missing parts are taken.
    pub train: Range<usize>,
    /// The source's own validation part.
    pub validation: Option<Range<usize>>,
    /// The source's own test part.
    pub test: Option<Range<usize>>,
}

impl SourceParts {
    /// A source that does not divide its samples.
    pub fn undivided(count: usize) -> Self {
        Self { train: 0..count, validation: None, test: None }
    }

    /// Parts that follow one another; an absent part is `None`.
    pub fn consecutive(train: usize, validation: Option<usize>, test: Option<usize>) -> Self {
        let test_start = train + validation.unwrap_or(0);
        Self {
            train: 0..train,
            validation: validation.map(|n| train..train + n),
            test: test.map(|n| test_start..test_start + n),
        }
    }
}

impl Dataset {
    /// Puts a data set together and checks what every source must satisfy: there are samples, as many as targets,
    /// every label names a class, classes are counted from 0, and every number is finite. A class that has no training
    /// sample is a remark.
    pub fn new(
        name: String,
        shape: SampleShape,
        samples: Samples,
        targets: Targets,
        parts: SourceParts,
    ) -> Result<Self> {
        let target = match &targets {
            Targets::Classes { .. } => ColumnInfo::new(TARGETS, DType::I64, []),
            Targets::Values { width, .. } => ColumnInfo::new(TARGETS, DType::F32, [*width]),
        };
        let columns = vec![ColumnInfo::new(INPUT, DType::F32, shape.dims()), target];
        let remarks = Vec::new();
        let mut dataset = Self { name, shape, samples, targets, parts, columns, remarks };
        dataset.check()?;
        Ok(dataset)
    }

    /// The number of samples.
    pub fn count(&self) -> usize {
        self.targets.count()
    }

    /// A hash of everything that training sees: 16 hexadecimal digits of BLAKE3 over samples and targets. Image folders
    /// enter by file name and size. Resuming a run on data that changed meanwhile is caught by comparing it.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for extent in self.shape.dims() {
            hasher.update(&(extent as u64).to_le_bytes());
        }
        match &self.samples {
            Samples::Bytes { data, full_scale } => {
                hasher.update(&[*full_scale]).update(data);
            }
            Samples::Floats(values) => {
                update_with_floats(&mut hasher, values);
            }
            Samples::Files(files) => files.identify(&mut hasher),
        }
        match &self.targets {
            Targets::Classes { labels, .. } => {
                for label in labels {
                    hasher.update(&label.to_le_bytes());
                }
            }
            Targets::Values { values, .. } => update_with_floats(&mut hasher, values),
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    fn check(&mut self) -> Result<()> {
        let (count, elements) = (self.count(), self.shape.elements());
        if count == 0 || elements == 0 || self.parts.train.is_empty() {
            return Err(Error::input(&self.name, "there are no training samples")
                .remedy("name a data set that has some"));
        }
        let found = match &self.samples {
            Samples::Bytes { data, .. } => data.len() / elements,
            Samples::Floats(values) => values.len() / elements,
            Samples::Files(files) => files.count(),
        };
        if found != count {
            return Err(Error::input(&self.name, format_args!("{found} samples but {count} labels"))
                .expected("one label a sample")
                .remedy("check that both files come from the same download"));
        }
        if let Samples::Floats(values) = &self.samples
            && let Some(at) = values.iter().position(|v| !v.is_finite())
        {
            let (sample, element) = (at / elements, at % elements);
            return Err(Error::input(
                format_args!("{}, sample {sample}, element {element}", self.name),
                format_args!("the value {}", values[at]),
            )
            .expected("finite numbers")
            .remedy("remove the sample or fill the value in"));
        }
        match &self.targets {
            Targets::Classes { .. } => self.check_labels(),
            Targets::Values { values, width } => match values.iter().position(|v| !v.is_finite()) {
                None => Ok(()),
                Some(at) => Err(Error::input(
                    format_args!("{}, target of sample {}", self.name, at / width),
                    format_args!("the value {}", values[at]),
                )
                .expected("finite numbers")
                .remedy("remove the sample or mend its target")),
            },
        }
    }

    fn check_labels(&mut self) -> Result<()> {
        let Targets::Classes { labels, names } = &self.targets else { return Ok(()) };
        if let Some(sample) = labels.iter().position(|&label| label as usize >= names.len()) {
            return Err(Error::input(
                format_args!("{}, label of sample {sample}", self.name),
                format_args!("class {}", labels[sample]),
            )
            .expected(format_args!(
                "one of the {} classes, 0 to {}",
                names.len(),
                names.len().saturating_sub(1)
            ))
            .remedy("classes are counted from 0; every class must occur in the training part"));
        }
        let mut seen = vec![false; names.len()];
        for &label in &labels[self.parts.train.clone()] {
            seen[label as usize] = true;
        }
        let empty: Vec<&str> =
            names.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(n, _)| n.as_str()).collect();
        if names.len() > 1 && empty == ["0"] {
            return Err(Error::input(
                &self.name,
                format_args!("classes from 1 to {}, and no training sample of class 0", names.len() - 1),
            )
            .expected("classes counted from 0")
            .remedy("subtract 1 from every label, or add samples of class 0"));
        }
        if !empty.is_empty() {
            self.remarks.push(format!("no training sample of class {}", first_ten(&empty)));
        }
        if names.len() < 2 {
            return Err(
                Error::input(&self.name, "all samples are of one class").expected("two classes or more")
            );
        }
        Ok(())
    }
}

/// The samples as `input` (f32, `[channels, height, width]` or `[features]`; bytes as the numbers they are) and `targets`
/// (i64 classes, or f32 `[width]`).
impl Table for Dataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    fn count(&self) -> usize {
        self.targets.count()
    }

    fn parts(&self) -> &SourceParts {
        &self.parts
    }

    fn read(&self, sample: usize, column: usize, out: &mut [u8]) -> Result<()> {
        let elements = self.shape.elements();
        match (column, &self.samples, &self.targets) {
            (0, Samples::Bytes { data, .. }, _) => widen(&data[sample * elements..][..elements], out),
            (0, Samples::Floats(values), _) => copy(&values[sample * elements..][..elements], out),
            (0, Samples::Files(files), _) => {
                let mut pixels = vec![0; elements];
                files.decode(sample, &mut pixels)?;
                widen(&pixels, out);
            }
            (_, _, Targets::Classes { labels, .. }) => {
                out.copy_from_slice(&i64::from(labels[sample]).to_ne_bytes());
            }
            (_, _, Targets::Values { values, width }) => copy(&values[sample * width..][..*width], out),
        }
        Ok(())
    }

    fn full_scale(&self, column: usize) -> f32 {
        match (column, &self.samples) {
            (0, Samples::Bytes { full_scale, .. }) => f32::from(*full_scale),
            (0, Samples::Files(_)) => 255.0,
            _ => 1.0,
        }
    }

    fn picture(&self, column: usize) -> Option<Picture> {
        match self.shape {
            SampleShape::Image { height, width, .. } if column == 0 => {
                Some(Picture { height, width, border: 0.0 })
            }
            _ => None,
        }
    }

    fn label_range(&self, column: usize) -> Option<(i64, i64)> {
        let classes = self.targets.class_count().filter(|_| column == 1)?;
        Some((0, classes as i64 - 1))
    }

    fn classes(&self) -> Option<Classes<'_>> {
        match &self.targets {
            Targets::Classes { labels, names } => Some(Classes { labels, names }),
            Targets::Values { .. } => None,
        }
    }

    fn remarks(&self) -> &[String] {
        &self.remarks
    }

    fn fingerprint(&self) -> String {
        let whole = format!("{} {:?}", Dataset::fingerprint(self), self.parts);
        blake3::hash(whole.as_bytes()).to_hex()[..16].to_owned()
    }
}

fn widen(bytes: &[u8], out: &mut [u8]) {
    for (byte, element) in bytes.iter().zip(out.as_chunks_mut::<4>().0) {
        *element = f32::from(*byte).to_ne_bytes();
    }
}

fn copy(values: &[f32], out: &mut [u8]) {
    for (value, element) in values.iter().zip(out.as_chunks_mut::<4>().0) {
        *element = value.to_ne_bytes();
    }
}

/// The first ten of a list, for a message.
pub(crate) fn first_ten(list: &[&str]) -> String {
    let rest = list.len().saturating_sub(10);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", list[..list.len() - rest].join(", "))
}

fn update_with_floats(hasher: &mut blake3::Hasher, values: &[f32]) {
    for value in values {
        hasher.update(&value.to_le_bytes());
    }
}

/// Class names for numbered classes: "0", "1", ... up to the largest label in `labels`.
pub(crate) fn numbered_classes(labels: &[u32]) -> Vec<String> {
    (0..labels.iter().max().map_or(0, |&largest| u64::from(largest) + 1))
        .map(|class| class.to_string())
        .collect()
}
