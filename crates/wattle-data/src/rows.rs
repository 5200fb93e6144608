//! Text tables (CSV) as named columns: features by name, any number of targets, missing values.
//!
//! Separator and header are found as for plain tables ([`crate::csv`]). Without a header, columns are named by their
//! numbers from 1. A target of words is a class; so is one of whole numbers, unless values are asked for; several targets
//! are one target of so many numbers a sample (labels that do not exclude each other, or a regression of several values).

use std::collections::BTreeMap;
use std::path::Path;

use ::csv::StringRecord;
use wattle_graph::DType;

use crate::batches::names;
use crate::bounded;
use crate::column::ColumnInfo;
use crate::columns::{Columns, Field, Memory, Parts};
use crate::csv::{LABEL_NAMES, Rows};
use crate::dataset::{SourceParts, first_ten};
use crate::error::{Error, Result};
use crate::mapping::Wanted;
use crate::options::{Missing, TableOptions};
use crate::spec::Task;
use crate::split::Splits;

/// Reads a table, which may be gzipped.
pub(crate) fn load(path: &Path, wanted: &[Wanted], options: &TableOptions) -> Result<Columns> {
    parse(path, &bounded::read(path)?, wanted, options)
}

fn parse(path: &Path, bytes: &[u8], wanted: &[Wanted], options: &TableOptions) -> Result<Columns> {
    let Some(mut rows) = Rows::open(path, bytes)? else {
        return Err(Error::input(path.display(), "no rows").expected("a header and rows of numbers"));
    };
    let names = rows.header.take();
    let header = names.is_some();
    let columns = names.unwrap_or_else(|| (1..=rows.width).map(|number| number.to_string()).collect());
    let choice = Choice::new(path, &columns, header, wanted, options)?;
    let mut read = Cells {
        path,
        columns: &columns,
        choice: &choice,
        missing: options.missing,
        cells: Vec::new(),
        targets: Vec::new(),
        dropped: 0,
        gaps: 0,
    };
    while let Some((line, record)) = rows.next()? {
        read.add(line, &record)?;
    }
    let Cells { cells, targets, dropped, gaps, .. } = read;
    let count = cells.len() / choice.features.len().max(1);
    let mut remarks = Vec::new();
    if dropped > 0 {
        remarks.push(format!("{}: {dropped} rows with missing values are left out", path.display()));
    }
    let finished = |cells: &[f32], remarks: Vec<String>| -> Result<Columns> {
        let (targets, class_names) = target_fields(path, &choice, &columns, &targets, options.load.task)?;
        let parts = Parts {
            class_names,
            ignore_index: options.ignore_index,
            remarks,
            ..Parts::of(
                format!("csv:{}", path.display()),
                choice.inputs(&columns, cells),
                targets,
                SourceParts::undivided(count),
            )
        };
        Columns::new(parts, count)
    };
    if gaps == 0 {
        return finished(&cells, remarks);
    }
    remarks.push(format!(
        "{}: {gaps} missing values are their columns' means over the training part",
        path.display()
    ));
    let mut cells = cells;
    // Which samples are for training depends on the targets alone, which have no gaps.
    let gapless: Vec<f32> = cells.iter().map(|x| if x.is_nan() { 0.0 } else { *x }).collect();
    let splits = Splits::new(&finished(&gapless, Vec::new())?, &options.split)?;
    fill(path, &choice, &columns, &mut cells, splits.train())?;
    finished(&cells, remarks)
}

/// Puts means over the samples `train` where a value is missing.
fn fill(path: &Path, choice: &Choice, columns: &[String], cells: &mut [f32], train: &[u32]) -> Result<()> {
    let width = choice.features.len();
    for (place, &column) in choice.features.iter().enumerate() {
        let (mut sum, mut seen) = (0f64, 0u64);
        for &sample in train {
            let value = cells[sample as usize * width + place];
            if !value.is_nan() {
                sum += f64::from(value);
                seen += 1;
            }
        }
        if seen == 0 {
            return Err(Error::input(
                format_args!("{}, column `{}`", path.display(), columns[column]),
                "no value in the whole training part",
            )
            .expected("some to take the mean of")
            .remedy("leave the column out"));
        }
        let mean = (sum / seen as f64) as f32;
        for cell in cells.iter_mut().skip(place).step_by(width).filter(|cell| cell.is_nan()) {
            *cell = mean;
        }
    }
    Ok(())
}

