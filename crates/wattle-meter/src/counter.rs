//! One hardware energy counter, unwrapped: never a negative difference, never an invented wrap.

use std::time::Duration;

use crate::WarningKind;
use crate::backend::Reading;

/// More than any processor package or its memory draws, W. Only used to tell a wrap from a reset.
const PLAUSIBLE_WATTS: u64 = 1000;
/// Counters are refreshed about once a millisecond, so a short difference may hold a little more than its time.
const SLACK: Duration = Duration::from_millis(20);

/// A counter that may wrap, fail to read, or be reset. It counts in its own unit, of which there are
/// `per_joule` in a joule.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    per_joule: u64,
    /// Largest value before it wraps to zero, if known.
    range: Option<u64>,
    last: u64,
    last_at: Duration,
    total: Reading,
    covered: Duration,
    failures: u64,
    failing: bool,
    reset: bool,
    ambiguous: bool,
}

impl Counter {
    /// A counter of microjoules that reads `first` now.
    pub(crate) fn new(first: u64, range: Option<u64>) -> Self {
        Counter::with_unit(first, range, 1_000_000)
    }

    /// A counter that reads `first` now and counts `per_joule` for every joule.
    pub(crate) fn with_unit(first: u64, range: Option<u64>, per_joule: u64) -> Self {
        Counter {
            per_joule,
            range: range.filter(|&r| r > 0),
            last: first,
            last_at: Duration::ZERO,
            total: Reading::default(),
            covered: Duration::ZERO,
            failures: 0,
            failing: false,
            reset: false,
            ambiguous: false,
        }
    }

    /// Takes the reading made at `now`, `None` if it failed. A failed reading changes nothing: the next good one
    /// counts from the last good one, so no energy is lost.
    pub(crate) fn advance(&mut self, reading: Option<u64>, now: Duration) {
        let Some(current) = reading else {
            self.failures += 1;
            self.failing = true;
            return;
        };
        self.failing = false;
        let elapsed = now.saturating_sub(self.last_at);
        let most = u128::from(PLAUSIBLE_WATTS * self.per_joule) * (elapsed + SLACK).as_micros() / 1_000_000;
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let wrapped = |range: u64| (range - self.last).checked_add(current)?.checked_add(1);
        let certain = match self.range {
            _ if current >= self.last => Some(current - self.last),
            Some(range) if self.last <= range => wrapped(range).filter(|&delta| delta <= most),
            _ => None,
        };
        match certain {
            Some(delta) => {
                let further_wraps = match self.range {
                    Some(range) => most.saturating_sub(delta) / range.saturating_add(1),
                    None => 0,
                };
                let unseen = further_wraps.saturating_mul(self.range.unwrap_or(0).saturating_add(1));
                self.add(delta, delta.saturating_add(unseen));
                if further_wraps == 0 {
                    self.covered += elapsed;
                } else {
                    self.ambiguous = true;
                }
            }
            // After a reset or an unknown wrap, what the counter shows has certainly been spent.
            None => {
                self.add(current, current.max(most));
                self.reset = true;
            }
        }
        self.last = current;
        self.last_at = now;
    }

    fn add(&mut self, delta: u64, at_most: u64) {
        self.total.low = self.total.low.saturating_add(delta);
        self.total.value = self.total.value.saturating_add(delta);
        self.total.high = self.total.high.saturating_add(at_most);
    }

    /// Energy since the counter was opened, in microjoules.
    pub(crate) fn total(&self) -> Reading {
        let micro = |counts: u64| {
            u64::try_from(u128::from(counts) * 1_000_000 / u128::from(self.per_joule)).unwrap_or(u64::MAX)
        };
        Reading { low: micro(self.total.low), value: micro(self.total.value), high: micro(self.total.high) }
    }

    /// Time whose energy is known exactly.
    pub(crate) fn covered(&self) -> Duration {
        self.covered
    }

