//! What an energy source must answer, and the choice of the best one that this machine offers.

use std::path::Path;
use std::time::Duration;

use crate::cpu_model::CpuModel;
use crate::powercap::Powercap;
use crate::{Boundary, Source, WarningKind};

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

/// One thing whose energy a source knows. Domains of one source never overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Such as `package-0`, `package-0/dram`, `cpu-busy`.
    pub name: String,
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

    /// The domains' energy since opening; `elapsed` is the time since then and never decreases.
    fn read(&mut self, elapsed: Duration) -> &[Reading];

    /// How much of the time since opening the last readings stand for.
    fn covered(&self) -> Duration;

    /// The shortest run whose energy means something: some fifty to a hundred times the source's own time step.
    fn shortest(&self) -> Duration;

    /// What went wrong so far.
    fn warnings(&self) -> Vec<WarningKind>;
}

/// Opens the best energy source: the RAPL counters under `powercap`, else a model from the processor time
/// under `proc`. The warnings say why a better source was passed over.
pub fn open(powercap: &Path, proc: &Path) -> (Box<dyn Backend>, Vec<WarningKind>) {
    match Powercap::open(powercap) {
        Ok(counters) => (Box::new(counters), Vec::new()),
        Err(mut warnings) => {
            let reason = match warnings.first() {
                Some(WarningKind::CounterDenied { .. }) => "the energy counters may not be read",
                _ => "this machine shows no energy counter",
            };
            warnings.push(WarningKind::ModelledNotMeasured { reason: reason.to_owned() });
            (Box::new(CpuModel::open(proc)), warnings)
        }
    }
}
