//! Text tables: one sample a row, numeric features, one label column.
//!
//! The separator (comma, semicolon or tab) is the one most frequent in the first line. The first row is a header if a
//! cell of it is not a number where the second row has one, or if none of its cells is a number. The label column is
//! the one named `label`, `class`, `target` or `y`; else the last. Labels that are whole numbers or words are classes,
//! sorted by number or by bytes; labels with a fraction are values.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use ::csv::{ReaderBuilder, StringRecord, Trim};

use crate::bounded;
use crate::dataset::{Dataset, SampleShape, Samples, SourceParts, Targets};
use crate::error::{Error, Result};
use crate::spec::Task;

pub(crate) const LABEL_NAMES: [&str; 4] = ["label", "class", "target", "y"];

/// Loads a table, which may be gzipped.
pub(super) fn load(path: &Path, task: Option<Task>) -> Result<Dataset> {
    let table = parse(path, &bounded::read(path)?)?;
    let parts = SourceParts::undivided(table.labels.len());
    let targets = table.targets(path, task)?;
    let shape = SampleShape::Features(table.width);
    Dataset::new(format!("csv:{}", path.display()), shape, Samples::Floats(table.features), targets, parts)
}

/// Features row by row; labels as indices into the distinct label texts.
struct Table {
    features: Vec<f32>,
    width: usize,
    labels: Vec<u32>,
    distinct: Vec<String>,
}

/// Most bytes of a line: 64 MiB, millions of cells. A row is held as text and as numbers at once.
const LONGEST_LINE: usize = 64 << 20;

/// Refuses a file with a line that is too long to be a row.
fn check_lines(path: &Path, bytes: &[u8]) -> Result<()> {
    match bytes.split(|&b| b == b'\n').position(|line| line.len() > LONGEST_LINE) {
        Some(line) => Err(Error::input(
            format_args!("{}, line {}", path.display(), line + 1),
            format_args!("more than {LONGEST_LINE} bytes"),
        )
        .expected("a sample a line")),
        None => Ok(()),
    }
}

/// The rows of a table, each as wide as the first line.
pub(crate) struct Rows<'a> {
    path: &'a Path,
    reader: ::csv::Reader<&'a [u8]>,
    /// Rows that were read to see whether the first is a header.
    read: VecDeque<StringRecord>,
    /// Names of columns, if the first line has them.
    pub(crate) header: Option<Vec<String>>,
    /// Cells of a row.
    pub(crate) width: usize,
}

