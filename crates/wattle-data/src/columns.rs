//! A table put together from columns, and what every one of them must satisfy.

use std::fmt::Debug;

use wattle_graph::DType;

use crate::cast;
use crate::column::ColumnInfo;
use crate::dataset::{SourceParts, TARGETS, first_ten};
use crate::error::{Error, Result};
use crate::spec::Task;
use crate::table::{Classes, Picture, Table};

/// The numbers of one column, sample by sample.
pub(crate) trait Cells: Send + Sync + Debug {
    /// Writes a sample's numbers into `out`.
    fn read(&self, sample: usize, out: &mut [u8]) -> Result<()>;

    /// Identifies the column without reading it, where reading every sample would cost too much (image files); `None`
    /// where the numbers themselves are hashed.
    fn identity(&self) -> Option<String> {
        None
    }

    /// How many of a sample's numbers are real, where they are a sequence.
    fn length(&self, _sample: usize) -> Option<usize> {
        None
    }
}

/// Numbers in memory, in this machine's byte order.
#[derive(Debug)]
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl Cells for Memory {
    fn read(&self, sample: usize, out: &mut [u8]) -> Result<()> {
        let at = sample * out.len();
        out.copy_from_slice(&self.0[at..at + out.len()]);
        Ok(())
    }
}

impl Memory {
    pub(crate) fn floats(values: &[f32]) -> Self {
        Self(values.iter().flat_map(|v| v.to_ne_bytes()).collect())
    }

    pub(crate) fn integers(values: &[i64]) -> Self {
        Self(values.iter().flat_map(|v| v.to_ne_bytes()).collect())
    }
}

/// Columns of the same form one after the other: the parts of a source.
#[derive(Debug)]
pub(crate) struct Stacked(pub(crate) Vec<(usize, Box<dyn Cells>)>);

impl Cells for Stacked {
    fn read(&self, mut sample: usize, out: &mut [u8]) -> Result<()> {
        for (count, cells) in &self.0 {
            if sample < *count {
                return cells.read(sample, out);
            }
            sample -= count;
        }
        Ok(())
    }
}

/// Numbers read as another type.
#[derive(Debug)]
struct Converted {
    cells: Box<dyn Cells>,
    from: DType,
    to: DType,
    place: String,
}

impl Cells for Converted {
    fn read(&self, sample: usize, out: &mut [u8]) -> Result<()> {
        let mut stored = vec![0; out.len() / self.to.size() * self.from.size()];
        self.cells.read(sample, &mut stored)?;
        if (self.from, self.to) == (DType::F64, DType::F32) {
            for (wide, narrow) in stored.as_chunks().0.iter().zip(out.as_chunks_mut::<4>().0) {
                *narrow = (f64::from_ne_bytes(*wide) as f32).to_ne_bytes();
            }
            return Ok(());
        }
        cast::cast(self.from, &stored, self.to, out).map_err(|(element, value)| {
            Error::input(
                format_args!("{}, sample {sample}, element {element}", self.place),
                format_args!("{value}, stored as {}, which no {} is equal to", self.from, self.to),
            )
            .expected(if self.to == DType::I64 {
                "whole numbers, to be classes"
            } else {
                "numbers of 24 bits"
            })
        })
    }
}

/// A column and what it is called in messages.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) info: ColumnInfo,
    pub(crate) cells: Box<dyn Cells>,
    pub(crate) full_scale: f32,
    pub(crate) picture: Option<Picture>,
    /// Where it comes from: an array, a column of a text table.
    pub(crate) origin: String,
    /// Where it is stacked of several: what each is called, and how many samples it has.
    pub(crate) stacked: Vec<(String, usize)>,
}

impl Field {
    /// A column of plain numbers.
    pub(crate) fn new(info: ColumnInfo, cells: impl Cells + 'static, origin: impl Into<String>) -> Self {
        Self {
            info,
            cells: Box::new(cells),
            full_scale: 1.0,
            picture: None,
            origin: origin.into(),
            stacked: vec![],
        }
    }

    /// What a sample is called: where it comes from, and its number there.
    fn place(&self, sample: usize) -> String {
        let mut first = 0;
        for (origin, count) in &self.stacked {
            if sample < first + count {
                return format!("{origin}, sample {}", sample - first);
            }
            first += count;
        }
        format!("{}, sample {sample}", self.origin)
    }

    /// The column as a target: classes are i64 and values f32, whatever they are stored as. Integers are classes and floats
    /// values unless the task says otherwise.
    fn into_target(mut self, place: &str, task: Option<Task>, remarks: &mut Vec<String>) -> Self {
        let from = self.info.dtype;
        let to = match task {
            Some(Task::Classes) => DType::I64,
            Some(Task::Values) => DType::F32,
            None if from.is_float() => DType::F32,
            None => DType::I64,
        };
        if from != to {
            let place = format!("{place}, {}", self.origin);
            if from == DType::F64 && to == DType::F32 {
                remarks.push(format!("{place}: f64 rounded to f32"));
            }
            self.cells = Box::new(Converted { cells: self.cells, from, to, place });
            self.info.dtype = to;
        }
        self
    }
}

