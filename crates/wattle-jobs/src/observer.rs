//! Who watches a job: a bar in a terminal, a page, a notebook, nobody.

use std::sync::{Mutex, PoisonError};

use wattle_meter::{Factors, Forecast, Snapshot};

/// Is told what a job does, by one thread at a time. Every method has a default that does nothing, so that an
/// observer says only what it is interested in.
pub trait Observer: Send {
    /// `done` of `total` units of the stage `what` are done; the first call of a stage has `done` 0. A `total` of 0 is not
    /// known yet. Calls may be as frequent as every step of a training: an observer that draws should draw seldom.
    fn progress(&mut self, what: &str, done: u64, total: u64) {
        let _ = (what, done, total);
    }

    /// A number that was found on the way, after `step` steps: a loss, an accuracy, a learning rate.
    fn metric(&mut self, step: u64, name: &str, value: f64) {
        let _ = (step, name, value);
    }

    /// Something that the reader of the result should know, in one sentence. It is also in the result.
    fn note(&mut self, text: &str) {
        let _ = text;
    }

    /// Where the meter of a running command stands, several times a second; only to an observer that
    /// [follows](Self::follows_meter) it, for looking has its price.
    fn standing(&mut self, standing: &Standing<'_>) {
        let _ = standing;
    }

    /// Whether [`standing`](Self::standing) is wanted.
    fn follows_meter(&self) -> bool {
        false
    }

    /// Whether the job should end now, with [`crate::ErrorKind::Cancelled`]. What it has kept on disk stays, so that the
    /// same options go on from there.
    fn cancelled(&mut self) -> bool {
        false
    }
}

/// Where a measurement stands.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// Time, energy and power until now.
    pub now: Snapshot,
    /// What turns its joules into grams and money.
    pub factors: &'a Factors,
    /// The expected total, where epochs are known and one has ended.
    pub forecast: Option<Forecast>,
    /// Whether the work has ended.
    pub ended: bool,
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// A stage whose units are finished by several threads, one at a time.
pub struct Stage<'a> {
    what: String,
    total: u64,
    /// The observer and the units done.
    told: Mutex<(&'a mut dyn Observer, u64)>,
}

impl<'a> Stage<'a> {
    /// Begins a stage of `total` units.
    pub fn begin(observer: &'a mut dyn Observer, what: impl Into<String>, total: u64) -> Stage<'a> {
        let what = what.into();
        observer.progress(&what, 0, total);
        Stage { what, total, told: Mutex::new((observer, 0)) }
    }

    /// One more unit is done.
    pub fn advance(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (observer, done) = &mut *told;
        *done += 1;
        observer.progress(&self.what, *done, self.total);
    }
}
