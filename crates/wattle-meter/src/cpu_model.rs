//! Energy without counters: a stated model of processor time, with a wide interval.
//!
//! `cpu-time/1`: `E = elapsed * cores * idle + busy * (full - idle)`, where `busy` is this process's processor time,
//! `cores` the logical processors it may use, and `idle` and `full` the package power per logical processor at rest
//! and under load. Where processor time is unknown, it lies anywhere between none and all cores.
//!
//! What is known about a class of processor is coarse, so the bounds are wide on purpose. Central values for servers
//! are Cloud Carbon Footprint's averages over AWS instances (0.74 W and 3.5 W a vCPU); the unknown processor's is
//! CodeCarbon's 4 W a thread. The bounds are a judgement: they contain published RAPL sweeps of an EPYC 8024P (18 W at
//! 1 %, 29 W at 10 %, 46 W at 100 % of 16 threads) and an E3-1240 v2 (50 to 97 W on 8 threads), where one busy
//! thread can raise a whole core and its clock. They are no fitted confidence band.
//!
//! `cpu-clock/1`, where the clocks of a machine of one's own can be read: the same formula with `idle` and `full - idle`
//! proportional to the clock, fitted to 106 points of RAPL sweeps on four processors (`cpu_fit`). Its bounds are a 90 %
//! prediction interval for another processor.
//!
//! `cpu-tdp/1`, where somebody stated the processor: the first formula with parts of what a thread's share of the TDP is,
//! [`OF_TDP`]. A virtual machine is answerable for its threads' part of a package that is full; that it may make an
//! otherwise idle one draw more than this part is not in the interval. Of the same sweeps, told their TDP, the bounds hold
//! 94 of 106 points, as many as those of the classes, at half their width; eleven of the twelve outside are of the
//! doubtful folder.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::account::Split;
use crate::backend::{Backend, Domain, Moment, Part, Reading, Roots};
use crate::microarchitecture::{self, Market};
use crate::number_file::NumberFile;
use crate::processor_time::RESOLUTION;
use crate::{Boundary, Machine, Package, Source, WarningKind};

/// Fifty times the resolution of processor time.
const SHORTEST: Duration = Duration::from_secs(1);

const MODEL: &str = "cpu-time/1";

/// Milliwatts as low, value, high.
type Milliwatts = [u64; 3];

/// What is assumed about one kind of processor, per logical processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    name: &'static str,
    idle: Milliwatts,
    /// Full load minus idle.
    busy: Milliwatts,
}

const SERVER: Class = Class { name: "server", idle: [200, 740, 2000], busy: [1000, 2760, 10_000] };
const CLIENT: Class = Class { name: "client", idle: [100, 500, 3000], busy: [1500, 5000, 25_000] };
const UNKNOWN: Class = Class { name: "unknown-processor", idle: [50, 600, 3000], busy: [300, 4000, 25_000] };

/// Milliwatts per logical processor and GHz: 0.71 W at rest and 1.38 W more under load, each within a factor of 2.38,
/// by `cpu_fit` over all processors of the sweeps.
const BY_CLOCK: Class = Class { name: "cpu-clock/1", idle: [298, 710, 1690], busy: [580, 1380, 3284] };

/// Percent of the TDP's part of a thread: at rest, and what load adds. The upper ends add up to 135 %, the most that makers
/// let a package draw for a while (AMD's PPT; Intel's second limit is lower).
const OF_TDP: [[u64; 3]; 2] = [[6, 15, 50], [20, 60, 85]];

/// Clocks of some processors stand for all; reading one may interrupt its core.
const CLOCKS: usize = 8;
/// Clocks are read no more often than this.
const CLOCK_PATIENCE: Duration = Duration::from_millis(900);

/// The machine's clock, as the mean over some of its processors.
#[derive(Debug)]
struct Clock {
    files: Vec<NumberFile>,
    read_at: Duration,
    megahertz: u64,
}