/// What a table is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) inputs: Vec<Field>,
    pub(crate) targets: Vec<Field>,
    pub(crate) parts: SourceParts,
    /// Names of the classes, where the source has some.
    pub(crate) class_names: Option<Vec<String>>,
    /// What the targets are, if that is stated.
    pub(crate) task: Option<Task>,
    /// The target that does not count.
    pub(crate) ignore_index: Option<i64>,
    pub(crate) remarks: Vec<String>,
    /// The options that the numbers depend on.
    pub(crate) options: String,
}

impl Parts {
    /// Columns without further options.
    pub(crate) fn of(
        name: impl Into<String>,
        inputs: Vec<Field>,
        targets: Vec<Field>,
        parts: SourceParts,
    ) -> Self {
        Self {
            name: name.into(),
            inputs,
            targets,
            parts,
            class_names: None,
            task: None,
            ignore_index: None,
            remarks: Vec::new(),
            options: String::new(),
        }
    }
}

/// Any number of inputs, then any number of targets. A single target is named `targets`, of several the column NAME is
/// `targets.NAME`; an underscore follows where an input has that name already.
#[derive(Debug)]
pub(crate) struct Columns {
    name: String,
    columns: Vec<ColumnInfo>,
    fields: Vec<Field>,
    inputs: usize,
    count: usize,
    parts: SourceParts,
    ranges: Vec<Option<(i64, i64)>>,
    ignored: Option<i64>,
    own_names: Vec<String>,
    classes: Option<(Vec<u32>, Vec<String>)>,
    remarks: Vec<String>,
    fingerprint: String,
}

impl Columns {
    /// Puts a table together and reads it once: numbers are finite, labels are counted from 0, and the hash is taken.
    pub(crate) fn new(mut of: Parts, count: usize) -> Result<Self> {
        if count == 0 || of.parts.train.is_empty() {
            return Err(Error::input(&of.name, "there are no training samples")
                .remedy("name a data set that has some"));
        }
        let own_names = of.inputs.iter().chain(&of.targets).map(|field| field.info.name.clone()).collect();
        let single = of.targets.len() == 1;
        for target in &mut of.targets {
            let own = &target.info.name;
            let mut name = if single { TARGETS.to_owned() } else { format!("{TARGETS}.{own}") };
            while of.inputs.iter().any(|input| input.info.name == name) {
                name.push('_');
            }
            target.info.name = name;
        }
        let inputs = of.inputs.len();
        let remarks = &mut of.remarks;
        let targets = of.targets.into_iter().map(|target| target.into_target(&of.name, of.task, remarks));
        let fields: Vec<Field> = of.inputs.into_iter().chain(targets).collect();
        let mut hasher = blake3::Hasher::new();
        let mut line = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        line(&of.options);
        line(&format!("{:?} {:?}", of.parts, of.ignore_index));
        for field in &fields {
            let ColumnInfo { name, dtype, extents } = &field.info;
            line(&format!("{name} {dtype} {extents:?} {}", field.full_scale));
        }
        let mut table = Self {
            name: of.name,
            columns: fields.iter().map(|field| field.info.clone()).collect(),
            fields,
            inputs,
            count,
            parts: of.parts,
            ranges: Vec::new(),
            ignored: of.ignore_index,
            own_names,
            classes: None,
            remarks: of.remarks,
            fingerprint: String::new(),
        };
        for place in 0..table.fields.len() {
            let range = table.look_at(place, of.ignore_index, &mut hasher)?;
            table.ranges.push(range);
        }
        table.fingerprint = hasher.finalize().to_hex()[..16].to_owned();
        if table.fields.len() == inputs + 1 {
            table.find_classes(of.class_names, of.ignore_index)?;
        }
        Ok(table)
    }

    /// Reads a column once. Returns the smallest and largest label of a target of integers.
    fn look_at(
        &self,
        place: usize,
        ignore_index: Option<i64>,
        hasher: &mut blake3::Hasher,
    ) -> Result<Option<(i64, i64)>> {
        let field = &self.fields[place];
        if let Some(identity) = field.cells.identity() {
            hasher.update(identity.as_bytes());
            return Ok(None);
        }
        let is_target = place >= self.inputs && !field.info.dtype.is_float();
        let mut range: Option<(i64, i64)> = None;
        let mut bytes = vec![0; field.info.bytes()];
        for sample in 0..self.count {
            field.cells.read(sample, &mut bytes)?;
            hasher.update(&bytes);
            if let Some((element, value)) = first_not_finite(field.info.dtype, &bytes) {
                return Err(Error::input(
                    format_args!("{}, {}, element {element}", self.name, field.place(sample)),
                    format_args!("the value {value}"),
                )
                .expected("finite numbers")
                .remedy("remove the sample or fill the value in"));
            }
            if is_target {
                for label in labels(field.info.dtype, &bytes).filter(|label| Some(*label) != ignore_index) {
                    if label < 0 {
                        return Err(Error::input(
                            format_args!("{}, {}", self.name, field.place(sample)),
                            format_args!("the label {label}"),
                        )
                        .expected("labels counted from 0")
                        .remedy(format_args!(
                            "state that {label} is the ignored index, if it marks what does not count"
                        )));
                    }
                    let (low, high) = range.unwrap_or((label, label));
                    range = Some((low.min(label), high.max(label)));
                }
            }
        }
        Ok(range)
    }

