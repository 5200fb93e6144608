//! The ratio of two receipts of one machine, in which the error that they share is gone.
//!
//! A model that takes 3 W for a thread may be wrong by a factor of four, but it is wrong alike in two runs of one machine.
//! Each component is `value x shared x own`: *shared* is the model's factor, the same in both receipts and anywhere in the
//! interval that both leave it; *own* is what the two do not share, the processor time's ticks or a counter's steps. The
//! ratio is bounded by the corners of all factors: a quotient of sums is monotone in each. It takes a busy thread to draw
//! the same in both runs, whatever it computes.

use serde::Serialize;

use crate::processor_time::MACHINE_RESOLUTION;
use crate::{Factors, Quantity, QuantityError, Receipt, Shares, Unit};

/// The first receipt over the second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Elapsed times.
    pub duration: Quantity,
    /// Energies; `None` where one is not known, or the second may be zero.
    pub energy: Option<Quantity>,
    /// Energies of what was run itself, without idle power and other processes.
    pub own_energy: Option<Quantity>,
    /// Carbon.
    pub carbon: Option<Quantity>,
    /// Cost.
    pub cost: Option<Quantity>,
    /// What both have in common, and so cancels.
    pub cancelled: Vec<String>,
    /// What should be known of the ratios.
    pub notes: Vec<String>,
}

/// A sum of terms `value x shared`, each value with its own bounds; and what the two sums share.
struct Side {
    /// Low, value and high of what is not shared.
    terms: Vec<[f64; 3]>,
}

/// Compares two receipts.
///
/// # Errors
/// [`QuantityError::Sources`] where the energy of one is measured and of the other modelled; [`QuantityError`] where a
/// duration is zero.
pub fn compare(first: &Receipt, second: &Receipt) -> Result<Comparison, QuantityError> {
    if let Some((a, b)) = first.energy.total.as_ref().zip(second.energy.total.as_ref())
        && a.source().is_measured() != b.source().is_measured()
    {
        return Err(QuantityError::Sources { left: a.source().clone(), right: b.source().clone() });
    }
    let same = is_one_machine(first, second);
    let (mut cancelled, mut notes) = (vec![], vec![]);
    if !same {
        notes
            .push("the receipts are of two machines, so the errors of their energy do not cancel".to_owned());
    }
    if first.energy.boundary != second.energy.boundary {
        notes.push("the two energies do not include the same things".to_owned());
    }
    let energy = energies(first, second, same, &mut cancelled);
    let own_energy = match (&first.shares, &second.shares) {
        (Some(a), Some(b)) => shares((first, a), (second, b), same, &mut cancelled),
        _ => None,
    };
    let mut with_factor = |name: &str, of: fn(&Factors) -> &Quantity, both: bool| {
        let energy = energy.as_ref().filter(|_| both)?;
        let pairs = [
            ("PUE", &first.factors.pue, &second.factors.pue),
            (name, of(&first.factors), of(&second.factors)),
        ];
        pairs.into_iter().try_fold(energy.clone(), |ratio, (name, a, b)| {
            if a == b {
                cancelled.extend((!cancelled.iter().any(|c| c == name)).then(|| name.to_owned()));
                return Some(ratio);
            }
            ratio.times(&a.ratio_across_sources(b).ok()?).ok()
        })
    };
    let known = |of: fn(&Receipt) -> &Option<Quantity>| of(first).is_some() && of(second).is_some();
    let carbon = with_factor("carbon intensity", |f| &f.carbon_intensity, known(|r| &r.carbon));
    let cost = with_factor("price", |f| &f.price, known(|r| &r.cost));
    let duration = first.duration.ratio(&second.duration)?;
    if energy.as_ref().is_some_and(|ratio| ratio.contains(1.0)) {
        notes.push("no difference in energy is shown: the interval holds 1".to_owned());
    }
    Ok(Comparison { duration, energy, own_energy, carbon, cost, cancelled, notes })
}

fn is_one_machine(a: &Receipt, b: &Receipt) -> bool {
    let (a, b) = (&a.machine, &b.machine);
    (&a.cpu_model, &a.cpu_id, a.cores, a.virtualised) == (&b.cpu_model, &b.cpu_id, b.cores, b.virtualised)
}

