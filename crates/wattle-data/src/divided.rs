//! A table that is ready to be learnt from: divided, its float inputs normalised, its parts as sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use wattle_graph::DType;

use crate::augmentation::Augmentation;
use crate::batches::{BatchOptions, Batches};
use crate::choice::NormalisationChoice;
use crate::error::{Error, Result};
use crate::normalisation::Normalisation;
use crate::source::Source;
use crate::split::{SplitOptions, Splits};
use crate::table::Table;

/// A table, its parts, and the constants of its float inputs, measured on the training part where they are measured.
#[derive(Debug)]
pub struct Divided {
    /// The samples.
    pub table: Arc<dyn Table>,
    /// Which of them are for what.
    pub splits: Splits,
    /// The constants of each input that is normalised, by its column's name: for the run's configuration and the metadata
    /// of the model.
    pub normalisation: BTreeMap<String, Normalisation>,
}

impl Divided {
    /// Divides a table and normalises its `f32` inputs, each by the choice for its name, else by `otherwise` if its
    /// numbers are measurements ([`Table::is_measured`]).
    ///
    /// # Errors
    /// When the options do not fit the table, a choice is for no such input, or a sample cannot be read.
    pub fn new(
        table: Arc<dyn Table>,
        split: &SplitOptions,
        choices: &BTreeMap<String, NormalisationChoice>,
        otherwise: &NormalisationChoice,
    ) -> Result<Self> {
        let splits = Splits::new(&table, split)?;
        let mut normalisation = BTreeMap::new();
        let inputs = &table.columns()[..table.inputs()];
        for (place, column) in inputs.iter().enumerate() {
            let chosen = choices.get(&column.name);
            if chosen.is_some() || (column.dtype == DType::F32 && table.is_measured(place)) {
                let found = chosen.unwrap_or(otherwise).resolve(&table, place, splits.train())?;
                normalisation.insert(column.name.clone(), found);
            }
        }
        if let Some(strange) = choices.keys().find(|name| !normalisation.contains_key(*name)) {
            let known = crate::batches::names(inputs.iter().map(|column| column.name.as_str()));
            return Err(Error::input(
                table.name(),
                format_args!("a normalisation of `{strange}`, which is no input"),
            )
            .expected(known));
        }
        Ok(Self { table, splits, normalisation })
    }

    /// The training part in a new order every epoch, augmented, the rest of an epoch dropped.
    ///
    /// # Errors
    /// When it does not fill a batch, or the augmentation does not fit.
    pub fn training(&self, batch: usize, seed: u64, augmentation: Augmentation) -> Result<Arc<dyn Source>> {
        self.source(self.splits.train(), BatchOptions::training(batch, seed, augmentation))
    }

    /// Some samples, each once, in their order.
    ///
    /// # Errors
    /// When there are none.
    pub fn part(&self, samples: &[u32], batch: usize) -> Result<Arc<dyn Source>> {
        self.source(samples, BatchOptions::evaluation(batch))
    }

    /// The validation part, each sample once.
    ///
    /// # Errors
    /// When it is empty.
    pub fn validation(&self, batch: usize) -> Result<Arc<dyn Source>> {
        self.part(self.splits.validation(), batch)
    }

    /// The test part, each sample once: for the end, since the rest is given up for it.
    ///
    /// # Errors
    /// When it is empty.
    pub fn test(self, batch: usize) -> Result<Arc<dyn Source>> {
        let Self { table, splits, normalisation } = self;
        let options = BatchOptions { normalisation, ..BatchOptions::evaluation(batch) };
        Ok(Arc::new(Batches::new(table, &splits.take_test().into_indices(), options)?))
    }

