//! What a model's inputs are normalised with, and who says so.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use wattle_data::{ModelNotes, Normalisation, NormalisationChoice, Table};

use crate::error::{JobError, Result};

/// What an input is normalised with: a number x becomes (x / divisor - mean) / deviation.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalised {
    /// The constants, one a channel.
    pub constants: Normalisation,
    /// What numbers are divided by first where the constants do not say.
    pub full_scale: f32,
    /// Who says so.
    pub source: NormalisedBy,
}

/// Who says what an input is normalised with.
#[derive(Clone, Debug, PartialEq)]
pub enum NormalisedBy {
    /// The metadata of the model's file.
    Metadata,
    /// An option.
    Asked(NormalisationChoice),
    /// The training part of the data of this name.
    Measured(String),
    /// Nobody: arrays of floats, and integers, are what the model takes.
    Stored,
}

impl Normalised {
    /// What numbers are divided by first.
    pub fn divisor(&self) -> f32 {
        self.constants.divisor.unwrap_or(self.full_scale)
    }

    /// Whether numbers reach the model as the data store them.
    pub fn is_identity(&self) -> bool {
        self.divisor() == 1.0 && self.shifts_nothing()
    }

    /// Whether the same is done to numbers.
    pub fn is_same(&self, other: &Normalised) -> bool {
        let (a, b) = (&self.constants, &other.constants);
        self.divisor() == other.divisor() && a.mean == b.mean && a.std == b.std
    }

    fn shifts_nothing(&self) -> bool {
        let Normalisation { mean, std, .. } = &self.constants;
        mean.iter().all(|m| *m == 0.0) && std.iter().all(|s| *s == 1.0)
    }
}

impl fmt::Display for Normalised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divisor = self.divisor();
        match (self.shifts_nothing(), divisor == 1.0) {
            (true, true) => f.write_str("numbers as they are stored")?,
            (true, false) => write!(f, "numbers divided by {divisor}")?,
            (false, divided) => {
                let Normalisation { mean, std, .. } = &self.constants;
                write!(f, "mean {}, deviation {}", listed(mean), listed(std))?;
                if !divided {
                    write!(f, " of numbers divided by {divisor}")?;
                }
            }
        }
        write!(f, "; {}", self.source)
    }
}

/// A few numbers, or the range of many.
fn listed(numbers: &[f32]) -> String {
    if numbers.len() <= 4 {
        return numbers.iter().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join("/");
    }
    let (least, most) = (numbers.iter().copied().reduce(f32::min), numbers.iter().copied().reduce(f32::max));
    format!("{:.4} to {:.4}", least.unwrap_or_default(), most.unwrap_or_default())
}

impl fmt::Display for NormalisedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NormalisedBy::Metadata => f.write_str("the model's metadata"),
            NormalisedBy::Asked(choice) => write!(f, "asked for ({choice})"),
            NormalisedBy::Measured(data) => write!(f, "measured on the training part of {data}"),
            NormalisedBy::Stored => f.write_str("nobody says otherwise"),
        }
    }
}

impl Serialize for Normalised {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut document = to.serialize_struct("Normalised", 4)?;
        document.serialize_field("mean", &self.constants.mean)?;
        document.serialize_field("std", &self.constants.std)?;
        document.serialize_field("divisor", &self.divisor())?;
        document.serialize_field("source", &self.source.to_string())?;
        document.end()
    }
}

/// What decides how inputs are normalised. What is asked for wins over the model's metadata, which win over what is
/// measured.
pub struct Known<'a> {
    /// What the model's file says.
    pub notes: &'a ModelNotes,
    /// What is asked for.
    pub asked: Option<&'a NormalisationChoice>,
    /// The samples.
    pub table: &'a dyn Table,
    /// Those that are measured.
    pub train: &'a [u32],
}

