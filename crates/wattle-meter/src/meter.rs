//! The running meter: starts, takes readings in the background, marks scopes, and ends in a receipt.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::backend::{self, Backend, Reading};
use crate::cpu_time::cpu_time;
use crate::series::Series;
use crate::settle::{components, receipt, record, total};
use crate::{Factors, Quantity, Receipt, ScopeRecord, Timestamp, WarningKind};

/// What a meter needs to know before it starts.
#[derive(Debug, Clone)]
pub struct MeterConfig {
    /// The command and its arguments, for the receipt.
    pub command: Vec<String>,
    /// The user's own labels, for the receipt.
    pub labels: BTreeMap<String, String>,
    /// What turns joules into grams and money.
    pub factors: Factors,
    /// Warnings that arose before the start, such as that of [`Factors::resolve`].
    pub warnings: Vec<WarningKind>,
    /// Time between background readings; counters wrap after minutes, so keep it at seconds.
    pub interval: Duration,
    /// Root of the energy counters.
    pub powercap: PathBuf,
    /// Root of the process file system.
    pub proc: PathBuf,
}

impl MeterConfig {
    /// The usual: default factors, one reading a second, the machine's own counters.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        MeterConfig {
            command: command.into_iter().map(Into::into).collect(),
            labels: BTreeMap::new(),
            factors: Factors::default(),
            warnings: Vec::new(),
            interval: Duration::from_secs(1),
            powercap: PathBuf::from("/sys/class/powercap"),
            proc: PathBuf::from("/proc"),
        }
    }
}

/// A running measurement. It never fails: what cannot be measured is modelled, and the receipt says so.
///
/// Cheap enough to leave on: one thread that wakes once an interval to read a few small files.
///
/// ```
/// use wattle_meter::{Meter, MeterConfig, StopReason};
/// let meter = Meter::start(MeterConfig::new(["demo"]));
/// let epoch = meter.scope("train").scope("epoch");
/// let sum: u64 = (0..1000).sum();
/// drop(epoch);
/// let mut receipt = meter.stop();
/// receipt.stop_reason = StopReason::TargetReached;
/// assert_eq!(receipt.scopes[1].path, "train/epoch");
/// # assert_eq!(sum, 499_500);
/// ```
#[derive(Debug)]
pub struct Meter {
    shared: Arc<Shared>,
    sampler: Option<JoinHandle<()>>,
    config: MeterConfig,
    started: Timestamp,
    cpu_at_start: Option<Duration>,
}

struct Shared {
    start: Instant,
    state: Mutex<State>,
    wake: Condvar,
}

pub(crate) struct State {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) series: Series,
    pub(crate) taken: u64,
    pub(crate) scopes: Vec<Tally>,
    stopped: bool,
}

/// What one scope path has gathered so far.
pub(crate) struct Tally {
    pub(crate) path: String,
    pub(crate) count: u64,
    pub(crate) duration: Duration,
    pub(crate) spent: Vec<Reading>,
}

/// A moment: time since start, and the energy of each domain until then.
#[derive(Clone)]
pub(crate) struct Mark {
    pub(crate) at: Duration,
    pub(crate) energy: Vec<Reading>,
}

impl Meter {
    /// Starts measuring with the best energy source of this machine.
    pub fn start(mut config: MeterConfig) -> Meter {
        let (backend, warnings) = backend::open(&config.powercap, &config.proc);
        config.warnings.extend(warnings);
        Meter::start_with(config, backend)
    }

