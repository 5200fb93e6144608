//! Batches of a table's samples: in a new order every epoch, augmented, normalised.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::augmentation::{Augmentation, Draw, move_picture};
use crate::column::{Batch, ColumnInfo};
use crate::error::{Error, Result};
use crate::normalisation::Normalisation;
use crate::random::{Purpose, Stream};
use crate::source::Source;
use crate::table::{Picture, Table};

/// What happens when the samples of an epoch do not fill its last batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastBatch {
    /// The rest is left out of this epoch (training: every step sees a full batch).
    Drop,
    /// The batch is filled up with copies of its first sample, and [`Batch::real`] says how many are not padding
    /// (evaluation: every sample is seen once).
    Pad,
}

/// How batches are made.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptions {
    /// Samples in a batch.
    pub batch: usize,
    /// What happens to the rest of an epoch.
    pub last: LastBatch,
    /// The seed for a new random order every epoch; `None` keeps the order of the indices.
    pub shuffle: Option<u64>,
    /// What is done to pictures.
    pub augmentation: Augmentation,
    /// The seed of the augmentation.
    pub augmentation_seed: u64,
    /// The constants of the columns that are normalised, by their names in the table.
    pub normalisation: BTreeMap<String, Normalisation>,
}

impl BatchOptions {
    /// For training: shuffled and augmented by `seed`, the rest of an epoch dropped.
    pub fn training(batch: usize, seed: u64, augmentation: Augmentation) -> Self {
        let normalisation = BTreeMap::new();
        let (last, shuffle) = (LastBatch::Drop, Some(seed));
        Self { batch, last, shuffle, augmentation, augmentation_seed: seed, normalisation }
    }

    /// For evaluation: in order, as they are, every sample once.
    pub fn evaluation(batch: usize) -> Self {
        let (last, augmentation) = (LastBatch::Pad, Augmentation::NONE);
        Self { last, shuffle: None, augmentation, ..Self::training(batch, 0, augmentation) }
    }

    /// Normalises one more column.
    pub fn normalised(mut self, column: impl Into<String>, by: Normalisation) -> Self {
        self.normalisation.insert(column.into(), by);
        self
    }
}

/// Some samples of a table as a [`Source`].
#[derive(Debug)]
pub struct Batches {
    table: Arc<dyn Table>,
    indices: Vec<u32>,
    options: BatchOptions,
    columns: Vec<ColumnInfo>,
    changes: Vec<Change>,
    scratch: Mutex<Scratch>,
}

/// What is done to a column on its way from the table.
#[derive(Debug)]
struct Change {
    picture: Option<Picture>,
    normalisation: Option<(Normalisation, f32)>,
}

/// The order of an epoch, kept until another epoch is asked for, and room for one sample.
#[derive(Debug, Default)]
struct Scratch {
    epoch: Option<u64>,
    order: Vec<u32>,
    sample: Vec<u8>,
}

impl Batches {
    /// Batches of the samples `indices` of a table.
    ///
    /// # Errors
    /// When there are too few samples for a batch, or the options do not fit the table's columns.
    pub fn new(table: Arc<dyn Table>, indices: &[u32], options: BatchOptions) -> Result<Self> {
        let fault =
            |found: String, expected: String| Err(Error::input(table.name(), found).expected(expected));
        let batch = options.batch;
        let smallest = if options.last == LastBatch::Drop { batch } else { 1 };
        if batch == 0 || indices.len() < smallest {
            return fault(
                format!("{} samples for batches of {batch}", indices.len()),
                "a batch size of at least 1 and at most the number of samples".into(),
            );
        }
        if indices.iter().any(|&index| index as usize >= table.count()) {
            return fault("a sample index outside the data set".into(), format!("below {}", table.count()));
        }
        let columns = table.columns().to_vec();
        let augmented = options.augmentation != Augmentation::NONE;
        if augmented && !(0..columns.len()).any(|column| table.picture(column).is_some()) {
            let shapes: Vec<String> =
                columns.iter().map(|column| format!("`{}` {:?}", column.name, column.extents)).collect();
            return fault(
                format!("the augmentation `{}` for samples of {}", options.augmentation, shapes.join(", ")),
                "images, or the augmentation `none`".into(),
            );
        }
        if let Some(name) =
            options.normalisation.keys().find(|name| !columns.iter().any(|column| column.name == **name))
        {
            return fault(
                format!("a normalisation of `{name}`, which is no column"),
                names(columns.iter().map(|column| column.name.as_str())),
            );
        }
        let mut changes = Vec::with_capacity(columns.len());
        for (place, column) in columns.iter().enumerate() {
            let normalisation = match options.normalisation.get(&column.name) {
                None => None,
                Some(by) => {
                    by.check(table.name(), column)?;
                    Some((by.clone(), by.divisor.unwrap_or(table.full_scale(place))))
                }
            };
            changes.push(Change { picture: table.picture(place).filter(|_| augmented), normalisation });
        }
        let indices = indices.to_vec();
        Ok(Self { table, indices, options, columns, changes, scratch: Mutex::default() })
    }