impl Known<'_> {
    /// What the input that column `place` feeds is normalised with; also a sentence where the metadata say otherwise than
    /// the option. Where nobody says anything it is measured, or else taken as stored.
    ///
    /// # Errors
    /// If the constants do not fit the column, or a sample cannot be read.
    pub fn input(&self, input: &str, place: usize, measured: bool) -> Result<(Normalised, Option<String>)> {
        let table = self.table;
        let resolve = |choice: &NormalisationChoice| choice.resolve(table, place, self.train);
        let by = |constants, source| Normalised { constants, full_scale: table.full_scale(place), source };
        let noted = match self.notes.normalisation.get(input) {
            Some(constants) => {
                let fits = constants.check(table.name(), &table.columns()[place]);
                if self.asked.is_none() {
                    fits.map_err(|error| JobError::from(error).context("the model's metadata"))?;
                }
                Some(by(constants.clone(), NormalisedBy::Metadata))
            }
            None => None,
        };
        Ok(match (self.asked, noted) {
            (Some(choice), noted) => {
                let found = by(resolve(choice)?, NormalisedBy::Asked(choice.clone()));
                let differs = noted.filter(|noted| !noted.is_same(&found));
                let told = differs.map(|noted| {
                    format!(
                        "input `{input}` is normalised as asked for; the model's file says otherwise: {noted}"
                    )
                });
                (found, told)
            }
            (None, Some(noted)) => (noted, None),
            (None, None) if measured => {
                let found = resolve(&NormalisationChoice::Measured)?;
                (by(found, NormalisedBy::Measured(table.name().to_owned())), None)
            }
            (None, None) => (by(resolve(&NormalisationChoice::None)?, NormalisedBy::Stored), None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_data::{DataSpec, LoadOptions, SplitOptions, Splits};

    #[test]
    fn an_option_wins_over_the_metadata_and_says_so_and_they_win_over_measuring() {
        let digits = DataSpec::Digits.load(&LoadOptions::default()).unwrap();
        let splits = Splits::new(&digits, &SplitOptions::default()).unwrap();
        let noted = Normalisation { mean: vec![0.5], std: vec![0.25], divisor: None };
        let notes = ModelNotes { normalisation: [("x".to_string(), noted)].into(), classes: vec![] };
        let unit = NormalisationChoice::Unit;
        let found = |input: &str, asked| {
            let known = Known { notes: &notes, asked, table: &digits, train: splits.train() };
            known.input(input, 0, true).unwrap()
        };
        let (by_file, told) = found("x", None);
        assert_eq!((by_file.constants.mean[0], &by_file.source, told), (0.5, &NormalisedBy::Metadata, None));
        assert_eq!(
            by_file.to_string(),
            "mean 0.5000, deviation 0.2500 of numbers divided by 16; the model's metadata"
        );
        let (asked, told) = found("x", Some(&unit));
        assert_eq!(asked.to_string(), "numbers divided by 16; asked for (unit)");
        assert!(told.unwrap().contains("`x`"));
        assert_eq!(found("y", Some(&unit)).1, None);
        let (measured, _) = found("y", None);
        assert_eq!(measured.source, NormalisedBy::Measured("digits".into()));
        assert!(measured.constants.mean[0] > 0.2 && measured.constants.mean[0] < 0.4);
        let document = serde_json::to_value(&measured).unwrap();
        assert_eq!((&document["divisor"], document["std"].as_array().unwrap().len()), (&16.0.into(), 1));
    }

    #[test]
    fn metadata_for_other_samples_are_refused_by_name() {
        let digits = DataSpec::Digits.load(&LoadOptions::default()).unwrap();
        let notes = ModelNotes {
            normalisation: [("x".to_string(), Normalisation::identity(3))].into(),
            classes: vec![],
        };
        let known = Known { notes: &notes, asked: None, table: &digits, train: &[0] };
        let error = known.input("x", 0, true).unwrap_err().to_string();
        assert!(error.contains("the model's metadata") && error.contains("1 finite means"), "{error}");
    }
}
