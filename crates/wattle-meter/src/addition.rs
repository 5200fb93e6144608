//! Receipts of one run add up: process by process, and a line for each look at the finished run.
//!
//! A run that is stopped and resumed is the work of several processes, one after another; each has a meter and a receipt
//! of its own. [`Receipt::plus`] makes one of two: what was spent is added, what describes (command, machine, software)
//! is that of the later. Intervals are added end to end, as if all errors were fully correlated: the same meter, model and
//! factors err the same way every time, so errors of many stints do not cancel.
//!
//! The ledger takes the receipt of each process, also that of a look, never a sum: it adds up by itself.

use std::collections::BTreeMap;

use crate::series::joined;
use crate::{
    Accounts, Boundary, Component, Coverage, Energy, Factors, Look, Quantity, QuantityError, Receipt,
    ScopeRecord, Shares, Stint, WorkDone,
};

type Result<T> = std::result::Result<T, QuantityError>;

impl Receipt {
    /// The receipt of a run that went on: `self` is what was spent before, `later` what the next process spent. What one
    /// of the two does not know, the sum does not know either: it is absent, not zero. Carbon and cost keep the factors of
    /// their time.
    ///
    /// # Errors
    /// [`QuantityError`] if a sum leaves the range of numbers, or units differ, which no meter makes.
    pub fn plus(&self, later: &Receipt) -> Result<Receipt> {
        let energy = self.energy.plus(&later.energy)?;
        let duration = self.duration.plus(&later.duration)?;
        let mut labels = self.labels.clone();
        labels.extend(later.labels.clone());
        let mut seeds = self.seeds.clone();
        seeds.extend(later.seeds.clone());
        let offset = (self.duration.value(), self.energy.total.as_ref().map_or(0.0, Quantity::value));
        let mut sum = Receipt {
            schema: self.schema,
            command: later.command.clone(),
            labels,
            started: self.started,
            cpu_time: both(&self.cpu_time, &later.cpu_time)?,
            shares: self.shares.as_ref().zip(later.shares.as_ref()).map(|(a, b)| a.plus(b)).transpose()?,
            power: energy.total.as_ref().and_then(|energy| energy.ratio(&duration).ok()),
            carbon: both(&self.carbon, &later.carbon)?,
            cost: both(&self.cost, &later.cost)?,
            accounts: self
                .accounts
                .as_ref()
                .zip(later.accounts.as_ref())
                .map(|(a, b)| a.plus(b))
                .transpose()?,
            factors: self.factors.blended(&later.factors, [&self.energy, &later.energy])?,
            work: self.work.plus(&later.work)?,
            machine: later.machine.clone(),
            software: later.software.clone(),
            seeds,
            scopes: scopes(&self.scopes, &later.scopes)?,
            samples: joined(&self.samples, &later.samples, offset),
            coverage: self.coverage.plus(&later.coverage)?,
            warnings: self.warnings.clone(),
            stop_reason: later.stop_reason,
            stints: [self.stints(), later.stints()].concat(),
            looks: [self.looks.clone(), later.looks.clone()].concat(),
            energy,
            duration,
        };
        later.warnings.iter().for_each(|warning| sum.warn(warning.kind.clone()));
        Ok(sum)
    }

    /// Notes that somebody asked for this finished run again; `look` is the receipt of that. The run's own numbers stay.
    pub fn add_look(&mut self, look: &Receipt) {
        self.looks.push(Look {
            started: look.started,
            duration: look.duration.clone(),
            energy: look.energy.total.clone(),
        });
    }

    /// The processes behind this receipt; one, if nothing was added up.
    pub fn stints(&self) -> Vec<Stint> {
        if !self.stints.is_empty() {
            return self.stints.clone();
        }
        vec![Stint {
            started: self.started,
            duration: self.duration.clone(),
            energy: self.energy.total.clone(),
            carbon: self.carbon.clone(),
            cost: self.cost.clone(),
            cpu_model: self.machine.cpu_model.clone(),
            stop_reason: self.stop_reason,
        }]
    }
}

/// The sum of two that are known.
fn both(a: &Option<Quantity>, b: &Option<Quantity>) -> Result<Option<Quantity>> {
    a.as_ref().zip(b.as_ref()).map(|(a, b)| a.plus(b)).transpose()
}

