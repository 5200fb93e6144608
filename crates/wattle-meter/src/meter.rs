//! The meter: starts, is asked while it runs, and ends in a receipt.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::backend::{self, Backend, Roots, Subject};
use crate::cpu_model::idle_milliwatts;
use crate::processor_time::{ProcessorTime, machine_cores};
use crate::running::{GLANCE, Shared, State, TICK, sample};
use crate::scope::Scope;
use crate::series::Series;
use crate::settle::{components, receipt};
use crate::{
    Component, Factors, Machine, Package, Quantity, Receipt, Source, StopReason, Timestamp, Unit, WarningKind,
};

/// More wall clock than monotonic clock than any correction of the clock explains.
const SLEPT: Duration = Duration::from_secs(5);
/// However rare the user wants readings: counters of 32 bits, also those that a driver of a card adds up only when somebody
/// reads them, come round after four minutes at 1000 W.
const LONGEST: Duration = Duration::from_secs(60);

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
    /// Time between background readings, at most a minute, for counters wrap after minutes.
    pub interval: Duration,
    /// Whose work counts as the run's own.
    pub subject: Subject,
    /// What the machine's processors draw when nobody works, W; estimated from the kind of processor if not given.
    pub idle_power: Option<Quantity>,
    /// The machine's processor, where somebody knows better than the machine says.
    pub package: Option<Package>,
    /// Where the operating system shows its counters.
    pub roots: Roots,
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
            subject: Subject::This,
            idle_power: None,
            package: None,
            roots: Roots::default(),
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
    machine: Machine,
    config: MeterConfig,
    started: Timestamp,
}

/// Where a running measurement stands; for progress lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Time since the start.
    pub elapsed: Duration,
    /// Energy so far, J; `None` if the source knows none.
    pub energy: Option<Quantity>,
    /// Average power since the previous snapshot, W.
    pub power: Option<f64>,
}

impl Meter {
    /// Starts measuring with the best energy source of this machine.
    pub fn start(mut config: MeterConfig) -> Meter {
        // Once: on a large machine this reads for milliseconds.
        let machine = config.roots.machine();
        let (backend, warnings) = backend::open_on(&machine, config.package.as_ref(), &config.roots);
        config.warnings.extend(warnings);
        Meter::start_on(machine, config, backend)
    }

    /// Starts measuring with a given energy source, which must have been opened just now.
    pub fn start_with(config: MeterConfig, backend: Box<dyn Backend>) -> Meter {
        Meter::start_on(config.roots.machine(), config, backend)
    }

