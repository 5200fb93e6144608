//! JSONL: one object a line, whose fields are columns: numbers, nested arrays of numbers, words as classes, text.
//!
//! Fields of whole numbers and truth values are i64, fields with a fraction f32 (rounded to 32 bits). All values of a field
//! have the same extents. A model that takes `input_ids` where no such field is gets the tokens of the field `text` (or of
//! the one stated for it). Without a target, tokens learn the next token.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use wattle_graph::DType;

use crate::batches::names;
use crate::bounded;
use crate::column::ColumnInfo;
use crate::columns::{Columns, Field, Memory, Parts};
use crate::dataset::SourceParts;
use crate::error::{Error, Result};
use crate::mapping::Wanted;
use crate::options::{Missing, TableOptions};
use crate::tokens::{self, DEFAULT_IGNORED, Sequences, Tokenizer};

const TARGETS: [&str; 6] = ["label", "labels", "target", "targets", "class", "y"];
const TEXT: &str = "text";

/// Reads a file, which may be gzipped.
pub(crate) fn load(path: &Path, wanted: &[Wanted], options: &TableOptions) -> Result<Columns> {
    parse(path, &bounded::read(path)?, wanted, options)
}

fn parse(path: &Path, bytes: &[u8], wanted: &[Wanted], options: &TableOptions) -> Result<Columns> {
    if options.missing == Missing::Mean {
        return Err(Error::input(path.display(), "missing values that are to be means")
            .expected("that of a text table; JSONL refuses or leaves out"));
    }
    let mut lines = Lines { path, bytes, number: 0 };
    let Some((_, first)) = lines.next()? else {
        return Err(Error::input(path.display(), "no lines").expected("one object a line"));
    };
    let plan = Plan::new(path, &first, wanted, options)?;
    let tokenizer = match &plan.text {
        Some(_) => Some(Tokenizer::open(options.text.tokenizer.as_deref(), path)?),
        None => None,
    };
    let length = tokens::length(wanted, options, path)?;
    let mut columns: Vec<Gathered> = plan.fields.iter().map(|name| Gathered::new(name)).collect();
    let (mut sequences, mut dropped, mut cut, mut count) = (Sequences::default(), 0u64, 0u64, 0);
    let mut lines = Lines { path, bytes, number: 0 };
    while let Some((number, object)) = lines.next()? {
        let place = |field: &str| format!("{}, line {number}, field `{field}`", path.display());
        let gap = plan.fields.iter().chain(&plan.text).find(|f| object.get(*f).is_none_or(Value::is_null));
        if let Some(field) = gap {
            if options.missing == Missing::Refuse {
                return Err(Error::input(place(field), "no value")
                    .expected("one in every line")
                    .remedy("fill it in, or leave such lines out: option `missing=drop`"));
            }
            dropped += 1;
            continue;
        }
        // A text that learns its next tokens is any number of samples, so that it cannot stand beside other fields.
        for (column, field) in columns.iter_mut().zip(&plan.fields) {
            column.add(&object[field], &|| place(field))?;
        }
        count += 1;
        if let (Some(field), Some(tokenizer)) = (&plan.text, &tokenizer) {
            let Value::String(text) = &object[field] else {
                return Err(Error::input(place(field), kind(&object[field])).expected("text"));
            };
            let learns_next = plan.targets.is_empty();
            let found = tokenizer.encode(text, !learns_next, &|| place(field))?;
            if learns_next {
                sequences.add_chunks(&found, length);
            } else {
                cut += u64::from(sequences.add(&found, length));
            }
        }
    }
    let sequences = Arc::new(sequences);
    let learns_next = plan.text.is_some() && plan.targets.is_empty();
    if learns_next {
        count = sequences.count();
    }
    let mut remarks = Vec::new();
    for (number, what) in [
        (dropped, "lines with missing values are left out".to_owned()),
        (cut, format!("texts are cut off after {length} tokens")),
    ] {
        if number > 0 {
            remarks.push(format!("{}: {number} {what}", path.display()));
        }
    }
    let padding = tokenizer.as_ref().map_or(0, Tokenizer::padding);
    let mut inputs = Vec::new();
    for (want, feed) in wanted.iter().zip(&plan.feeds) {
        inputs.push(match feed {
            Feed::Field(place) => columns[*place].field(&want.name, path)?.0,
            Feed::Text(column) => tokens::input(&want.name, column, &sequences, length, padding)
                .ok_or_else(|| Error::input(path.display(), format_args!("no column `{column}` of text")))?,
        });
    }
    let (mut targets, mut class_names) = (Vec::new(), None);
    for &place in &plan.targets {
        let (field, names) = columns[place].field(&columns[place].name, path)?;
        targets.push(field);
        class_names = names;
    }
    if learns_next {
        targets.push(tokens::next_token(&sequences, length, options.ignore_index.unwrap_or(DEFAULT_IGNORED)));
    }
    let parts = Parts {
        class_names: class_names.filter(|_| targets.len() == 1),
        ignore_index: options.ignore_index.or(learns_next.then_some(DEFAULT_IGNORED)),
        remarks,
        options: format!("tokenizer {}", tokenizer.as_ref().map_or("none", Tokenizer::identity)),
        ..Parts::of(format!("jsonl:{}", path.display()), inputs, targets, SourceParts::undivided(count))
    };
    Columns::new(parts, count)
}

