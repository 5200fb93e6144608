//! From the columns that data has to the inputs that a model asks for: names, extents and element types.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use wattle_graph::{DType, Dim, Graph, ValueId};

use crate::batches::names;
use crate::cast;
use crate::column::ColumnInfo;
use crate::dataset::SourceParts;
use crate::error::{Error, Result};
use crate::table::{Classes, Picture, Table};

/// What a model asks of one of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The input's name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// The extents of one sample, without the batch axis; `None` where the model takes any.
    pub extents: Vec<Option<usize>>,
}

impl Wanted {
    /// An input of this name, type and extents of one sample.
    pub fn new(name: impl Into<String>, dtype: DType, extents: impl Into<Vec<Option<usize>>>) -> Self {
        Self { name: name.into(), dtype, extents: extents.into() }
    }

    /// What a graph asks of its inputs, whose first axis is the batch.
    ///
    /// # Errors
    /// When nothing is known of the axes of an input, or it has none.
    pub fn by(graph: &Graph) -> Result<Vec<Self>> {
        let wanted = |id: &ValueId| {
            let value = graph.value(*id);
            match value.ty.shape.dims() {
                Some([_, sample @ ..]) => {
                    let extents: Vec<Option<usize>> = sample.iter().map(Dim::known).collect();
                    Ok(Self::new(graph.label(*id), value.ty.dtype, extents))
                }
                found => {
                    let found = if found.is_none() { "no known axes" } else { "no axes" };
                    Err(Error::input(format_args!("the model's input `{}`", graph.label(*id)), found)
                        .expected("a batch axis, then those of a sample")
                        .remedy("state its shape when the model is exported"))
                }
            }
        };
        graph.inputs().iter().map(wanted).collect()
    }
}

/// Which of the data's columns feed which input, where names differ: `input=array,left=a,right=b`. Columns of single
/// numbers can be joined: `x=age+height`. Its text survives a round trip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnMap(Vec<(String, Vec<String>)>);

impl ColumnMap {
    /// The columns that feed an input: the ones stated, else the one of the same name.
    pub fn of(&self, input: &str) -> Vec<String> {
        self.stated(input).map_or_else(|| vec![input.to_owned()], <[String]>::to_vec)
    }

    /// The columns that were stated for an input.
    pub fn stated(&self, input: &str) -> Option<&[String]> {
        self.0.iter().find(|(name, _)| name == input).map(|(_, columns)| columns.as_slice())
    }

    /// The inputs for which columns were stated.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Refuses inputs that the model does not have.
    ///
    /// # Errors
    /// Then, with the names it has.
    pub fn check(&self, wanted: &[Wanted]) -> Result<()> {
        match self.inputs().find(|input| !wanted.iter().any(|w| w.name == *input)) {
            None => Ok(()),
            Some(strange) => Err(Error::input(
                format_args!("columns `{self}`"),
                format_args!("the model has no input `{strange}`"),
            )
            .expected(names(wanted.iter().map(|w| w.name.as_str())))),
        }
    }
}

impl FromStr for ColumnMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fault = |found: String| {
            Error::input(format_args!("columns `{text}`"), found).expected("input=column,input=column")
        };
        let mut found = Self::default();
        if text.is_empty() {
            return Ok(found);
        }
        for pair in text.split(',') {
            let (input, columns) =
                pair.split_once('=').ok_or_else(|| fault(format!("`{pair}` without `=`")))?;
            let columns: Vec<String> = columns.split('+').map(|name| name.trim().to_owned()).collect();
            let input = input.trim();
            if input.is_empty() || columns.iter().any(String::is_empty) {
                return Err(fault(format!("an empty name in `{pair}`")));
            }
            if found.stated(input).is_some() {
                return Err(fault(format!("the input `{input}` twice")));
            }
            found.0.push((input.to_owned(), columns));
        }
        Ok(found)
    }
}

impl fmt::Display for ColumnMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (input, columns)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{input}={}", columns.join("+"))?;
        }
        Ok(())
    }
}

