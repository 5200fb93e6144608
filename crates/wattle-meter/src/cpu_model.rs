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

use std::path::Path;
use std::time::Duration;

use crate::account::Split;
use crate::backend::{Backend, Domain, Moment, Part, Reading};
use crate::microarchitecture::{self, Market};
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
    identity: String,
    cores: u64,
    covered: Duration,
    domains: [Domain; 2],
    readings: [Reading; 2],
    split: Split,
}

impl CpuModel {
    /// Opens the model with the machine described under `proc`, usually `/proc`.
    pub fn open(proc: &Path) -> Self {
        let machine = Machine::identify_from(proc);
        let class = Class::of(&machine);
        let source = Source::modelled(format!("{MODEL}:{}", class.name));
        let domain = |name: &str, resolution| Domain {
            name: name.to_owned(),
            part: Part::Processor,
            source: source.clone(),
            resolution,
        };
        CpuModel {
            class,
            identity: identity(&machine),
            cores: machine.cores as u64,
            covered: Duration::ZERO,
            domains: [domain("cpu-idle", 0), domain("cpu-busy", microjoules(class.busy[2], RESOLUTION))],
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

fn microjoules(milliwatts: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(milliwatts) * time.as_micros() / 1000).unwrap_or(u64::MAX)
}

fn reading(power: Milliwatts, time: [Duration; 3]) -> Reading {
    Reading {
        low: microjoules(power[0], time[0]),
        value: microjoules(power[1], time[1]),
        high: microjoules(power[2], time[2]),
    }
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
        let elapsed = now.elapsed;
        let all_cores = elapsed.saturating_mul(u32::try_from(self.cores).unwrap_or(u32::MAX));
        let own = now.own.map_or([Duration::ZERO, elapsed, all_cores], |own| [own; 3]);
        let idle = self.class.idle.map(|milliwatts| milliwatts.saturating_mul(self.cores));
        self.readings = [reading(idle, [elapsed; 3]), reading(self.class.busy, own)];
        let others = now.busy.zip(now.own).map_or(Duration::ZERO, |(busy, own)| busy.saturating_sub(own));
        self.split = Split {
            process: self.readings[1].value,
            other: microjoules(self.class.busy[1], others),
            idle: self.readings[0].value,
        };
        self.covered = elapsed;
        &self.readings
    }

    fn split(&self) -> Option<Split> {
        Some(self.split)
    }

    fn covered(&self) -> Duration {
        self.covered
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

    fn proc(cpuinfo: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cpuinfo"), cpuinfo).unwrap();
        root
    }

    fn class(model: &str, flags: &str) -> &'static Class {
        CpuModel::open(proc(&format!("model name : {model}\nflags : {flags}\n")).path()).class
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
        let model = CpuModel::open(proc(text).path());
        assert_eq!(model.identity(), "AMD EPYC: exact model unknown, design Zen 3 (Milan)");
    }

    #[test]
    fn ten_busy_seconds_cost_what_the_formula_says() {
        let mut model = CpuModel::open(proc("model name : AMD EPYC\n").path());
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

    /// RAPL against load, averaged over 30 s a point: facts read from the load profiles in CodeCarbon's repository
    /// (MIT), `codecarbon/data/hardware/cpu_load_profiling`, energy over duration. Nothing here is fitted to them.
    const SWEEPS: &str = include_str!("rapl_sweeps.csv");

    #[test]
    fn the_interval_holds_published_sweeps_and_the_middle_errs_less_than_any_curve_in_use() {
        let (mut points, mut inside, mut error) = (0, 0, 0.0);
        for row in SWEEPS.lines().skip(1) {
            let [cpu, threads, load, watts] = row.split(',').collect::<Vec<_>>()[..] else { panic!("{row}") };
            let [threads, load, watts] = [threads, load, watts].map(|n| n.parse::<f64>().unwrap());
            let class = class(cpu, "fpu");
            let at =
                |i: usize| threads * (class.idle[i] as f64 + load / 100.0 * class.busy[i] as f64) / 1000.0;
            points += 1;
            inside += usize::from(at(0) <= watts && watts <= at(2));
            error += (at(1) - watts).abs() / watts;
        }
        assert_eq!(points, 55);
        assert!(inside * 10 >= points * 9, "{inside} of {points}");
        // The best of five curves in use errs by 38 % on all 106 points of that folder.
        assert!(error / (points as f64) < 0.30, "mean error {}", error / points as f64);
    }

    #[test]
    fn without_processor_time_the_interval_spans_none_to_all_cores() {
        let mut model = CpuModel::open(Path::new("/nonexistent"));
        let now = Moment { elapsed: Duration::from_secs(1), ..Moment::default() };
        let busy = model.read(now)[1];
        assert_eq!(busy.low, 0);
        assert_eq!(busy.high, 25_000_000 * model.cores);
    }
}
