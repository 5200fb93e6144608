//! Points to fit: how wrong a model is, and how much computation it took.

use std::io::Read;

use serde::Deserialize;

/// One model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Point {
    /// 1 - score, above 0 and at most 1.
    pub performance_error: f64,
    /// GFLOP: either operations, or processors x peak GFLOP/s x seconds; the same for all points of a file.
    pub compute_gflop: f64,
    /// Of publication.
    pub year: Option<u16>,
    /// Its name.
    pub model: Option<String>,
}

/// A table of points that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PointsError {
    /// Not a CSV file with the columns that are needed.
    #[error(
        "{0}; expected a CSV file with the columns performance_error, compute_gflop and perhaps year, model"
    )]
    Csv(#[from] csv::Error),
    /// A number outside its range.
    #[error("row {row}: {column} = {found}; expected {expected}")]
    Range {
        /// Row of the file, the heading being the first.
        row: usize,
        /// Column.
        column: &'static str,
        /// What stands there.
        found: f64,
        /// What should.
        expected: &'static str,
    },
}

/// Reads points from CSV with a heading; further columns are ignored.
///
/// # Errors
/// [`PointsError`] with the row and column.
pub fn read(input: impl Read) -> Result<Vec<Point>, PointsError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
    let mut points = vec![];
    for (index, row) in reader.deserialize().enumerate() {
        let point: Point = row?;
        let wrong = |column, found, expected| PointsError::Range { row: index + 2, column, found, expected };
        if !(point.performance_error > 0.0 && point.performance_error <= 1.0) {
            return Err(wrong("performance_error", point.performance_error, "a fraction above 0, at most 1"));
        }
        if !(point.compute_gflop > 0.0 && point.compute_gflop.is_finite()) {
            return Err(wrong("compute_gflop", point.compute_gflop, "a positive number of GFLOP"));
        }
        points.push(point);
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let text = "model,compute_gflop,performance_error\n\"a, b\",1e3,0.5\nc, 2e3 ,0.25\n";
        let points = read(text.as_bytes()).unwrap();
        assert_eq!((points.len(), points[1].compute_gflop, points[0].year), (2, 2000.0, None));
        assert_eq!(points[0].model.as_deref(), Some("a, b"));
    }

    #[test]
    fn percent_for_fractions_and_other_slips_are_refused_with_their_row() {
        let error = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        let found = error("performance_error,compute_gflop\n0.1,1\n11.5,1\n");
        assert!(found.contains("row 3") && found.contains("11.5") && found.contains("fraction"), "{found}");
        assert!(error("performance_error,compute_gflop\n0.1,0\n").contains("compute_gflop"));
        assert!(error("error,gflop\n0.1,1\n").contains("performance_error"));
        assert!(error("performance_error,compute_gflop\n0.1\n").contains("columns"));
    }
}