/// A table whose inputs are the ones a model asks for, in the model's order; its targets follow as they are.
#[derive(Debug)]
pub struct Mapped {
    table: Arc<dyn Table>,
    columns: Vec<ColumnInfo>,
    /// For each column the one of `table`.
    from: Vec<usize>,
    inputs: usize,
    remarks: Vec<String>,
}

impl Mapped {
    /// Feeds every wanted input from the column of the same name; a model of one input from the table's only one,
    /// whatever its name. Axes of extent 1 may be missing or too many. Elements of another type are converted if no
    /// number changes, which is looked at once for all samples where the types alone do not say.
    ///
    /// # Errors
    /// When an input finds no column, or a column does not fit.
    pub fn new(table: Arc<dyn Table>, wanted: &[Wanted]) -> Result<Self> {
        let (known, count) = (table.columns(), table.inputs());
        let mut mapped = Self {
            columns: Vec::new(),
            from: Vec::new(),
            inputs: wanted.len(),
            remarks: table.remarks().to_vec(),
            table: table.clone(),
        };
        for want in wanted {
            let by_name = known[..count].iter().position(|column| column.name == want.name);
            let only = (count == 1 && wanted.len() == 1).then_some(0);
            let from = by_name.or(only).ok_or_else(|| {
                Error::input(table.name(), format_args!("nothing for the model's input `{}`", want.name))
                    .expected(format_args!(
                        "a column of that name; there is {}",
                        names(known[..count].iter().map(|column| column.name.as_str()))
                    ))
                    .remedy("state which column feeds the input")
            })?;
            mapped.columns.push(fitted(&table, from, want, &mut mapped.remarks)?);
            mapped.from.push(from);
        }
        for (place, target) in known.iter().enumerate().skip(count) {
            let mut info = target.clone();
            while mapped.columns[..mapped.inputs].iter().any(|input| input.name == info.name) {
                info.name.push('_');
            }
            mapped.columns.push(info);
            mapped.from.push(place);
        }
        Ok(mapped)
    }
}

/// A column of a table as an input takes it.
fn fitted(
    table: &Arc<dyn Table>,
    from: usize,
    want: &Wanted,
    remarks: &mut Vec<String>,
) -> Result<ColumnInfo> {
    let found = &table.columns()[from];
    let place = || format!("{}, column `{}`", table.name(), found.name);
    let extents = fitted_extents(&found.extents, &want.extents).ok_or_else(|| {
        let wanted: Vec<String> =
            want.extents.iter().map(|e| e.map_or_else(|| "any".into(), |e| e.to_string())).collect();
        Error::input(place(), format_args!("samples of extents {:?}", found.extents))
            .expected(format_args!(
                "[{}], as the model's input `{}` takes them",
                wanted.join(", "),
                want.name
            ))
            .remedy("save the array in that shape, or feed the input from another column")
    })?;
    if found.dtype != want.dtype {
        if !cast::is_lossless(found.dtype, want.dtype) {
            let mut sample = vec![0; found.bytes()];
            let mut out = vec![0; found.elements() * want.dtype.size()];
            for index in 0..table.count() {
                table.read(index, from, &mut sample)?;
                if let Err((element, value)) = cast::cast(found.dtype, &sample, want.dtype, &mut out) {
                    return Err(Error::input(
                        format_args!("{}, sample {index}, element {element}", place()),
                        format_args!(
                            "{value}, stored as {}, which no {} is equal to",
                            found.dtype, want.dtype
                        ),
                    )
                    .expected(format_args!(
                        "numbers that the model's input `{}` ({}) can take",
                        want.name, want.dtype
                    ))
                    .remedy(format_args!(
                        "if rounding is meant, save array.astype('{}') instead",
                        cast::numpy_name(want.dtype)
                    )));
                }
            }
        }
        remarks.push(format!("{}: {} converted to {}, no number changed", place(), found.dtype, want.dtype));
    }
    Ok(ColumnInfo { name: want.name.clone(), dtype: want.dtype, extents })
}