impl<'a> Rows<'a> {
    /// Looks at the first two lines; `None` if there are none.
    pub(crate) fn open(path: &'a Path, bytes: &'a [u8]) -> Result<Option<Rows<'a>>> {
        check_lines(path, bytes)?;
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(Trim::All)
            .delimiter(separator(bytes))
            .from_reader(bytes);
        let mut rows = Rows { path, reader, read: VecDeque::new(), header: None, width: 0 };
        let Some(first) = rows.record()? else { return Ok(None) };
        let second = rows.record()?;
        rows.width = first.len();
        if is_header(&first, second.as_ref()) {
            rows.header = Some(first.iter().map(String::from).collect());
        } else {
            rows.read.push_back(first);
        }
        rows.read.extend(second);
        Ok(Some(rows))
    }

    /// The next row and the number of its line.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, StringRecord)>> {
        let record = match self.read.pop_front() {
            Some(record) => Some(record),
            None => self.record()?,
        };
        let Some(record) = record else { return Ok(None) };
        let line = record.position().map_or(0, ::csv::Position::line);
        if record.len() != self.width {
            return Err(Error::input(
                format_args!("{}, line {line}", self.path.display()),
                format_args!("{} cells", record.len()),
            )
            .expected(format_args!("{} cells, as in the first row", self.width))
            .remedy("mend or remove the row"));
        }
        Ok(Some((line, record)))
    }

    fn record(&mut self) -> Result<Option<StringRecord>> {
        let mut record = StringRecord::new();
        let found = self.reader.read_record(&mut record).map_err(|error| {
            Error::input(self.path.display(), error)
                .expected("a text table in UTF-8")
                .remedy("save it as CSV in UTF-8")
        })?;
        Ok(found.then_some(record))
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Table> {
    let empty = || {
        Error::input(path.display(), "no rows")
            .expected("a header (optional) and at least two rows of numbers")
    };
    let mut rows = Rows::open(path, bytes)?.ok_or_else(empty)?;
    if rows.width < 2 {
        return Err(Error::input(path.display(), "one column")
            .expected("features and a label, separated by commas, semicolons or tabs"));
    }
    let named = |column: &String| LABEL_NAMES.contains(&column.to_lowercase().as_str());
    let names = rows.header.take().unwrap_or_default();
    let mut cells = Cells {
        path,
        label_column: names.iter().position(named).unwrap_or(rows.width - 1),
        names,
        numbers: HashMap::new(),
        table: Table {
            features: Vec::new(),
            width: rows.width - 1,
            labels: Vec::new(),
            distinct: Vec::new(),
        },
    };
    while let Some((line, record)) = rows.next()? {
        cells.add(line, &record)?;
    }
    if cells.table.labels.is_empty() { Err(empty()) } else { Ok(cells.table) }
}

fn separator(bytes: &[u8]) -> u8 {
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let count = |separator: &u8| line.iter().filter(|b| *b == separator).count();
    // On a tie the last wins, so the comma stands last.
    [b'\t', b';', b','].into_iter().max_by_key(count).unwrap_or(b',')
}

fn is_header(first: &StringRecord, second: Option<&StringRecord>) -> bool {
    let number = |cell: &str| cell.parse::<f64>().is_ok();
    let differs = |second: &StringRecord| first.iter().zip(second).any(|(a, b)| !number(a) && number(b));
    second.is_some_and(differs) || !first.iter().any(number)
}

/// What the cells of rows say.
struct Cells<'a> {
    path: &'a Path,
    label_column: usize,
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    table: Table,
}

impl Cells<'_> {
    fn add(&mut self, line: u64, record: &StringRecord) -> Result<()> {
        for (column, cell) in record.iter().enumerate() {
            if column == self.label_column {
                self.add_label(line, cell)?;
            } else {
                let value = cell.parse::<f32>().ok().filter(|value| value.is_finite());
                let value = value.ok_or_else(|| self.bad_cell(line, column, cell, "a finite number"))?;
                self.table.features.push(value);
            }
        }
        Ok(())
    }

    fn add_label(&mut self, line: u64, cell: &str) -> Result<()> {
        if cell.is_empty() {
            return Err(self.bad_cell(line, self.label_column, cell, "a label"));
        }
        let number = match self.numbers.get(cell) {
            Some(&number) => number,
            None => {
                let number = self.table.distinct.len() as u32;
                self.numbers.insert(cell.to_owned(), number);
                self.table.distinct.push(cell.to_owned());
                number
            }
        };
        self.table.labels.push(number);
        Ok(())
    }

    fn bad_cell(&self, line: u64, column: usize, cell: &str, expected: &str) -> Error {
        let name = self.names.get(column).map(|name| format!(" (`{name}`)")).unwrap_or_default();
        Error::input(
            format_args!("{}, line {line}, column {}{name}", self.path.display(), column + 1),
            format_args!("`{cell}`"),
        )
        .expected(expected)
        .remedy(if cell.is_empty() {
            "fill the value in, or leave such rows out (an .onnx model can do without them): option `missing=drop`"
        } else {
            "remove the row, encode words as numbers, or name the columns that feed the input of an .onnx model, here \
             `x`: option `columns=x=a+b`; \
             a label column that is not the last needs a header that calls it `label`"
        })
    }
}

