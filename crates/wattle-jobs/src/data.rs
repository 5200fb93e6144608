//! What data are understood as: columns, parts, classes, and a few samples to look at.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use wattle_data::{Column, DataSpec, Splits, Table as Samples, thumbnail};
use wattle_report::{Align, Report, Table, number};
use wattle_train::atomic_file::write_atomically;

use crate::env::Env;
use crate::error::Result;
use crate::models;
use crate::observer::Observer;
use crate::training::data::{DataOptions, table_alone, table_for};

/// Version of the document.
const SCHEMA: u32 = 1;

/// Most samples whose numbers are looked at.
const LOOKED_AT: usize = 1000;

/// Most samples on the page, and of a class.
const SHOWN: usize = 60;
const SHOWN_OF_CLASS: usize = 5;

/// Longest side of a picture on the page, in pixels.
const SIDE: usize = 96;

/// Numbers of a sample that are written out on the page.
const NUMBERS: usize = 8;

/// Which data, and for which model.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribeOptions {
    /// Which data, and how it is divided.
    pub data: DataOptions,
    /// The model that will take it; if left out, the samples as they are found.
    pub model: Option<PathBuf>,
    /// The file of a page with samples to look at.
    pub report: Option<PathBuf>,
}

/// What the data are.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    /// Version of this document.
    pub schema: u32,
    /// The source with its kind, as it can be given to other commands.
    pub data: String,
    /// The number of samples.
    pub samples: usize,
    /// Inputs, then targets.
    pub columns: Vec<DescribedColumn>,
    /// Samples of each part.
    pub parts: Parts,
    /// The classes in the order of their numbers; empty where the target is no class.
    pub classes: Vec<ClassCounts>,
    /// What a user should know.
    pub notes: Vec<String>,
    /// A hash of everything that training sees, as in names of runs.
    pub fingerprint: String,
    /// The page, if one was asked for.
    pub report: Option<PathBuf>,
}

/// A column of the data.
#[derive(Clone, Debug, Serialize)]
pub struct DescribedColumn {
    /// Its name.
    pub name: String,
    /// Whether it is learnt, and no input.
    pub target: bool,
    /// The type of its elements.
    pub dtype: String,
    /// The extents of one sample.
    pub extents: Vec<usize>,
    /// The number that stands for 1: 255 for bytes of images, else 1.
    pub full_scale: f32,
    /// The smallest number as it is stored, of the training samples that were looked at.
    pub smallest: f64,
    /// The largest.
    pub largest: f64,
    /// Their mean.
    pub mean: f64,
    /// Training samples that were looked at.
    pub looked_at: usize,
}

/// Numbers of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// To learn from.
    pub train: usize,
    /// That choose.
    pub validation: usize,
    /// That judge.
    pub test: usize,
    /// Whether the validation part is the source's own, and not cut out of the training part.
    pub own_validation: bool,
    /// Whether the test part is.
    pub own_test: bool,
}

/// A class and its samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCounts {
    /// Its name.
    pub class: String,
    /// Training samples.
    pub train: usize,
    /// Validation samples.
    pub validation: usize,
    /// Test samples.
    pub test: usize,
}

/// Reads data and says what they are; writes the page if one is asked for.
///
/// # Errors
/// If something cannot be read or written, or the data do not fit the model.
pub fn describe(options: &DescribeOptions, _env: &Env, observer: &mut dyn Observer) -> Result<Described> {
    let table: Arc<dyn Samples> = match &options.model {
        Some(path) => table_for(&options.data, &models::load(path)?, None, None)?,
        None => table_alone(&options.data)?,
    };
    let splits = Splits::new(&*table, &options.data.split())?;
    let train = splits.train().to_vec();
    let columns = (0..table.columns().len()).map(|at| column(&*table, at, &train)).collect::<Result<_>>()?;
    let (own_validation, own_test) = (table.parts().validation.is_some(), table.parts().test.is_some());
    let (validation, test) = (splits.validation().len(), splits.test_count());
    let mut described = Described {
        schema: SCHEMA,
        data: DataSpec::parse(&options.data.data)?.to_string(),
        samples: table.count(),
        columns,
        parts: Parts { train: train.len(), validation, test, own_validation, own_test },
        classes: classes(&*table, splits),
        notes: table.remarks().to_vec(),
        fingerprint: table.fingerprint(),
        report: None,
    };
    described.notes.extend(rare(&described.classes));
    if let Some(path) = &options.report {
        let html = page(&described, &*table, &train, observer)?;
        write_atomically(path, html.as_bytes())?;
        described.report = Some(path.clone());
    }
    Ok(described)
}

