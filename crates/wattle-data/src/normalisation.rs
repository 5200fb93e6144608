//! Bringing inputs to zero mean and unit variance, with constants measured on the training part only.

use serde::{Deserialize, Serialize};
use wattle_graph::DType;

use crate::column::{Column, ColumnInfo};
use crate::error::{Error, Result};
use crate::table::Table;

/// Constants of a column, one a channel: a number x becomes (x / divisor - mean) / std. Part of a run's configuration, of
/// its checkpoints and of the model it writes, because a network is only right together with them.
///
/// The channels are the first axis of pictures and volumes (three axes or more) and the single numbers of a row (one
/// axis); anything else is one channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    /// Subtracted; one a channel.
    pub mean: Vec<f32>,
    /// Divided by; one a channel, positive.
    pub std: Vec<f32>,
    /// What numbers are divided by first. By default the full scale of the data they come from ([`Table::full_scale`]),
    /// so that 1 is white in a photograph and in the digits; 1 takes them as they are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divisor: Option<f32>,
}

impl Normalisation {
    /// Divides by the full scale of the data and does nothing else.
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels], divisor: None }
    }

    /// [`Normalisation::measure_column`] of the first column, the input of a table that has one.
    ///
    /// # Errors
    /// As that.
    pub fn measure(table: &dyn Table, indices: &[u32]) -> Result<Self> {
        Self::measure_column(table, 0, indices)
    }

    /// Mean and population standard deviation of a column over the samples `indices`, which must be the training part. A
    /// channel that is constant gets a standard deviation of 1, so that it becomes 0 and not a division by zero.
    ///
    /// # Errors
    /// When there are no samples, the column is not of floats, or a sample cannot be read.
    pub fn measure_column(table: &dyn Table, column: usize, indices: &[u32]) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::input(table.name(), "no samples to measure mean and deviation on"));
        }
        let info = &table.columns()[column];
        if info.dtype != DType::F32 {
            return Err(not_normalisable(table.name(), info));
        }
        let full_scale = table.full_scale(column);
        let (mean, variance): (Vec<f64>, Vec<f64>) = if full_scale == 1.0 {
            float_moments(table, column, indices)?
        } else {
            byte_moments(table, column, indices, f64::from(full_scale))?
        };
        let deviation = |variance: f64| if variance > 1e-12 { variance.sqrt() as f32 } else { 1.0 };
        Ok(Self {
            mean: mean.into_iter().map(|m| m as f32).collect(),
            std: variance.into_iter().map(deviation).collect(),
            divisor: None,
        })
    }

    /// Refuses constants that do not fit a column, or that would produce infinities.
    ///
    /// # Errors
    /// Then, at `place`.
    pub fn check(&self, place: &str, column: &ColumnInfo) -> Result<()> {
        if column.dtype != DType::F32 {
            return Err(not_normalisable(place, column));
        }
        let channels = channels(&column.extents);
        let positive = |x: &f32| x.is_normal() && *x > 0.0;
        let fits = self.mean.len() == channels && self.std.len() == channels;
        if !fits
            || !self.mean.iter().all(|m| m.is_finite())
            || !self.std.iter().all(positive)
            || !self.divisor.iter().all(positive)
        {
            return Err(Error::input(
                format_args!("{place}, column `{}`", column.name),
                format_args!("a normalisation by {self:?}"),
            )
            .expected(format_args!("{channels} finite means and {channels} positive deviations")));
        }
        Ok(())
    }

    /// Normalises a column of `f32` whose numbers have this full scale.
    ///
    /// # Errors
    /// As [`Normalisation::check`], at `place`.
    pub fn normalise(&self, place: &str, full_scale: f32, column: &mut Column) -> Result<()> {
        let sample = column.extents.get(1..).unwrap_or_default();
        self.check(place, &ColumnInfo::new(&column.name, column.dtype, sample))?;
        let count = column.extents.first().copied().unwrap_or(1);
        let bytes = column.bytes.len() / count.max(1);
        for sample in column.bytes.chunks_exact_mut(bytes.max(1)) {
            self.apply(self.divisor.unwrap_or(full_scale), sample);
        }
        Ok(())
    }

    /// Normalises the bytes of one sample's column, which [`Normalisation::check`] has found fitting.
    pub(crate) fn apply(&self, divisor: f32, column: &mut [u8]) {
        let plane = column.len() / self.mean.len().max(1);
        if plane == 0 {
            return;
        }
        for ((plane, mean), std) in column.chunks_exact_mut(plane).zip(&self.mean).zip(&self.std) {
            for element in plane.as_chunks_mut::<4>().0 {
                *element = ((f32::from_ne_bytes(*element) / divisor - mean) / std).to_ne_bytes();
            }
        }
    }

    /// The constants as one line of JSON, for a model's metadata: `{"mean":[0.5],"std":[0.25]}`.
    pub fn to_json(&self) -> String {
        let numbers = |list: &[f32]| list.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
        let divisor = self.divisor.map_or(String::new(), |d| format!(",\"divisor\":{d}"));
        format!("{{\"mean\":[{}],\"std\":[{}]{divisor}}}", numbers(&self.mean), numbers(&self.std))
    }

    /// Reads what [`Normalisation::to_json`] wrote.
    ///
    /// # Errors
    /// When the text is not that, or its numbers cannot normalise anything.
    pub fn from_json(text: &str) -> Result<Self> {
        let fault = |found: String| {
            Error::input("the normalisation", found).expected(r#"{"mean":[0.5],"std":[0.25]}"#)
        };
        let found: Self = serde_json::from_str(text).map_err(|error| fault(error.to_string()))?;
        let positive = |x: &f32| x.is_normal() && *x > 0.0;
        let usable = !found.mean.is_empty()
            && found.mean.len() == found.std.len()
            && found.mean.iter().all(|m| m.is_finite())
            && found.std.iter().chain(&found.divisor).all(positive);
        if usable { Ok(found) } else { Err(fault(format!("`{text}`"))) }
    }
}

