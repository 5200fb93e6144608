//! A data set of one input and one target a sample, as sources of batches.

use std::sync::Arc;

use wattle_data::error::{Error, Result};
use wattle_data::{BatchOptions, Batches, Dataset, INPUT, Normalisation, Source};

use crate::options::TrainOptions;

/// What is trained on: a data set, the samples to see, and the constants that normalise them.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// All samples.
    pub dataset: Arc<Dataset>,
    /// The training part.
    pub indices: Vec<u32>,
    /// Measured on the training part.
    pub normalisation: Normalisation,
}

/// Most samples in a batch that is only looked at.
const EVALUATION_BATCH: usize = 256;

impl TrainingData {
    /// The training part in shuffled, augmented, normalised batches.
    pub fn source(&self, options: &TrainOptions) -> Result<Arc<dyn Source>> {
        let (batch, count) = (options.batch, self.indices.len());
        if batch == 0 || batch > count {
            let found = format!("a batch of {batch} from {count} training samples");
            return Err(Error::input("option `batch`", found)
                .expected("at least one, and at most as many as there are samples"));
        }
        let batches = BatchOptions::training(batch, options.seed, options.augmentation)
            .normalised(INPUT, self.normalisation.clone());
        Ok(Arc::new(Batches::new(self.dataset.clone(), &self.indices, batches)?))
    }

    /// Some samples as they are, normalised, each once.
    pub fn part(&self, indices: &[u32]) -> Result<Arc<dyn Source>> {
        let batches = BatchOptions::evaluation(indices.len().clamp(1, EVALUATION_BATCH))
            .normalised(INPUT, self.normalisation.clone());
        Ok(Arc::new(Batches::new(self.dataset.clone(), indices, batches)?))
    }
}