impl Table {
    fn targets(&self, path: &Path, task: Option<Task>) -> Result<Targets> {
        let integers: Option<Vec<i64>> = self.distinct.iter().map(|text| text.parse().ok()).collect();
        let numbers: Option<Vec<f32>> = self.distinct.iter().map(|text| text.parse().ok()).collect();
        let task = task.unwrap_or(match (&integers, &numbers) {
            (None, Some(_)) => Task::Values,
            _ => Task::Classes,
        });
        if task == Task::Values {
            let numbers = numbers.ok_or_else(|| {
                Error::input(format_args!("{}, label column", path.display()), "words").expected("numbers")
            })?;
            let values = self.labels.iter().map(|&label| numbers[label as usize]).collect();
            return Ok(Targets::Values { values, width: 1 });
        }
        let mut order: Vec<usize> = (0..self.distinct.len()).collect();
        match &integers {
            Some(integers) => order.sort_by_key(|&i| integers[i]),
            None => order.sort_by_key(|&i| &self.distinct[i]),
        }
        let mut class_of = vec![0; order.len()];
        for (class, &index) in order.iter().enumerate() {
            class_of[index] = class as u32;
        }
        Ok(Targets::Classes {
            labels: self.labels.iter().map(|&label| class_of[label as usize]).collect(),
            names: order.into_iter().map(|index| self.distinct[index].clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loaded(text: &str, task: Option<Task>) -> Result<Dataset> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        load(&path, task)
    }

    fn classes(set: &Dataset) -> (Vec<u32>, Vec<String>) {
        match &set.targets {
            Targets::Classes { labels, names } => (labels.clone(), names.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn headers_labels_and_separators_are_recognised() {
        for (text, labels, names) in [
            ("1.5,2,b\n3,4,a\n5,6,b\n", vec![1, 0, 1], vec!["a", "b"]),
            ("w;Label;h\n1;10;2\n3;9;4\n", vec![1, 0], vec!["9", "10"]),
            ("w\th\tkind\n1\t2\tx\n3\t4\ty\n", vec![0, 1], vec!["x", "y"]),
            ("a, b,\"the class\"\n1, 2,\"u, v\"\n3, 4, w\n", vec![0, 1], vec!["u, v", "w"]),
        ] {
            let set = loaded(text, None).unwrap();
            assert_eq!(set.shape, SampleShape::Features(2), "{text}");
            assert_eq!(classes(&set), (labels, names.into_iter().map(String::from).collect()), "{text}");
        }
    }

    #[test]
    fn fractions_are_values_and_the_task_can_be_stated() {
        let set = loaded("1,2.5\n2,3\n", None).unwrap();
        assert_eq!(set.targets, Targets::Values { values: vec![2.5, 3.0], width: 1 });
        let set = loaded("1,2\n2,3\n", Some(Task::Values)).unwrap();
        assert_eq!(set.targets, Targets::Values { values: vec![2.0, 3.0], width: 1 });
        assert!(loaded("1,a\n2,b\n", Some(Task::Values)).is_err());
    }

    #[test]
    fn faults_name_line_and_column() {
        for (text, message) in [
            ("a,b,y\n1,2,0\n1,0\n", "line 3: 2 cells; expected 3"),
            ("a,b,y\n1,2,0\n1,NaN,1\n", "line 3, column 2 (`b`): `NaN`"),
            ("1,2,0\n1,inf,1\n", "line 2, column 2: `inf`"),
            ("1,2,0\n1,,1\n", "line 2, column 2: ``"),
            ("M,2,3\nB,2,4\n", "line 1, column 1: `M`"),
            ("1,2,0\n1,2,\n", "line 2, column 3: ``"),
            ("a,y\n", "no rows"),
            ("", "no rows"),
            ("1\n2\n", "one column"),
            ("1,0\n2,0\n", "all samples are of one class"),
        ] {
            let error = loaded(text, None).unwrap_err().to_string();
            assert!(error.contains(message), "{message}: {error}");
        }
    }

    proptest! {
        #[test]
        fn mutated_bytes_never_panic(at in 0usize..29, byte: u8, cut in 0usize..30) {
            let mut bytes = b"w,h,label\n1,2,a\n\"3\",4,b\n5,6,a".to_vec();
            bytes[at] = byte;
            bytes.truncate(cut);
            if let Ok(table) = parse(Path::new("x"), &bytes) {
                let _ = table.targets(Path::new("x"), None);
            }
        }
    }
}