fn not_normalisable(place: &str, column: &ColumnInfo) -> Error {
    Error::input(
        format_args!("{place}, column `{}`", column.name),
        format_args!("a normalisation of {} elements", column.dtype),
    )
    .expected("f32 elements")
    .remedy("leave columns of integers as they are")
}

/// Groups of numbers that are normalised together.
pub(crate) fn channels(extents: &[usize]) -> usize {
    match extents {
        [features] => *features,
        [channels, _, _, ..] => *channels,
        _ => 1,
    }
}

/// Numbers a channel, over all samples.
fn population(table: &dyn Table, column: usize, indices: &[u32]) -> f64 {
    let info = &table.columns()[column];
    indices.len() as f64 * (info.elements() / channels(&info.extents).max(1)) as f64
}

/// Gives `see` every channel of every sample.
fn each_plane(
    table: &dyn Table,
    column: usize,
    indices: &[u32],
    mut see: impl FnMut(usize, &[[u8; 4]]),
) -> Result<()> {
    let info = &table.columns()[column];
    let plane = info.bytes() / channels(&info.extents).max(1);
    let mut sample = vec![0; info.bytes()];
    for &index in indices {
        table.read(index as usize, column, &mut sample)?;
        for (channel, plane) in sample.chunks_exact(plane.max(1)).enumerate() {
            see(channel, plane.as_chunks().0);
        }
    }
    Ok(())
}

/// Exact integer sums: the result cannot depend on the order of the samples.
fn byte_moments(
    table: &dyn Table,
    column: usize,
    indices: &[u32],
    full_scale: f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let count = population(table, column, indices);
    let mut sums = vec![(0u64, 0u64); channels(&table.columns()[column].extents)];
    each_plane(table, column, indices, |channel, plane| {
        let (sum, squares) = &mut sums[channel];
        for element in plane {
            let byte = f32::from_ne_bytes(*element) as u64;
            *sum += byte;
            *squares += byte * byte;
        }
    })?;
    let moments = |(sum, squares): (u64, u64)| {
        let mean = sum as f64 / count;
        (mean / full_scale, (squares as f64 / count - mean * mean) / (full_scale * full_scale))
    };
    Ok(sums.into_iter().map(moments).unzip())
}

/// Two passes in f64, against cancellation in features far from zero.
fn float_moments(table: &dyn Table, column: usize, indices: &[u32]) -> Result<(Vec<f64>, Vec<f64>)> {
    let count = population(table, column, indices);
    let fold = |term: &dyn Fn(usize, f64) -> f64| -> Result<Vec<f64>> {
        let mut sums = vec![0f64; channels(&table.columns()[column].extents)];
        each_plane(table, column, indices, |channel, plane| {
            sums[channel] +=
                plane.iter().map(|x| term(channel, f64::from(f32::from_ne_bytes(*x)))).sum::<f64>();
        })?;
        Ok(sums.into_iter().map(|sum| sum / count).collect())
    };
    let mean = fold(&|_, x| x)?;
    let variance = fold(&|channel, x| (x - mean[channel]).powi(2))?;
    Ok((mean, variance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, SampleShape, Samples, SourceParts, Targets};

    fn set(shape: SampleShape, samples: Samples, count: usize) -> Dataset {
        let targets = Targets::Values { values: vec![0.0; count], width: 1 };
        Dataset::new("toy".into(), shape, samples, targets, SourceParts::undivided(count)).unwrap()
    }

    #[test]
    fn only_the_samples_named_are_measured() {
        let shape = SampleShape::Image { channels: 2, height: 1, width: 2 };
        let data = vec![0, 10, 16, 16, 2, 4, 16, 16, 99, 99, 99, 99];
        let set = set(shape, Samples::Bytes { data, full_scale: 16 }, 3);
        let found = Normalisation::measure(&set, &[0, 1]).unwrap();
        assert_eq!(found.mean, [0.25, 1.0]);
        assert!((found.std[0] - 14f32.sqrt() / 16.0).abs() < 1e-7);
        assert_eq!(found.std[1], 1.0, "a constant channel is not divided by zero");
        let column = &set.columns()[0];
        found.check("toy", column).unwrap();
        assert!(Normalisation::identity(1).check("toy", column).is_err());
        let zero = Normalisation { std: vec![1.0, 0.0], ..found };
        assert!(zero.check("toy", column).is_err());
    }

    #[test]
    fn features_far_from_zero_keep_their_deviation() {
        let values = vec![1e6, 1.0, 1e6 + 1.0, 3.0];
        let set = set(SampleShape::Features(2), Samples::Floats(values), 2);
        let found = Normalisation::measure(&set, &[0, 1]).unwrap();
        assert_eq!((found.mean, found.std), (vec![1e6 + 0.5, 2.0], vec![0.5, 1.0]));
    }

    #[test]
    fn constants_survive_the_metadata_of_a_model_to_the_bit() {
        for divisor in [None, Some(255.0)] {
            let found = Normalisation { mean: vec![0.1, -1e-20], std: vec![1.0 / 3.0, 7e30], divisor };
            assert_eq!(Normalisation::from_json(&found.to_json()).unwrap(), found);
        }
        for text in
            ["", "[]", r#"{"mean":[0],"std":[0]}"#, r#"{"mean":[],"std":[]}"#, r#"{"mean":[1],"std":[1,2]}"#]
        {
            assert!(Normalisation::from_json(text).is_err(), "{text}");
        }
    }
}