/// Which columns are read, and what for.
struct Choice {
    /// Columns that feed some input, in the order in which they are kept; each once.
    features: Vec<usize>,
    /// For every input its name and places in `features`.
    groups: Vec<(String, Vec<usize>)>,
    targets: Vec<usize>,
}

impl Choice {
    fn new(
        path: &Path,
        columns: &[String],
        header: bool,
        wanted: &[Wanted],
        options: &TableOptions,
    ) -> Result<Self> {
        let known = || names(columns.iter().map(String::as_str));
        let find = |name: &str| {
            let mut found = columns.iter().enumerate().filter(|(_, column)| *column == name);
            match (found.next(), found.next()) {
                (Some((place, _)), None) => Ok(place),
                (None, _) => {
                    Err(Error::input(path.display(), format_args!("no column `{name}`")).expected(known()))
                }
                (Some(_), Some(_)) => {
                    Err(Error::input(path.display(), format_args!("two columns named `{name}`"))
                        .expected("names that differ")
                        .remedy("rename one of them in the header"))
                }
            }
        };
        let targets: Vec<usize> = if options.targets.is_empty() {
            let usual = |column: &String| LABEL_NAMES.contains(&column.to_lowercase().as_str());
            let named = columns.iter().position(usual).filter(|_| header);
            vec![named.unwrap_or(columns.len() - 1)]
        } else {
            options.targets.iter().map(|name| find(name)).collect::<Result<_>>()?
        };
        let mut features: Vec<usize> = Vec::new();
        let mut groups = Vec::new();
        for want in wanted {
            let group: Vec<usize> = match options.columns.stated(&want.name) {
                Some(stated) => stated.iter().map(|name| find(name)).collect::<Result<_>>()?,
                None => match columns.iter().position(|column| *column == want.name) {
                    Some(own) if wanted.len() > 1 => vec![own],
                    None if wanted.len() > 1 => {
                        return Err(Error::input(
                            path.display(),
                            format_args!("no column for the model's input `{}`", want.name),
                        )
                        .expected(known())
                        .remedy("state which columns feed it"));
                    }
                    _ => (0..columns.len()).filter(|column| !targets.contains(column)).collect(),
                },
            };
            let mut places = Vec::new();
            for column in group {
                let place = features.iter().position(|kept| *kept == column).unwrap_or(features.len());
                if place == features.len() {
                    features.push(column);
                }
                places.push(place);
            }
            groups.push((want.name.clone(), places));
        }
        if features.is_empty() {
            return Err(Error::input(path.display(), "no columns of features")
                .expected("some, separated by commas, semicolons or tabs, and a target"));
        }
        Ok(Self { features, groups, targets })
    }

    /// The inputs, with their numbers gathered from rows of features.
    fn inputs(&self, columns: &[String], cells: &[f32]) -> Vec<Field> {
        let field = |(name, places): &(String, Vec<usize>)| {
            let rows = cells.chunks_exact(self.features.len());
            let values: Vec<f32> = rows.flat_map(|row| places.iter().map(|&place| row[place])).collect();
            let sources: Vec<&str> =
                places.iter().map(|&place| columns[self.features[place]].as_str()).collect();
            let info = ColumnInfo::new(name, DType::F32, [places.len()]);
            Field::new(info, Memory::floats(&values), format!("columns {}", first_ten(&sources)))
        };
        self.groups.iter().map(field).collect()
    }
}

/// What the cells of rows say.
struct Cells<'a> {
    path: &'a Path,
    columns: &'a [String],
    choice: &'a Choice,
    missing: Missing,
    /// Row by row; a gap is NaN.
    cells: Vec<f32>,
    /// The texts of the targets, row by row.
    targets: Vec<String>,
    dropped: u64,
    gaps: u64,
}

impl Cells<'_> {
    fn add(&mut self, line: u64, record: &StringRecord) -> Result<()> {
        let cell = |column: usize| &record[column];
        let gap = |column: &&usize| is_missing(cell(**column));
        let (in_features, in_targets) =
            (self.choice.features.iter().find(gap), self.choice.targets.iter().find(gap));
        if let Some(&column) = in_features.or(in_targets)
            && self.missing == Missing::Refuse
        {
            return Err(self
                .fault(line, column, cell(column), "a value")
                .remedy("fill it in, leave such rows out: option `missing=drop`, or fill in means: option `missing=mean`"));
        }
        if in_targets.is_some() || (in_features.is_some() && self.missing == Missing::Drop) {
            self.dropped += 1;
            return Ok(());
        }
        for &column in &self.choice.features {
            let text = cell(column);
            let value = if is_missing(text) {
                self.gaps += 1;
                f32::NAN
            } else {
                text.parse::<f32>().ok().filter(|value| value.is_finite()).ok_or_else(|| {
                    self.fault(line, column, text, "a finite number")
                        .remedy("encode words as numbers, or name the columns that feed the input, here `x`: option `columns=x=a+b`")
                })?
            };
            self.cells.push(value);
        }
        self.targets.extend(self.choice.targets.iter().map(|&column| cell(column).to_owned()));
        Ok(())
    }

    fn fault(&self, line: u64, column: usize, cell: &str, expected: &str) -> Error {
        Error::input(
            format_args!("{}, line {line}, column `{}`", self.path.display(), self.columns[column]),
            format_args!("`{cell}`"),
        )
        .expected(expected)
    }
}

