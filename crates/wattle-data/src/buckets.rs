//! Batches of sequences by length: each batch is as long as its longest sequence asks for, of a few lengths.
//!
//! A model is planned once for every capacity, and short sequences do not pay for long ones. How many of a sample's tokens
//! are real is a column of its own, `count`, for whatever must not see padding.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use wattle_graph::DType;

use crate::column::{Batch, ColumnInfo};
use crate::error::{Error, Result};
use crate::random::{Purpose, Stream};
use crate::source::Source;
use crate::table::Table;

/// The name of the column that counts the real tokens of each sample (i64, one number).
pub const COUNT: &str = "count";

/// Lengths that batches can have, ascending: `32,64,128`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacities(Vec<usize>);

impl Capacities {
    /// The lengths.
    pub fn lengths(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for Capacities {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lengths: Option<Vec<usize>> =
            text.split(',').map(|n| n.trim().parse().ok().filter(|n| *n > 0)).collect();
        match lengths {
            Some(lengths) if lengths.is_sorted_by(|a, b| a < b) => Ok(Self(lengths)),
            _ => Err(Error::input(format_args!("capacities `{text}`"), "not a list of rising lengths")
                .expected("lengths of 1 or more, each longer than the one before: 32,64,128")),
        }
    }
}

impl fmt::Display for Capacities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&lengths.join(","))
    }
}

/// Samples of a table of sequences as a [`Source`] whose batches have one of several lengths.
///
/// Columns of sequences ([`Table::is_sequence`]) are as long as the batch's capacity; [`Source::columns`] states the
/// largest. Every epoch has the same number of batches of each capacity.
#[derive(Debug)]
pub struct Buckets {
    table: Arc<dyn Table>,
    batch: usize,
    /// The seed for a new random order every epoch; `None` keeps the order of samples and of capacities.
    shuffle: Option<u64>,
    /// Whether what does not fill a batch is padded and seen, or left out.
    pad: bool,
    capacities: Capacities,
    /// For each capacity its samples.
    samples: Vec<Vec<u32>>,
    columns: Vec<ColumnInfo>,
    scratch: Mutex<Scratch>,
}

/// The order of an epoch: which samples are in each batch, and of which capacity it is.
#[derive(Debug, Default)]
struct Scratch {
    epoch: Option<u64>,
    batches: Vec<(usize, Vec<u32>)>,
    sample: Vec<u8>,
}

impl Buckets {
    /// Batches of training: in a new order every epoch, what does not fill a batch of its capacity left out.
    ///
    /// # Errors
    /// When the table has no sequences, one is longer than the largest capacity, or no batch can be filled.
    pub fn training(
        table: Arc<dyn Table>,
        samples: &[u32],
        batch: usize,
        capacities: &Capacities,
        seed: u64,
    ) -> Result<Self> {
        Self::new(table, samples, batch, capacities, Some(seed), false)
    }

    /// Batches of evaluation: every sample once, the last batch of each capacity padded.
    ///
    /// # Errors
    /// As [`Buckets::training`].
    pub fn evaluation(
        table: Arc<dyn Table>,
        samples: &[u32],
        batch: usize,
        capacities: &Capacities,
    ) -> Result<Self> {
        Self::new(table, samples, batch, capacities, None, true)
    }