/// The extents that an input takes a column in: equal but for axes of extent 1.
pub(crate) fn fitted_extents(found: &[usize], wanted: &[Option<usize>]) -> Option<Vec<usize>> {
    let fits = |(have, want): (&usize, &Option<usize>)| want.is_none_or(|want| want == *have);
    if found.len() == wanted.len() && found.iter().zip(wanted).all(fits) {
        return Some(found.to_vec());
    }
    let whole: Option<Vec<usize>> = wanted.iter().copied().collect();
    let long = |extents: &[usize]| extents.iter().copied().filter(|e| *e != 1).collect::<Vec<_>>();
    whole.filter(|whole| long(whole) == long(found))
}

impl Table for Mapped {
    fn name(&self) -> &str {
        self.table.name()
    }

    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn count(&self) -> usize {
        self.table.count()
    }

    fn parts(&self) -> &SourceParts {
        self.table.parts()
    }

    fn read(&self, sample: usize, column: usize, out: &mut [u8]) -> Result<()> {
        let from = self.from[column];
        let (stored, wanted) = (&self.table.columns()[from], &self.columns[column]);
        if stored.dtype == wanted.dtype {
            return self.table.read(sample, from, out);
        }
        let mut bytes = vec![0; stored.bytes()];
        self.table.read(sample, from, &mut bytes)?;
        cast::cast(stored.dtype, &bytes, wanted.dtype, out).map_err(|(element, value)| {
            Error::input(
                format_args!("{}, column `{}`, sample {sample}, element {element}", self.name(), stored.name),
                format_args!("{value}, which no {} is equal to", wanted.dtype),
            )
            .expected("what was there when the data was opened")
            .remedy("leave the file alone while it is in use, and start again")
        })
    }

    fn full_scale(&self, column: usize) -> f32 {
        self.table.full_scale(self.from[column])
    }

    fn is_measured(&self, column: usize) -> bool {
        self.table.is_measured(self.from[column])
    }

    fn picture(&self, column: usize) -> Option<Picture> {
        self.table.picture(self.from[column])
    }

    fn label_range(&self, column: usize) -> Option<(i64, i64)> {
        self.table.label_range(self.from[column])
    }

    fn own_name(&self, column: usize) -> &str {
        match column < self.inputs {
            true => &self.columns[column].name,
            false => self.table.own_name(self.from[column]),
        }
    }

    fn ignored(&self) -> Option<i64> {
        self.table.ignored()
    }

    fn length(&self, sample: usize) -> Option<usize> {
        self.table.length(sample)
    }

    fn is_sequence(&self, column: usize) -> bool {
        let from = self.from[column];
        self.table.is_sequence(from) && self.columns[column].extents == self.table.columns()[from].extents
    }

