//! Energy counters that are not believed before they have shown that they count, and count something of their own.
//!
//! Two faults of machines look like measurements. A counter that never moves: the interface is there, but nothing drives
//! it. And several domains that show one counter: both dies or packages of some processors (Zen 1 and 2; Zen 4 on Linux
//! 6.10 and 6.11) give the same joules, so that their sum is twice the energy. Both show in the readings alone: a live
//! counter moves about every millisecond, and two counters of their own never agree to the microjoule once they have
//! moved. So every reading of a domain is passed on only as an upper bound until it differs from those before it.

use std::time::Duration;

use crate::account::Split;
use crate::backend::{Backend, Domain, Moment, Part, Reading};
use crate::{Boundary, WarningKind};

/// A processor's counter that has not moved for so long does not count.
const STILL: Duration = Duration::from_secs(1);
/// More than any processor package draws, in microwatts.
const MOST_MICROWATTS: u128 = 1000 * 1_000_000;
/// Once two domains have shown so many equal values, they show one counter.
const CERTAIN: u32 = 3;

/// Counters, doubted.
pub(crate) struct Doubted<B> {
    inner: B,
    states: Vec<State>,
    /// What is passed on; each of its three numbers only grows.
    readings: Vec<Reading>,
    covered: bool,
}

/// What is thought of one domain.
#[derive(Debug, Clone, Default)]
struct State {
    /// An earlier domain of the same kind that has shown the same values so far, and how many different ones.
    twin: Option<usize>,
    equal: u32,
    last_equal: u64,
    /// Whether its readings are passed on as they are; until then only `floor` and what it adds to it, as a bound.
    believed: bool,
    /// Upper bound that was passed on in doubt and cannot be taken back.
    floor: u64,
    frozen: bool,
}

impl<B: Backend> Doubted<B> {
    pub(crate) fn new(inner: B) -> Self {
        let domains = inner.domains();
        let twin = |at: usize| (0..at).find(|&earlier| domains[earlier].part == domains[at].part);
        let states = (0..domains.len()).map(|at| State { twin: twin(at), ..State::default() });
        let (states, readings) = (states.collect(), vec![Reading::default(); domains.len()]);
        Doubted { inner, states, readings, covered: true }
    }

    /// Looks at the twins: where two differ, and not only because the counter moved between the two files, they are two.
    fn separate(&mut self, now: Moment, first: &[Reading]) {
        let mut second: Option<Vec<Reading>> = None;
        for at in 0..self.states.len() {
            let Some(twin) = self.states[at].twin else { continue };
            let (own, other) = (first[at].value, first[twin].value);
            if own == other {
                let state = &mut self.states[at];
                if own > state.last_equal {
                    (state.equal, state.last_equal) = (state.equal + 1, own);
                }
                continue;
            }
            // Read in order, one counter shows twin <= own <= twin again.
            let second = second.get_or_insert_with(|| self.inner.read(now).to_vec());
            if !(other <= own && own <= second[twin].value) {
                self.states[at].twin = self.next_twin(at, twin, first);
            }
        }
    }

    /// Another earlier domain that has shown the same, where the one taken for the twin did not.
    fn next_twin(&self, at: usize, not: usize, first: &[Reading]) -> Option<usize> {
        let domains = self.inner.domains();
        let alike = |&earlier: &usize| {
            domains[earlier].part == domains[at].part && first[earlier].value == first[at].value
        };
        (not + 1..at).find(alike)
    }

    fn pass_on(&mut self, at: usize, own: Reading, now: Moment) {
        let part = self.inner.domains()[at].part;
        // A reading that is refused says nothing of whether the counter moves.
        let read = self.inner.covered().min(now.elapsed);
        let (state, passed) = (&mut self.states[at], &mut self.readings[at]);
        state.frozen = part == Part::Processor && own.high == 0 && read >= STILL;
        if state.frozen {
            let most = u64::try_from(MOST_MICROWATTS * now.elapsed.as_micros() / 1_000_000);
            passed.high = passed.high.max(most.unwrap_or(u64::MAX));
            (state.believed, state.floor) = (false, passed.high);
        } else if state.twin.is_some() {
            if state.equal < CERTAIN {
                passed.high = passed.high.max(state.floor.saturating_add(own.high));
            }
        } else {
            if !state.believed {
                (state.believed, state.floor) = (true, passed.high);
            }
            let high = own.high.saturating_add(state.floor);
            *passed = Reading { low: own.low, value: own.value, high };
        }
    }
}