/// The objects of a file, line by line; empty lines are skipped.
struct Lines<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    number: usize,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<(usize, Map<String, Value>)>> {
        while !self.bytes.is_empty() {
            let end = self.bytes.iter().position(|&b| b == b'\n').unwrap_or(self.bytes.len());
            let line = &self.bytes[..end];
            self.bytes = &self.bytes[(end + 1).min(self.bytes.len())..];
            self.number += 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let place = || format!("{}, line {}", self.path.display(), self.number);
            return match serde_json::from_slice(line) {
                Ok(Value::Object(object)) => Ok(Some((self.number, object))),
                Ok(other) => {
                    Err(Error::input(place(), kind(&other)).expected("an object: {\"field\": value}"))
                }
                Err(error) => Err(Error::input(place(), error).expected("one JSON object a line")),
            };
        }
        Ok(None)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What feeds an input.
enum Feed {
    /// A place in [`Plan::fields`].
    Field(usize),
    /// A column of the text.
    Text(String),
}

/// Which fields are read, and what for.
struct Plan {
    fields: Vec<String>,
    text: Option<String>,
    feeds: Vec<Feed>,
    targets: Vec<usize>,
}

impl Plan {
    fn new(
        path: &Path,
        first: &Map<String, Value>,
        wanted: &[Wanted],
        options: &TableOptions,
    ) -> Result<Self> {
        let known = || names(first.keys().map(String::as_str));
        let mut plan = Self { fields: Vec::new(), text: None, feeds: Vec::new(), targets: Vec::new() };
        let targets: Vec<&str> = if options.targets.is_empty() {
            TARGETS.into_iter().find(|name| first.contains_key(*name)).into_iter().collect()
        } else {
            options.targets.iter().map(String::as_str).collect()
        };
        for want in wanted {
            let stated = match options.columns.stated(&want.name) {
                None => None,
                Some([field]) => Some(field.as_str()),
                Some(several) => {
                    return Err(Error::input(
                        path.display(),
                        format_args!("{} fields for the model's input `{}`", several.len(), want.name),
                    )
                    .expected("one"));
                }
            };
            let only = || {
                let others: Vec<&str> =
                    first.keys().map(String::as_str).filter(|name| !targets.contains(name)).collect();
                (wanted.len() == 1 && others.len() == 1).then(|| others[0])
            };
            let own = first.contains_key(&want.name).then_some(want.name.as_str());
            let field = stated.filter(|name| !tokens::is_column(name) || first.contains_key(*name)).or(own);
            let field = field.or_else(only);
            let is_text = |name: &str| first.get(name).is_some_and(Value::is_string);
            match field {
                Some(name) if !is_text(name) => {
                    let place = plan.field(name);
                    plan.feeds.push(Feed::Field(place));
                }
                text => {
                    let column = tokens::column_of(want, wanted, options);
                    let column = if tokens::is_column(&column) { column } else { "input_ids".into() };
                    let text = text.unwrap_or(TEXT);
                    let fits = tokens::is_column(&want.name) || stated.is_some() || wanted.len() == 1;
                    if !is_text(text) || !fits {
                        return Err(Error::input(
                            path.display(),
                            format_args!("no field for the model's input `{}`", want.name),
                        )
                        .expected(known())
                        .remedy("state which field feeds it"));
                    }
                    if plan.text.get_or_insert_with(|| text.to_owned()) != text {
                        return Err(Error::input(path.display(), "two fields of text").expected("one"));
                    }
                    plan.feeds.push(Feed::Text(column));
                }
            }
        }
        for name in targets {
            if !first.contains_key(name) {
                return Err(Error::input(path.display(), format_args!("no field `{name}` for the target"))
                    .expected(known()));
            }
            let place = plan.field(name);
            plan.targets.push(place);
        }
        if plan.text.is_some() && plan.targets.is_empty() && !plan.fields.is_empty() {
            return Err(Error::input(path.display(), "text that learns its next tokens beside other inputs")
                .expected("a target, or no other inputs"));
        }
        Ok(plan)
    }