    /// Gives a column another name: that of the model's input that it feeds.
    ///
    /// # Errors
    /// When there is no column `from`, or already another one named `to`.
    pub fn rename(mut self, from: &str, to: &str) -> Result<Self> {
        let place = self.columns.iter().position(|column| column.name == from);
        let taken = from != to && self.columns.iter().any(|column| column.name == to);
        match place {
            Some(place) if !taken => {
                self.columns[place].name = to.to_owned();
                Ok(self)
            }
            _ => {
                let found =
                    if taken { format!("two columns named `{to}`") } else { format!("no column `{from}`") };
                let known = names(self.columns.iter().map(|column| column.name.as_str()));
                Err(Error::input(self.table.name(), found).expected(known))
            }
        }
    }

    /// The table whose samples these are.
    pub fn table(&self) -> &Arc<dyn Table> {
        &self.table
    }

    /// How the batches are made.
    pub fn options(&self) -> &BatchOptions {
        &self.options
    }

    fn fill_column(
        &self,
        place: usize,
        samples: &[u32],
        epoch: u64,
        sample: &mut Vec<u8>,
        out: &mut [u8],
    ) -> Result<()> {
        let (change, info) = (&self.changes[place], &self.columns[place]);
        let bytes = info.bytes();
        if bytes == 0 {
            return Ok(());
        }
        for (at, out) in out.chunks_exact_mut(bytes).enumerate() {
            // Padding repeats the first sample.
            let index = *samples.get(at).unwrap_or(&samples[0]) as usize;
            let seed = self.options.augmentation_seed;
            match change.picture {
                None => self.table.read(index, place, out)?,
                Some(picture) => {
                    match self.options.augmentation.draw(seed, epoch, index as u64) {
                        draw if draw == Draw::default() => self.table.read(index, place, out)?,
                        draw => {
                            sample.resize(bytes, 0);
                            self.table.read(index, place, sample)?;
                            move_picture(picture, info.dtype, draw, sample, out);
                        }
                    };
                }
            }
            if let Some((normalisation, divisor)) = &change.normalisation {
                normalisation.apply(*divisor, out);
            }
        }
        Ok(())
    }

    fn prepare_order(&self, epoch: u64, scratch: &mut Scratch) {
        if scratch.epoch == Some(epoch) {
            return;
        }
        scratch.order.clear();
        scratch.order.extend_from_slice(&self.indices);
        if let Some(seed) = self.options.shuffle {
            Stream::new(seed, Purpose::Order, &[epoch]).shuffle(&mut scratch.order);
        }
        scratch.epoch = Some(epoch);
    }
}

impl Source for Batches {
    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    fn epoch_len(&self) -> u64 {
        let (samples, batch) = (self.indices.len() as u64, self.options.batch as u64);
        match self.options.last {
            LastBatch::Drop => samples / batch,
            LastBatch::Pad => samples.div_ceil(batch),
        }
    }

