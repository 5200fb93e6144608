//! Shows on stderr what a job tells its observer: a bar for every stage.

use indicatif::{ProgressBar, ProgressStyle};
use wattle_jobs::{Observer, Result, interruption};

/// One bar at a time; hidden when stderr is no terminal.
#[derive(Default)]
pub struct Bars {
    bar: Option<(String, ProgressBar)>,
}

impl Observer for Bars {
    /// Only where it listens.
    fn cancelled(&mut self) -> bool {
        interruption::signal().is_some()
    }

    fn progress(&mut self, what: &str, done: u64, total: u64) {
        let started = self.bar.as_ref().is_some_and(|(name, _)| name == what);
        if !started {
            self.end();
            self.bar = Some((what.to_owned(), bar(what, total)));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}

impl Bars {
    /// For a job that keeps what it has done: Ctrl-C and SIGTERM end it at the next step.
    pub fn listening() -> Result<Bars> {
        interruption::listen()?;
        Ok(Bars::default())
    }

    fn end(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.end();
    }
}

/// A bar on stderr for work of `length` steps; hidden when stderr is no terminal.
pub fn bar(what: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_string());
    bar
}
