//! Reading the tables that are compiled into the program: CSV with a heading, checked by tests.

use serde::de::DeserializeOwned;

/// The rows of an embedded table.
///
/// # Panics
/// When the table does not fit its row type: every embedded table is read by a test, so a build that passed its
/// tests cannot get here.
pub(crate) fn rows<Row: DeserializeOwned>(name: &str, text: &str) -> Vec<Row> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows: Result<Vec<Row>, _> = reader.deserialize().collect();
    rows.unwrap_or_else(|error| panic!("the embedded table {name}: {error}"))
}
