//! The settling of accounts: readings become quantities, and all of them a receipt.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::{Backend, Domain, Moment, Reading};
use crate::processor_time::{MACHINE_RESOLUTION, RESOLUTION};
use crate::running::{Mark, Settlement, State, Tally};
use crate::{
    Component, Coverage, Energy, Machine, MeterConfig, Quantity, Receipt, Schema, ScopeRecord, Shares,
    Software, Source, StopReason, Timestamp, Unit, Warning, WarningKind, WorkDone,
};

fn joules(microjoules: u64) -> f64 {
    microjoules as f64 / 1e6
}

/// Each domain's energy with the interval of its readings, widened by their resolution.
pub(crate) fn components(domains: &[Domain], energy: &[Reading]) -> Vec<Component> {
    let component = |(domain, spent): (&Domain, &Reading)| {
        let low = spent.low.min(spent.value).saturating_sub(domain.resolution);
        let high = spent.high.max(spent.value).saturating_add(domain.resolution);
        let energy =
            Quantity::new(joules(spent.value), joules(low), joules(high), Unit::Joule, domain.source.clone());
        Component {
            name: domain.name.clone(),
            energy: energy.expect("bounds were ordered just now; integers are finite"),
        }
    };
    domains.iter().zip(energy).map(component).collect()
}

/// The sum of the components; `None` if there are none.
pub(crate) fn total(components: &[Component]) -> Option<Quantity> {
    Quantity::sum(components.iter().map(|c| &c.energy)).expect("all components are joules")
}

fn seconds(time: Duration, source: Source) -> Quantity {
    Quantity::exact(time.as_secs_f64(), Unit::Second, source).expect("a duration is finite")
}

fn by_clock(time: Duration) -> Quantity {
    seconds(time, Source::measured("monotonic-clock"))
}

/// What one scope path has cost.
pub(crate) fn record(tally: &Tally, domains: &[Domain]) -> ScopeRecord {
    ScopeRecord {
        path: tally.path.clone(),
        count: tally.count,
        duration: by_clock(tally.duration),
        energy: total(&components(domains, &tally.spent)),
    }
}

/// The receipt of a meter that stopped at `mark`.
pub(crate) fn receipt(
    config: &MeterConfig,
    machine: Machine,
    started: Timestamp,
    mark: &Mark,
    settlement: Option<Settlement>,
    state: &State,
) -> Receipt {
    let backend = &*state.backend;
    let components = components(backend.domains(), &mark.energy);
    let total = total(&components);
    let duration = by_clock(mark.now.elapsed);
    let energy_value = mark.energy.iter().fold(0, |sum: u64, r| sum.saturating_add(r.value));
    let mut receipt = Receipt {
        schema: Schema,
        command: config.command.clone(),
        labels: config.labels.clone(),
        started,
        cpu_time: mark.now.own.map(cpu_quantity),
        power: total.as_ref().and_then(|energy| energy.ratio(&duration).ok()),
        carbon: total.as_ref().and_then(|energy| config.factors.carbon(energy).ok()),
        cost: total.as_ref().and_then(|energy| config.factors.cost(energy).ok()),
        accounts: None,
        factors: config.factors.clone(),
        work: WorkDone::default(),
        machine,
        software: Software::this(),
        seeds: BTreeMap::new(),
        scopes: state
            .scopes
            .iter()
            .filter(|tally| tally.count > 0)
            .map(|tally| record(tally, backend.domains()))
            .collect(),
        samples: state.series.finish(mark.now.elapsed, energy_value, state.taken),
        shares: settlement.map(|settlement| shares(settlement, &mark.now)),
        coverage: coverage(backend, mark.now.elapsed),
        energy: Energy { total, boundary: backend.boundary(), components },
        duration,
        warnings: config.warnings.iter().cloned().map(Warning::from).collect(),
        stop_reason: StopReason::Completed,
        stints: Vec::new(),
        looks: Vec::new(),
    };
    for warning in backend.warnings() {
        receipt.warn(warning);
    }
    if mark.now.elapsed < backend.shortest() {
        receipt.warn(WarningKind::TooShortToMeasure { needed_ms: backend.shortest().as_millis() as u64 });
    }
    receipt
}

/// The interval of the process's part: idle power, and what the processor times may be off by.
fn shares(settlement: Settlement, now: &Moment) -> Shares {
    let Settlement { split, process: (low, high), active, model, idle_power } = settlement;
    let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
    let own = seconds(now.own);
    let (least, most) = ((own - RESOLUTION.as_secs_f64()).max(0.0), own + RESOLUTION.as_secs_f64());
    let value = joules(split.process);
    let (mut low, mut high) = (joules(low).min(value), joules(high).max(value));
    // A model's own bounds have those of its processor time in them.
    if idle_power.is_some() {
        // Time of the machine as a whole only matters where it divides the energy.
        let busy = seconds(now.busy).max(own);
        let blur = MACHINE_RESOLUTION.as_secs_f64();
        low *= of(least, busy + blur) / of(own, busy).max(f64::MIN_POSITIVE);
        let share = of(most, (busy - blur).max(most));
        high = if own > 0.0 { high * share / of(own, busy) } else { joules(active) * share };
    }
    Shares {
        machine_uj: split.machine(),
        process_uj: split.process,
        other_uj: split.other,
        idle_uj: split.idle,
        process: Quantity::new(
            value,
            low.clamp(0.0, value),
            high.min(joules(active)).max(value),
            Unit::Joule,
            model,
        )
        .expect("bounds were ordered just now; integers are finite"),
        idle_power,
    }
}

/// A part of a whole; 0 of nothing.
fn of(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn cpu_quantity(cpu: Duration) -> Quantity {
    let at = |time: Duration| time.as_secs_f64();
    Quantity::new(
        at(cpu),
        at(cpu.saturating_sub(RESOLUTION)),
        at(cpu + RESOLUTION),
        Unit::Second,
        Source::measured("proc-stat"),
    )
    .expect("ordered and finite by construction")
}

fn coverage(backend: &dyn Backend, elapsed: Duration) -> Coverage {
    let covered = backend.covered().min(elapsed);
    // Cards that are measured beside processors that are modelled: both.
    let any = |measured: bool| backend.domains().iter().any(|d| d.source.is_measured() == measured);
    let share = |mine: bool| if mine { covered } else { Duration::ZERO };
    Coverage {
        measured: seconds(share(any(true)), Source::measured("energy-counters")),
        modelled: seconds(share(any(false)), Source::modelled(backend.name())),
        elapsed: by_clock(elapsed),
    }
}