    fn new(
        table: Arc<dyn Table>,
        indices: &[u32],
        batch: usize,
        capacities: &Capacities,
        shuffle: Option<u64>,
        pad: bool,
    ) -> Result<Self> {
        let largest = capacities.0.last().copied().unwrap_or(0);
        let mut samples = vec![Vec::new(); capacities.0.len()];
        for &index in indices {
            if index as usize >= table.count() {
                return Err(Error::input(table.name(), "a sample index outside the data set")
                    .expected(format_args!("below {}", table.count())));
            }
            let length = table.length(index as usize).ok_or_else(|| {
                Error::input(table.name(), "samples without a length").expected("sequences, as text has them")
            })?;
            let bucket = capacities.0.iter().position(|capacity| length <= *capacity).ok_or_else(|| {
                Error::input(
                    format_args!("{}, sample {index}", table.name()),
                    format_args!("{length} tokens"),
                )
                .expected(format_args!("at most {largest}, the largest capacity"))
                .remedy("add a larger capacity, or make samples shorter")
            })?;
            samples[bucket].push(index);
        }
        let mut columns = table.columns().to_vec();
        for (place, column) in columns.iter_mut().enumerate() {
            if table.is_sequence(place) {
                // A capacity beyond what the table gives would be padding only.
                column.extents[0] = column.extents[0].min(largest);
            }
        }
        columns.push(ColumnInfo::new(COUNT, DType::I64, []));
        let capacities = capacities.clone();
        let scratch = Mutex::default();
        let found = Self { table, batch, shuffle, pad, capacities, samples, columns, scratch };
        if batch == 0 || found.epoch_len() == 0 {
            return Err(Error::input(
                found.table.name(),
                format_args!("{} samples in batches of {batch} by capacity", indices.len()),
            )
            .expected("enough samples of one capacity to fill a batch")
            .remedy("make batches smaller, or capacities fewer"));
        }
        Ok(found)
    }

    /// The length of the sequences in the batch of a step.
    pub fn capacity(&self, step: u64) -> usize {
        let mut scratch = self.lock();
        let steps = self.epoch_len();
        self.prepare(step / steps, &mut scratch);
        self.capacities.0[scratch.batches[(step % steps) as usize].0]
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(|poisoned| {
            let mut scratch = PoisonError::into_inner(poisoned);
            scratch.epoch = None;
            scratch
        })
    }

    fn prepare(&self, epoch: u64, scratch: &mut Scratch) {
        if scratch.epoch == Some(epoch) {
            return;
        }
        scratch.batches.clear();
        for (bucket, samples) in self.samples.iter().enumerate() {
            let mut order = samples.clone();
            if let Some(seed) = self.shuffle {
                Stream::new(seed, Purpose::Order, &[epoch, 1, bucket as u64]).shuffle(&mut order);
            }
            let whole = if self.pad { order.len() } else { order.len() - order.len() % self.batch };
            scratch.batches.extend(order[..whole].chunks(self.batch).map(|batch| (bucket, batch.to_vec())));
        }
        if let Some(seed) = self.shuffle {
            let mut places: Vec<u32> = (0..scratch.batches.len() as u32).collect();
            Stream::new(seed, Purpose::Order, &[epoch, 2]).shuffle(&mut places);
            scratch.batches =
                places.into_iter().map(|place| scratch.batches[place as usize].clone()).collect();
        }
        scratch.epoch = Some(epoch);
    }
}

impl Source for Buckets {
    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    fn epoch_len(&self) -> u64 {
        let batches = |samples: &Vec<u32>| match samples.len() {
            count if self.pad => count.div_ceil(self.batch.max(1)),
            count => count / self.batch.max(1),
        };
        self.samples.iter().map(batches).sum::<usize>() as u64
    }

    fn fill(&self, step: u64, batch: &mut Batch) -> Result<()> {
        let mut scratch = self.lock();
        let steps = self.epoch_len();
        self.prepare(step / steps, &mut scratch);
        let Scratch { batches, sample, .. } = &mut *scratch;
        let (bucket, samples) = &batches[(step % steps) as usize];
        let capacity = self.capacities.0[*bucket];
        let mut columns = self.columns.clone();
        for (place, column) in columns.iter_mut().enumerate().take(self.columns.len() - 1) {
            if self.table.is_sequence(place) {
                column.extents[0] = column.extents[0].min(capacity);
            }
        }
        (batch.step, batch.epoch, batch.real) = (step, step / steps, samples.len());
        batch.shape_as(&columns, self.batch);
        for (place, (info, column)) in columns.iter().zip(&mut batch.columns).enumerate() {
            for (at, out) in column.bytes.chunks_exact_mut(info.bytes().max(1)).enumerate() {
                // Padding repeats the first sample.
                let index = *samples.get(at).unwrap_or(&samples[0]) as usize;
                match self.table.columns().get(place) {
                    None => {
                        let length = self.table.length(index).unwrap_or(0) as i64;
                        out.copy_from_slice(&length.to_ne_bytes());
                    }
                    Some(whole) => {
                        sample.resize(whole.bytes(), 0);
                        self.table.read(index, place, sample)?;
                        out.copy_from_slice(&sample[..out.len()]);
                    }
                }
            }
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let Self { batch, shuffle, pad, capacities, samples, columns, .. } = self;
        hasher.update(self.table.fingerprint().as_bytes());
        hasher.update(format!("{batch} {shuffle:?} {pad} {capacities} {samples:?} {columns:?}").as_bytes());
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataSpec, Loader, TableOptions, TextOptions, Wanted};

    /// Ten lines of 2 to 11 letters, the same letter in a line, of which each learns the next one.
    fn lines() -> Arc<dyn Table> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines.txt");
        let line = |n: usize| format!("{}\n", char::from(b'a' + n as u8).to_string().repeat(n + 2));
        std::fs::write(&path, (0..10).map(line).collect::<String>()).unwrap();
        let text = TextOptions { tokenizer: Some("bytes".into()), length: Some(16) };
        let options = TableOptions { text, ..TableOptions::default() };
        DataSpec::Text(path).table(&[Wanted::new("x", DType::I64, [None])], &options).unwrap()
    }

