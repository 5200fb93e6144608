//! What a running meter knows: the readings so far, the phases, who spent the energy; and the thread that takes readings.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::account::{Account, Split};
use crate::backend::{Backend, Domain, Moment, Part, Reading};
use crate::meter::Snapshot;
use crate::processor_time::ProcessorTime;
use crate::series::Series;
use crate::settle::{components, total};
use crate::{Quantity, Source};

/// Processor times come in ticks of 10 ms; scopes do not read them more often.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// The sampler reads processor times no more often than this where they are the energy, for a model follows them,
pub(crate) const GLANCE: Duration = Duration::from_millis(900);
/// and than this where they only divide it.
const RARE_GLANCE: Duration = Duration::from_millis(1900);

/// A running measurement, of the meter, its phases and its thread.
pub(crate) struct Shared {
    pub(crate) start: Instant,
    pub(crate) state: Mutex<State>,
    pub(crate) wake: Condvar,
}

/// What has been read so far.
pub(crate) struct State {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) series: Series,
    pub(crate) taken: u64,
    pub(crate) scopes: Vec<Tally>,
    pub(crate) clock: ProcessorTime,
    /// At the least, the expected and the most idle power.
    pub(crate) accounts: [Account; 3],
    /// When somebody last looked, and the microjoules until then.
    pub(crate) snapshot: (Duration, u64),
    pub(crate) stopped: bool,
}

/// Who spent the machine's energy, and by how much that depends on what it draws when idle.
pub(crate) struct Settlement {
    pub(crate) split: Split,
    /// The process tree's part if idle power is at its highest, and at its lowest.
    pub(crate) process: (u64, u64),
    /// The most that all who worked may have spent.
    pub(crate) active: u64,
    /// How it was divided.
    pub(crate) model: Source,
    /// What idle power was taken to be; `None` where the source itself knows the split.
    pub(crate) idle_power: Option<Quantity>,
}

/// What one scope path has gathered so far.
pub(crate) struct Tally {
    pub(crate) path: String,
    pub(crate) count: u64,
    pub(crate) duration: Duration,
    pub(crate) spent: Vec<Reading>,
}

/// A moment and the energy of each domain until then.
#[derive(Clone)]
pub(crate) struct Mark {
    pub(crate) now: Moment,
    pub(crate) energy: Vec<Reading>,
}

impl Shared {
    /// A panic elsewhere must not cost the receipt: the state is whole between any two statements that hold it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut state = self.lock();
        let mark = state.read(self.start.elapsed(), TICK);
        let energy = sum(&mark.energy);
        let (then, before) = std::mem::replace(&mut state.snapshot, (mark.now.elapsed, energy));
        let seconds = mark.now.elapsed.saturating_sub(then).as_secs_f64();
        let joules = energy.saturating_sub(before) as f64 / 1e6;
        Snapshot {
            elapsed: mark.now.elapsed,
            energy: total(&components(state.backend.domains(), &mark.energy)),
            power: (seconds > 0.0).then(|| joules / seconds),
        }
    }
}

impl State {
    pub(crate) fn read(&mut self, at: Duration, patience: Duration) -> Mark {
        let now = self.clock.read(at, patience);
        let energy = self.take(now).to_vec();
        let machine = self.processors(&energy, |r| r.value);
        self.accounts.iter_mut().for_each(|account| account.advance(now, machine));
        Mark { now, energy }
    }

    /// One background reading. A thousand of them a second must stay cheap: the counters are read, and nothing else
    /// happens until the processor times are due.
    fn sample(&mut self, at: Duration) {
        let modelled = self.backend.split().is_some();
        let patience = if modelled { GLANCE } else { RARE_GLANCE };
        if self.clock.is_due(at, patience) {
            let mark = self.read(at, patience);
            // A model follows processor time: while some of that is missing, its power is too low, and then too high.
            if !(modelled && mark.now.lagging) {
                self.series.offer(at, sum(&mark.energy));
            }
        } else {
            let now = self.clock.read(at, patience);
            let total = sum(self.take(now));
            if !modelled {
                self.series.offer(at, total);
            }
        }
    }

    fn take(&mut self, now: Moment) -> &[Reading] {
        self.taken += 1;
        self.backend.read(now)
    }

    /// Energy of processors and memory: what processes share. Cards and batteries are not divided.
    fn processors(&self, energy: &[Reading], of: fn(&Reading) -> u64) -> u64 {
        let shared = |part| matches!(part, Part::Processor | Part::Memory);
        let domains = self.backend.domains().iter().zip(energy);
        domains.filter(|(d, _)| shared(d.part)).fold(0, |total, (_, r)| total.saturating_add(of(r)))
    }

    pub(crate) fn settle(&mut self, mark: &Mark, idle_power: Option<Quantity>) -> Option<Settlement> {
        if let Some(split) = self.backend.split() {
            // The model's last domain is the busy time; cards may follow it.
            let mut domains = self.backend.domains().iter().zip(&mark.energy);
            let busy = domains.rfind(|(d, _)| d.part == Part::Processor);
            let bounds = |(domain, energy): (&Domain, &Reading)| {
                (energy.low.saturating_sub(domain.resolution), energy.high.saturating_add(domain.resolution))
            };
            let process = busy.map(bounds).unwrap_or_default();
            let model =
                busy.map_or_else(|| Source::modelled("cpu-time/1"), |(domain, _)| domain.source.clone());
            return Some(Settlement { split, process, active: u64::MAX, model, idle_power: None });
        }
        let ends: [fn(&Reading) -> u64; 3] = [|r| r.low, |r| r.value, |r| r.high];
        let [least, machine, most] = ends.map(|of| self.processors(&mark.energy, of));
        mark.now.own?;
        mark.now.busy?;
        let [low, value, high] = &mut self.accounts;
        let [low, value, high] = [low, value, high].map(|account| account.settle(mark.now, machine));
        // Steps are settled one by one, so an idle power above the true one need not give the least of all.
        let (a, b) = (low.process.min(high.process), low.process.max(high.process));
        // What is not known of the machine's energy may all be the process's, or none of it.
        let (less, more) = (machine.saturating_sub(least), most.saturating_sub(machine));
        let process = (a.min(value.process).saturating_sub(less), b.max(value.process).saturating_add(more));
        let idle = low.idle.min(high.idle).min(value.idle).min(machine);
        let active = (machine - idle).saturating_add(more);
        let model = Source::modelled("busy-time-share/1");
        (machine > 0).then_some(Settlement { split: value, process, active, model, idle_power })
    }
}

fn sum(energy: &[Reading]) -> u64 {
    energy.iter().fold(0, |total, r| total.saturating_add(r.value))
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("start", &self.start).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mark").field("now", &self.now).finish_non_exhaustive()
    }
}

/// The body of the sampling thread: one reading an interval until told to stop.
pub(crate) fn sample(shared: &Shared, interval: Duration) {
    let mut state = shared.lock();
    let mut next = Duration::ZERO;
    while !state.stopped {
        let now = shared.start.elapsed();
        if now >= next {
            state.sample(now);
            // After a long sleep the missed readings are not made up for.
            next = (next + interval).max(now);
        }
        let wait = next.saturating_sub(shared.start.elapsed());
        (state, _) = shared.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
    }
}

pub(crate) fn difference(now: &Reading, then: &Reading) -> Reading {
    Reading {
        low: now.low.saturating_sub(then.low),
        value: now.value.saturating_sub(then.value),
        high: now.high.saturating_sub(then.high),
    }
}