fn energies(first: &Receipt, second: &Receipt, same: bool, cancelled: &mut Vec<String>) -> Option<Quantity> {
    let totals = (first.energy.total.as_ref()?, second.energy.total.as_ref()?);
    let mut factors = vec![];
    let mut sides = [Side { terms: vec![] }, Side { terms: vec![] }];
    let names = first.energy.components.iter().chain(&second.energy.components).map(|c| &c.name);
    let mut seen: Vec<&String> = vec![];
    for name in names {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let of = |receipt: &Receipt| {
            receipt.energy.components.iter().find(|c| c.name == *name).map(|c| c.energy.clone())
        };
        let (a, b) = (of(first), of(second));
        let shared = match (&a, &b) {
            (Some(a), Some(b)) if same && a.source() == b.source() && !a.source().is_measured() => {
                shared_factor(a, b)
            }
            _ => None,
        };
        if shared.is_some() {
            cancelled.push(format!("watts of {name}"));
        }
        for (side, (receipt, energy)) in sides.iter_mut().zip([(first, &a), (second, &b)]) {
            side.terms.push(match (energy, shared) {
                (Some(energy), Some(_)) => {
                    let own = if name == "cpu-busy" { ticks(receipt) } else { [1.0; 2] };
                    [energy.value() * own[0], energy.value(), energy.value() * own[1]]
                }
                (Some(energy), None) => [energy.low(), energy.value(), energy.high()],
                (None, _) => [0.0; 3],
            });
        }
        factors.push(shared.unwrap_or([1.0; 2]));
    }
    let (low, high) = corners(&sides, &factors)?;
    ratio(totals.0, totals.1, low, high)
}

/// Where the factor lies that the model of both may be wrong by: inside what each leaves it.
fn shared_factor(a: &Quantity, b: &Quantity) -> Option<[f64; 2]> {
    let known = [a, b].into_iter().filter(|q| q.value() > 0.0);
    let (low, high) = known.fold((0.0f64, f64::INFINITY), |(low, high), q| {
        (low.max(q.low() / q.value()), high.min(q.high() / q.value()))
    });
    high.is_finite().then_some([low, high])
}

/// What the processor time of a receipt may be off by, as factors.
fn ticks(receipt: &Receipt) -> [f64; 2] {
    match &receipt.cpu_time {
        Some(time) if time.value() > 0.0 => [time.low() / time.value(), time.high() / time.value()],
        _ => [0.0, 1.0],
    }
}

/// The least and the greatest quotient of two sums whose terms share factors; `None` where the second may be zero.
fn corners([a, b]: &[Side; 2], factors: &[[f64; 2]]) -> Option<(f64, f64)> {
    let free: Vec<usize> = (0..factors.len()).filter(|&i| factors[i][0] < factors[i][1]).collect();
    if free.len() > 16 {
        return None;
    }
    let (mut least, mut most) = (f64::INFINITY, 0.0f64);
    for corner in 0..1usize << free.len() {
        let factor = |i: usize| match free.iter().position(|&f| f == i) {
            Some(bit) => factors[i][corner >> bit & 1],
            None => factors[i][0],
        };
        let sum = |side: &Side, end: usize| -> f64 {
            side.terms.iter().enumerate().map(|(i, term)| term[end] * factor(i)).sum()
        };
        if sum(b, 0) <= 0.0 {
            return None;
        }
        least = least.min(sum(a, 0) / sum(b, 2));
        most = most.max(sum(a, 2) / sum(b, 0));
    }
    Some((least, most))
}

/// A part of the energy of processors that depends on what they were taken to draw at rest.
struct Part {
    /// Least and most energy of the machine, J.
    machine: [f64; 2],
    seconds: f64,
    /// Least and greatest share of the busy time.
    share: [f64; 2],
}

impl Part {
    fn of(receipt: &Receipt, shares: &Shares) -> Option<Part> {
        let machine = shares.machine_uj as f64 / 1e6;
        let parts = receipt.energy.components.iter().filter(|c| !c.name.starts_with("gpu-"));
        let spread = parts.fold([0.0; 2], |[less, more], c| {
            [less + c.energy.value() - c.energy.low(), more + c.energy.high() - c.energy.value()]
        });
        let time = receipt.cpu_time.as_ref()?;
        let active = (shares.process_uj + shares.other_uj) as f64;
        if active == 0.0 || shares.process_uj == 0 {
            return None;
        }
        let busy = time.value() * active / shares.process_uj as f64;
        let blur = MACHINE_RESOLUTION.as_secs_f64();
        let share =
            [time.low().max(0.0) / (busy + blur), (time.high() / (busy - blur).max(time.high())).min(1.0)];
        let machine = [machine - spread[0], machine + spread[1]];
        Some(Part { machine, seconds: receipt.duration.value(), share })
    }

