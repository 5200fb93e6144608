//! Power that is looked at now and then, added up to energy: between two samples it is taken as their mean, and as no lower
//! than the lower and no higher than the higher of the two in the bounds, each off by as much as a sensor may be.
//!
//! NVIDIA states 5 % of the power for its sensors (NVML API reference, `nvmlDeviceGetPowerUsage`); what others state
//! nothing of is taken for no better.

use std::time::Duration;

use crate::WarningKind;
use crate::backend::Reading;

/// What a sensor may be off by, in parts of 100.
const OFF_BY: u128 = 5;

/// Power over time.
#[derive(Debug, Default)]
pub(crate) struct Integral {
    last: u64,
    last_at: Duration,
    total: Reading,
    covered: Duration,
    failures: u64,
    failing: bool,
}

impl Integral {
    /// Power is this many microwatts now.
    pub(crate) fn starting_at(microwatts: u64) -> Integral {
        Integral { last: microwatts, ..Integral::default() }
    }

    /// Energy since the start.
    pub(crate) fn total(&self) -> Reading {
        self.total
    }

    /// Time for which power was looked at.
    pub(crate) fn covered(&self) -> Duration {
        self.covered
    }

    /// What went wrong so far with the sensor of this domain.
    pub(crate) fn warnings(&self, domain: &str) -> Vec<WarningKind> {
        let domain = domain.to_owned();
        if self.failing {
            vec![WarningKind::CounterLost { domain }]
        } else if self.failures > 0 {
            vec![WarningKind::CounterReadFailed { domain, readings: self.failures }]
        } else {
            vec![]
        }
    }

    /// Takes the power at `now`, `None` if it could not be read.
    pub(crate) fn advance(&mut self, microwatts: Option<u64>, now: Duration) {
        let Some(current) = microwatts else {
            self.failures += 1;
            self.failing = true;
            return;
        };
        let elapsed = now.saturating_sub(self.last_at);
        let energy = |microwatts: u64, percent: u128| {
            let energy = u128::from(microwatts) * elapsed.as_micros() * percent / 100_000_000;
            u64::try_from(energy).unwrap_or(u64::MAX)
        };
        self.total.low = self.total.low.saturating_add(energy(current.min(self.last), 100 - OFF_BY));
        self.total.value = self.total.value.saturating_add(energy(current.midpoint(self.last), 100));
        self.total.high = self.total.high.saturating_add(energy(current.max(self.last), 100 + OFF_BY));
        // Power that was not looked at is guessed from its neighbours, not covered.
        if !self.failing {
            self.covered += elapsed;
        }
        (self.last, self.last_at, self.failing) = (current, now, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_that_never_changes_is_no_better_known_than_its_sensor() {
        let mut integral = Integral::starting_at(100_000_000);
        for second in 1..=10 {
            integral.advance(Some(100_000_000), Duration::from_secs(second));
        }
        let expected = Reading { low: 950_000_000, value: 1_000_000_000, high: 1_050_000_000 };
        assert_eq!(integral.total(), expected);
    }
}