    /// What went wrong so far with the counter of this domain.
    pub(crate) fn warnings(&self, domain: &str) -> Vec<WarningKind> {
        let name = || domain.to_owned();
        let mut warnings = Vec::new();
        if self.failing {
            warnings.push(WarningKind::CounterLost { domain: name() });
        } else if self.failures > 0 {
            warnings.push(WarningKind::CounterReadFailed { domain: name(), readings: self.failures });
        }
        if self.reset {
            warnings.push(WarningKind::CounterReset { domain: name() });
        }
        if self.ambiguous {
            warnings.push(WarningKind::CounterAmbiguous { domain: name() });
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: u64 = 262_143_328_850;

    fn after(range: Option<u64>, first: u64, readings: &[(Option<u64>, u64)]) -> Counter {
        let mut counter = Counter::new(first, range);
        for &(reading, second) in readings {
            counter.advance(reading, Duration::from_secs(second));
        }
        counter
    }

    #[test]
    fn a_wrap_is_counted_through_the_range() {
        let c = after(Some(RANGE), RANGE - 4_000_000, &[(Some(5_999_999), 1)]);
        assert_eq!(c.total(), Reading { low: 10_000_000, value: 10_000_000, high: 10_000_000 });
        assert_eq!(c.covered(), Duration::from_secs(1));
        assert_eq!(c.warnings("p"), []);
    }

    #[test]
    fn a_failed_reading_loses_nothing() {
        let c = after(Some(RANGE), 5, &[(Some(1_000_005), 1), (None, 2), (Some(10_000_005), 3)]);
        assert_eq!(c.total().value, 10_000_000);
        assert_eq!((c.failures, c.failing), (1, false));
        assert_eq!(c.covered(), Duration::from_secs(3));
    }

    #[test]
    fn a_failed_reading_before_a_wrap_loses_nothing_either() {
        let c = after(Some(RANGE), RANGE - 999_999, &[(None, 1), (Some(9_000_000), 2)]);
        assert_eq!(c.total().value, 10_000_000);
    }

    #[test]
    fn without_a_range_going_backwards_is_a_flagged_gap_with_bounds() {
        let c = after(None, 900, &[(Some(100), 1)]);
        assert_eq!((c.total().low, c.total().value), (100, 100));
        assert!(c.total().high >= 1_000_000_000, "at most 1000 W for the second");
        assert!(c.reset);
        assert_eq!(c.covered(), Duration::ZERO);
    }

    #[test]
    fn an_implausible_wrap_is_a_reset() {
        // Reset to zero at suspend: reading it as a wrap would invent 260 kJ in one second.
        let c = after(Some(RANGE), 1_000_000, &[(Some(500_000), 1)]);
        assert_eq!(c.total().value, 500_000);
        assert!(c.reset);
    }

    #[test]
    fn a_gap_long_enough_for_two_wraps_is_flagged() {
        let c = after(Some(RANGE), 0, &[(Some(1000), 3600)]);
        assert!(c.ambiguous);
        assert_eq!(c.total().low, 1000);
        assert!(c.total().high >= 13 * RANGE, "3600 s at 1000 W wrap 13 times");
        assert_eq!(c.covered(), Duration::ZERO);
    }

    #[test]
    fn a_counter_of_another_unit_wraps_in_its_unit_and_answers_in_microjoules() {
        // A RAPL register: 32 bits of 2^-14 J.
        let mut c = Counter::with_unit(u64::from(u32::MAX) - 9, Some(u64::from(u32::MAX)), 1 << 14);
        c.advance(Some((1 << 14) * 3 - 10), Duration::from_secs(1));
        assert_eq!(c.total(), Reading { low: 3_000_000, value: 3_000_000, high: 3_000_000 });
    }

    #[test]
    fn a_counter_that_stops_answering_says_so() {
        let c = after(Some(RANGE), 0, &[(Some(1_000_000), 1), (None, 2)]);
        assert!(c.failing);
        assert_eq!((c.total().value, c.covered()), (1_000_000, Duration::from_secs(1)));
    }

    #[test]
    fn a_million_random_traces_with_wraps_and_failures_are_counted_to_the_microjoule() {
        // Marsaglia 2003, xorshift64.
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut below = |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % limit
        };
        for trace in 0..1_000_000 {
            let mut raw = below(RANGE + 1);
            let mut counter = Counter::new(raw, Some(RANGE));
            let (mut now, mut spent, mut before) = (Duration::ZERO, 0, 0);
            for step in 0..4 {
                let millis = 1 + below(60_000);
                // Up to 900 W, so that half of the traces wrap; one reading in five fails, the last does not.
                let delta = below(900 * millis) * 1000;
                now += Duration::from_millis(millis);
                (spent, raw) = (spent + delta, (raw + delta) % (RANGE + 1));
                counter.advance((step == 3 || below(5) > 0).then_some(raw), now);
                let total = counter.total().value;
                assert!(total >= before, "trace {trace}: energy never falls");
                before = total;
            }
            let expected = Reading { low: spent, value: spent, high: spent };
            assert_eq!(counter.total(), expected, "trace {trace}");
            assert!(!counter.reset && !counter.ambiguous, "trace {trace}: no spurious gap");
        }
    }

    proptest! {
        #[test]
        fn any_trace_below_one_wrap_a_step_is_summed_exactly(
            first in 0..=RANGE,
            steps in prop::collection::vec((0..300_000_000u64, prop::bool::weighted(0.2)), 1..50),
        ) {
            let mut counter = Counter::new(first, Some(RANGE));
            let (mut spent, mut raw) = (0u64, first);
            for (i, (delta, fails)) in steps.iter().enumerate() {
                spent += delta;
                raw = (raw + delta) % (RANGE + 1);
                let reading = (!fails).then_some(raw);
                counter.advance(reading, Duration::from_secs(i as u64 + 1));
            }
            counter.advance(Some(raw), Duration::from_secs(steps.len() as u64 + 1));
            prop_assert_eq!(counter.total(), Reading { low: spent, value: spent, high: spent });
            prop_assert!(!counter.reset && !counter.ambiguous);
        }

        #[test]
        fn no_trace_breaks_the_order_of_bounds(
            first: u64,
            range: Option<u64>,
            readings in prop::collection::vec((any::<Option<u64>>(), 0..1_000_000_000u64), 0..30),
        ) {
            let mut counter = Counter::new(first, range);
            let mut now = Duration::ZERO;
            for (reading, gap) in readings {
                now += Duration::from_secs(gap);
                let before = counter.total();
                counter.advance(reading, now);
                let t = counter.total();
                let (low, value, high) = (t.low - before.low, t.value - before.value, t.high - before.high);
                prop_assert!(low <= value && (value <= high || t.high == u64::MAX));
                prop_assert!(t.low <= t.value && t.value <= t.high);
            }
        }
    }
}