impl Clock {
    /// `None` where the clocks cannot be read.
    fn open(sys: &Path) -> Option<Clock> {
        let policies = fs::read_dir(sys.join("devices/system/cpu/cpufreq")).ok()?.flatten();
        let mut files: Vec<_> = policies.map(|p| p.path().join("scaling_cur_freq")).collect();
        files.sort();
        let every = files.len().div_ceil(CLOCKS).max(1);
        let files = files.into_iter().step_by(every).map(NumberFile::new).collect();
        let mut clock = Clock { files, read_at: Duration::ZERO, megahertz: 0 };
        clock.read();
        (clock.megahertz > 0).then_some(clock)
    }

    /// A clock that cannot be read now stays what it was.
    fn read(&mut self) {
        let kilohertz: Vec<u64> = self.files.iter_mut().filter_map(|file| file.read().ok()).collect();
        if !kilohertz.is_empty() {
            self.megahertz = kilohertz.iter().sum::<u64>() / kilohertz.len() as u64 / 1000;
        }
    }

    fn at(&mut self, elapsed: Duration) -> u64 {
        if elapsed.saturating_sub(self.read_at) >= CLOCK_PATIENCE {
            self.read_at = elapsed;
            self.read();
        }
        self.megahertz
    }
}

impl Class {
    /// What is known best: the stated processor, else what the machine says of itself.
    fn best(machine: &Machine, package: Option<&Package>) -> Class {
        let Some(package) = package else { return *Class::of(machine) };
        let each = package.tdp_w * 1000.0 / f64::from(package.threads);
        let [idle, busy] = OF_TDP.map(|parts| parts.map(|percent| (each * percent as f64 / 100.0) as u64));
        Class { name: "cpu-tdp/1", idle, busy }
    }

    /// By the processor's name, else by its design; an unknown virtual machine most likely runs on a server.
    fn of(machine: &Machine) -> &'static Class {
        let name = machine.cpu_model.as_deref().unwrap_or("").to_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if any(&["xeon", "epyc", "neoverse", "graviton", "opteron"]) {
            &SERVER
        } else if any(&["core(tm)", "ryzen", "athlon", "pentium", "celeron", "core ultra"]) {
            &CLIENT
        } else if let Some(design) = microarchitecture::identify(machine) {
            match design.market {
                Market::Server => &SERVER,
                Market::Client => &CLIENT,
            }
        } else if machine.virtualised == Some(true) {
            &SERVER
        } else {
            &UNKNOWN
        }
    }
}

/// Watts that an idle machine of this kind may draw in its processors: milliwatts as low, value, high.
pub(crate) fn idle_milliwatts(machine: &Machine, package: Option<&Package>, cores: u64) -> [u64; 3] {
    Class::best(machine, package).idle.map(|milliwatts| milliwatts.saturating_mul(cores))
}

/// The model, opened at a moment from which it counts.
#[derive(Debug)]
pub struct CpuModel {
    class: Class,
    clock: Option<Clock>,
    identity: String,
    cores: u64,
    last: Moment,
    /// Idle and busy energy so far, in nanojoules, as low, value, high.
    spent: [[u64; 3]; 2],
    /// That of other processes; own time that is found late takes back what others were given for it.
    others: i64,
    domains: [Domain; 2],
    readings: [Reading; 2],
    split: Split,
}

impl CpuModel {
    /// Opens the model for a machine, and its processor where that was stated.
    pub fn open(roots: &Roots, machine: &Machine, package: Option<&Package>) -> Self {
        // The clock that a hypervisor shows is its own invention.
        let own = machine.virtualised == Some(false) && package.is_none();
        let clock = own.then(|| Clock::open(&roots.sys)).flatten();
        let best = Class::best(machine, package);
        let (class, source) = match (&clock, package) {
            (Some(_), _) => (BY_CLOCK, BY_CLOCK.name.to_owned()),
            (None, Some(package)) => (best, format!("{}:{}", best.name, package.describe())),
            (None, None) => (best, format!("{MODEL}:{}", best.name)),
        };
        let domain = |name: &str, resolution| Domain {
            name: name.to_owned(),
            part: Part::Processor,
            source: Source::modelled(source.clone()),
            resolution,
        };
        let most = clocked(class.busy, clock.as_ref().map(|clock| clock.megahertz))[2];
        CpuModel {
            class,
            clock,
            identity: package.map_or_else(|| identity(machine), |p| format!("{}, as stated", p.describe())),
            cores: machine.cores as u64,
            last: Moment::default(),
            spent: [[0; 3]; 2],
            others: 0,
            domains: [domain("cpu-idle", 0), domain("cpu-busy", nanojoules(most, RESOLUTION) / 1000)],
            readings: [Reading::default(); 2],
            split: Split::default(),
        }
    }