    /// The classes of the samples, where each has one.
    fn find_classes(&mut self, names: Option<Vec<String>>, ignore_index: Option<i64>) -> Result<()> {
        let field = &self.fields[self.inputs];
        let (Some((low, high)), 1, false) =
            (self.ranges[self.inputs], field.info.elements(), field.info.dtype.is_float())
        else {
            return Ok(());
        };
        let place = format!("{}, {}", self.name, field.origin);
        if names.is_none() && low > 0 {
            let remedy = if low == 1 {
                "subtract 1 from every label".to_owned()
            } else {
                format!("subtract {low} from every label, or store numbers that are no classes as floats")
            };
            return Err(Error::input(place, format_args!("labels from {low} to {high}"))
                .expected("classes counted from 0")
                .remedy(remedy));
        }
        let fits = usize::try_from(high).is_ok_and(|high| high < 1 << 16);
        if names.is_none() && (!fits || high as usize > 16 * self.count.max(16)) {
            // Numbers of a range far beyond the number of samples are no classes to keep shares of.
            return Ok(());
        }
        let names = names.unwrap_or_else(|| (0..=high).map(|class| class.to_string()).collect());
        let mut found = Vec::with_capacity(self.count);
        let mut bytes = vec![0; field.info.bytes()];
        for sample in 0..self.count {
            field.cells.read(sample, &mut bytes)?;
            match labels(field.info.dtype, &bytes).next() {
                Some(label) if Some(label) == ignore_index => {
                    self.remarks.push(format!("{place}: some samples have the ignored label {label}; classes do not keep their shares in the parts"));
                    return Ok(());
                }
                label => found.push(label.unwrap_or(0) as u32),
            }
        }
        let mut seen = vec![false; names.len()];
        for &label in &found[self.parts.train.clone()] {
            if let Some(seen) = seen.get_mut(label as usize) {
                *seen = true;
            }
        }
        let empty: Vec<&str> =
            names.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(n, _)| n.as_str()).collect();
        if !empty.is_empty() {
            self.remarks.push(format!("{place}: no training sample of class {}", first_ten(&empty)));
        }
        self.classes = Some((found, names));
        Ok(())
    }
}

impl Table for Columns {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn count(&self) -> usize {
        self.count
    }

    fn parts(&self) -> &SourceParts {
        &self.parts
    }

    fn read(&self, sample: usize, column: usize, out: &mut [u8]) -> Result<()> {
        self.fields[column].cells.read(sample, out)
    }

    fn full_scale(&self, column: usize) -> f32 {
        self.fields[column].full_scale
    }

    fn picture(&self, column: usize) -> Option<Picture> {
        self.fields[column].picture
    }

    fn label_range(&self, column: usize) -> Option<(i64, i64)> {
        self.ranges[column]
    }

    fn own_name(&self, column: usize) -> &str {
        &self.own_names[column]
    }

    fn ignored(&self) -> Option<i64> {
        self.ignored
    }

    fn length(&self, sample: usize) -> Option<usize> {
        self.fields.iter().find_map(|field| field.cells.length(sample))
    }

    fn is_sequence(&self, column: usize) -> bool {
        self.fields[column].cells.length(0).is_some()
    }

    fn classes(&self) -> Option<Classes<'_>> {
        self.classes.as_ref().map(|(labels, names)| Classes { labels, names })
    }

    fn remarks(&self) -> &[String] {
        &self.remarks
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// The first element that is no finite number.
fn first_not_finite(dtype: DType, bytes: &[u8]) -> Option<(usize, f64)> {
    let first = |values: &mut dyn Iterator<Item = f64>| values.enumerate().find(|(_, v)| !v.is_finite());
    match dtype {
        DType::F32 => first(&mut bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_ne_bytes(*b)))),
        DType::F64 => first(&mut bytes.as_chunks().0.iter().map(|b| f64::from_ne_bytes(*b))),
        _ => None,
    }
}

/// The elements of a column of integers; numbers above 2^63 - 1 become negative.
pub(crate) fn labels(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = i64> {
    bytes.chunks_exact(dtype.size()).map(move |chunk| {
        let mut wide = [0; 8];
        wide[..chunk.len()].copy_from_slice(chunk);
        if cfg!(target_endian = "big") {
            wide[..chunk.len()].reverse();
        }
        let value = u64::from_le_bytes(wide);
        match dtype {
            DType::I8 => i64::from(value as i8),
            DType::I16 => i64::from(value as i16),
            DType::I32 => i64::from(value as i32),
            _ => value as i64,
        }
    })
}