    fn capacities() -> Capacities {
        "4,8,16".parse().unwrap()
    }

    #[test]
    fn every_sample_is_seen_once_in_the_shortest_batch_that_takes_it() {
        let all: Vec<u32> = (0..10).collect();
        let source = Buckets::evaluation(lines(), &all, 3, &capacities()).unwrap();
        // Lengths 1 to 10: four of at most 4, four of at most 8, two longer.
        assert_eq!(source.epoch_len(), 5);
        let lengths: Vec<usize> = (0..5).map(|step| source.capacity(step)).collect();
        assert_eq!(lengths, [4, 4, 8, 8, 16]);
        let mut counts = Vec::new();
        let mut batch = Batch::default();
        for step in 0..5 {
            source.fill(step, &mut batch).unwrap();
            assert_eq!(batch.columns[0].extents, [3, lengths[step as usize]]);
            assert_eq!(batch.columns[1].extents, [3, lengths[step as usize]]);
            let found = batch.column(COUNT).unwrap().to_i64().unwrap();
            let targets = batch.columns[1].to_i64().unwrap();
            for (row, count) in targets.chunks(lengths[step as usize]).zip(&found) {
                assert_eq!(row.iter().filter(|t| **t != -100).count() as i64, *count);
            }
            counts.extend_from_slice(&found[..batch.real]);
        }
        counts.sort_unstable();
        assert_eq!(counts, (1..11).collect::<Vec<i64>>());
    }

    #[test]
    fn training_is_a_new_order_every_epoch_and_the_same_whenever_asked() {
        let all: Vec<u32> = (0..10).collect();
        let source = Arc::new(Buckets::training(lines(), &all, 2, &capacities(), 5).unwrap());
        assert_eq!(source.epoch_len(), 5);
        let mut loader = Loader::new(source.clone(), 2);
        let seen: Vec<Batch> = (0..10).map(|_| loader.next_batch().unwrap().clone()).collect();
        assert_ne!(
            seen[..5].iter().map(|b| &b.columns).collect::<Vec<_>>(),
            seen[5..].iter().map(|b| &b.columns).collect::<Vec<_>>()
        );
        let mut batch = Batch::default();
        for step in [7, 0, 9, 3] {
            source.fill(step, &mut batch).unwrap();
            assert_eq!(batch, seen[step as usize]);
        }
    }

    #[test]
    fn what_fits_no_capacity_is_named() {
        let all: Vec<u32> = (0..10).collect();
        let error = Buckets::training(lines(), &all, 2, &"4,8".parse().unwrap(), 5).unwrap_err().to_string();
        assert!(error.contains("sample 8: 9 tokens; expected at most 8"), "{error}");
        assert!(Buckets::training(lines(), &all, 5, &capacities(), 5).is_err());
        for text in ["", "0", "8,4", "4,4", "x", "4,"] {
            assert!(text.parse::<Capacities>().is_err(), "{text}");
        }
        assert_eq!(capacities().to_string(), "4,8,16");
    }
}
