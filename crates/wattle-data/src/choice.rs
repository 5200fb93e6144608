//! How a column is to be normalised, before anything is measured.

use std::fmt;
use std::str::FromStr;

use crate::column::ColumnInfo;
use crate::error::{Error, Result};
use crate::normalisation::{Normalisation, channels};
use crate::table::Table;

/// Mean and deviation of the red, green and blue channels of the ImageNet training images, of values from 0 to 1
/// (the constants of torchvision's reference models).
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// A way to normalise: `none`, `unit`, `imagenet`, `measured`, or `mean=0.5,std=0.25` with one number or one a channel
/// (`mean=0.5;0.4;0.3,std=0.2;0.2;0.2`).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum NormalisationChoice {
    /// The numbers as they are stored: the bytes of images are 0 to 255.
    None,
    /// x / 255 (of data with a full scale of its own, x / that): 0 to 1 for bytes.
    Unit,
    /// x / 255, then the mean and deviation of ImageNet's channels.
    ImageNet,
    /// These constants, one for all channels or one a channel, after bytes have become 0 to 1.
    Constants {
        /// Subtracted.
        mean: Vec<f32>,
        /// Divided by.
        std: Vec<f32>,
    },
    /// Mean and deviation of the training part.
    #[default]
    Measured,
}

impl NormalisationChoice {
    /// The constants for a column of a table, measured on the samples `train` if they are to be measured.
    ///
    /// # Errors
    /// When the choice does not fit the column, or a sample cannot be read.
    pub fn resolve(&self, table: &dyn Table, column: usize, train: &[u32]) -> Result<Normalisation> {
        let info = &table.columns()[column];
        match self.constants(table.name(), info, table.full_scale(column))? {
            Some(found) => Ok(found),
            None => {
                let found = Normalisation::measure_column(table, column, train)?;
                found.check(table.name(), info)?;
                Ok(found)
            }
        }
    }

    /// The constants for a column of numbers of this full scale; `None` where they are to be measured.
    ///
    /// # Errors
    /// When the choice does not fit the column.
    pub fn constants(
        &self,
        place: &str,
        info: &ColumnInfo,
        full_scale: f32,
    ) -> Result<Option<Normalisation>> {
        let count = channels(&info.extents);
        let scaled = if full_scale == 1.0 { 255.0 } else { full_scale };
        let found = match self {
            Self::None => Normalisation { divisor: Some(1.0), ..Normalisation::identity(count) },
            Self::Unit => Normalisation { divisor: Some(scaled), ..Normalisation::identity(count) },
            Self::ImageNet => {
                if count != 3 {
                    return Err(self.misfit(place, info, count));
                }
                let (mean, std) = (IMAGENET.0.to_vec(), IMAGENET.1.to_vec());
                Normalisation { mean, std, divisor: Some(scaled) }
            }
            Self::Constants { mean, std } => {
                let spread = |list: &[f32]| match list {
                    [one] => vec![*one; count],
                    all => all.to_vec(),
                };
                let (mean, std) = (spread(mean), spread(std));
                if mean.len() != count || std.len() != count {
                    return Err(self.misfit(place, info, count));
                }
                Normalisation { mean, std, divisor: None }
            }
            Self::Measured => return Ok(None),
        };
        found.check(place, info)?;
        Ok(Some(found))
    }

    fn misfit(&self, place: &str, column: &ColumnInfo, channels: usize) -> Error {
        Error::input(
            format_args!("{place}, column `{}`", column.name),
            format_args!("the normalisation `{self}` for samples of extents {:?}", column.extents),
        )
        .expected(format_args!("one number for all channels, or {channels}"))
    }
}

