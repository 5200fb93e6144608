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

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::account::Split;
use crate::backend::{Backend, Domain, Moment, Part, Reading, Roots};
use crate::microarchitecture::{self, Market};
use crate::number_file::NumberFile;
use crate::processor_time::RESOLUTION;
use crate::{Boundary, Machine, Source, WarningKind};

/// Fifty times the resolution of processor time.
const SHORTEST: Duration = Duration::from_secs(1);

const MODEL: &str = "cpu-time/1";

/// Milliwatts as low, value, high.
type Milliwatts = [u64; 3];

/// What is assumed about one kind of processor, per logical processor.
#[derive(Debug, PartialEq, Eq)]
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
pub(crate) fn idle_milliwatts(machine: &Machine, cores: u64) -> [u64; 3] {
    Class::of(machine).idle.map(|milliwatts| milliwatts.saturating_mul(cores))
}

/// The model, opened at a moment from which it counts.
#[derive(Debug)]
pub struct CpuModel {
    class: &'static Class,
    clock: Option<Clock>,
    identity: String,
    cores: u64,
    last: Moment,
    /// Idle and busy energy so far, in nanojoules, as low, value, high; and that of other processes.
    spent: [[u64; 3]; 2],
    others: u64,
    domains: [Domain; 2],
    readings: [Reading; 2],
    split: Split,
}

impl CpuModel {
    /// Opens the model for a machine.
    pub fn open(roots: &Roots, machine: &Machine) -> Self {
        // The clock that a hypervisor shows is its own invention.
        let own = machine.virtualised == Some(false);
        let clock = own.then(|| Clock::open(&roots.sys)).flatten();
        let (class, source) = match &clock {
            Some(_) => (&BY_CLOCK, BY_CLOCK.name.to_owned()),
            None => (Class::of(machine), format!("{MODEL}:{}", Class::of(machine).name)),
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
            identity: identity(machine),
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
        (false, Some(design)) => format!("{name}: exact model unknown, design {design}"),
        (false, None) => format!("{name}: exact model unknown"),
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
            let others = nanojoules(busy_power[1], busy.saturating_sub(own[1]));
            self.others = self.others.saturating_add(others);
        }
        self.readings = self.spent.map(reading);
        self.split = Split {
            process: self.readings[1].value,
            other: self.others / 1000,
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
pub fn working_power(machine: &Machine, busy: usize) -> crate::Quantity {
    let class = Class::of(machine);
    let cores = machine.cores.max(busy);
    let watts = |i: usize| (cores as f64 * class.idle[i] as f64 + busy as f64 * class.busy[i] as f64) / 1e3;
    let source =
        Source::modelled(format!("cpu-time/1:{}, {busy} of {cores} logical processors busy", class.name));
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
        CpuModel::open(&roots, &roots.machine())
    }

    fn proc(cpuinfo: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cpuinfo"), cpuinfo).unwrap();
        root
    }

    fn class(model: &str, flags: &str) -> &'static Class {
        open(proc(&format!("model name : {model}\nflags : {flags}\n")).path()).class
    }

    #[test]
    fn classes_follow_the_name_and_then_the_hypervisor() {
        assert_eq!(class("AMD EPYC", "fpu hypervisor"), &SERVER);
        assert_eq!(class("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", "fpu"), &CLIENT);
        assert_eq!(class("QEMU Virtual CPU", "fpu hypervisor"), &SERVER);
        assert_eq!(class("Something else", "fpu"), &UNKNOWN);
    }

    #[test]
    fn a_masked_name_leads_to_the_design_and_never_to_one_exact_model() {
        let text =
            "vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 1\nstepping : 1\nmodel name : AMD EPYC\n";
        let model = open(proc(text).path());
        assert_eq!(model.identity(), "AMD EPYC: exact model unknown, design Zen 3 (Milan)");
    }

    #[test]
    fn ten_busy_seconds_cost_what_the_formula_says() {
        let mut model = open(proc("model name : AMD EPYC\n").path());
        model.cores = 2;
        let seconds = |s| Some(Duration::from_secs(s));
        let now = Moment { elapsed: Duration::from_secs(10), own: seconds(10), busy: seconds(15) };
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
        let mut model = CpuModel::open(&roots(&root), &roots(&root).machine());
        model.cores = 4;
        let at = |s: u64| Moment {
            elapsed: Duration::from_secs(s),
            own: Some(Duration::from_secs(s)),
            busy: Some(Duration::from_secs(s)),
        };
        assert_eq!(model.read(at(1))[0].value, 4 * 2 * 710_000, "4 processors at 2 GHz for a second");
        fs::write(policy(1).join("scaling_cur_freq"), "4500000").unwrap();
        let [idle, busy] = model.read(at(2)) else { panic!("two domains") };
        assert_eq!(idle.value, 4 * 5 * 710_000, "then at 3 GHz");
        assert_eq!((busy.low, busy.value, busy.high), (5 * 580_000, 5 * 1_380_000, 5 * 3_284_000));
        assert_eq!(model.domains()[0].source.to_string(), "modelled:cpu-clock/1");
        fs::write(root.path().join("cpuinfo"), "model name : AMD EPYC\nflags : fpu hypervisor\n").unwrap();
        assert!(
            CpuModel::open(&roots(&root), &roots(&root).machine()).clock.is_none(),
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
