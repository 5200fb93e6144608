//! Bringing inputs to zero mean and unit variance, with constants measured on the training part only.

use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Samples};
use crate::error::{Error, Result};

/// Per-channel (images) or per-feature constants: x becomes (x - mean) / std. Part of a run's configuration and of its
/// checkpoints, because a network is only right together with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    /// Subtracted; one a channel.
    pub mean: Vec<f32>,
    /// Divided by; one a channel, positive.
    pub std: Vec<f32>,
}

impl Normalisation {
    /// Leaves inputs as they are (bytes still become byte / full scale).
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// Mean and population standard deviation of the samples `indices`, which must be the training part. A channel
    /// that is constant gets a standard deviation of 1, so that it becomes 0 and not a division by zero.
    pub fn measure(dataset: &Dataset, indices: &[u32]) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::input(&dataset.name, "no samples to measure mean and deviation on"));
        }
        let count = indices.len() as f64 * dataset.shape.channel_elements() as f64;
        let (mean, variance): (Vec<f64>, Vec<f64>) = match &dataset.samples {
            Samples::Bytes { full_scale, .. } => {
                byte_moments(dataset, indices, f64::from(*full_scale), count)?
            }
            Samples::Files(_) => byte_moments(dataset, indices, 255.0, count)?,
            Samples::Floats(values) => float_moments(dataset, values, indices, count),
        };
        let deviation = |variance: f64| if variance > 1e-12 { variance.sqrt() as f32 } else { 1.0 };
        Ok(Self {
            mean: mean.into_iter().map(|m| m as f32).collect(),
            std: variance.into_iter().map(deviation).collect(),
        })
    }

    /// Refuses constants that do not fit the data set, or that would produce infinities.
    pub fn check(&self, dataset: &Dataset) -> Result<()> {
        let channels = dataset.shape.channels();
        let fits = self.mean.len() == channels && self.std.len() == channels;
        if !fits
            || !self.mean.iter().all(|m| m.is_finite())
            || !self.std.iter().all(|s| s.is_normal() && *s > 0.0)
        {
            return Err(Error::input(&dataset.name, format_args!("a normalisation by {self:?}"))
                .expected(format_args!("{channels} finite means and {channels} positive deviations")));
        }
        Ok(())
    }
}

/// Exact integer sums: the result cannot depend on the order of the samples.
fn byte_moments(
    dataset: &Dataset,
    indices: &[u32],
    full_scale: f64,
    count: f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (channels, elements) = (dataset.shape.channels(), dataset.shape.elements());
    let mut sums = vec![(0u64, 0u64); channels];
    let mut buffer = vec![0; elements];
    for &index in indices {
        let sample = match &dataset.samples {
            Samples::Files(files) => {
                files.decode(index as usize, &mut buffer)?;
                &buffer
            }
            Samples::Bytes { data, .. } => &data[index as usize * elements..][..elements],
            Samples::Floats(_) => &[],
        };
        for ((sum, squares), plane) in
            sums.iter_mut().zip(sample.chunks_exact(dataset.shape.channel_elements()))
        {
            for &byte in plane {
                *sum += u64::from(byte);
                *squares += u64::from(byte) * u64::from(byte);
            }
        }
    }
    let moments = |(sum, squares): (u64, u64)| {
        let mean = sum as f64 / count;
        (mean / full_scale, (squares as f64 / count - mean * mean) / (full_scale * full_scale))
    };
    Ok(sums.into_iter().map(moments).unzip())
}

/// Two passes in f64, against cancellation in features far from zero.
fn float_moments(dataset: &Dataset, values: &[f32], indices: &[u32], count: f64) -> (Vec<f64>, Vec<f64>) {
    let (elements, plane) = (dataset.shape.elements(), dataset.shape.channel_elements());
    let fold = |term: &dyn Fn(usize, f64) -> f64| {
        let mut sums = vec![0f64; dataset.shape.channels()];
        for &index in indices {
            let sample = &values[index as usize * elements..][..elements];
            for (channel, (sum, plane)) in sums.iter_mut().zip(sample.chunks_exact(plane)).enumerate() {
                *sum += plane.iter().map(|&x| term(channel, f64::from(x))).sum::<f64>();
            }
        }
        sums.into_iter().map(|sum| sum / count).collect::<Vec<f64>>()
    };
    let mean = fold(&|_, x| x);
    let variance = fold(&|channel, x| (x - mean[channel]).powi(2));
    (mean, variance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SampleShape, SourceParts, Targets};

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
        found.check(&set).unwrap();
        assert!(Normalisation::identity(1).check(&set).is_err());
        assert!(Normalisation { mean: vec![0.0; 2], std: vec![1.0, 0.0] }.check(&set).is_err());
    }

    #[test]
    fn features_far_from_zero_keep_their_deviation() {
        let values = vec![1e6, 1.0, 1e6 + 1.0, 3.0];
        let set = set(SampleShape::Features(2), Samples::Floats(values), 2);
        let found = Normalisation::measure(&set, &[0, 1]).unwrap();
        assert_eq!((found.mean, found.std), (vec![1e6 + 0.5, 2.0], vec![0.5, 1.0]));
    }
}
