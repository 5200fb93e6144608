//! Classes numbered as a model numbers them, whatever their order in the data.

use std::sync::Arc;

use wattle_graph::DType;

use crate::column::ColumnInfo;
use crate::dataset::SourceParts;
use crate::error::Result;
use crate::table::{Classes, Picture, Table};

/// A table whose labels are places among given names.
#[derive(Debug)]
pub struct Relabelled {
    table: Arc<dyn Table>,
    names: Vec<String>,
    labels: Vec<u32>,
    /// For each class of `table` its place among `names`.
    places: Vec<u32>,
}

/// A table with classes that nobody knows.
#[derive(Debug)]
pub struct Strangers {
    /// As it was given.
    pub table: Arc<dyn Table>,
    /// Those classes, by name.
    pub names: Vec<String>,
}

impl Relabelled {
    /// The table with its classes numbered as in `names`, by their names; as it is where it has no classes, theirs are
    /// numbers that stand for themselves, or all have their places already.
    ///
    /// # Errors
    /// The classes that are not among `names`, with the table as it is.
    pub fn by_name(
        table: Arc<dyn Table>,
        names: &[String],
    ) -> std::result::Result<Arc<dyn Table>, Strangers> {
        let target = table.inputs();
        let is_class = table.columns().get(target).is_some_and(|column| column.dtype == DType::I64);
        let Some(classes) = table.classes().filter(|_| is_class && !names.is_empty()) else {
            return Ok(table);
        };
        let is_numbered = classes.names.iter().enumerate().all(|(place, name)| *name == place.to_string());
        if is_numbered || names.starts_with(classes.names) {
            return Ok(table);
        }
        let place = |name: &String| names.iter().position(|known| known == name);
        let strangers: Vec<String> = classes.names.iter().filter(|n| place(n).is_none()).cloned().collect();
        if !strangers.is_empty() {
            return Err(Strangers { table, names: strangers });
        }
        let places: Vec<u32> = classes.names.iter().filter_map(place).map(|place| place as u32).collect();
        let labels = classes.labels.iter().map(|&label| places[label as usize]).collect();
        Ok(Arc::new(Relabelled { table, names: names.to_vec(), labels, places }))
    }
}

impl Table for Relabelled {
    fn name(&self) -> &str {
        self.table.name()
    }

    fn columns(&self) -> &[ColumnInfo] {
        self.table.columns()
    }

    fn inputs(&self) -> usize {
        self.table.inputs()
    }

    fn count(&self) -> usize {
        self.table.count()
    }

    fn parts(&self) -> &SourceParts {
        self.table.parts()
    }

    fn read(&self, sample: usize, column: usize, out: &mut [u8]) -> Result<()> {
        if column != self.inputs() {
            return self.table.read(sample, column, out);
        }
        out.copy_from_slice(&i64::from(self.labels[sample]).to_ne_bytes());
        Ok(())
    }

    fn full_scale(&self, column: usize) -> f32 {
        self.table.full_scale(column)
    }

    fn is_measured(&self, column: usize) -> bool {
        self.table.is_measured(column)
    }

    fn picture(&self, column: usize) -> Option<Picture> {
        self.table.picture(column)
    }

    fn label_range(&self, column: usize) -> Option<(i64, i64)> {
        if column != self.inputs() {
            return self.table.label_range(column);
        }
        Some((i64::from(*self.labels.iter().min()?), i64::from(*self.labels.iter().max()?)))
    }

    fn own_name(&self, column: usize) -> &str {
        self.table.own_name(column)
    }

    fn ignored(&self) -> Option<i64> {
        self.table.ignored()
    }

    fn length(&self, sample: usize) -> Option<usize> {
        self.table.length(sample)
    }

    fn is_sequence(&self, column: usize) -> bool {
        self.table.is_sequence(column)
    }

    fn classes(&self) -> Option<Classes<'_>> {
        Some(Classes { labels: &self.labels, names: &self.names })
    }

    fn remarks(&self) -> &[String] {
        self.table.remarks()
    }

    fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.table.fingerprint().as_bytes());
        hasher.update(format!("classes {:?} of {:?}", self.places, self.names).as_bytes());
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{Columns, Field, Memory, Parts};

    fn table(names: &[&str], labels: &[i64]) -> Arc<dyn Table> {
        let field = |name: &str| {
            Field::new(ColumnInfo::new(name, DType::I64, []), Memory::integers(labels), "column")
        };
        let parts = SourceParts::undivided(labels.len());
        let class_names = Some(names.iter().map(|n| n.to_string()).collect());
        let parts = Parts { class_names, ..Parts::of("toy", vec![field("x")], vec![field("y")], parts) };
        Arc::new(Columns::new(parts, labels.len()).unwrap())
    }

    #[test]
    fn labels_follow_the_names_and_strangers_are_named() {
        let names = ["ant", "bee", "cat"].map(String::from);
        let found = Relabelled::by_name(table(&["cat", "bee"], &[0, 1, 1]), &names).unwrap();
        let classes = found.classes().unwrap();
        assert_eq!((classes.labels, classes.names), (&[2, 1, 1][..], &names[..]));
        let mut label = [0; 8];
        found.read(0, 1, &mut label).unwrap();
        assert_eq!((i64::from_ne_bytes(label), found.label_range(1)), (2, Some((1, 2))));
        found.read(0, 0, &mut label).unwrap();
        assert_eq!(i64::from_ne_bytes(label), 0, "inputs stay what they are");
        assert_ne!(found.fingerprint(), table(&["cat", "bee"], &[0, 1, 1]).fingerprint());
        let strange = Relabelled::by_name(table(&["bee", "zebra"], &[0, 1]), &names).unwrap_err();
        assert_eq!(strange.names, ["zebra"]);
    }

    #[test]
    fn classes_in_their_places_and_numbers_stay() {
        let names = ["ant", "bee", "cat"].map(String::from);
        for own in [["ant", "bee"], ["0", "1"]] {
            let before = table(&own, &[0, 1]);
            let found = Relabelled::by_name(before.clone(), &names).unwrap();
            assert_eq!((found.fingerprint(), found.classes()), (before.fingerprint(), before.classes()));
        }
    }
}