    /// The processor in words: its name, and its design where that is known.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }
}

/// A name that says no more than the maker leaves the exact model open, and with it the power.
fn identity(machine: &Machine) -> String {
    let name = machine.cpu_model.as_deref().unwrap_or("unknown");
    let says_which = name.chars().any(|c| c.is_ascii_digit());
    let design = microarchitecture::identify(machine).map(|d| d.name);
    match (says_which, design) {
        (true, Some(design)) => format!("{name}, {design}"),
        (true, None) => name.to_owned(),
        (false, Some(design)) => format!("{name}: exact model unknown (option `cpu-model`), design {design}"),
        (false, None) => format!("{name}: exact model unknown (option `cpu-model`)"),
    }
}

/// Per GHz to per processor, where there is a clock.
fn clocked(power: Milliwatts, megahertz: Option<u64>) -> Milliwatts {
    megahertz.map_or(power, |megahertz| power.map(|milliwatts| milliwatts * megahertz / 1000))
}

/// Milliwatts times microseconds.
fn nanojoules(milliwatts: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(milliwatts) * time.as_micros()).unwrap_or(u64::MAX)
}

fn reading([low, value, high]: [u64; 3]) -> Reading {
    Reading { low: low / 1000, value: value / 1000, high: high / 1000 }
}

impl Backend for CpuModel {
    fn name(&self) -> &'static str {
        "cpu-model"
    }

    fn boundary(&self) -> Boundary {
        Boundary::ProcessShare
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Moment) -> &[Reading] {
        let last = std::mem::replace(&mut self.last, now);
        let since = |now: Duration, then: Option<Duration>| now.saturating_sub(then.unwrap_or_default());
        let elapsed = now.elapsed.saturating_sub(last.elapsed);
        let all_cores = elapsed.saturating_mul(u32::try_from(self.cores).unwrap_or(u32::MAX));
        let own = now.own.map_or([Duration::ZERO, elapsed, all_cores], |own| [since(own, last.own); 3]);
        let busy = now.busy.map(|busy| since(busy, last.busy));
        let megahertz = self.clock.as_mut().map(|clock| clock.at(now.elapsed));
        let [idle_power, busy_power] = [self.class.idle, self.class.busy].map(|p| clocked(p, megahertz));
        for i in 0..3 {
            let idle = nanojoules(idle_power[i], elapsed).saturating_mul(self.cores);
            self.spent[0][i] = self.spent[0][i].saturating_add(idle);
            self.spent[1][i] = self.spent[1][i].saturating_add(nanojoules(busy_power[i], own[i]));
        }
        if let (Some(busy), Some(_)) = (busy, now.own) {
            let energy = |time| i64::try_from(nanojoules(busy_power[1], time)).unwrap_or(i64::MAX);
            let others = self.others.saturating_add(energy(busy));
            self.others = others.saturating_sub(energy(own[1]));
        }
        self.readings = self.spent.map(reading);
        self.split = Split {
            process: self.readings[1].value,
            other: u64::try_from(self.others / 1000).unwrap_or(0),
            idle: self.readings[0].value,
        };
        &self.readings
    }

    fn split(&self) -> Option<Split> {
        Some(self.split)
    }

    fn covered(&self) -> Duration {
        self.last.elapsed
    }

    fn shortest(&self) -> Duration {
        SHORTEST
    }

    fn warnings(&self) -> Vec<WarningKind> {
        Vec::new()
    }
}