impl FromStr for NormalisationChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fault = |found: &str| {
            Error::input(format_args!("normalisation `{text}`"), found).expected(
                "none, unit, imagenet, measured, or mean=M,std=S with one number or one a channel (M;M;M)",
            )
        };
        match text {
            "none" => return Ok(Self::None),
            "unit" => return Ok(Self::Unit),
            "imagenet" => return Ok(Self::ImageNet),
            "measured" => return Ok(Self::Measured),
            _ => {}
        }
        let (mean, std) = text.split_once(',').ok_or_else(|| fault("not a normalisation"))?;
        let list = |text: &str, key: &str| -> Result<Vec<f32>> {
            let numbers = text.trim().strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
            let numbers = numbers.ok_or_else(|| fault("not a normalisation"))?;
            numbers
                .split(';')
                .map(|n| n.trim().parse().ok().filter(|x: &f32| x.is_finite()))
                .collect::<Option<_>>()
                .ok_or_else(|| fault("constants that are no numbers"))
        };
        let (mean, std) = (list(mean, "mean")?, list(std, "std")?);
        if !std.iter().all(|x| x.is_normal() && *x > 0.0) {
            return Err(fault("a deviation that is not positive"));
        }
        if mean.len() != std.len() {
            return Err(fault("means and deviations of different numbers"));
        }
        Ok(Self::Constants { mean, std })
    }
}

impl fmt::Display for NormalisationChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[f32]| numbers.iter().map(f32::to_string).collect::<Vec<_>>().join(";");
        match self {
            Self::None => f.write_str("none"),
            Self::Unit => f.write_str("unit"),
            Self::ImageNet => f.write_str("imagenet"),
            Self::Measured => f.write_str("measured"),
            Self::Constants { mean, std } => write!(f, "mean={},std={}", list(mean), list(std)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Batch, BatchOptions, Batches, Dataset, INPUT, SampleShape, Samples, Source, SourceParts, Targets,
    };
    use proptest::prelude::*;
    use std::sync::Arc;

    fn set(full_scale: u8) -> Arc<Dataset> {
        let shape = SampleShape::Image { channels: 3, height: 1, width: 1 };
        let samples = Samples::Bytes { data: vec![0, 51, 255, 255, 51, 0], full_scale };
        let targets = Targets::Values { values: vec![0.0; 2], width: 1 };
        Arc::new(Dataset::new("toy".into(), shape, samples, targets, SourceParts::undivided(2)).unwrap())
    }

    fn first(choice: &str, full_scale: u8) -> Vec<f32> {
        let set = set(full_scale);
        let by = choice.parse::<NormalisationChoice>().unwrap().resolve(&set, 0, &[0, 1]).unwrap();
        let options = BatchOptions::evaluation(1).normalised(INPUT, by);
        let mut batch = Batch::default();
        Batches::new(set, &[0], options).unwrap().fill(0, &mut batch).unwrap();
        batch.columns[0].to_f32().unwrap()
    }

    #[test]
    fn each_choice_does_what_it_says() {
        assert_eq!(first("none", 255), [0.0, 51.0, 255.0]);
        assert_eq!(first("unit", 255), [0.0, 0.2, 1.0]);
        assert_eq!(first("mean=0.5,std=0.5", 255), [-1.0, (0.2f32 - 0.5) / 0.5, 1.0]);
        assert_eq!(first("mean=0;0.2;1,std=1;1;2", 255), [0.0, 0.0, 0.0]);
        let imagenet = first("imagenet", 255);
        assert_eq!(imagenet[2], (1.0 - 0.406) / 0.225);
        assert_eq!(first("measured", 255), [-1.0, 0.0, 1.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for text in [
            "",
            "mean=1",
            "mean=1,std=0",
            "mean=1,std=-1",
            "mean=x,std=1",
            "mean=1;2,std=1",
            "std=1,mean=1",
            "Unit",
            "mean=inf,std=1",
        ] {
            assert!(text.parse::<NormalisationChoice>().is_err(), "{text}");
        }
        let choice: NormalisationChoice = "mean=1;2,std=1;1".parse().unwrap();
        let error = choice.resolve(&set(255), 0, &[0]).unwrap_err().to_string();
        assert!(error.contains("column `input`") && error.contains("or 3"), "{error}");
    }

    proptest! {
        #[test]
        fn choices_survive_their_text(constants in proptest::collection::vec((-1e9f32..1e9, 1e-9f32..1e9), 1..5)) {
            let (mean, std) = constants.into_iter().unzip();
            let choice = NormalisationChoice::Constants { mean, std };
            prop_assert_eq!(choice.to_string().parse::<NormalisationChoice>().unwrap(), choice);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(mean=|std=|[0-9.;,e-]){0,8}") {
            if let Ok(choice) = text.parse::<NormalisationChoice>() {
                prop_assert_eq!(choice.to_string().parse::<NormalisationChoice>().unwrap(), choice);
            }
        }
    }
}
