//! Batches of any source, prepared ahead of time by one thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use crate::column::Batch;
use crate::error::{Error, Result};
use crate::source::Source;

/// The batches of a source in turn, from any step on.
pub struct Loader {
    source: Arc<dyn Source>,
    prefetch: usize,
    next_step: u64,
    current: Batch,
    worker: Option<Worker>,
}

impl Loader {
    /// A loader at step 0 of a source, with so many batches prepared ahead; 0 prepares each when it is asked for, without
    /// a thread. Two are enough where making a batch takes about as long as using it.
    pub fn new(source: Arc<dyn Source>, prefetch: usize) -> Self {
        Self { source, prefetch, next_step: 0, current: Batch::default(), worker: None }
    }

    /// Where the batches come from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Batches in one epoch.
    pub fn epoch_len(&self) -> u64 {
        self.source.epoch_len()
    }

    /// Makes `step` the next one.
    pub fn start_at(&mut self, step: u64) {
        self.worker = None;
        self.next_step = step;
    }

    /// The next batch, valid until the next call. Its buffers are used again and again: nothing is allocated once the
    /// first few batches are through (image folders allocate while decoding).
    pub fn next_batch(&mut self) -> Result<&Batch> {
        if self.prefetch == 0 {
            self.source.fill(self.next_step, &mut self.current)?;
        } else {
            let worker = match &mut self.worker {
                Some(worker) => worker,
                none => none.insert(Worker::start(self.source.clone(), self.prefetch, self.next_step)?),
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
    fn start(source: Arc<dyn Source>, ahead: usize, first_step: u64) -> Result<Self> {
        let (ready_in, ready_out) = sync_channel(ahead);
        let (empty_in, empty_out) = channel();
        for _ in 0..ahead {
            // The receiver is alive: it is two lines above.
            let _ = empty_in.send(Batch::default());
        }
        let thread = thread::Builder::new()
            .name("wattle-loader".into())
            .spawn(move || prepare(&*source, first_step, &empty_out, &ready_in))
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

fn prepare(source: &dyn Source, first_step: u64, empty: &Receiver<Batch>, ready: &SyncSender<Result<Batch>>) {
    for step in first_step.. {
        let Ok(mut batch) = empty.recv() else { return };
        let made = source.fill(step, &mut batch).map(|()| batch);
        let failed = made.is_err();
        if ready.send(made).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::ColumnInfo;
    use wattle_graph::DType;

    /// Counts: the batch of step s holds the number s. Step 5 cannot be made.
    struct Steps(Vec<ColumnInfo>);

    impl Source for Steps {
        fn columns(&self) -> &[ColumnInfo] {
            &self.0
        }

        fn epoch_len(&self) -> u64 {
            3
        }

        fn fill(&self, step: u64, batch: &mut Batch) -> Result<()> {
            if step == 5 {
                return Err(Error::machine("step 5", "a bad sector"));
            }
            batch.shape_as(&self.0, 1);
            (batch.step, batch.epoch, batch.real) = (step, step / 3, 1);
            batch.columns[0].bytes.copy_from_slice(&step.to_ne_bytes());
            Ok(())
        }

        fn fingerprint(&self) -> String {
            "steps".into()
        }
    }

    fn loader(prefetch: usize) -> Loader {
        Loader::new(Arc::new(Steps(vec![ColumnInfo::new("step", DType::U64, [])])), prefetch)
    }

    #[test]
    fn batches_come_in_turn_from_any_step() {
        for prefetch in [0, 1, 4] {
            let mut loader = loader(prefetch);
            for from in [6, 0, 100] {
                loader.start_at(from);
                for step in from..from + 5 {
                    let batch = loader.next_batch().unwrap();
                    assert_eq!((batch.step, batch.columns[0].to_i64()), (step, Some(vec![step as i64])));
                }
            }
        }
    }

    #[test]
    fn an_error_comes_at_its_step_and_again_when_asked_again() {
        for prefetch in [0, 3] {
            let mut loader = loader(prefetch);
            loader.start_at(4);
            assert_eq!(loader.next_batch().unwrap().step, 4);
            for _ in 0..2 {
                assert!(loader.next_batch().unwrap_err().to_string().contains("bad sector"));
            }
            loader.start_at(6);
            assert_eq!(loader.next_batch().unwrap().step, 6);
        }
    }

    #[test]
    fn buffers_are_used_again() {
        let mut loader = loader(2);
        let mut addresses = std::collections::HashSet::new();
        loader.start_at(6);
        for _ in 0..50 {
            addresses.insert(loader.next_batch().unwrap().columns[0].bytes.as_ptr());
        }
        assert!(addresses.len() <= 4, "{} distinct buffers", addresses.len());
    }
}