/// Power of this machine's processor while `busy` logical processors work: for estimates of runs that have not
/// happened. The same model as that of `CpuModel`, with its width.
pub fn working_power(machine: &Machine, package: Option<&Package>, busy: usize) -> crate::Quantity {
    let class = Class::best(machine, package);
    let cores = machine.cores.max(busy);
    let watts = |i: usize| (cores as f64 * class.idle[i] as f64 + busy as f64 * class.busy[i] as f64) / 1e3;
    let model = package
        .map_or_else(|| format!("{MODEL}:{}", class.name), |p| format!("{}:{}", class.name, p.describe()));
    let source = Source::modelled(format!("{model}, {busy} of {cores} logical processors busy"));
    crate::Quantity::new(watts(1), watts(0), watts(2), crate::Unit::Watt, source)
        .expect("the classes are ordered")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cpu_fit::{SweepPoint, sweeps};

    fn open(proc: &Path) -> CpuModel {
        let nowhere = || "/nonexistent".into();
        let roots = Roots { proc: proc.to_owned(), sys: nowhere(), dev: nowhere() };
        CpuModel::open(&roots, &roots.machine(), None)
    }

    fn proc(cpuinfo: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cpuinfo"), cpuinfo).unwrap();
        root
    }

    fn class(model: &str, flags: &str) -> Class {
        open(proc(&format!("model name : {model}\nflags : {flags}\n")).path()).class
    }

    #[test]
    fn classes_follow_the_name_and_then_the_hypervisor() {
        assert_eq!(class("AMD EPYC", "fpu hypervisor"), SERVER);
        assert_eq!(class("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", "fpu"), CLIENT);
        assert_eq!(class("QEMU Virtual CPU", "fpu hypervisor"), SERVER);
        assert_eq!(class("Something else", "fpu"), UNKNOWN);
    }

    #[test]
    fn a_masked_name_leads_to_the_design_and_never_to_one_exact_model() {
        let text =
            "vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 1\nstepping : 1\nmodel name : AMD EPYC\n";
        let model = open(proc(text).path());
        assert_eq!(
            model.identity(),
            "AMD EPYC: exact model unknown (option `cpu-model`), design Zen 3 (Milan)"
        );
    }

    #[test]
    fn ten_busy_seconds_cost_what_the_formula_says() {
        let mut model = open(proc("model name : AMD EPYC\n").path());
        model.cores = 2;
        let seconds = |s| Some(Duration::from_secs(s));
        let now =
            Moment { elapsed: Duration::from_secs(10), own: seconds(10), busy: seconds(15), lagging: false };
        let [idle, busy] = model.read(now) else { panic!("two domains") };
        assert_eq!(idle.value, 14_800_000, "10 s x 2 cores x 0.74 W");
        assert_eq!((busy.low, busy.value, busy.high), (10_000_000, 27_600_000, 100_000_000));
        assert_eq!(model.domains()[1].source.to_string(), "modelled:cpu-time/1:server");
        let split = Split { process: 27_600_000, other: 13_800_000, idle: 14_800_000 };
        assert_eq!(model.split(), Some(split));
    }

    #[test]
    fn the_bounds_of_the_classes_hold_published_sweeps() {
        let inside = |p: &&SweepPoint| {
            let class = class(&p.cpu, "fpu");
            let at = |i: usize| p.threads * (class.idle[i] as f64 + p.load * class.busy[i] as f64) / 1000.0;
            at(0) <= p.watts && p.watts <= at(2)
        };
        let points = sweeps();
        assert_eq!(points.len(), 106);
        let inside = points.iter().filter(inside).count();
        // Nothing of the classes was fitted to these points; all twelve outside are of one doubtful folder (E5-1240).
        assert!(inside >= 94, "{inside} of 106");
    }

    #[test]
    fn a_stated_processor_caps_what_a_virtual_machine_is_answerable_for() {
        let root = proc("model name : AMD EPYC\nflags : fpu hypervisor\n");
        let roots = Roots { proc: root.path().into(), sys: root.path().into(), dev: root.path().into() };
        let package = Package::stated(Some("EPYC 7763"), None, None).unwrap();
        let mut model = CpuModel::open(&roots, &roots.machine(), package.as_ref());
        model.cores = 2;
        let second = Some(Duration::from_secs(1));
        let now = Moment { elapsed: Duration::from_secs(1), own: second, busy: second, lagging: false };
        let [idle, busy] = model.read(now) else { panic!("two domains") };
        // 280 W for 128 threads: 2.19 W each.
        assert_eq!((idle.value, busy.value), (2 * 328_000, 1_312_000));
        let most = 2.0 * 1.35 * 280.0 / 128.0;
        assert!((idle.high + busy.high) as f64 / 1e6 <= most, "{idle:?} {busy:?}");
        let source = model.domains()[1].source.to_string();
        assert_eq!(source, "modelled:cpu-tdp/1:AMD EPYC 7763, 280 W, 128 threads");
        let power = working_power(&roots.machine(), package.as_ref(), 2);
        assert!(power.high() <= most * (roots.machine().cores.max(2) as f64 / 2.0), "{power}");
    }

    #[test]
    fn the_bounds_of_a_stated_processor_hold_published_sweeps() {
        let tdp = |cpu: &str| match cpu {
            cpu if cpu.contains("8024P") => 90.0,
            cpu if cpu.contains("1950X") => 180.0,
            // Two sockets.
            cpu if cpu.contains("E5-2620") => 170.0,
            _ => 69.0,
        };
        let points = sweeps();
        let inside = points.iter().filter(|p| {
            let at = |i: usize| {
                let [idle, busy] = OF_TDP.map(|parts| parts[i] as f64 / 100.0);
                tdp(&p.cpu) * (idle + p.load * busy)
            };
            at(0) <= p.watts && p.watts <= at(2)
        });
        assert_eq!((inside.count(), points.len()), (94, 106));
    }

    #[test]
    fn a_machine_of_ones_own_pays_by_its_clock() {
        let root = proc("model name : Intel(R) Core(TM) i7\nflags : fpu\n");
        let policy = |n: u32| root.path().join(format!("devices/system/cpu/cpufreq/policy{n}"));
        for (n, kilohertz) in [(0, "1500000"), (1, "2500000")] {
            fs::create_dir_all(policy(n)).unwrap();
            fs::write(policy(n).join("scaling_cur_freq"), kilohertz).unwrap();
        }
        let roots = |root: &tempfile::TempDir| Roots {
            proc: root.path().into(),
            sys: root.path().into(),
            dev: root.path().into(),
        };
        let mut model = CpuModel::open(&roots(&root), &roots(&root).machine(), None);
        model.cores = 4;
        let at = |s: u64| Moment {
            elapsed: Duration::from_secs(s),
            own: Some(Duration::from_secs(s)),
            busy: Some(Duration::from_secs(s)),
            lagging: false,
        };
        assert_eq!(model.read(at(1))[0].value, 4 * 2 * 710_000, "4 processors at 2 GHz for a second");
        fs::write(policy(1).join("scaling_cur_freq"), "4500000").unwrap();
        let [idle, busy] = model.read(at(2)) else { panic!("two domains") };
        assert_eq!(idle.value, 4 * 5 * 710_000, "then at 3 GHz");
        assert_eq!((busy.low, busy.value, busy.high), (5 * 580_000, 5 * 1_380_000, 5 * 3_284_000));
        assert_eq!(model.domains()[0].source.to_string(), "modelled:cpu-clock/1");
        fs::write(root.path().join("cpuinfo"), "model name : AMD EPYC\nflags : fpu hypervisor\n").unwrap();
        assert!(
            CpuModel::open(&roots(&root), &roots(&root).machine(), None).clock.is_none(),
            "a hypervisor invents clocks"
        );
    }

    #[test]
    fn without_processor_time_the_interval_spans_none_to_all_cores() {
        let mut model = open(Path::new("/nonexistent"));
        let now = Moment { elapsed: Duration::from_secs(1), ..Moment::default() };
        let busy = model.read(now)[1];
        assert_eq!(busy.low, 0);
        assert_eq!(busy.high, 25_000_000 * model.cores);
    }
}
