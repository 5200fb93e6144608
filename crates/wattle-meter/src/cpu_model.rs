//! Energy without counters: a stated model of processor time, with a wide interval.
//!
//! `cpu-time/1`: `E = elapsed * cores * idle + busy * (full - idle)`, where `busy` is this process's processor time,
//! `cores` the logical processors it may use, and `idle` and `full` the package power per logical processor at rest
//! and under load. Where processor time is unknown, `elapsed/1` lets it lie between none and all cores.
//!
//! What is known about a class of processor is coarse, so the bounds are wide on purpose. Central values for servers
//! are Cloud Carbon Footprint's averages over AWS instances (0.74 W and 3.5 W a vCPU); the unknown processor's is
//! CodeCarbon's 4 W a thread. The bounds are a judgement: they contain published RAPL sweeps of an EPYC 8024P (18 W at
//! 1 %, 29 W at 10 %, 46 W at 100 % of 16 threads) and an E3-1240 v2 (50 to 97 W on 8 threads), where one busy
//! thread can raise a whole core and its clock. They are no fitted confidence band.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backend::{Backend, Domain, Reading};
use crate::cpu_time::{RESOLUTION, cpu_time};
use crate::{Boundary, Machine, Source, WarningKind};

/// Fifty times the resolution of processor time.
const SHORTEST: Duration = Duration::from_secs(1);

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
    /// By the processor's name; a virtual machine with a masked name most likely runs on a server.
    fn of(machine: &Machine) -> &'static Class {
        let name = machine.cpu_model.as_deref().unwrap_or("").to_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if any(&["xeon", "epyc", "neoverse", "graviton", "opteron"]) {
            &SERVER
        } else if any(&["core(tm)", "ryzen", "athlon", "pentium", "celeron", "core ultra"]) {
            &CLIENT
        } else if machine.virtualised == Some(true) {
            &SERVER
        } else {
            &UNKNOWN
        }
    }
}

/// The model, opened at a moment from which it counts.
#[derive(Debug)]
pub struct CpuModel {
    proc: PathBuf,
    class: &'static Class,
    cores: u64,
    start: Option<Duration>,
    /// Processor time since start; for an unknown processor time its bounds.
    busy: [Duration; 3],
    covered: Duration,
    domains: [Domain; 2],
    readings: [Reading; 2],
}

impl CpuModel {
    /// Opens the model with the machine and process described under `proc`, usually `/proc`.
    pub fn open(proc: &Path) -> Self {
        let machine = Machine::identify_from(proc);
        let class = Class::of(&machine);
        let start = cpu_time(proc);
        let id = if start.is_some() { "cpu-time/1" } else { "elapsed/1" };
        let source = Source::modelled(format!("{id}:{}", class.name));
        let blur = microjoules(class.busy[2], RESOLUTION);
        CpuModel {
            proc: proc.to_owned(),
            class,
            cores: machine.cores as u64,
            start,
            busy: [Duration::ZERO; 3],
            covered: Duration::ZERO,
            domains: [
                Domain { name: "cpu-idle".to_owned(), source: source.clone(), resolution: 0 },
                Domain { name: "cpu-busy".to_owned(), source, resolution: blur },
            ],
            readings: [Reading::default(); 2],
        }
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

    fn read(&mut self, elapsed: Duration) -> &[Reading] {
        let all_cores = elapsed.saturating_mul(u32::try_from(self.cores).unwrap_or(u32::MAX));
        match self.start {
            Some(start) => {
                // A failed reading keeps the last one; processor time only grows, so the next one catches up.
                if let Some(now) = cpu_time(&self.proc) {
                    self.busy = [now.saturating_sub(start).max(self.busy[1]); 3];
                    self.covered = elapsed;
                }
            }
            None => {
                self.busy = [Duration::ZERO, elapsed, all_cores];
                self.covered = elapsed;
            }
        }
        let idle = self.class.idle.map(|milliwatts| milliwatts.saturating_mul(self.cores));
        self.readings = [reading(idle, [elapsed; 3]), reading(self.class.busy, self.busy)];
        &self.readings
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
/// happened. The same model as that of [`CpuModel`], with its width.
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

    fn proc(model: &str, flags: &str, ticks: u64) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("self")).unwrap();
        fs::write(root.path().join("cpuinfo"), format!("model name : {model}\nflags : {flags}\n")).unwrap();
        set_ticks(&root, ticks);
        root
    }

    fn set_ticks(root: &tempfile::TempDir, ticks: u64) {
        let stat = format!("7 (w) R 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 1");
        fs::write(root.path().join("self/stat"), stat).unwrap();
    }

    #[test]
    fn classes_follow_the_name_and_then_the_hypervisor() {
        let class = |model, flags| CpuModel::open(proc(model, flags, 0).path()).class;
        assert_eq!(class("AMD EPYC", "fpu hypervisor"), &SERVER);
        assert_eq!(class("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", "fpu"), &CLIENT);
        assert_eq!(class("QEMU Virtual CPU", "fpu hypervisor"), &SERVER);
        assert_eq!(class("Something else", "fpu"), &UNKNOWN);
    }

    #[test]
    fn ten_busy_seconds_cost_what_the_formula_says() {
        let root = proc("AMD EPYC", "fpu", 500);
        let mut model = CpuModel::open(root.path());
        model.cores = 2;
        set_ticks(&root, 1500);
        let [idle, busy] = model.read(Duration::from_secs(10)) else { panic!("two domains") };
        assert_eq!(idle.value, 14_800_000, "10 s x 2 cores x 0.74 W");
        assert_eq!((busy.low, busy.value, busy.high), (10_000_000, 27_600_000, 100_000_000));
        assert_eq!(model.domains()[1].source.to_string(), "modelled:cpu-time/1:server");
    }

    #[test]
    fn a_stat_file_that_vanishes_keeps_the_last_busy_time() {
        let root = proc("AMD EPYC", "fpu", 0);
        let mut model = CpuModel::open(root.path());
        set_ticks(&root, 100);
        let before = model.read(Duration::from_secs(1))[1];
        fs::remove_file(root.path().join("self/stat")).unwrap();
        assert_eq!(model.read(Duration::from_secs(2))[1], before);
        assert_eq!(model.covered(), Duration::from_secs(1));
    }

    #[test]
    fn without_processor_time_the_interval_spans_none_to_all_cores() {
        let mut model = CpuModel::open(Path::new("/nonexistent"));
        let busy = model.read(Duration::from_secs(1))[1];
        assert_eq!(busy.low, 0);
        assert_eq!(busy.high, 25_000_000 * model.cores);
        assert_eq!(model.domains()[1].source.to_string(), "modelled:elapsed/1:unknown-processor");
    }
}
