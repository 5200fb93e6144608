//! How the training samples divide into batches, and what is left over.

use wattle_train::experiment::Experiment;
use wattle_train::options::TrainOptions;

use super::learning::LearningOptions;

/// Share of an epoch that may be left out without a word.
const QUIET: f64 = 0.1;

/// Where nobody asked for a batch and the usual one is larger than the data, all samples are one batch; says so.
pub fn fit_batch(options: &mut TrainOptions, asked: &LearningOptions, samples: usize) -> Option<String> {
    if asked.batch.is_some() || samples == 0 || options.batch <= samples {
        return None;
    }
    let usual = std::mem::replace(&mut options.batch, samples);
    Some(format!("batches have all {samples} training samples: there are fewer than the usual {usual}"))
}

/// A sentence where much of every epoch is left out because it does not fill the last step.
pub fn left_out(experiment: &Experiment, samples: usize) -> Option<String> {
    let TrainOptions { batch, accumulate, .. } = &experiment.options;
    let (samples, batch) = (samples as u64, *batch as u64);
    // A source that makes its batches otherwise knows how many there are.
    if experiment.data.epoch_len() != samples.checked_div(batch)? {
        return None;
    }
    let step = batch.checked_mul(*accumulate)?;
    let rest = samples.checked_rem(step)?;
    (rest as f64 > QUIET * samples as f64 && rest < samples).then(|| {
        format!(
            "each epoch leaves out {rest} of {samples} training samples, others each time: steps of {step} do not \
             divide them"
        )
    })
}