    fn at(&self, idle_watts: f64, end: usize) -> f64 {
        (self.machine[end] - idle_watts * self.seconds).max(0.0) * self.share[end]
    }
}

/// The ratio of what the runs themselves spent: the machine's idle power is one, whatever it is.
fn shares(
    (first, a): (&Receipt, &Shares),
    (second, b): (&Receipt, &Shares),
    same: bool,
    cancelled: &mut Vec<String>,
) -> Option<Quantity> {
    let plain = a.process.ratio_across_sources(&b.process).ok();
    if !same || a.process.source() != b.process.source() {
        return plain;
    }
    let (low, high) = match (&a.idle_power, &b.idle_power) {
        (Some(x), Some(y)) => {
            let (low, high) = (x.low().max(y.low()), x.high().min(y.high()));
            if low > high {
                return plain;
            }
            let parts = (Part::of(first, a)?, Part::of(second, b)?);
            cancelled.push("idle power".to_owned());
            let (mut least, mut most) = (f64::INFINITY, 0.0f64);
            for watts in [low, high] {
                if parts.1.at(watts, 0) <= 0.0 {
                    return None;
                }
                least = least.min(parts.0.at(watts, 0) / parts.1.at(watts, 1));
                most = most.max(parts.0.at(watts, 1) / parts.1.at(watts, 0));
            }
            (least, most)
        }
        // A model's busy watts are one factor of both.
        (None, None) => {
            let (x, y) = (ticks(first), ticks(second));
            let value = a.process.value() / b.process.value();
            if !(value.is_finite() && y[0] > 0.0) {
                return None;
            }
            (value * x[0] / y[1], value * x[1] / y[0])
        }
        _ => return plain,
    };
    ratio(&a.process, &b.process, low, high)
}