/// Numbers of a column of one sample.
fn numbers(table: &dyn Samples, sample: u32, at: usize) -> Result<Vec<f64>> {
    let info = &table.columns()[at];
    let mut bytes = vec![0; info.bytes()];
    table.read(sample as usize, at, &mut bytes)?;
    let (name, extents) = (info.name.clone(), info.extents.clone());
    Ok(Column { name, dtype: info.dtype, extents, bytes }.to_f64())
}

fn column(table: &dyn Samples, at: usize, train: &[u32]) -> Result<DescribedColumn> {
    let info = &table.columns()[at];
    let step = train.len().div_ceil(LOOKED_AT).max(1);
    let (mut smallest, mut largest, mut sum, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0u64);
    let mut looked_at = 0;
    for &sample in train.iter().step_by(step) {
        looked_at += 1;
        for number in numbers(table, sample, at)? {
            smallest = smallest.min(number);
            largest = largest.max(number);
            sum += number;
            count += 1;
        }
    }
    Ok(DescribedColumn {
        name: table.own_name(at).to_owned(),
        target: at >= table.inputs(),
        dtype: info.dtype.to_string(),
        extents: info.extents.clone(),
        full_scale: table.full_scale(at),
        smallest,
        largest,
        mean: sum / count.max(1) as f64,
        looked_at,
    })
}

fn classes(table: &dyn Samples, splits: Splits) -> Vec<ClassCounts> {
    let Some(found) = table.classes() else { return vec![] };
    let count = |samples: &[u32]| {
        let mut counts = vec![0; found.names.len()];
        for &sample in samples {
            if let Some(count) = counts.get_mut(found.labels[sample as usize] as usize) {
                *count += 1;
            }
        }
        counts
    };
    let (train, validation) = (count(splits.train()), count(splits.validation()));
    let test = count(&splits.take_test().into_indices());
    let of = |(at, class): (usize, &String)| ClassCounts {
        class: class.clone(),
        train: train[at],
        validation: validation[at],
        test: test[at],
    };
    found.names.iter().enumerate().map(of).collect()
}

/// A sentence where one class has over ten times the training samples of another.
fn rare(classes: &[ClassCounts]) -> Option<String> {
    let least = classes.iter().filter(|class| class.train > 0).min_by_key(|class| class.train)?;
    let most = classes.iter().max_by_key(|class| class.train)?;
    (most.train > 10 * least.train).then(|| {
        format!(
            "class {} has {} training samples, class {} has {}: accuracy says little of the rare one",
            most.class, most.train, least.class, least.train
        )
    })
}

impl Described {
    /// The columns for people.
    pub fn column_table(&self) -> Table {
        let mut table = Table::new([
            ("column", Align::Left),
            ("is", Align::Left),
            ("type", Align::Left),
            ("one sample", Align::Left),
            ("smallest", Align::Right),
            ("largest", Align::Right),
            ("mean", Align::Right),
        ]);
        for column in &self.columns {
            table.row([
                column.name.clone(),
                if column.target { "target" } else { "input" }.to_owned(),
                column.dtype.clone(),
                format!("{:?}", column.extents),
                number::plain(column.smallest),
                number::plain(column.largest),
                number::plain(column.mean),
            ]);
        }
        table
    }

