//! Phases of a run that are metered by themselves.

use std::sync::Arc;
use std::time::Duration;

use crate::ScopeRecord;
use crate::backend::Reading;
use crate::running::{Mark, Shared, TICK, Tally, difference};
use crate::settle::record;

/// A phase of a run. Scopes may be opened from any thread, nest by [`scope`](Self::scope), and may overlap.
#[derive(Debug)]
pub struct Scope {
    shared: Arc<Shared>,
    path: String,
    entered: Option<Mark>,
}

impl Scope {
    pub(crate) fn enter(shared: Arc<Shared>, path: String) -> Scope {
        let mut state = shared.lock();
        if state.scopes.iter().all(|tally| tally.path != path) {
            let spent = vec![Reading::default(); state.backend.domains().len()];
            state.scopes.push(Tally { path: path.clone(), count: 0, duration: Duration::ZERO, spent });
        }
        let mark = state.read(shared.start.elapsed(), TICK);
        drop(state);
        Scope { shared, path, entered: Some(mark) }
    }

    /// Opens a phase inside this one.
    pub fn scope(&self, name: &str) -> Scope {
        Scope::enter(Arc::clone(&self.shared), format!("{}/{name}", self.path))
    }

    /// Ends the phase and tells what this one entry cost.
    pub fn finish(mut self) -> ScopeRecord {
        let (duration, spent) = self.leave().expect("entered at construction, left only here or in drop");
        let state = self.shared.lock();
        record(&Tally { path: self.path.clone(), count: 1, duration, spent }, state.backend.domains())
    }

    fn leave(&mut self) -> Option<(Duration, Vec<Reading>)> {
        let entered = self.entered.take()?;
        let mut state = self.shared.lock();
        let mark = state.read(self.shared.start.elapsed(), TICK);
        let duration = mark.now.elapsed.saturating_sub(entered.now.elapsed);
        let spent: Vec<Reading> =
            mark.energy.iter().zip(&entered.energy).map(|(now, then)| difference(now, then)).collect();
        if let Some(tally) = state.scopes.iter_mut().find(|tally| tally.path == self.path) {
            tally.count += 1;
            tally.duration += duration;
            for (sum, more) in tally.spent.iter_mut().zip(&spent) {
                sum.low = sum.low.saturating_add(more.low);
                sum.value = sum.value.saturating_add(more.value);
                sum.high = sum.high.saturating_add(more.high);
            }
        }
        Some((duration, spent))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.leave();
    }
}