fn ratio(a: &Quantity, b: &Quantity, low: f64, high: f64) -> Option<Quantity> {
    let value = a.value() / b.value();
    let source = a.source().combine(" / ", b.source());
    Quantity::new(value, low.min(value), high.max(value), Unit::One, source).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;
    use crate::{Component, Machine, Source};

    /// A receipt of so many seconds with so many of processor time, by the model of two processors.
    fn modelled(seconds: f64, busy: f64) -> Receipt {
        let mut receipt = example();
        let time = |value: f64, off: f64, counter: &str| {
            Quantity::new(value, value - off, value + off, Unit::Second, Source::measured(counter)).unwrap()
        };
        (receipt.duration, receipt.cpu_time) =
            (time(seconds, 0.0, "monotonic-clock"), Some(time(busy, 0.02, "proc-stat")));
        let watts = |name: &str, time: f64, [low, value, high]: [f64; 3], off: f64| Component {
            name: name.to_owned(),
            energy: Quantity::new(
                time * value,
                (time * low - off).max(0.0),
                time * high + off,
                Unit::Joule,
                Source::modelled("cpu-time/1:server"),
            )
            .unwrap(),
        };
        let idle = watts("cpu-idle", 2.0 * seconds, [0.2, 0.74, 2.0], 0.0);
        let own = watts("cpu-busy", busy, [1.0, 2.76, 10.0], 0.2);
        receipt.energy.total = Some(idle.energy.plus(&own.energy).unwrap());
        receipt.shares.as_mut().unwrap().process = own.energy.clone();
        receipt.energy.components = vec![idle, own];
        let total = receipt.energy.total.clone().unwrap();
        receipt.carbon = receipt.factors.carbon(&total).ok();
        receipt.cost = receipt.factors.cost(&total).ok();
        receipt
    }

    #[test]
    fn the_model_s_error_cancels_and_any_true_watts_lie_inside() {
        let (a, b) = (modelled(20.0, 38.0), modelled(10.0, 12.0));
        let found = compare(&a, &b).unwrap();
        let ratio = found.energy.unwrap();
        let apart = a.energy.total.as_ref().unwrap().ratio(b.energy.total.as_ref().unwrap()).unwrap();
        assert!(ratio.high() / ratio.low() < 2.0 && apart.high() / apart.low() > 20.0, "{ratio} {apart}");
        for idle in [0.2, 0.5, 2.0] {
            for busy in [1.0, 3.0, 10.0] {
                let truth = (40.0 * idle + 38.0 * busy) / (20.0 * idle + 12.0 * busy);
                assert!(ratio.contains(truth), "{truth} is not in {ratio}");
            }
        }
        assert!(found.own_energy.unwrap().contains(38.0 / 12.0));
        let [carbon, cost] = [found.carbon, found.cost].map(Option::unwrap);
        for same in [&carbon, &cost] {
            assert!((same.low() - ratio.low()).abs() < 1e-9 && (same.high() - ratio.high()).abs() < 1e-9);
        }
        for name in ["watts of cpu-idle", "watts of cpu-busy", "PUE", "carbon intensity", "price"] {
            assert!(found.cancelled.iter().any(|c| c == name), "{name}: {:?}", found.cancelled);
        }
        let same = compare(&a, &a).unwrap();
        assert!(same.notes.iter().any(|note| note.contains("no difference")));
    }

    #[test]
    fn ticks_of_a_short_run_are_not_shared() {
        let ratio = compare(&modelled(0.2, 0.2), &modelled(0.2, 0.2)).unwrap().own_energy.unwrap();
        assert!(ratio.low() < 0.85 && ratio.high() > 1.2, "20 ms of 200 on both sides: {ratio}");
    }

    #[test]
    fn two_machines_share_nothing_and_other_factors_stay() {
        let (a, mut b) = (modelled(20.0, 38.0), modelled(10.0, 12.0));
        b.machine = Machine { cores: 64, ..b.machine };
        let found = compare(&a, &b).unwrap();
        let ratio = found.energy.unwrap();
        assert!(ratio.high() / ratio.low() > 20.0 && found.notes[0].contains("two machines"));
        let mut green = modelled(10.0, 12.0);
        green.factors.carbon_intensity =
            Quantity::exact(50.0, Unit::GramCo2ePerKilowattHour, Source::assumed("stated")).unwrap();
        let found = compare(&a, &green).unwrap();
        assert!(
            (found.carbon.unwrap().value() / found.energy.unwrap().value() / (445.0 / 50.0) - 1.0).abs()
                < 1e-9
        );
        assert!(!found.cancelled.contains(&"carbon intensity".to_owned()));
    }

    #[test]
    fn a_counter_keeps_its_own_error_and_shares_idle_power() {
        let measured = |joules: f64, off: f64, seconds: f64, own: f64| {
            let mut receipt = modelled(seconds, own);
            let source = Source::measured("rapl-powercap:package-0");
            let energy = Quantity::new(joules, joules - off, joules + off, Unit::Joule, source).unwrap();
            receipt.energy.total = Some(energy.clone());
            receipt.energy.components = vec![Component { name: "package-0".to_owned(), energy }];
            let idle = 10.0 * seconds;
            let process = (joules - idle) * 0.8;
            let uj = |joules: f64| (joules * 1e6) as u64;
            let process_q =
                Quantity::new(process, 0.0, 0.8 * joules, Unit::Joule, Source::modelled("busy-time-share/1"));
            receipt.shares = Some(Shares {
                process_uj: uj(process),
                other_uj: uj(joules) - uj(process) - uj(idle),
                idle_uj: uj(idle),
                machine_uj: uj(joules),
                process: process_q.unwrap(),
                idle_power: Quantity::new(10.0, 0.0, 20.0, Unit::Watt, Source::modelled("idle")).ok(),
            });
            receipt
        };
        let (a, b) = (measured(800.0, 0.0, 20.0, 16.0), measured(400.0, 40.0, 10.0, 8.0));
        let found = compare(&a, &b).unwrap();
        let ratio = found.energy.unwrap();
        assert!((ratio.low() - 800.0 / 440.0).abs() < 1e-9 && (ratio.high() - 800.0 / 360.0).abs() < 1e-9);
        assert!(ratio.source().is_measured());
        let exact = compare(&a, &measured(400.0, 0.0, 10.0, 8.0)).unwrap().own_energy.unwrap();
        assert!(exact.low() > 1.9 && exact.high() < 2.1, "{exact}");
        assert!(compare(&a, &modelled(10.0, 12.0)).is_err(), "a counter is not compared with a model");
    }
}