impl Energy {
    /// Components of one name are added; a component that only one knows stands as it is, so that they go on adding up to
    /// the total.
    fn plus(&self, later: &Energy) -> Result<Energy> {
        let mut components = self.components.clone();
        for component in &later.components {
            match components.iter_mut().find(|c| c.name == component.name) {
                Some(sum) => sum.energy = sum.energy.plus(&component.energy)?,
                None => components.push(Component::clone(component)),
            }
        }
        let boundary = if self.boundary == later.boundary { self.boundary } else { Boundary::Mixed };
        Ok(Energy { total: both(&self.total, &later.total)?, boundary, components })
    }
}

impl Shares {
    fn plus(&self, later: &Shares) -> Result<Shares> {
        let process_uj = self.process_uj.saturating_add(later.process_uj);
        let other_uj = self.other_uj.saturating_add(later.other_uj);
        let idle_uj = self.idle_uj.saturating_add(later.idle_uj);
        Ok(Shares {
            machine_uj: process_uj.saturating_add(other_uj).saturating_add(idle_uj),
            process_uj,
            other_uj,
            idle_uj,
            process: self.process.plus(&later.process)?,
            idle_power: self.idle_power.clone().filter(|_| self.idle_power == later.idle_power),
        })
    }
}

impl Accounts {
    fn plus(&self, later: &Accounts) -> Result<Accounts> {
        Ok(Accounts {
            market_carbon: both(&self.market_carbon, &later.market_carbon)?,
            embodied_carbon: both(&self.embodied_carbon, &later.embodied_carbon)?,
            water: both(&self.water, &later.water)?,
        })
    }
}

impl Factors {
    /// Factors of a sum: where they changed in between, the mean weighted by energy, from the lowest to the highest.
    fn blended(&self, later: &Factors, energies: [&Energy; 2]) -> Result<Factors> {
        let joules = energies.map(|energy| energy.total.as_ref().map_or(0.0, Quantity::value));
        let all = joules[0] + joules[1];
        let share = if all > 0.0 { joules[1] / all } else { 0.5 };
        Ok(Factors {
            carbon_intensity: self.carbon_intensity.blended(&later.carbon_intensity, share)?,
            price: self.price.blended(&later.price, share)?,
            pue: self.pue.blended(&later.pue, share)?,
        })
    }
}

impl Quantity {
    /// A mean in which `other` has this share, from 0 to 1; its interval holds both. Equal quantities stay as they are.
    fn blended(&self, other: &Quantity, share: f64) -> Result<Quantity> {
        if self == other {
            return Ok(self.clone());
        }
        let value = self.value() + share * (other.to(self.unit())?.value() - self.value());
        let (low, high) = (self.low().min(other.low()), self.high().max(other.high()));
        // Rounding must not carry the mean out of the interval.
        let source = self.source().combine(" then ", other.source());
        Quantity::new(value.clamp(low, high), low, high, self.unit(), source)
    }
}

impl WorkDone {
    /// What both have counted. Files are not added: each is as large as it was written last.
    fn plus(&self, later: &WorkDone) -> Result<WorkDone> {
        let mut files: BTreeMap<String, Quantity> = self.files.clone();
        files.extend(later.files.clone());
        Ok(WorkDone {
            macs_nominal: both(&self.macs_nominal, &later.macs_nominal)?,
            macs_effective: both(&self.macs_effective, &later.macs_effective)?,
            bytes_read: both(&self.bytes_read, &later.bytes_read)?,
            bytes_written: both(&self.bytes_written, &later.bytes_written)?,
            samples: both(&self.samples, &later.samples)?,
            files,
        })
    }
}

impl Coverage {
    fn plus(&self, later: &Coverage) -> Result<Coverage> {
        Ok(Coverage {
            measured: self.measured.plus(&later.measured)?,
            modelled: self.modelled.plus(&later.modelled)?,
            elapsed: self.elapsed.plus(&later.elapsed)?,
        })
    }
}