    fn classes(&self) -> Option<Classes<'_>> {
        self.table.classes()
    }

    fn remarks(&self) -> &[String] {
        &self.remarks
    }

    fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.table.fingerprint().as_bytes());
        for (column, from) in self.columns.iter().zip(&self.from) {
            hasher
                .update(format!("{from} {} {} {:?}\n", column.name, column.dtype, column.extents).as_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{Columns, Field, Memory, Parts};
    use proptest::prelude::*;
    use wattle_graph::Shape;

    fn table(columns: Vec<(&str, DType, Vec<usize>, Vec<u8>)>, count: usize) -> Arc<dyn Table> {
        let field = |(name, dtype, extents, bytes): (&str, DType, Vec<usize>, Vec<u8>)| {
            Field::new(ColumnInfo::new(name, dtype, extents), Memory(bytes), format!("array `{name}`"))
        };
        let parts =
            Parts::of("toy", columns.into_iter().map(field).collect(), vec![], SourceParts::undivided(count));
        Arc::new(Columns::new(parts, count).unwrap())
    }

    fn ints(values: &[i64]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_ne_bytes()).collect()
    }

    #[test]
    fn inputs_find_their_columns_and_take_their_types() {
        let table = table(
            vec![
                ("ids", DType::I64, vec![2], ints(&[1, 2, 3, 4])),
                ("mask", DType::U8, vec![], vec![1, 0]),
                ("unused", DType::U8, vec![], vec![9, 9]),
            ],
            2,
        );
        let wanted = [Wanted::new("mask", DType::F32, [Some(1)]), Wanted::new("ids", DType::I32, [None])];
        let mapped = Mapped::new(table, &wanted).unwrap();
        assert_eq!(mapped.columns()[0], ColumnInfo::new("mask", DType::F32, [1]));
        assert_eq!(mapped.columns()[1], ColumnInfo::new("ids", DType::I32, [2]));
        let mut out = [0; 8];
        mapped.read(1, 1, &mut out).unwrap();
        assert_eq!(out, [3i32.to_ne_bytes(), 4i32.to_ne_bytes()].concat()[..]);
        mapped.read(0, 0, &mut out[..4]).unwrap();
        assert_eq!(out[..4], 1f32.to_ne_bytes());
        assert_eq!(mapped.remarks().len(), 2);
    }

    #[test]
    fn a_conversion_that_changes_a_number_is_refused_with_both_types() {
        let table = table(vec![("ids", DType::I64, vec![2], ints(&[1, 2, 1 << 40, 4]))], 2);
        let error =
            Mapped::new(table.clone(), &[Wanted::new("ids", DType::I32, [None])]).unwrap_err().to_string();
        for part in ["sample 1, element 0", "1099511627776", "i64", "i32", "astype('int32')"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let two = [Wanted::new("ids", DType::I64, [None]), Wanted::new("mask", DType::I64, [None])];
        let error = Mapped::new(table.clone(), &two).unwrap_err().to_string();
        assert!(error.contains("`mask`") && error.contains("`ids`"), "{error}");
        let error = Mapped::new(table, &[Wanted::new("x", DType::I64, [Some(3)])]).unwrap_err().to_string();
        assert!(error.contains("[2]") && error.contains("[3]"), "{error}");
    }

    #[test]
    fn a_graph_says_what_it_wants() {
        let mut graph = Graph::new("two inputs");
        graph.input("ids", DType::I64, vec![Dim::symbol("batch"), Dim::symbol("length")]);
        graph.input("pair", DType::I64, vec![Dim::Known(1), Dim::Known(2)]);
        let expected = [Wanted::new("ids", DType::I64, [None]), Wanted::new("pair", DType::I64, [Some(2)])];
        assert_eq!(Wanted::by(&graph).unwrap(), expected);
        graph.input("rate", DType::F32, Shape::known(&[]));
        assert!(Wanted::by(&graph).unwrap_err().to_string().contains("`rate`: no axes"));
    }

    #[test]
    fn a_model_of_one_input_takes_the_only_column_whatever_its_name() {
        let table = table(vec![("ids", DType::I64, vec![2], ints(&[1, 2]))], 1);
        let mapped = Mapped::new(table, &[Wanted::new("x", DType::I64, [Some(1), Some(2)])]).unwrap();
        assert_eq!(mapped.columns()[0], ColumnInfo::new("x", DType::I64, [1, 2]));
    }

    #[test]
    fn texts_that_are_no_column_maps_are_refused() {
        for text in ["x", "=a", "x=", "x=a,x=b", "x=a+", ","] {
            assert!(text.parse::<ColumnMap>().is_err(), "{text}");
        }
        let map: ColumnMap = "x=a+b".parse().unwrap();
        assert_eq!((map.of("x"), map.of("y")), (vec!["a".into(), "b".into()], vec!["y".to_owned()]));
        assert!(map.check(&[Wanted::new("y", DType::F32, [])]).unwrap_err().to_string().contains("`x`"));
    }

    proptest! {
        #[test]
        fn column_maps_survive_their_text(
            pairs in proptest::collection::btree_map("[a-z/._:]{1,6}", proptest::collection::vec("[a-z0-9_]{1,4}", 1..4), 0..5)
        ) {
            let map = ColumnMap(pairs.into_iter().collect());
            prop_assert_eq!(map.to_string().parse::<ColumnMap>().unwrap(), map);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(map) = text.parse::<ColumnMap>() {
                prop_assert_eq!(map.to_string().parse::<ColumnMap>().unwrap(), map);
            }
        }
    }
}