    fn start_on(machine: Machine, mut config: MeterConfig, backend: Box<dyn Backend>) -> Meter {
        let interval = config.interval.clamp(Duration::from_micros(100), LONGEST);
        let idle = idle_power(&config, &machine);
        let milliwatts = |watts: f64| (watts.max(0.0) * 1000.0) as u64;
        let accounts = [idle.low(), idle.value(), idle.high()].map(|watts| Account::new(milliwatts(watts)));
        config.idle_power = Some(idle);
        let steps = if backend.split().is_some() { interval.max(GLANCE) } else { interval };
        // A tenth of what means something in all: the steps of the source are then a tenth of the power between readings.
        let series = Series::new(steps, backend.shortest() / 10);
        let shared = Arc::new(Shared {
            start: Instant::now(),
            state: Mutex::new(State {
                backend,
                series,
                taken: 0,
                scopes: Vec::new(),
                clock: ProcessorTime::open(&config.roots.proc, config.subject),
                accounts,
                snapshot: (Duration::ZERO, 0),
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
        Meter { shared, sampler, machine, started: Timestamp::now(), config }
    }

    /// Opens a named phase; it ends when the guard is finished or dropped.
    pub fn scope(&self, name: &str) -> Scope {
        Scope::enter(Arc::clone(&self.shared), name.to_owned())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Energy so far, by component, J.
    pub fn components(&self) -> Vec<Component> {
        let mut state = self.shared.lock();
        let mark = state.read(self.shared.start.elapsed(), TICK);
        components(state.backend.domains(), &mark.energy)
    }

    /// Energy so far, J; for progress lines. `None` if the source knows none.
    pub fn energy(&self) -> Option<Quantity> {
        self.snapshot().energy
    }

    /// Where the measurement stands.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// A handle for threads of their own to see where the measurement stands. It may outlive the meter.
    pub fn gauge(&self) -> Gauge {
        Gauge { shared: Arc::clone(&self.shared) }
    }

    /// The receipt of what has been spent until now, for a run that keeps it on disk in case it is killed: should this be
    /// its last word, the run was interrupted. The measurement goes on.
    pub fn so_far(&self) -> Receipt {
        let mut state = self.shared.lock();
        let mark = state.read(self.shared.start.elapsed(), TICK);
        let settlement = state.settle(&mark, self.config.idle_power.clone());
        let mut receipt =
            receipt(&self.config, self.machine.clone(), self.started, &mark, settlement, &state);
        receipt.stop_reason = StopReason::Interrupted;
        receipt
    }

    /// Ends the measurement. The receipt still lacks what only the command knows: work, seeds, and a stop reason
    /// other than `completed`. Scopes still open are left out.
    pub fn stop(mut self) -> Receipt {
        let (mark, settlement) = {
            let mut state = self.shared.lock();
            let mark = state.read(self.shared.start.elapsed(), Duration::ZERO);
            let settlement = state.settle(&mark, self.config.idle_power.clone());
            (mark, settlement)
        };
        self.end_sampler();
        let wall = Timestamp::now().unix_millis().saturating_sub(self.started.unix_millis());
        let unseen = Duration::from_millis(wall).saturating_sub(mark.now.elapsed);
        if unseen > SLEPT {
            self.config.warnings.push(WarningKind::Suspended { seconds: unseen.as_secs() });
        }
        let state = self.shared.lock();
        receipt(&self.config, self.machine.clone(), self.started, &mark, settlement, &state)
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

/// Sees where a measurement stands, from another thread.
#[derive(Debug, Clone)]
pub struct Gauge {
    shared: Arc<Shared>,
}

impl Gauge {
    /// Where the measurement stands.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }
}

/// What was stated, or what a machine of this kind may draw.
fn idle_power(config: &MeterConfig, machine: &Machine) -> Quantity {
    config.idle_power.clone().unwrap_or_else(|| {
        let cores = machine_cores(&config.roots.proc).unwrap_or(machine.cores as u64);
        let package = config.package.as_ref();
        let milliwatts = idle_milliwatts(machine, package, cores);
        let [low, value, high] = milliwatts.map(|milliwatts| milliwatts as f64 / 1000.0);
        let model = package.map_or_else(
            || "idle-per-thread/1".to_owned(),
            |package| format!("idle-of-tdp/1:{}", package.describe()),
        );
        Quantity::new(value, low, high, Unit::Watt, Source::modelled(model)).expect("the classes are ordered")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Boundary;
    use crate::backend::{Domain, Moment, Part, Reading};
    use crate::cpu_model::CpuModel;
    use crate::several::Several;

    /// A counter that gives `watts` exactly, by the clock of the meter.
    struct Steady {
        domains: Vec<Domain>,
        watts: u64,
        readings: Vec<Reading>,
        covered: Duration,
        shortest: Duration,
        /// What each counter may have missed, microjoules.
        missed: u64,
    }

    impl Steady {
        fn new(watts: u64) -> Box<Steady> {
            let domain = |name: &str| Domain {
                name: name.to_owned(),
                part: Part::Processor,
                source: Source::measured(format!("fake:{name}")),
                resolution: 0,
            };
            Box::new(Steady {
                domains: vec![domain("package-0"), domain("package-1")],
                watts,
                readings: Vec::new(),
                covered: Duration::ZERO,
                shortest: Duration::ZERO,
                missed: 0,
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
        fn read(&mut self, now: Moment) -> &[Reading] {
            let elapsed = now.elapsed;
            let value = elapsed.as_micros() as u64 * self.watts;
            self.covered = elapsed;
            self.readings = vec![Reading { low: value, value, high: value + self.missed }; 2];
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

    /// The real `/proc`, and a tree of our own instead of `/sys`.
    fn no_sysfs(sys: &std::path::Path) -> Roots {
        Roots { sys: sys.to_owned(), dev: sys.to_owned(), ..Roots::default() }
    }

    fn near(a: f64, b: f64) -> bool {
        // The fake counter counts in microseconds, the clock in nanoseconds.
        (a - b).abs() <= 1e-3 * b.abs().max(0.1)
    }

    #[test]
    fn components_add_up_to_the_total_and_power_is_energy_over_time() {
        let meter = Meter::start_with(config(), Steady::new(10));
        // However busy the machine is.
        while meter.shared.lock().taken < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
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
        let shares = r.shares.unwrap();
        assert_eq!(shares.process_uj + shares.other_uj + shares.idle_uj, shares.machine_uj);
        assert_eq!(shares.machine_uj as f64 / 1e6, total.value());
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
        let meter = Meter::start(MeterConfig { roots: no_sysfs(root.path()), ..config() });
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
        let zone = root.path().join("class/powercap/intel-rapl:0");
        fs::create_dir_all(&zone).unwrap();
        let put = |file: &str, text: &str| fs::write(zone.join(file), text).unwrap();
        put("name", "package-0");
        put("max_energy_range_uj", "262143328850");
        put("energy_uj", "262143000000");
        let still = Duration::from_secs(3600); // no background reading may see a half-written file
        let meter = Meter::start(MeterConfig { roots: no_sysfs(root.path()), interval: still, ..config() });
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
    fn a_stated_idle_power_above_the_draw_leaves_nothing_to_the_process() {
        let idle = Quantity::exact(1000.0, Unit::Watt, Source::assumed("stated by the caller")).unwrap();
        let meter = Meter::start_with(MeterConfig { idle_power: Some(idle), ..config() }, Steady::new(10));
        std::thread::sleep(Duration::from_millis(5));
        let shares = meter.stop().shares.unwrap();
        assert_eq!((shares.process_uj, shares.other_uj), (0, 0));
        assert_eq!(shares.idle_uj, shares.machine_uj);
    }

    #[test]
    fn what_a_counter_may_have_missed_may_have_been_the_commands() {
        let mut counters = Steady::new(10);
        counters.missed = 5_000_000;
        let idle = Quantity::exact(0.0, Unit::Watt, Source::assumed("stated by the caller")).unwrap();
        let meter = Meter::start_with(MeterConfig { idle_power: Some(idle), ..config() }, counters);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(80) {
            std::hint::black_box(begun);
        }
        let shares = meter.stop().shares.unwrap();
        assert!(shares.process.high() >= shares.process.value() + 9.9, "two of 5 J: {}", shares.process);
        assert!(shares.process.high() <= shares.machine_uj as f64 / 1e6 + 10.1, "{}", shares.process);
    }

    #[test]
    fn a_snapshot_shows_the_power_since_the_last_one() {
        let meter = Meter::start_with(config(), Steady::new(10));
        std::thread::sleep(Duration::from_millis(5));
        let first = meter.snapshot();
        std::thread::sleep(Duration::from_millis(5));
        let second = meter.snapshot();
        assert!(near(second.power.unwrap(), 20.0), "{second:?}");
        assert!(second.elapsed > first.elapsed);
    }

    #[test]
    fn a_receipt_so_far_is_part_of_the_last_one_and_ends_nothing() {
        let meter = Meter::start_with(config(), Steady::new(10));
        std::thread::sleep(Duration::from_millis(5));
        let early = meter.so_far();
        std::thread::sleep(Duration::from_millis(5));
        let last = meter.stop();
        assert_eq!(early.stop_reason, StopReason::Interrupted);
        assert!(near(early.energy.total.unwrap().value(), 20.0 * early.duration.value()));
        assert!(early.duration.value() < last.duration.value());
        let (early, last) = (early.shares.unwrap(), last.shares.unwrap());
        assert!(early.machine_uj < last.machine_uj);
        assert!(early.process_uj <= last.process_uj && early.idle_uj <= last.idle_uj);
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
    fn the_energy_of_a_card_is_not_taken_for_the_share_of_the_command() {
        let roots = Roots::default();
        let model = CpuModel::open(&roots, &roots.machine(), None);
        let mut card = Steady::new(100_000);
        card.domains.iter_mut().for_each(|domain| domain.part = Part::Gpu);
        let both = Several::new(vec![Box::new(model), card]);
        let meter = Meter::start_with(config(), Box::new(both));
        std::thread::sleep(Duration::from_millis(50));
        let r = meter.stop();
        let part = &r.energy.components.last().unwrap().energy;
        assert!(part.value() >= 5000.0 && part.source().is_measured());
        assert!(r.coverage.measured.value() > 0.0, "a measured card is measured beside a model");
        assert!(near(r.coverage.modelled.value(), r.duration.value()));
        let share = r.shares.unwrap().process;
        assert!(share.high() < 1000.0, "at most every processor at its most: {share}");
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
