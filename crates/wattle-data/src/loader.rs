//! Batches, prepared ahead of time by one thread, in an order that depends on nothing but the seed.
//!
//! The batch of step s is a pure function of (data set, indices, options, s): a loader can start anywhere, and a
//! resumed run sees exactly the batches it would have seen.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use crate::augmentation::{Augmentation, Draw};
use crate::dataset::{Dataset, SampleShape, Samples, Targets};
use crate::error::{Error, Result};
use crate::normalisation::Normalisation;
use crate::random::{Purpose, Stream};

/// What happens when the samples of an epoch do not fill its last batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastBatch {
    /// The rest is left out of this epoch (training: every step sees a full batch).
    Drop,
    /// The batch is filled up with copies of its first sample, and `Batch::count` says how many are real
    /// (evaluation: every sample is seen once).
    Pad,
}

/// How batches are made.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Samples in a batch.
    pub batch: usize,
    /// What happens to the rest of an epoch.
    pub last: LastBatch,
    /// The seed for a new random order every epoch; `None` keeps the order of the indices.
    pub shuffle: Option<u64>,
    /// What is done to images, and with which seed.
    pub augmentation: Augmentation,
    /// The seed of the augmentation.
    pub augmentation_seed: u64,
    /// Input constants.
    pub normalisation: Normalisation,
    /// Batches prepared ahead; 0 prepares each when it is asked for, without a thread.
    pub prefetch: usize,
}

impl LoaderOptions {
    /// For training: shuffled and augmented by `seed`, the rest dropped, two batches ahead.
    pub fn training(
        batch: usize,
        seed: u64,
        augmentation: Augmentation,
        normalisation: Normalisation,
    ) -> Self {
        Self {
            batch,
            last: LastBatch::Drop,
            shuffle: Some(seed),
            augmentation,
            augmentation_seed: seed,
            normalisation,
            prefetch: 2,
        }
    }

    /// For evaluation: in order, as they are, every sample once, two batches ahead.
    pub fn evaluation(batch: usize, normalisation: Normalisation) -> Self {
        Self {
            batch,
            last: LastBatch::Pad,
            shuffle: None,
            augmentation: Augmentation::NONE,
            augmentation_seed: 0,
            normalisation,
            prefetch: 2,
        }
    }
}

/// One batch, always of full size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The step it belongs to, counted from 0 over the whole run.
    pub step: u64,
    /// The epoch it belongs to, counted from 0.
    pub epoch: u64,
    /// How many of its samples are real; those after them are padding.
    pub count: usize,
    /// `[batch, channels, height, width]` or `[batch, features]`, normalised.
    pub inputs: Vec<f32>,
    /// One class a sample; empty if the targets are values.
    pub labels: Vec<u32>,
    /// `[batch, width]` values; empty if the targets are classes.
    pub values: Vec<f32>,
}

/// A source of batches without end: after the last of an epoch comes the first of the next.
#[derive(Debug)]
pub struct Loader {
    maker: Arc<Maker>,
    next_step: u64,
    order: Order,
    scratch: Vec<u8>,
    current: Batch,
    worker: Option<Worker>,
}

impl Loader {
    /// A loader over the samples `indices` of a data set, at step 0.
    pub fn new(dataset: Arc<Dataset>, indices: &[u32], options: LoaderOptions) -> Result<Self> {
        let maker = Arc::new(Maker::new(dataset, indices, options)?);
        Ok(Self {
            maker,
            next_step: 0,
            order: Order::default(),
            scratch: Vec::new(),
            current: Batch::default(),
            worker: None,
        })
    }

    /// Batches in one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.maker.steps_per_epoch()
    }

    /// Makes `step` the next one.
    pub fn start_at(&mut self, step: u64) {
        self.worker = None;
        self.next_step = step;
    }

    /// The next batch, valid until the next call. Its buffers are used again and again: nothing is allocated once the
    /// first few batches are through (image folders allocate while decoding).
    pub fn next_batch(&mut self) -> Result<&Batch> {
        if self.maker.options.prefetch == 0 {
            self.maker.fill(self.next_step, &mut self.order, &mut self.scratch, &mut self.current)?;
        } else {
            let worker = match &mut self.worker {
                Some(worker) => worker,
                none => none.insert(Worker::start(self.maker.clone(), self.next_step)?),
            };
            self.current = match worker.exchange(std::mem::take(&mut self.current)) {
                Ok(batch) => batch,
                Err(error) => {
                    // The thread ended with its error; asking again starts a new one at the same step.
                    self.worker = None;
                    return Err(error);
                }
            };
        }
        self.next_step += 1;
        Ok(&self.current)
    }
}