    /// Starts measuring with a given energy source, which must have been opened just now.
    pub fn start_with(mut config: MeterConfig, backend: Box<dyn Backend>) -> Meter {
        let interval = config.interval.max(Duration::from_micros(100));
        let shared = Arc::new(Shared {
            start: Instant::now(),
            state: Mutex::new(State {
                backend,
                series: Series::new(interval),
                taken: 0,
                scopes: Vec::new(),
                stopped: false,
            }),
            wake: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let sampler = std::thread::Builder::new()
            .name("wattle-meter".to_owned())
            .spawn(move || sample(&theirs, interval))
            .map_err(|e| config.warnings.push(WarningKind::NoSampler { reason: e.to_string() }))
            .ok();
        let cpu_at_start = cpu_time(&config.proc);
        Meter { shared, sampler, started: Timestamp::now(), cpu_at_start, config }
    }

    /// Opens a named phase; it ends when the guard is finished or dropped.
    pub fn scope(&self, name: &str) -> Scope {
        Scope::enter(Arc::clone(&self.shared), name.to_owned())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Energy so far, J; for progress lines. `None` if the source knows none.
    pub fn energy(&self) -> Option<Quantity> {
        let mut state = self.shared.lock();
        let mark = state.read(self.shared.start.elapsed());
        total(&components(state.backend.domains(), &mark.energy))
    }

    /// Ends the measurement. The receipt still lacks what only the command knows: work, seeds, and a stop reason
    /// other than `completed`. Scopes still open are left out.
    pub fn stop(mut self) -> Receipt {
        let mark = {
            let mut state = self.shared.lock();
            state.read(self.shared.start.elapsed())
        };
        let cpu =
            cpu_time(&self.config.proc).zip(self.cpu_at_start).map(|(now, then)| now.saturating_sub(then));
        self.end_sampler();
        let state = self.shared.lock();
        receipt(&self.config, self.started, cpu, &mark, &state)
    }

    fn end_sampler(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.wake.notify_all();
        if let Some(sampler) = self.sampler.take() {
            // The sampler does not panic; if it did, the readings taken until then still stand.
            let _ = sampler.join();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end_sampler();
    }
}

/// A phase of a run. Scopes may be opened from any thread, nest by [`scope`](Self::scope), and may overlap.
#[derive(Debug)]
pub struct Scope {
    shared: Arc<Shared>,
    path: String,
    entered: Option<Mark>,
}

impl Scope {
    fn enter(shared: Arc<Shared>, path: String) -> Scope {
        let mut state = shared.lock();
        if state.scopes.iter().all(|tally| tally.path != path) {
            let spent = vec![Reading::default(); state.backend.domains().len()];
            state.scopes.push(Tally { path: path.clone(), count: 0, duration: Duration::ZERO, spent });
        }
        let mark = state.read(shared.start.elapsed());
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
        let mark = state.read(self.shared.start.elapsed());
        let duration = mark.at.saturating_sub(entered.at);
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

impl Shared {
    /// A panic elsewhere must not cost the receipt: the state is whole between any two statements that hold it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read(&mut self, at: Duration) -> Mark {
        self.taken += 1;
        Mark { at, energy: self.backend.read(at).to_vec() }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("start", &self.start).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mark").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The body of the sampling thread: one reading an interval until told to stop.
fn sample(shared: &Shared, interval: Duration) {
    let mut state = shared.lock();
    let mut next = Duration::ZERO;
    while !state.stopped {
        let now = shared.start.elapsed();
        if now >= next {
            let mark = state.read(now);
            state.series.offer(now, mark.energy.iter().fold(0, |sum, r| sum.saturating_add(r.value)));
            // After a long sleep the missed readings are not made up for.
            next = (next + interval).max(now);
        }
        let wait = next.saturating_sub(shared.start.elapsed());
        (state, _) = shared.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
    }
}

fn difference(now: &Reading, then: &Reading) -> Reading {
    Reading {
        low: now.low.saturating_sub(then.low),
        value: now.value.saturating_sub(then.value),
        high: now.high.saturating_sub(then.high),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::backend::Domain;
    use crate::{Boundary, Source};

    /// A counter that gives `watts` exactly, by the clock of the meter.
    struct Steady {
        domains: Vec<Domain>,
        watts: u64,
        readings: Vec<Reading>,
        covered: Duration,
        shortest: Duration,
    }

    impl Steady {
        fn new(watts: u64) -> Box<Steady> {
            let domain = |name: &str| Domain {
                name: name.to_owned(),
                source: Source::measured(format!("fake:{name}")),
                resolution: 0,
            };
            Box::new(Steady {
                domains: vec![domain("package-0"), domain("package-1")],
                watts,
                readings: Vec::new(),
                covered: Duration::ZERO,
                shortest: Duration::ZERO,
            })
        }
    }

    impl Backend for Steady {
        fn name(&self) -> &'static str {
            "fake"
        }
        fn boundary(&self) -> Boundary {
            Boundary::WholePackages
        }
        fn domains(&self) -> &[Domain] {
            &self.domains
        }
        fn read(&mut self, elapsed: Duration) -> &[Reading] {
            let value = elapsed.as_micros() as u64 * self.watts;
            self.covered = elapsed;
            self.readings = vec![Reading { low: value, value, high: value }; 2];
            &self.readings
        }
        fn covered(&self) -> Duration {
            self.covered
        }
        fn shortest(&self) -> Duration {
            self.shortest
        }
        fn warnings(&self) -> Vec<WarningKind> {
            Vec::new()
        }
    }

    fn config() -> MeterConfig {
        MeterConfig { interval: Duration::from_millis(2), ..MeterConfig::new(["test"]) }
    }

    fn near(a: f64, b: f64) -> bool {
        // The fake counter counts in microseconds, the clock in nanoseconds.
        (a - b).abs() <= 1e-3 * b.abs().max(0.1)
    }

    #[test]
    fn components_add_up_to_the_total_and_power_is_energy_over_time() {
        let meter = Meter::start_with(config(), Steady::new(10));
        std::thread::sleep(Duration::from_millis(20));
        let r = meter.stop();
        let total = r.energy.total.unwrap();
        assert!(near(total.value(), 20.0 * r.duration.value()), "two packages of 10 W");
        assert_eq!(total.source().to_string(), "measured:fake:package-0 + fake:package-1");
        let power = r.power.unwrap();
        assert!(near(power.value(), 20.0));
        assert!(power.source().is_measured());
        assert_eq!(r.carbon.unwrap().source().kind(), "modelled");
        assert!(near(r.coverage.measured.value(), r.duration.value()));
        assert_eq!(r.coverage.modelled.value(), 0.0);
        assert_eq!(r.warnings, []);
        assert!(r.samples.readings.len() >= 3, "sampled in the background: {:?}", r.samples);
    }

    #[test]
    fn scopes_nest_repeat_and_share_the_energy_of_their_time() {
        let meter = Meter::start_with(config(), Steady::new(10));
        let train = meter.scope("train");
        for _ in 0..3 {
            let epoch = train.scope("epoch");
            std::thread::sleep(Duration::from_millis(2));
            let once = epoch.finish();
            assert_eq!((once.path.as_str(), once.count), ("train/epoch", 1));
            assert!(near(once.energy.unwrap().value(), 20.0 * once.duration.value()));
        }
        drop(train);
        let open = meter.scope("never finished");
        let r = meter.stop();
        drop(open);
        let seen: Vec<(&str, u64)> = r.scopes.iter().map(|s| (s.path.as_str(), s.count)).collect();
        assert_eq!(seen, [("train", 1), ("train/epoch", 3)]);
        let joules = |i: usize| r.scopes[i].energy.as_ref().unwrap().value();
        assert!(joules(0) >= joules(1), "a scope contains its inner scopes");
        assert!(r.energy.total.unwrap().value() >= joules(0));
    }

    #[test]
    fn scopes_from_many_threads_are_all_counted() {
        let meter = Meter::start_with(config(), Steady::new(1));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..100 {
                        drop(meter.scope("work"));
                    }
                });
            }
        });
        assert_eq!(meter.stop().scopes[0].count, 400);
    }

    #[test]
    fn without_counters_the_receipt_says_modelled_in_every_place() {
        let root = tempfile::tempdir().unwrap();
        let meter = Meter::start(MeterConfig { powercap: root.path().to_owned(), ..config() });
        let r = meter.stop();
        let total = r.energy.total.as_ref().unwrap();
        assert_eq!(total.source().kind(), "modelled");
        assert!(total.low() < total.value() && total.value() < total.high());
        assert!(r.warnings.iter().any(|w| matches!(w.kind, WarningKind::ModelledNotMeasured { .. })));
        assert_eq!(r.coverage.measured.value(), 0.0);
        assert_eq!(r.energy.boundary, Boundary::ProcessShare);
    }

    #[test]
    fn counters_in_a_powercap_tree_are_measured_through_a_wrap() {
        let root = tempfile::tempdir().unwrap();
        let zone = root.path().join("intel-rapl:0");
        fs::create_dir(&zone).unwrap();
        let put = |file: &str, text: &str| fs::write(zone.join(file), text).unwrap();
        put("name", "package-0");
        put("max_energy_range_uj", "262143328850");
        put("energy_uj", "262143000000");
        let still = Duration::from_secs(3600); // no background reading may see a half-written file
        let meter =
            Meter::start(MeterConfig { powercap: root.path().to_owned(), interval: still, ..config() });
        while meter.shared.lock().taken == 0 {
            std::thread::yield_now();
        }
        put("energy_uj", "671150");
        let r = meter.stop();
        let total = r.energy.total.unwrap();
        assert_eq!((total.low(), total.value(), total.high()), (1.000001, 1.000001, 1.000001));
        assert_eq!(total.source().to_string(), "measured:rapl-powercap:package-0");
    }

    #[test]
    fn a_short_run_is_called_too_short() {
        let mut slow = Steady::new(1);
        slow.shortest = Duration::from_secs(3600);
        let r = Meter::start_with(config(), slow).stop();
        assert!(matches!(r.warnings[0].kind, WarningKind::TooShortToMeasure { needed_ms: 3_600_000 }));
    }

    #[test]
    fn a_dropped_meter_ends_its_thread() {
        let meter = Meter::start_with(config(), Steady::new(1));
        let shared = Arc::downgrade(&meter.shared);
        drop(meter);
        assert!(shared.upgrade().is_none(), "the sampler still holds the meter");
    }

    #[test]
    fn starting_and_stopping_is_quick_and_many_scopes_are_cheap() {
        let start = Instant::now();
        let meter = Meter::start(MeterConfig::new(["test"]));
        for _ in 0..100 {
            drop(meter.scope("step"));
        }
        let r = meter.stop();
        assert_eq!(r.scopes[0].count, 100);
        assert!(start.elapsed() < Duration::from_millis(500), "took {:?}", start.elapsed());
    }
}