/// Phases by path, in order of first start.
fn scopes(earlier: &[ScopeRecord], later: &[ScopeRecord]) -> Result<Vec<ScopeRecord>> {
    let mut all = earlier.to_vec();
    for scope in later {
        match all.iter_mut().find(|s| s.path == scope.path) {
            Some(sum) => {
                sum.count = sum.count.saturating_add(scope.count);
                sum.duration = sum.duration.plus(&scope.duration)?;
                sum.energy = both(&sum.energy, &scope.energy)?;
            }
            None => all.push(scope.clone()),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;
    use crate::{Source, StopReason, Unit};

    fn second() -> Receipt {
        let mut later = example();
        later.started = "2026-11-24T00:00:00.000Z".parse().unwrap();
        later.stop_reason = StopReason::Completed;
        later
    }

    #[test]
    fn what_two_processes_spent_is_added_and_the_ends_of_intervals_with_it() {
        let mut first = example();
        first.stop_reason = StopReason::Interrupted;
        let sum = first.plus(&second()).unwrap();
        let total = sum.energy.total.as_ref().unwrap();
        assert_eq!((total.low(), total.value(), total.high()), (60.0, 180.0, 600.0));
        assert_eq!(total.source(), first.energy.total.as_ref().unwrap().source());
        assert_eq!(sum.energy.components[0].energy, *total);
        assert_eq!(sum.duration.value(), 25.0);
        assert_eq!(sum.power, first.power, "twice the joules in twice the time");
        assert_eq!(sum.work.samples.as_ref().unwrap().value(), 3594.0);
        assert_eq!((sum.scopes[0].count, sum.scopes[0].duration.value()), (6, 20.0));
        assert_eq!(sum.shares.as_ref().unwrap().machine_uj, 200_000_002);
        assert_eq!((sum.started, sum.stop_reason), (first.started, StopReason::Completed));
        assert_eq!(sum.factors, first.factors);
        let reasons: Vec<StopReason> = sum.stints.iter().map(|s| s.stop_reason).collect();
        assert_eq!(reasons, [StopReason::Interrupted, StopReason::Completed]);
        assert_eq!(Receipt::from_json(&sum.to_json()).unwrap(), sum);
    }

    #[test]
    fn the_order_of_adding_does_not_matter_to_what_was_spent() {
        let (a, b, c) = (example(), second(), second());
        let left = a.plus(&b).unwrap().plus(&c).unwrap();
        let right = a.plus(&b.plus(&c).unwrap()).unwrap();
        assert_eq!(
            (&left.energy, &left.duration, &left.stints),
            (&right.energy, &right.duration, &right.stints)
        );
        assert_eq!(left.stints.len(), 3);
        assert_eq!(left.samples.readings, right.samples.readings);
    }

    #[test]
    fn what_one_process_does_not_know_is_unknown_of_the_run() {
        let mut blind = second();
        blind.energy = Energy { total: None, boundary: Boundary::WholePackages, components: vec![] };
        (blind.carbon, blind.work.samples) = (None, None);
        let sum = example().plus(&blind).unwrap();
        assert_eq!((sum.energy.total, sum.power, sum.carbon, sum.work.samples), (None, None, None, None));
        assert_eq!(sum.energy.boundary, Boundary::Mixed);
        assert_eq!(sum.stints[0].energy, example().energy.total, "what is known of the parts is kept");
    }

    #[test]
    fn a_change_of_factors_keeps_the_carbon_of_both_and_shows_the_range() {
        let grams =
            |value| Quantity::exact(value, Unit::GramCo2ePerKilowattHour, Source::assumed("stated")).unwrap();
        let (mut first, mut later) = (example(), second());
        for (receipt, intensity) in [(&mut first, 50.0), (&mut later, 150.0)] {
            receipt.factors.carbon_intensity = grams(intensity);
            receipt.carbon = receipt.factors.carbon(receipt.energy.total.as_ref().unwrap()).ok();
        }
        let sum = first.plus(&later).unwrap();
        let intensity = &sum.factors.carbon_intensity;
        assert_eq!((intensity.low(), intensity.value(), intensity.high()), (50.0, 100.0, 150.0));
        let [a, b] = [first, later].map(|receipt| receipt.carbon.unwrap().value());
        assert_eq!(sum.carbon.unwrap().value(), a + b);
    }

    #[test]
    fn readings_of_the_second_process_follow_those_of_the_first() {
        let sum = example().plus(&second()).unwrap();
        assert_eq!(sum.samples.readings, [(0.0, 0.0), (12.5, 90.0), (12.5, 90.0), (25.0, 180.0)]);
        assert_eq!(sum.samples.taken, 8);
        let power = sum.samples.power.unwrap();
        assert_eq!((power.n, power.mean_w, power.sd_w), (2, 7.2, 0.0));
    }

    #[test]
    fn a_look_adds_a_line_and_changes_nothing_else() {
        let mut receipt = example();
        let mut look = second();
        look.stop_reason = StopReason::FoundFinished;
        receipt.add_look(&look);
        receipt.add_look(&look);
        assert_eq!(receipt.looks.len(), 2);
        assert_eq!(receipt.looks[0].started, look.started);
        receipt.looks.clear();
        assert_eq!(receipt, example());
    }
}