    fn field(&mut self, name: &str) -> usize {
        let known = self.fields.iter().position(|field| field == name);
        known.unwrap_or_else(|| {
            self.fields.push(name.to_owned());
            self.fields.len() - 1
        })
    }
}

/// The values of a field so far.
struct Gathered {
    name: String,
    extents: Option<Vec<usize>>,
    values: Values,
}

enum Values {
    Whole(Vec<i64>),
    Real(Vec<f32>),
    Words(Vec<String>),
}

impl Gathered {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), extents: None, values: Values::Whole(Vec::new()) }
    }

    fn add(&mut self, value: &Value, place: &dyn Fn() -> String) -> Result<()> {
        let mut extents = Vec::new();
        let mut inner = value;
        while let Value::Array(list) = inner {
            extents.push(list.len());
            match list.first() {
                Some(first) => inner = first,
                None => {
                    return Err(Error::input(place(), "an empty array").expected("a number or more"));
                }
            }
        }
        let expected = self.extents.get_or_insert_with(|| extents.clone());
        if *expected != extents {
            return Err(Error::input(place(), format_args!("values of extents {extents:?}"))
                .expected(format_args!("{expected:?}, as in the first line")));
        }
        self.push(value, &extents, place)
    }

    fn push(&mut self, value: &Value, extents: &[usize], place: &dyn Fn() -> String) -> Result<()> {
        let mixed = |found: &Value| {
            Error::input(place(), kind(found)).expected("values of one kind: numbers, or words")
        };
        match (value, extents) {
            (Value::Array(list), [extent, rest @ ..]) if list.len() == *extent => {
                list.iter().try_for_each(|value| self.push(value, rest, place))
            }
            (Value::String(word), []) => {
                match &mut self.values {
                    Values::Words(words) => words.push(word.clone()),
                    Values::Whole(none) if none.is_empty() => self.values = Values::Words(vec![word.clone()]),
                    _ => return Err(mixed(value)),
                }
                Ok(())
            }
            (Value::Bool(_) | Value::Number(_), []) => {
                let whole = match value {
                    Value::Bool(truth) => Some(i64::from(*truth)),
                    value => value.as_i64(),
                };
                match (&mut self.values, whole) {
                    (Values::Words(_), _) => return Err(mixed(value)),
                    (Values::Whole(values), Some(whole)) => values.push(whole),
                    (Values::Whole(values), None) => {
                        let mut reals: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                        reals.push(value.as_f64().unwrap_or(f64::NAN) as f32);
                        self.values = Values::Real(reals);
                    }
                    (Values::Real(values), _) => {
                        let real = whole.map_or(value.as_f64(), |whole| Some(whole as f64));
                        values.push(real.unwrap_or(f64::NAN) as f32);
                    }
                }
                Ok(())
            }
            (Value::Array(list), _) => {
                Err(Error::input(place(), format_args!("an array of {} values inside", list.len()))
                    .expected("rows of equal length"))
            }
            (other, _) => Err(mixed(other)),
        }
    }

    /// The field as a column; words are classes, in the order of their bytes.
    fn field(&self, name: &str, path: &Path) -> Result<(Field, Option<Vec<String>>)> {
        let origin = format!("field `{}`", self.name);
        let extents = self.extents.clone().unwrap_or_default();
        let info = |dtype| ColumnInfo::new(name, dtype, extents.clone());
        match &self.values {
            Values::Whole(values) => {
                Ok((Field::new(info(DType::I64), Memory::integers(values), origin), None))
            }
            Values::Real(values) => Ok((Field::new(info(DType::F32), Memory::floats(values), origin), None)),
            Values::Words(_) if !extents.is_empty() => {
                Err(Error::input(format_args!("{}, {origin}", path.display()), "arrays of words")
                    .expected("one word a sample"))
            }
            Values::Words(words) => {
                let mut classes: BTreeMap<&str, i64> = words.iter().map(|word| (word.as_str(), 0)).collect();
                for (number, class) in classes.values_mut().zip(0i64..) {
                    *number = class;
                }
                let labels: Vec<i64> = words.iter().map(|word| classes[word.as_str()]).collect();
                let names = classes.into_keys().map(String::from).collect();
                Ok((Field::new(info(DType::I64), Memory::integers(&labels), origin), Some(names)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Table, TextOptions};
    use proptest::prelude::*;

    fn loaded(text: &str, wanted: &[Wanted], options: &TableOptions) -> Result<Columns> {
        parse(Path::new("d.jsonl"), text.as_bytes(), wanted, options)
    }

    fn wanted(names: &[&str]) -> Vec<Wanted> {
        names.iter().map(|name| Wanted::new(*name, DType::I64, [None])).collect()
    }

    fn options() -> TableOptions {
        let text = TextOptions { tokenizer: Some("bytes".into()), length: Some(3) };
        TableOptions { text, ..TableOptions::default() }
    }

    fn bytes(table: &Columns, sample: usize, column: usize) -> Vec<u8> {
        let mut out = vec![0; table.columns()[column].bytes()];
        table.read(sample, column, &mut out).unwrap();
        out
    }

    fn ints(table: &Columns, sample: usize, column: usize) -> Vec<i64> {
        bytes(table, sample, column).as_chunks().0.iter().map(|b| i64::from_ne_bytes(*b)).collect()
    }

    #[test]
    fn fields_feed_inputs_and_words_are_classes() {
        let text = "{\"a\": [[1, 2], [3, 4]], \"b\": 0.5, \"label\": \"dog\"}\n\n{\"b\": 1, \"a\": [[5, 6], [7, 8]], \"label\": \"cat\", \"more\": {}}\n";
        let table = loaded(text, &wanted(&["a", "b"]), &options()).unwrap();
        assert_eq!(table.columns()[0], ColumnInfo::new("a", DType::I64, [2, 2]));
        assert_eq!(table.columns()[1], ColumnInfo::new("b", DType::F32, []));
        assert_eq!(
            (ints(&table, 1, 0), bytes(&table, 1, 1)),
            (vec![5, 6, 7, 8], 1f32.to_ne_bytes().to_vec())
        );
        let classes = table.classes().unwrap();
        assert_eq!((classes.labels, classes.names), (&[1, 0][..], &["cat".to_owned(), "dog".into()][..]));
    }

    #[test]
    fn text_becomes_tokens_with_a_label_or_the_next_token() {
        let text = "{\"text\": \"abcd\", \"label\": 1}\n{\"text\": \"x\", \"label\": 0}\n";
        let names = wanted(&["input_ids", "attention_mask"]);
        let table = loaded(text, &names, &options()).unwrap();
        assert_eq!(
            (ints(&table, 0, 0), ints(&table, 1, 1), ints(&table, 0, 2)),
            (vec![97, 98, 99], vec![1, 0, 0], vec![1])
        );
        let text = "{\"text\": \"abcd\"}\n{\"text\": \"xy\"}\n";
        let table = loaded(text, &names, &options()).unwrap();
        assert_eq!((table.count(), ints(&table, 1, 2)), (2, vec![121, -100, -100]));
    }

    #[test]
    fn faults_name_line_and_field() {
        for (text, names, parts) in [
            ("{\"a\": 1}\n{\"a\": null}\n", vec!["a"], vec!["line 2, field `a`", "no value"]),
            ("{\"a\": 1}\n{\"b\": 1}\n", vec!["a"], vec!["line 2, field `a`"]),
            ("{\"a\": [1, 2]}\n{\"a\": [1]}\n", vec!["a"], vec!["line 2, field `a`", "[1]", "[2]"]),
            ("{\"a\": [[1, 2], [3]]}\n", vec!["a"], vec!["line 1", "rows of equal length"]),
            ("{\"a\": 1}\n{\"a\": \"x\"}\n", vec!["a"], vec!["line 2", "text"]),
            ("{\"a\": 1}\n[1]\n", vec!["a"], vec!["line 2", "an array"]),
            ("{\"a\": 1\n", vec!["a"], vec!["line 1"]),
            ("{\"a\": 1, \"c\": 2}\n", vec!["a", "b"], vec!["input `b`", "`a` or `c`"]),
            ("", vec!["a"], vec!["no lines"]),
        ] {
            let error = loaded(text, &wanted(&names), &options()).map(|t| t.count()).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        let drop = TableOptions { missing: Missing::Drop, ..options() };
        assert_eq!(loaded("{\"a\": 1}\n{\"a\": null}\n", &wanted(&["a"]), &drop).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\{\"a\": [\\[\\]0-9,.e-]{0,8}\\}\n|[{}\\[\\]\":a0-9,\n]{0,12}){0,4}") {
            let _ = loaded(&text, &wanted(&["a"]), &options());
        }
    }
}