    /// The first so many classes for people.
    pub fn class_table(&self, most: usize) -> Table {
        let mut table = Table::new([
            ("class", Align::Left),
            ("training", Align::Right),
            ("validation", Align::Right),
            ("test", Align::Right),
        ]);
        for ClassCounts { class, train, validation, test } in self.classes.iter().take(most) {
            table.row([class.clone(), train.to_string(), validation.to_string(), test.to_string()]);
        }
        table
    }

    /// Who divided the samples.
    pub fn division(&self) -> String {
        let Parts { train, validation, test, own_validation, own_test } = self.parts;
        let whose = |own: bool| if own { "its own part" } else { "cut out of the training part" };
        format!(
            "training {train}, validation {validation} ({}), test {test} ({})",
            whose(own_validation),
            whose(own_test)
        )
    }
}

/// The page: what is told, and samples of the training part.
fn page(
    described: &Described,
    table: &dyn Samples,
    train: &[u32],
    observer: &mut dyn Observer,
) -> Result<String> {
    let (samples, classes) = (described.samples.to_string(), described.classes.len().to_string());
    let mut figures = vec![(samples.as_str(), "samples")];
    if !described.classes.is_empty() {
        figures.push((classes.as_str(), "classes"));
    }
    let mut report = Report::new("wattle data", &described.data)
        .headline(&figures)
        .section("Columns")
        .text("Numbers are as stored, of up to 1000 training samples.")
        .table(&described.column_table())
        .section("Parts")
        .text(&described.division());
    if !described.classes.is_empty() {
        report = report.table(&described.class_table(usize::MAX));
    }
    for note in &described.notes {
        report = report.note(note);
    }
    let shown = shown(table, train);
    report = report.section("Samples").text("Of the training part.");
    let mut pictures = vec![];
    for (done, &sample) in shown.iter().enumerate() {
        observer.progress("samples", done as u64, shown.len() as u64);
        if let Some(png) = thumbnail(table, sample as usize, 0, SIDE)? {
            pictures.push((png, caption(table, sample)?));
        }
    }
    if !pictures.is_empty() {
        return Ok(report.pictures(&pictures).to_html());
    }
    let mut rows = Table::new(described.columns.iter().map(|column| (column.name.as_str(), Align::Left)));
    for &sample in &shown {
        let cells = (0..table.columns().len()).map(|at| written(table, sample, at));
        rows.row(cells.collect::<Result<Vec<String>>>()?);
    }
    Ok(report.table(&rows).to_html())
}

/// A few training samples of each class, or the first.
fn shown(table: &dyn Samples, train: &[u32]) -> Vec<u32> {
    let Some(classes) = table.classes() else { return train.iter().copied().take(SHOWN).collect() };
    let of = |class: usize| {
        let is = move |sample: &u32| classes.labels[*sample as usize] as usize == class;
        train.iter().copied().filter(is).take(SHOWN_OF_CLASS)
    };
    (0..classes.names.len()).flat_map(of).take(SHOWN).collect()
}

fn caption(table: &dyn Samples, sample: u32) -> Result<String> {
    if let Some(classes) = table.classes() {
        return Ok(classes.names[classes.labels[sample as usize] as usize].clone());
    }
    match table.columns().len() > table.inputs() {
        true => written(table, sample, table.inputs()),
        false => Ok(String::new()),
    }
}

/// The first numbers of a column of a sample.
fn written(table: &dyn Samples, sample: u32, at: usize) -> Result<String> {
    let all = numbers(table, sample, at)?;
    let shown: Vec<String> = all.iter().take(NUMBERS).map(|number| number::plain(*number)).collect();
    let more = if all.len() > NUMBERS { format!(" and {} more", all.len() - NUMBERS) } else { String::new() };
    Ok(shown.join(" ") + &more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_is_rare_is_told_of() {
        let class = |class: &str, train| ClassCounts { class: class.into(), train, validation: 0, test: 0 };
        assert_eq!(rare(&[class("a", 10), class("b", 100)]), None);
        let told = rare(&[class("a", 5), class("b", 100), class("none", 0)]).unwrap();
        assert!(told.contains("class a has 5"), "{told}");
        assert_eq!(rare(&[]), None);
    }
}
