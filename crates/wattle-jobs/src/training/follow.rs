//! Follows a training, or a search of several: tells the observer, keeps the receipt, and draws the page of curves.

use std::path::Path;
use std::time::{Duration, Instant};

use wattle_meter::Meter;
use wattle_tickets::{Level, level_directory};
use wattle_train::fit::{Epoch, Progress, Watcher};
use wattle_train::options::TrainOptions;
use wattle_train::trainer::Notes;

use super::curves::Curves;
use crate::kept::Kept;
use crate::observer::Observer;

/// The file of the page.
pub const PAGE: &str = "report.html";

/// How often the page is drawn.
const INTERVAL: Duration = Duration::from_secs(3);

/// Follows a training in a directory of its own.
pub struct Follower<'a> {
    /// Who is told.
    pub observer: &'a mut dyn Observer,
    /// What is spent.
    pub meter: &'a Meter,
    /// Where it is kept.
    pub kept: &'a mut Kept,
    /// Title of the page.
    pub title: String,
    /// What is going on, in a word or two.
    pub stage: String,
    /// What makes the result doubtful, so far.
    pub notes: Vec<String>,
    /// The curves.
    pub curves: Curves,
    /// Samples that a step learns from.
    per_step: u64,
    drawn: Option<Instant>,
    last: Option<Progress>,
}

impl<'a> Follower<'a> {
    /// Follows a training with these options in a run's directory, which may have seen a part of it already.
    pub fn new(
        observer: &'a mut dyn Observer,
        meter: &'a Meter,
        kept: &'a mut Kept,
        title: String,
        options: &TrainOptions,
    ) -> Self {
        let log = kept.directory.read("metrics.jsonl").ok().flatten().unwrap_or_default();
        let curves = Curves::read(&log);
        let stage = "training".to_string();
        let per_step = options.batch as u64 * options.accumulate;
        let (notes, drawn, last) = (vec![], None, None);
        Follower { observer, meter, kept, title, stage, notes, curves, per_step, drawn, last }
    }

    /// Follows the next training of several, which keeps its files in `directory` and has been seen up to what lies there.
    fn begin(&mut self, stage: String, directory: &Path) {
        let log = std::fs::read(directory.join("metrics.jsonl")).unwrap_or_default();
        (self.stage, self.curves, self.last) = (stage, Curves::read(&log), None);
    }

    /// The page is a picture on the way: a disk that is full ends the training where its checkpoints are written.
    fn draw(&mut self) {
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < INTERVAL) {
            return;
        }
        self.drawn = Some(Instant::now());
        let state = match self.last {
            Some(Progress { step, total, loss }) => {
                format!("{}: step {step} of {total}, loss {loss:.4}", self.stage)
            }
            None => self.stage.clone(),
        };
        let page = self.curves.page(&self.title, &state, &self.notes, None);
        let _ = self.kept.directory.write(PAGE, page.as_bytes());
    }
}

impl Watcher for Follower<'_> {
    fn progress(&mut self, progress: Progress) {
        self.last = Some(progress);
        self.kept.learnt += self.per_step;
        self.observer.progress(&self.stage, progress.step, progress.total);
        self.draw();
        // What cannot be written now is written at the end, or said there.
        let _ = self.kept.note(self.meter);
    }

    fn notes(&mut self, notes: &Notes) {
        for sentence in notes.sentences() {
            if !self.notes.contains(&sentence) {
                self.observer.note(&sentence);
                self.notes.push(sentence);
            }
        }
    }

    fn epoch(&mut self, epoch: &Epoch) {
        let step = self.last.map_or(0, |progress| progress.step);
        self.observer.metric(step, "loss", epoch.loss);
        self.observer.metric(step, "learning_rate", epoch.learning_rate);
        let known = [("gradient_norm", epoch.gradient_norm), ("validation_loss", epoch.validation_loss)];
        for (name, value) in known {
            if let Some(value) = value {
                self.observer.metric(step, name, value);
            }
        }
        for (name, value) in &epoch.validation {
            self.observer.metric(step, name, *value);
        }
        self.curves.push(epoch);
    }

    fn joules(&mut self) -> Option<f64> {
        self.meter.energy().map(|energy| energy.value())
    }

    fn is_cancelled(&mut self) -> bool {
        self.observer.cancelled()
    }
}

/// Follows a search for tickets: each of its trainings, and its levels.
pub struct SearchFollower<'a, 'b> {
    /// Follows the training that is going on.
    pub training: Follower<'a>,
    /// What a level is called.
    pub stage: &'b dyn Fn(u32) -> String,
    /// Sees a level that is done and says whether to go on.
    pub judge: &'b mut dyn FnMut(&Level, &mut dyn Observer) -> bool,
}

impl Watcher for SearchFollower<'_, '_> {
    fn progress(&mut self, progress: Progress) {
        self.training.progress(progress);
    }

    fn notes(&mut self, notes: &Notes) {
        self.training.notes(notes);
    }

    fn epoch(&mut self, epoch: &Epoch) {
        self.training.epoch(epoch);
    }

    fn joules(&mut self) -> Option<f64> {
        self.training.joules()
    }

    fn is_cancelled(&mut self) -> bool {
        self.training.is_cancelled()
    }
}

impl wattle_tickets::Follower for SearchFollower<'_, '_> {
    fn begins(&mut self, level: u32) {
        let directory = level_directory(self.training.kept.directory.path(), level);
        self.training.begin((self.stage)(level), &directory);
    }

    fn ends(&mut self, level: &Level) -> bool {
        (self.judge)(level, self.training.observer) && !self.training.observer.cancelled()
    }
}