    fn fill(&self, step: u64, batch: &mut Batch) -> Result<()> {
        // A panic elsewhere leaves at worst an unfinished order, which is made again.
        let mut scratch = self.scratch.lock().unwrap_or_else(|poisoned| {
            let mut scratch = PoisonError::into_inner(poisoned);
            scratch.epoch = None;
            scratch
        });
        let steps = self.epoch_len();
        let epoch = step / steps;
        self.prepare_order(epoch, &mut scratch);
        let Scratch { order, sample, .. } = &mut *scratch;
        let size = self.options.batch;
        let first = (step % steps) as usize * size;
        let samples = &order[first..order.len().min(first + size)];
        (batch.step, batch.epoch, batch.real) = (step, epoch, samples.len());
        batch.shape_as(&self.columns, size);
        for (place, column) in batch.columns.iter_mut().enumerate() {
            self.fill_column(place, samples, epoch, sample, &mut column.bytes)?;
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut line = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        line(&self.table.fingerprint());
        for column in &self.columns {
            line(&format!("{} {} {:?}", column.name, column.dtype, column.extents));
        }
        let BatchOptions { batch, last, shuffle, augmentation, augmentation_seed, normalisation } =
            &self.options;
        line(&format!("{batch} {last:?} {shuffle:?} {augmentation} {augmentation_seed}"));
        for (name, by) in normalisation {
            line(name);
            line(&by.to_json());
        }
        for index in &self.indices {
            hasher.update(&index.to_le_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

/// Names for a message: `a`, `b` or `c`.
pub(crate) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "nothing".into(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, Loader, SampleShape, Samples, SourceParts, Targets};

    /// Ten 1 x 2 x 3 images whose pixels are 10 * sample + 0..6, with the sample's parity as class.
    fn toy() -> Arc<Dataset> {
        let data = (0..10u8).flat_map(|sample| (0..6).map(move |pixel| 10 * sample + pixel)).collect();
        let targets = Targets::Classes {
            labels: (0..10).map(|i| i % 2).collect(),
            names: vec!["even".into(), "odd".into()],
        };
        let shape = SampleShape::Image { channels: 1, height: 2, width: 3 };
        let samples = Samples::Bytes { data, full_scale: 1 };
        Arc::new(Dataset::new("toy".into(), shape, samples, targets, SourceParts::undivided(10)).unwrap())
    }

    fn training(augmentation: &str) -> Batches {
        let options = BatchOptions::training(4, 3, augmentation.parse().unwrap());
        Batches::new(toy(), &(0..10).collect::<Vec<_>>(), options).unwrap()
    }

    fn batches(source: impl Source + 'static, prefetch: usize, count: usize) -> Vec<Batch> {
        let mut loader = Loader::new(Arc::new(source), prefetch);
        (0..count).map(|_| loader.next_batch().unwrap().clone()).collect()
    }

    fn inputs(batch: &Batch) -> Vec<f32> {
        batch.columns[0].to_f32().unwrap()
    }

    fn labels(batch: &Batch) -> Vec<i64> {
        batch.columns[1].to_i64().unwrap()
    }

    #[test]
    fn evaluation_sees_every_sample_once_and_pads_the_last_batch() {
        let by = Normalisation { mean: vec![1.0], std: vec![2.0], divisor: None };
        let options = BatchOptions::evaluation(4).normalised("input", by);
        let source = Batches::new(toy(), &(0..10).collect::<Vec<_>>(), options).unwrap();
        assert_eq!(source.epoch_len(), 3);
        let seen = batches(source, 2, 3);
        assert_eq!(seen.iter().map(|b| b.real).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(inputs(&seen[1])[..2], [(40.0 - 1.0) / 2.0, (41.0 - 1.0) / 2.0]);
        assert_eq!(labels(&seen[2]), [0, 1, 0, 0]);
        let last = inputs(&seen[2]);
        assert_eq!(last[12..18], last[..6], "padding repeats the first sample");
    }

    #[test]
    fn an_epoch_of_training_is_a_new_order_without_repetition() {
        let seen = batches(training("none"), 2, 4);
        let samples = |epoch: &[Batch]| -> Vec<u32> {
            epoch
                .iter()
                .flat_map(|b| inputs(b).chunks(6).map(|s| s[0] as u32 / 10).collect::<Vec<_>>())
                .collect()
        };
        let (first, second) = (samples(&seen[..2]), samples(&seen[2..]));
        let distinct: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!((distinct.len(), seen[2].epoch), (8, 1));
        assert_ne!(first, second);
        for batch in &seen {
            for (sample, label) in inputs(batch).chunks(6).zip(labels(batch)) {
                assert_eq!(i64::from(sample[0] as u32 / 10 % 2), label, "labels stay with their samples");
            }
        }
    }

    #[test]
    fn threads_restarts_and_the_order_of_asking_do_not_change_a_batch() {
        let reference = batches(training("crop:1+flip"), 0, 12);
        assert_eq!(batches(training("crop:1+flip"), 1, 12), reference);
        assert_eq!(batches(training("crop:1+flip"), 5, 12), reference);
        let mut resumed = Loader::new(Arc::new(training("crop:1+flip")), 2);
        resumed.next_batch().unwrap();
        resumed.start_at(7);
        for expected in &reference[7..] {
            assert_eq!(resumed.next_batch().unwrap(), expected);
        }
        let (source, mut batch) = (training("crop:1+flip"), Batch::default());
        for step in [9, 2, 11, 0] {
            source.fill(step, &mut batch).unwrap();
            assert_eq!(batch, reference[step as usize]);
        }
    }

    #[test]
    fn a_batch_of_one_and_an_epoch_of_one_batch_are_batches() {
        let options = BatchOptions::training(1, 3, Augmentation::NONE);
        let one = Batches::new(toy(), &[4], options).unwrap();
        assert_eq!(one.epoch_len(), 1);
        assert_eq!(inputs(&batches(one, 0, 2)[1])[0], 40.0);
    }

    #[test]
    fn options_that_do_not_fit_the_data_are_refused() {
        let new = |batch, indices: &[u32]| {
            Batches::new(toy(), indices, BatchOptions::training(batch, 0, Augmentation::NONE))
        };
        assert!(new(0, &[0, 1]).is_err());
        assert!(new(3, &[0, 1]).unwrap_err().to_string().contains("2 samples for batches of 3"));
        assert!(new(1, &[10]).is_err());
        assert!(new(2, &[0, 1]).is_ok());
        let strange = BatchOptions::evaluation(1).normalised("pixels", Normalisation::identity(1));
        let error = Batches::new(toy(), &[0], strange).unwrap_err().to_string();
        assert!(error.contains("`pixels`") && error.contains("`input` or `targets`"), "{error}");
    }

    #[test]
    fn a_column_takes_the_name_of_the_input_it_feeds() {
        let named = training("none").rename("input", "x").unwrap();
        assert_eq!(named.columns()[0].name, "x");
        assert_ne!(named.fingerprint(), training("none").fingerprint());
        assert!(training("none").rename("input", "targets").is_err());
        assert!(training("none").rename("pixels", "x").is_err());
    }

    #[test]
    fn whatever_changes_a_batch_changes_the_fingerprint() {
        let indices: Vec<u32> = (0..10).collect();
        let print = |options: BatchOptions, indices: &[u32]| {
            Batches::new(toy(), indices, options).unwrap().fingerprint()
        };
        let base = BatchOptions::training(4, 3, Augmentation::NONE);
        let others = [
            BatchOptions { batch: 5, ..base.clone() },
            BatchOptions { last: LastBatch::Pad, ..base.clone() },
            BatchOptions { shuffle: None, ..base.clone() },
            BatchOptions { shuffle: Some(4), ..base.clone() },
            BatchOptions { augmentation: "flip".parse().unwrap(), ..base.clone() },
            BatchOptions { augmentation_seed: 9, ..base.clone() },
            base.clone().normalised("input", Normalisation::identity(1)),
        ];
        let mut prints: Vec<String> = others.into_iter().map(|options| print(options, &indices)).collect();
        prints.push(print(base.clone(), &indices));
        prints.push(print(base, &indices[1..]));
        let distinct: std::collections::HashSet<_> = prints.iter().collect();
        assert_eq!(distinct.len(), prints.len());
    }
}