/// The thread that prepares batches, and the two queues between it and the loader.
#[derive(Debug)]
struct Worker {
    /// Present until the worker is dropped; closing both ends the thread.
    queues: Option<(Receiver<Result<Batch>>, Sender<Batch>)>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(maker: Arc<Maker>, first_step: u64) -> Result<Self> {
        let ahead = maker.options.prefetch;
        let (ready_in, ready_out) = sync_channel(ahead);
        let (empty_in, empty_out) = channel();
        for _ in 0..ahead {
            // The receiver is alive: it is two lines above.
            let _ = empty_in.send(Batch::default());
        }
        let thread = thread::Builder::new()
            .name("wattle-loader".into())
            .spawn(move || prepare(&maker, first_step, &empty_out, &ready_in))
            .map_err(|error| {
                Error::machine("data loader", format_args!("no thread could be started ({error})"))
            })?;
        Ok(Self { queues: Some((ready_out, empty_in)), thread: Some(thread) })
    }

    fn exchange(&mut self, used: Batch) -> Result<Batch> {
        let gone = || Error::machine("data loader", "its thread ended unexpectedly");
        let (ready, empty) = self.queues.as_ref().ok_or_else(gone)?;
        // A thread that has ended with an error takes no more batches; the error itself is waiting in `ready`.
        let _ = empty.send(used);
        ready.recv().map_err(|_| gone())?
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queues = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn prepare(maker: &Maker, first_step: u64, empty: &Receiver<Batch>, ready: &SyncSender<Result<Batch>>) {
    let mut order = Order::default();
    let mut scratch = Vec::new();
    for step in first_step.. {
        let Ok(mut batch) = empty.recv() else { return };
        let made = maker.fill(step, &mut order, &mut scratch, &mut batch).map(|()| batch);
        let failed = made.is_err();
        if ready.send(made).is_err() || failed {
            return;
        }
    }
}

/// The order of an epoch, kept until another epoch is asked for.
#[derive(Clone, Debug, Default)]
struct Order {
    epoch: Option<u64>,
    indices: Vec<u32>,
}

/// Everything that decides what a batch contains.
#[derive(Debug)]
struct Maker {
    dataset: Arc<Dataset>,
    indices: Vec<u32>,
    options: LoaderOptions,
    /// For byte samples: the normalised value of each byte, channel by channel.
    tables: Vec<[f32; 256]>,
}

impl Maker {
    fn new(dataset: Arc<Dataset>, indices: &[u32], options: LoaderOptions) -> Result<Self> {
        options.normalisation.check(&dataset)?;
        let fault =
            |found: String, expected: String| Err(Error::input(&dataset.name, found).expected(expected));
        let batch = options.batch;
        let smallest = if options.last == LastBatch::Drop { batch } else { 1 };
        if batch == 0 || indices.len() < smallest {
            return fault(
                format!("{} samples for batches of {batch}", indices.len()),
                "a batch size of at least 1 and at most the number of samples".into(),
            );
        }
        if indices.iter().any(|&index| index as usize >= dataset.count()) {
            return fault("a sample index outside the data set".into(), format!("below {}", dataset.count()));
        }
        if options.augmentation != Augmentation::NONE && !matches!(dataset.shape, SampleShape::Image { .. }) {
            return fault(
                format!(
                    "the augmentation `{}` for samples of shape {:?}",
                    options.augmentation,
                    dataset.shape.dims()
                ),
                "images, or the augmentation `none`".into(),
            );
        }
        let full_scale = match dataset.samples {
            Samples::Bytes { full_scale, .. } => f32::from(full_scale),
            Samples::Files(_) => 255.0,
            Samples::Floats(_) => 1.0,
        };
        let constants = options.normalisation.mean.iter().zip(&options.normalisation.std);
        let table = |(mean, std): (&f32, &f32)| std::array::from_fn(|b| (b as f32 / full_scale - mean) / std);
        let tables = match dataset.samples {
            Samples::Floats(_) => Vec::new(),
            _ => constants.map(table).collect(),
        };
        Ok(Self { indices: indices.to_vec(), options, tables, dataset })
    }

    fn steps_per_epoch(&self) -> u64 {
        let (samples, batch) = (self.indices.len() as u64, self.options.batch as u64);
        match self.options.last {
            LastBatch::Drop => samples / batch,
            LastBatch::Pad => samples.div_ceil(batch),
        }
    }

    fn fill(&self, step: u64, order: &mut Order, scratch: &mut Vec<u8>, batch: &mut Batch) -> Result<()> {
        let steps = self.steps_per_epoch();
        let epoch = step / steps;
        self.prepare_order(epoch, order);
        let size = self.options.batch;
        let first = (step % steps) as usize * size;
        let real = &order.indices[first..order.indices.len().min(first + size)];
        let elements = self.dataset.shape.elements();
        batch.step = step;
        batch.epoch = epoch;
        batch.count = real.len();
        batch.inputs.resize(size * elements, 0.0);
        batch.labels.clear();
        batch.values.clear();
        for (place, input) in batch.inputs.chunks_exact_mut(elements).enumerate() {
            let sample = *real.get(place).unwrap_or(&real[0]) as usize;
            self.fill_input(sample, epoch, scratch, input)?;
            match &self.dataset.targets {
                Targets::Classes { labels, .. } => batch.labels.push(labels[sample]),
                Targets::Values { values, width } => {
                    batch.values.extend_from_slice(&values[sample * width..][..*width])
                }
            }
        }
        Ok(())
    }

    fn prepare_order(&self, epoch: u64, order: &mut Order) {
        if order.epoch == Some(epoch) {
            return;
        }
        order.indices.clear();
        order.indices.extend_from_slice(&self.indices);
        if let Some(seed) = self.options.shuffle {
            Stream::new(seed, Purpose::Order, &[epoch]).shuffle(&mut order.indices);
        }
        order.epoch = Some(epoch);
    }

    fn fill_input(&self, sample: usize, epoch: u64, scratch: &mut Vec<u8>, out: &mut [f32]) -> Result<()> {
        let elements = self.dataset.shape.elements();
        let draw = self.options.augmentation.draw(self.options.augmentation_seed, epoch, sample as u64);
        let at = sample * elements;
        match &self.dataset.samples {
            Samples::Bytes { data, .. } => self.place_bytes(&data[at..at + elements], draw, out),
            Samples::Files(files) => {
                scratch.resize(elements, 0);
                files.decode(sample, scratch)?;
                self.place_bytes(scratch, draw, out);
            }
            Samples::Floats(values) => {
                let Normalisation { mean, std } = &self.options.normalisation;
                let value = |channel: usize, x: f32| (x - mean[channel]) / std[channel];
                place(self.dataset.shape, &values[at..at + elements], draw, value, out);
            }
        }
        Ok(())
    }

    fn place_bytes(&self, sample: &[u8], draw: Draw, out: &mut [f32]) {
        place(
            self.dataset.shape,
            sample,
            draw,
            |channel, byte: u8| self.tables[channel][usize::from(byte)],
            out,
        );
    }
}

/// Writes a sample into `out`, shifted and mirrored; what is shifted in is the value of zero (black).
fn place<T: Copy + Default>(
    shape: SampleShape,
    sample: &[T],
    draw: Draw,
    value: impl Fn(usize, T) -> f32,
    out: &mut [f32],
) {
    let (SampleShape::Image { height, width, .. }, true) = (shape, draw != Draw::default()) else {
        let planes =
            sample.chunks_exact(shape.channel_elements()).zip(out.chunks_exact_mut(shape.channel_elements()));
        for (channel, (from, to)) in planes.enumerate() {
            for (&x, y) in from.iter().zip(to) {
                *y = value(channel, x);
            }
        }
        return;
    };
    let (rows, columns) = (height as i64, width as i64);
    for (line, to) in out.chunks_exact_mut(width).enumerate() {
        let (channel, row) = (line / height, (line % height) as i64 + i64::from(draw.up));
        let from =
            (0..rows).contains(&row).then(|| &sample[(channel * height + row as usize) * width..][..width]);
        for (column, y) in (0i64..).zip(to) {
            let column = if draw.mirrored { columns - 1 - column } else { column } + i64::from(draw.left);
            let x = from
                .filter(|_| (0..columns).contains(&column))
                .map_or(T::default(), |line| line[column as usize]);
            *y = value(channel, x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceParts;

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

    fn training(prefetch: usize, augmentation: &str) -> Loader {
        let mut options =
            LoaderOptions::training(4, 3, augmentation.parse().unwrap(), Normalisation::identity(1));
        options.prefetch = prefetch;
        Loader::new(toy(), &(0..10).collect::<Vec<_>>(), options).unwrap()
    }

    fn batches(loader: &mut Loader, count: usize) -> Vec<Batch> {
        (0..count).map(|_| loader.next_batch().unwrap().clone()).collect()
    }

    #[test]
    fn evaluation_sees_every_sample_once_and_pads_the_last_batch() {
        let options = LoaderOptions::evaluation(4, Normalisation { mean: vec![1.0], std: vec![2.0] });
        let mut loader = Loader::new(toy(), &(0..10).collect::<Vec<_>>(), options).unwrap();
        assert_eq!(loader.steps_per_epoch(), 3);
        let seen = batches(&mut loader, 3);
        assert_eq!(seen.iter().map(|b| b.count).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(seen[1].inputs[..2], [(40.0 - 1.0) / 2.0, (41.0 - 1.0) / 2.0]);
        assert_eq!(seen[2].labels, [0, 1, 0, 0]);
        assert_eq!(seen[2].inputs[12..18], seen[2].inputs[..6], "padding repeats the first sample");
    }

    #[test]
    fn an_epoch_of_training_is_a_new_order_without_repetition() {
        let seen = batches(&mut training(2, "none"), 4);
        let samples = |epoch: &[Batch]| -> Vec<u32> {
            epoch.iter().flat_map(|b| b.inputs.chunks(6).map(|s| s[0] as u32 / 10)).collect()
        };
        let (first, second) = (samples(&seen[..2]), samples(&seen[2..]));
        let distinct: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!((distinct.len(), seen[2].epoch), (8, 1));
        assert_ne!(first, second);
        for batch in &seen {
            for (sample, label) in batch.inputs.chunks(6).zip(&batch.labels) {
                assert_eq!(sample[0] as u32 / 10 % 2, *label, "labels stay with their samples");
            }
        }
    }

    #[test]
    fn threads_and_restarts_do_not_change_a_batch() {
        let reference = batches(&mut training(0, "crop:1+flip"), 12);
        assert_eq!(batches(&mut training(1, "crop:1+flip"), 12), reference);
        assert_eq!(batches(&mut training(5, "crop:1+flip"), 12), reference);
        let mut resumed = training(2, "crop:1+flip");
        resumed.next_batch().unwrap();
        resumed.start_at(7);
        assert_eq!(batches(&mut resumed, 5), reference[7..]);
    }

    #[test]
    fn crops_and_flips_move_pixels_as_they_say() {
        let shape = SampleShape::Image { channels: 1, height: 2, width: 3 };
        let placed = |up, left, mirrored| {
            let mut out = [9.0; 6];
            place(shape, &[1u8, 2, 3, 4, 5, 6], Draw { up, left, mirrored }, |_, x| f32::from(x), &mut out);
            out
        };
        assert_eq!(placed(0, 0, false), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(placed(0, 0, true), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        assert_eq!(placed(1, 0, false), [4.0, 5.0, 6.0, 0.0, 0.0, 0.0]);
        assert_eq!(placed(0, -1, false), [0.0, 1.0, 2.0, 0.0, 4.0, 5.0]);
        assert_eq!(placed(-1, 1, true), [0.0, 0.0, 0.0, 0.0, 3.0, 2.0]);
    }

    #[test]
    fn buffers_are_used_again() {
        let mut loader = training(2, "none");
        let mut addresses = std::collections::HashSet::new();
        for _ in 0..50 {
            addresses.insert(loader.next_batch().unwrap().inputs.as_ptr());
        }
        assert!(addresses.len() <= 4, "{} distinct buffers", addresses.len());
    }

    #[test]
    fn options_that_do_not_fit_the_data_are_refused() {
        let new = |batch, indices: &[u32]| {
            Loader::new(
                toy(),
                indices,
                LoaderOptions::training(batch, 0, Augmentation::NONE, Normalisation::identity(1)),
            )
        };
        assert!(new(0, &[0, 1]).is_err());
        assert!(new(3, &[0, 1]).unwrap_err().to_string().contains("2 samples for batches of 3"));
        assert!(new(1, &[10]).is_err());
        assert!(new(2, &[0, 1]).is_ok());
    }
}