impl<B: Backend> Backend for Doubted<B> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn boundary(&self) -> Boundary {
        self.inner.boundary()
    }

    fn domains(&self) -> &[Domain] {
        self.inner.domains()
    }

    fn read(&mut self, now: Moment) -> &[Reading] {
        let first = self.inner.read(now).to_vec();
        self.separate(now, &first);
        for (at, own) in first.into_iter().enumerate() {
            self.pass_on(at, own, now);
        }
        self.covered = self.states.iter().all(|state| !state.frozen);
        &self.readings
    }

    fn split(&self) -> Option<Split> {
        self.inner.split()
    }

    fn covered(&self) -> Duration {
        if self.covered { self.inner.covered() } else { Duration::ZERO }
    }

    fn shortest(&self) -> Duration {
        self.inner.shortest()
    }

    fn warnings(&self) -> Vec<WarningKind> {
        let mut warnings = self.inner.warnings();
        let domains = self.inner.domains();
        for (domain, state) in domains.iter().zip(&self.states) {
            if state.frozen {
                warnings.push(WarningKind::CounterFrozen { domain: domain.name.clone() });
            } else if let Some(twin) = state.twin.filter(|_| state.equal > 0) {
                let (domain, path) = (domains[twin].name.clone(), domain.name.clone());
                warnings.push(WarningKind::DuplicateCounter { domain, path });
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    /// Domains whose joules a table gives, one row a reading.
    struct Table {
        domains: Vec<Domain>,
        rows: Vec<Vec<u64>>,
        at: usize,
        readings: Vec<Reading>,
    }

    impl Table {
        fn new(rows: &[&[u64]]) -> Doubted<Table> {
            let domain = |at| Domain {
                name: format!("package-{at}"),
                part: Part::Processor,
                source: Source::measured("fake"),
                resolution: 0,
            };
            let domains = (0..rows[0].len()).map(domain).collect();
            let rows = rows.iter().map(|row| row.to_vec()).collect();
            Doubted::new(Table { domains, rows, at: 0, readings: vec![] })
        }
    }

    impl Backend for Table {
        fn name(&self) -> &'static str {
            "fake"
        }
        fn boundary(&self) -> Boundary {
            Boundary::WholePackages
        }
        fn domains(&self) -> &[Domain] {
            &self.domains
        }
        fn read(&mut self, _: Moment) -> &[Reading] {
            let row = &self.rows[self.at.min(self.rows.len() - 1)];
            self.readings = row.iter().map(|&uj| Reading { low: uj, value: uj, high: uj }).collect();
            self.at += 1;
            &self.readings
        }
        fn covered(&self) -> Duration {
            Duration::from_secs(5)
        }
        fn shortest(&self) -> Duration {
            Duration::ZERO
        }
        fn warnings(&self) -> Vec<WarningKind> {
            vec![]
        }
    }

    /// Takes so many readings, a tenth of a second apart, and gives the last.
    fn after(counters: &mut Doubted<Table>, readings: u64) -> Vec<(u64, u64, u64)> {
        let mut last = vec![];
        for step in 0..readings {
            let now = Moment { elapsed: Duration::from_millis(100 * step), ..Moment::default() };
            let read = counters.read(now);
            let passed: Vec<_> = read.iter().map(|r| (r.low, r.value, r.high)).collect();
            for ((l, v, h), (l0, v0, h0)) in passed.iter().zip(&last) {
                assert!(l >= l0 && l - l0 <= v - v0 && v - v0 <= h - h0, "each grows, in order");
            }
            last = passed;
        }
        last
    }

    #[test]
    fn dies_that_mirror_one_counter_are_counted_once_and_it_is_said() {
        let mut counters = Table::new(&[&[0, 0], &[10, 10], &[20, 20]]);
        assert_eq!(after(&mut counters, 3), [(20, 20, 20), (0, 0, 20)]);
        let (domain, path) = ("package-0".to_owned(), "package-1".to_owned());
        assert_eq!(counters.warnings(), [WarningKind::DuplicateCounter { domain, path }]);
        // A longer run is sure of it, and its interval stops growing.
        let rows: Vec<[u64; 2]> = (0..50).map(|i| [10 * i, 10 * i]).collect();
        let rows: Vec<&[u64]> = rows.iter().map(|row| row.as_slice()).collect();
        assert_eq!(after(&mut Table::new(&rows), 50), [(490, 490, 490), (0, 0, 20)]);
    }

    #[test]
    fn a_mirrored_counter_that_moves_between_two_files_is_still_one() {
        // The second file is read after an update; the first shows it when both are read again.
        let mut counters = Table::new(&[&[0, 0], &[10, 12], &[12, 12], &[30, 30]]);
        assert_eq!(after(&mut counters, 3)[1].1, 0);
        assert_eq!(counters.warnings().len(), 1);
    }

    #[test]
    fn dies_with_counters_of_their_own_add_up_exactly() {
        let mut counters = Table::new(&[&[0, 0], &[10, 7], &[10, 7], &[25, 19]]);
        assert_eq!(after(&mut counters, 3), [(25, 25, 25), (19, 19, 19)]);
        assert_eq!(counters.warnings(), []);
        let mut idle = Table::new(&[&[0, 0], &[10, 0], &[10, 0], &[25, 0]]);
        assert_eq!(after(&mut idle, 3), [(25, 25, 25), (0, 0, 0)]);
    }

    #[test]
    fn two_packages_of_two_mirrored_dies_each_are_two() {
        let mut counters = Table::new(&[&[0; 4], &[10, 10, 7, 7], &[10, 10, 7, 7], &[25, 25, 19, 19]]);
        let values: Vec<u64> = after(&mut counters, 3).iter().map(|r| r.1).collect();
        assert_eq!(values, [25, 0, 19, 0]);
        assert_eq!(counters.warnings().len(), 2);
    }

    #[test]
    fn a_counter_that_never_moves_is_not_believed() {
        let mut counters = Table::new(&[&[0]]);
        assert_eq!(after(&mut counters, 10), [(0, 0, 0)], "0.9 s prove nothing");
        let mut counters = Table::new(&[&[0]]);
        assert_eq!(after(&mut counters, 21), [(0, 0, 2_000_000_000)], "at most 1000 W for two seconds");
        assert_eq!(counters.warnings(), [WarningKind::CounterFrozen { domain: "package-0".to_owned() }]);
        assert_eq!(counters.covered(), Duration::ZERO);
        // Should it move after all, its joules count from then on.
        let mut rows: Vec<&[u64]> = vec![&[0]; 15];
        rows.push(&[7]);
        let mut late = Table::new(&rows);
        assert_eq!(after(&mut late, 16), [(7, 7, 1_400_000_007)]);
        assert_eq!((late.warnings(), late.covered()), (vec![], Duration::from_secs(5)));
    }
}