    fn source(&self, samples: &[u32], options: BatchOptions) -> Result<Arc<dyn Source>> {
        let options = BatchOptions { normalisation: self.normalisation.clone(), ..options };
        Ok(Arc::new(Batches::new(self.table.clone(), samples, options)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, DataSpec, TableOptions, Wanted};

    fn digits() -> Arc<dyn Table> {
        let wanted = [Wanted::new("pixels", DType::F32, [Some(1), Some(8), Some(8)])];
        DataSpec::Digits.table(&wanted, &TableOptions::default()).unwrap()
    }

    fn divided(choices: &[(&str, &str)]) -> Result<Divided> {
        let choices =
            choices.iter().map(|(name, choice)| ((*name).to_owned(), choice.parse().unwrap())).collect();
        Divided::new(digits(), &SplitOptions::default(), &choices, &NormalisationChoice::Measured)
    }

    #[test]
    fn every_part_is_normalised_alike_under_the_models_own_name() {
        let set = divided(&[]).unwrap();
        let (validation, test) = (set.splits.validation().len(), set.splits.test_count());
        let training = set.training(32, 1, Augmentation::NONE).unwrap();
        assert_eq!(training.columns()[0].name, "pixels");
        let mut batch = Batch::default();
        let (mut sum, mut count) = (0.0, 0.0);
        for step in 0..training.epoch_len() {
            training.fill(step, &mut batch).unwrap();
            sum += batch.columns[0].to_f64().iter().sum::<f64>();
            count += batch.columns[0].to_f64().len() as f64;
        }
        assert!((sum / count).abs() < 1e-2, "the training part has mean 0: {}", sum / count);
        let samples = |source: Arc<dyn Source>| {
            let mut batch = Batch::default();
            let mut seen = 0;
            for step in 0..source.epoch_len() {
                source.fill(step, &mut batch).unwrap();
                seen += batch.real;
            }
            seen
        };
        assert_eq!(samples(set.validation(100).unwrap()), validation);
        assert_eq!(samples(set.test(100).unwrap()), test);
    }

    #[test]
    fn a_choice_is_taken_and_one_for_no_input_is_refused() {
        let set = divided(&[("pixels", "none")]).unwrap();
        let mut batch = Batch::default();
        set.validation(10).unwrap().fill(0, &mut batch).unwrap();
        assert!(batch.columns[0].to_f64().contains(&16.0), "numbers as they are stored");
        let error = divided(&[("x", "none")]).unwrap_err().to_string();
        assert!(error.contains("`x`") && error.contains("`pixels`"), "{error}");
    }

    #[test]
    fn arrays_under_the_usual_names_feed_a_model_of_one_input() {
        use crate::npy::encode;
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: Vec<u8>| std::fs::write(directory.path().join(name), bytes).unwrap();
        put("x.npy", encode("|u1", "(4, 2, 2)", &(0..16).collect::<Vec<u8>>()));
        put("y.npy", encode("|u1", "(4,)", &[0, 1, 0, 1]));
        put("ids.npy", encode("|u1", "(4, 3)", &(0..12).collect::<Vec<u8>>()));
        let spec = DataSpec::Npz(directory.path().to_owned());
        let options = TableOptions::default();
        let image = [Wanted::new("pixels", DType::F32, [Some(1), None, None])];
        let table = spec.table(&image, &options).unwrap();
        assert_eq!((table.columns()[0].extents.as_slice(), table.full_scale(0)), (&[1, 2, 2][..], 255.0));
        let tokens = [Wanted::new("ids", DType::I64, [None])];
        let table = spec.table(&tokens, &options).unwrap();
        assert_eq!((table.columns()[0].dtype, table.full_scale(0)), (DType::I64, 1.0));
        let rows = [Wanted::new("ids", DType::F32, [None])];
        assert_eq!(
            spec.table(&rows, &options).unwrap().full_scale(0),
            255.0,
            "bytes alone are shades of gray"
        );
        let with_mask = [Wanted::new("x", DType::F32, [None, None]), Wanted::new("ids", DType::F32, [None])];
        let table = spec.table(&with_mask, &options).unwrap();
        assert_eq!(table.full_scale(1), 1.0);
        let measured = NormalisationChoice::Measured;
        let set = Divided::new(table, &SplitOptions::default(), &BTreeMap::new(), &measured).unwrap();
        assert!(!set.normalisation.contains_key("ids"), "integers mean themselves");
        let strange = TableOptions { columns: "z=ids".parse().unwrap(), ..TableOptions::default() };
        assert!(spec.table(&tokens, &strange).unwrap_err().to_string().contains("no input `z`"));
    }
}