fn is_missing(cell: &str) -> bool {
    matches!(cell, "" | "?" | "na" | "NA" | "n/a" | "N/A" | "nan" | "NaN" | "null" | "NULL" | "None")
}

/// The targets as one column, and the names of its classes.
fn target_fields(
    path: &Path,
    choice: &Choice,
    columns: &[String],
    texts: &[String],
    task: Option<Task>,
) -> Result<(Vec<Field>, Option<Vec<String>>)> {
    let width = choice.targets.len();
    let sources: Vec<&str> = choice.targets.iter().map(|&column| columns[column].as_str()).collect();
    let origin = format!("column {}", first_ten(&sources));
    let numbers: Option<Vec<f32>> =
        texts.iter().map(|text| text.parse().ok().filter(|x: &f32| x.is_finite())).collect();
    let whole: Option<Vec<i64>> = texts.iter().map(|text| text.parse().ok()).collect();
    let values = match task {
        Some(Task::Values) => true,
        Some(Task::Classes) => false,
        None => width > 1 || (whole.is_none() && numbers.is_some()),
    };
    let info = |dtype, extents: &[usize]| ColumnInfo::new(sources[0], dtype, extents);
    if values {
        let Some(numbers) = numbers else {
            let words = texts.iter().find(|text| text.parse::<f32>().map_or(true, |x| !x.is_finite()));
            return Err(Error::input(
                format_args!("{}, {origin}", path.display()),
                format_args!("`{}`", words.map_or("", String::as_str)),
            )
            .expected("numbers, since values are to be learnt"));
        };
        return Ok((vec![Field::new(info(DType::F32, &[width]), Memory::floats(&numbers), origin)], None));
    }
    if width > 1 {
        return Err(Error::input(path.display(), format_args!("{width} targets that are classes"))
            .expected("one")
            .remedy("name one column, or learn them as numbers"));
    }
    let mut class_of: BTreeMap<(i64, &str), i64> = texts
        .iter()
        .enumerate()
        .map(|(row, text)| ((whole.as_ref().map_or(0, |w| w[row]), text.as_str()), 0))
        .collect();
    for (number, class) in class_of.values_mut().zip(0i64..) {
        *number = class;
    }
    let labels: Vec<i64> = texts
        .iter()
        .enumerate()
        .map(|(row, text)| class_of[&(whole.as_ref().map_or(0, |w| w[row]), text.as_str())])
        .collect();
    let class_names = class_of.keys().map(|(_, text)| (*text).to_owned()).collect();
    Ok((vec![Field::new(info(DType::I64, &[]), Memory::integers(&labels), origin)], Some(class_names)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SplitOptions, Table};
    use proptest::prelude::*;

    const TABLE: &str = "\
age,height,smoker,kind
1,10,0,cat
2,,1,dog
3,30,0,cat
?,40,1,ant
5,50,1,
6,60,0,dog
";

    fn wanted(names: &[&str]) -> Vec<Wanted> {
        names.iter().map(|name| Wanted::new(*name, DType::F32, [None])).collect()
    }

    fn loaded(text: &str, wanted: &[Wanted], options: &TableOptions) -> Result<Columns> {
        parse(Path::new("t.csv"), text.as_bytes(), wanted, options)
    }

    fn floats(table: &Columns, sample: usize, column: usize) -> Vec<f32> {
        let mut out = vec![0; table.columns()[column].bytes()];
        table.read(sample, column, &mut out).unwrap();
        out.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).collect()
    }

    #[test]
    fn a_missing_value_is_refused_by_row_and_column_or_its_row_is_left_out() {
        let error = loaded(TABLE, &wanted(&["x"]), &TableOptions::default()).unwrap_err().to_string();
        assert!(error.contains("line 3, column `height`"), "{error}");
        let options = TableOptions { missing: Missing::Drop, ..TableOptions::default() };
        let table = loaded(TABLE, &wanted(&["x"]), &options).unwrap();
        assert_eq!((table.count(), table.remarks().len()), (3, 1));
        assert_eq!(floats(&table, 2, 0), [6.0, 60.0, 0.0]);
        let classes = table.classes().unwrap();
        assert_eq!((classes.labels, classes.names), (&[0, 0, 1][..], &["cat".to_owned(), "dog".into()][..]));
    }

    #[test]
    fn means_are_those_of_the_training_part_only() {
        let mut text = String::from("x,label\n");
        for row in 0..40 {
            text.push_str(&if row == 7 { ",1\n".into() } else { format!("{row},{}\n", row % 2) });
        }
        let options = TableOptions {
            missing: Missing::Mean,
            split: SplitOptions { seed: 3, ..SplitOptions::default() },
            ..TableOptions::default()
        };
        let table = loaded(&text, &wanted(&["x"]), &options).unwrap();
        let splits = Splits::new(&table, &options.split).unwrap();
        let train: Vec<f32> = splits.train().iter().filter(|&&s| s != 7).map(|&s| s as f32).collect();
        let mean = (train.iter().map(|&x| f64::from(x)).sum::<f64>() / train.len() as f64) as f32;
        assert_eq!(floats(&table, 7, 0), [mean]);
        assert!(table.remarks()[0].contains("1 missing values"));
    }

    #[test]
    fn several_features_feed_several_inputs_and_several_targets_are_one_column() {
        let options = TableOptions {
            columns: "body=height+age".parse().unwrap(),
            targets: vec!["smoker".into(), "age".into()],
            missing: Missing::Drop,
            ..TableOptions::default()
        };
        let table = loaded(TABLE, &wanted(&["body", "age"]), &options).unwrap();
        assert_eq!(table.count(), 4);
        assert_eq!(
            (floats(&table, 1, 0), floats(&table, 1, 1), floats(&table, 1, 2)),
            (vec![30.0, 3.0], vec![3.0], vec![0.0, 3.0])
        );
        assert_eq!(table.columns()[2], ColumnInfo::new("targets", DType::F32, [2]));
        assert!(table.classes().is_none());
    }

    #[test]
    fn numbers_with_a_fraction_are_values_and_whole_numbers_if_asked_for() {
        let table = loaded("a,y\n1,0.5\n2,3\n", &wanted(&["x"]), &TableOptions::default()).unwrap();
        assert_eq!(floats(&table, 0, 1), [0.5]);
        let mut options = TableOptions::default();
        options.load.task = Some(Task::Values);
        let table = loaded("a,y\n1,5\n2,3\n", &wanted(&["x"]), &options).unwrap();
        assert_eq!(floats(&table, 0, 1), [5.0]);
        let error = loaded("a,y\n1,five\n2,3\n", &wanted(&["x"]), &options).unwrap_err().to_string();
        assert!(error.contains("`five`"), "{error}");
    }

    #[test]
    fn numbered_classes_keep_the_order_of_their_numbers() {
        let table = loaded("a,y\n1,10\n2,9\n3,10\n", &wanted(&["x"]), &TableOptions::default()).unwrap();
        let classes = table.classes().unwrap();
        assert_eq!((classes.labels, classes.names), (&[1, 0, 1][..], &["9".to_owned(), "10".into()][..]));
    }

    #[test]
    fn faults_name_line_and_column() {
        for (text, names, parts) in [
            ("a,b\n1,2\n1\n", vec!["x"], vec!["line 3", "1 cells", "2 cells"]),
            ("a,b,c\n1,word,2\n3,4,5\n", vec!["x"], vec!["line 2, column `b`", "`word`"]),
            ("a,b,c\n1,2,3\n", vec!["a", "z"], vec!["input `z`", "`a`, `b` or `c`"]),
            ("", vec!["x"], vec!["no rows"]),
            ("a\n1\n2\n", vec!["x"], vec!["no columns of features"]),
        ] {
            let error = loaded(text, &wanted(&names), &TableOptions::default()).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in "[0-9a-c,;\\n\".? -]{0,80}", mean: bool) {
            let missing = if mean { Missing::Mean } else { Missing::Drop };
            let options = TableOptions { missing, ..TableOptions::default() };
            let _ = loaded(&text, &wanted(&["x"]), &options);
        }
    }
}
