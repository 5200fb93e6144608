//! What an energy source must answer, and the choice of the best one that this machine offers.

use std::path::PathBuf;
use std::time::Duration;

use crate::account::Split;
use crate::battery::Battery;
use crate::cards;
use crate::cpu_model::CpuModel;
use crate::doubted::Doubted;
use crate::hwmon;
use crate::msr::Msr;
use crate::nvidia;
use crate::perf_power::PerfPower;
use crate::powercap::Powercap;
use crate::several::Several;
use crate::{Boundary, Machine, Package, Source, WarningKind};

pub use crate::processor_time::{Moment, Subject};

/// Energy since the source was opened, in whole microjoules.
///
/// Invariant: each of the three only grows, and never by more than its right neighbour; so the difference of
/// two readings is again ordered `low <= value <= high`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// At least this much.
    pub low: u64,
    /// The best single number.
    pub value: u64,
    /// At most this much.
    pub high: u64,
}

/// What a domain is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Processor packages.
    Processor,
    /// Main memory.
    Memory,
    /// Graphics and other accelerator cards.
    Gpu,
    /// The machine as a whole, as its battery sees it.
    Machine,
}

/// One thing whose energy a source knows. Domains of one source never overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Such as `package-0`, `package-0/dram`, `cpu-busy`.
    pub name: String,
    /// What it is a part of.
    pub part: Part,
    /// Where its joules come from.
    pub source: Source,
    /// How far one reading may lag or lead, in microjoules; widens every difference of readings.
    pub resolution: u64,
}

/// A source of energy readings: a counter or a model.
///
/// Failing is not an error here. A source that cannot read keeps its last good state, catches up when it can,
/// and reports what happened through [`warnings`](Self::warnings) and [`covered`](Self::covered).
pub trait Backend: Send {
    /// Its name in `coverage`.
    fn name(&self) -> &'static str;

    /// What its figures include.
    fn boundary(&self) -> Boundary;

    /// Its domains, in the order of its readings; fixed once opened.
    fn domains(&self) -> &[Domain];

    /// The domains' energy since opening; the moments' times count from then and never decrease.
    fn read(&mut self, now: Moment) -> &[Reading];

    /// Who spent the processors' and the memory's energy, as of the last reading, where the source itself knows. A
    /// counter knows only the machine's, which is then divided by processor time.
    fn split(&self) -> Option<Split> {
        None
    }

    /// How much of the time since opening the last readings stand for.
    fn covered(&self) -> Duration;

    /// The shortest run whose energy means something: some fifty to a hundred times the source's own time step.
    fn shortest(&self) -> Duration;

    /// What went wrong so far.
    fn warnings(&self) -> Vec<WarningKind>;
}

/// Where the operating system shows its counters; tests point it at trees of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Process information, usually `/proc`.
    pub proc: PathBuf,
    /// Device information, usually `/sys`.
    pub sys: PathBuf,
    /// Device files, usually `/dev`.
    pub dev: PathBuf,
}

impl Roots {
    /// The machine that they show.
    pub(crate) fn machine(&self) -> Machine {
        Machine::identify_from(&self.proc, &self.sys)
    }
}

impl Default for Roots {
    fn default() -> Self {
        Roots { proc: PathBuf::from("/proc"), sys: PathBuf::from("/sys"), dev: PathBuf::from("/dev") }
    }
}

/// Opens the best energy source for the processors (RAPL through powercap, perf or registers, sensor chips, a discharging
/// battery, else a model of processor time) and every graphics card that shows its energy or power.
///
/// The warnings say why a better source was passed over.
pub fn open(roots: &Roots) -> (Box<dyn Backend>, Vec<WarningKind>) {
    open_on(&roots.machine(), None, roots)
}

/// Like [`open`], where the machine has been identified before, and its processor perhaps stated.
pub(crate) fn open_on(
    machine: &Machine,
    package: Option<&Package>,
    roots: &Roots,
) -> (Box<dyn Backend>, Vec<WarningKind>) {
    let (processors, mut warnings) = open_processors(machine, package, roots);
    // A battery already sees the cards.
    if processors.boundary() == Boundary::WholeMachine {
        return (processors, warnings);
    }
    let mut sources = vec![processors];
    sources.extend(cards::open(&roots.sys).map(|cards| Box::new(cards) as Box<dyn Backend>));
    match nvidia::open(roots) {
        Ok(cards) => sources.extend(cards.map(|cards| Box::new(cards) as Box<dyn Backend>)),
        Err(warning) => warnings.push(warning),
    }
    (if sources.len() == 1 { sources.remove(0) } else { Box::new(Several::new(sources)) }, warnings)
}

fn open_processors(
    machine: &Machine,
    package: Option<&Package>,
    roots: &Roots,
) -> (Box<dyn Backend>, Vec<WarningKind>) {
    let mut denied = match Powercap::open(&roots.sys.join("class/powercap")) {
        Ok(counters) => return (Box::new(Doubted::new(counters)), Vec::new()),
        Err(warnings) => warnings,
    };
    match PerfPower::open(roots, machine) {
        // The same counters by another door: that the first is closed costs nothing.
        Ok(counters) => return (Box::new(Doubted::new(counters)), Vec::new()),
        Err(warnings) => denied.extend(warnings),
    }
    if let Some(registers) = Msr::open(roots, machine) {
        return (Box::new(Doubted::new(registers)), denied);
    }
    if let Some(sensors) = hwmon::open_processors(&roots.sys) {
        return (Box::new(Doubted::new(sensors)), denied);
    }
    if let Some(battery) = Battery::open(&roots.sys.join("class/power_supply")) {
        return (Box::new(battery), denied);
    }
    let mut warnings = denied;
    let reason = match warnings.first() {
        Some(WarningKind::CounterDenied { .. }) => "the energy counters may not be read",
        _ => "this machine shows no energy counter",
    };
    let model = CpuModel::open(roots, machine, package);
    let reason = format!("{reason}; processor: {}", model.identity());
    warnings.push(WarningKind::ModelledNotMeasured { reason });
    (Box::new(model), warnings)
}
