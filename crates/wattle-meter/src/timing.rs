//! How long repeated work takes: the one way of timing wherever something is run several times.
//!
//! Work is run a few times unmeasured, then in turns; contenders take every turn together, so that what disturbs the
//! machine disturbs all of them. All times are kept in the order they were taken, so that repeats that drift show. Which
//! statistic counts is the caller's choice: the median for what a user will see, the least for what a kernel can do,
//! since other programs only add to it.
//!
//! ```
//! use wattle_meter::timing::{Turns, repeated};
//! let sums = repeated(&Turns::exactly(20), || {
//!     std::hint::black_box((0..1000u64).sum::<u64>());
//!     Ok::<(), std::convert::Infallible>(())
//! });
//! let Ok(times) = sums;
//! assert_eq!(times.turns(), 20);
//! assert!(times.least() <= times.median());
//! ```

use std::time::{Duration, Instant};

use crate::{Meter, Quantity, Source, Unit};

/// How often something is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// Runs before anything is measured: caches fill, pages are mapped, threads wake.
    pub warm_up: usize,
    /// Turns that are always taken; at least one is.
    pub least: usize,
    /// Turns that are never exceeded.
    pub most: usize,
    /// Once this much time has passed since the first turn began, no more than `least` turns are taken.
    pub enough: Duration,
}

impl Turns {
    /// So many turns, after a warm-up of a tenth of them, at least two.
    pub fn exactly(turns: usize) -> Turns {
        Turns { warm_up: (turns / 10).max(2), least: turns, most: turns, enough: Duration::ZERO }
    }

    /// As many turns as fit into a time, at least three and at most `most`; no warm-up.
    pub fn within(enough: Duration, most: usize) -> Turns {
        Turns { warm_up: 0, least: 3, most, enough }
    }

    /// The same with another warm-up.
    #[must_use]
    pub fn warmed(self, warm_up: usize) -> Turns {
        Turns { warm_up, ..self }
    }
}

/// Times of one piece of work, in the order they were taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    seconds: Vec<f64>,
}

/// How a later half of repeats differs from the earlier one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Median of the later half over that of the earlier one, less one: 0.1 is a tenth slower.
    pub change: f64,
}

/// Fewer repeats cannot tell a drift from chance.
const DRIFT_NEEDS: usize = 10;
/// Smaller changes are not worth a word.
const DRIFT: f64 = 0.05;

impl Times {
    /// Times that were taken elsewhere, in seconds, in their order; `None` of nothing.
    pub fn of(seconds: Vec<f64>) -> Option<Times> {
        (!seconds.is_empty()).then_some(Times { seconds })
    }

    /// How often it was timed; at least once.
    pub fn turns(&self) -> usize {
        self.seconds.len()
    }

    /// All times in seconds, in the order they were taken.
    pub fn seconds(&self) -> &[f64] {
        &self.seconds
    }

    /// The shortest, in seconds.
    pub fn least(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The median in seconds, by nearest rank: of an even number the lower of the middle two.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The quantile `q` from 0 to 1 in seconds, by nearest rank.
    pub fn quantile(&self, q: f64) -> f64 {
        quantile(&self.seconds, q)
    }

    /// The middle half of the times: a quarter is below, a quarter above, in seconds.
    pub fn quartiles(&self) -> (f64, f64) {
        (self.quantile(0.25), self.quantile(0.75))
    }

    /// The median as a quantity, s; its interval holds eight times of ten.
    pub fn quantity(&self) -> Quantity {
        let [low, value, high] = [0.1, 0.5, 0.9].map(|q| self.quantile(q));
        Quantity::new(value, low, high, Unit::Second, Source::measured("monotonic-clock"))
            .expect("quantiles of one list are ordered, and durations are finite")
    }

    /// Whether the later half of the turns took another time than the earlier one: other work on the machine, a processor
    /// that heats up, memory that fills. The medians differ by more than 5 %, and the middle halves of the two do not
    /// touch; without drift that happens to one list in forty of twenty times, by chance alone.
    pub fn drift(&self) -> Option<Drift> {
        if self.turns() < DRIFT_NEEDS {
            return None;
        }
        let (earlier, later) = self.seconds.split_at(self.turns() / 2);
        let change = quantile(later, 0.5) / quantile(earlier, 0.5).max(f64::MIN_POSITIVE) - 1.0;
        let apart = |below: &[f64], above: &[f64]| quantile(below, 0.75) < quantile(above, 0.25);
        let drifts = change.abs() > DRIFT && (apart(earlier, later) || apart(later, earlier));
        drifts.then_some(Drift { change })
    }
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (percent, how) =
            (100.0 * self.change.abs(), if self.change > 0.0 { "longer" } else { "shorter" });
        write!(f, "the later half of the repeats took {percent:.0} % {how} than the earlier half")
    }
}

/// The quantile `q` from 0 to 1 of a list that is not empty, by nearest rank; NaN of an empty one.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// The time of one call.
///
/// # Errors
/// That of the call.
pub fn once<E>(call: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let start = Instant::now();
    call()?;
    Ok(start.elapsed())
}

/// Times one piece of work.
///
/// # Errors
/// The first error of the work.
pub fn repeated<E>(turns: &Turns, mut work: impl FnMut() -> Result<(), E>) -> Result<Times, E> {
    let [times] = together(turns, |[time]: &mut [Duration; 1]| {
        *time = once(&mut work)?;
        Ok(())
    })?;
    Ok(times)
}

/// Times contenders in turns: in each, every contender once, in order. `run` gives the time of one run, so that it can
/// leave out what only prepares it.
///
/// # Errors
/// The first error of a contender.
pub fn in_turns<E>(
    turns: &Turns,
    contenders: usize,
    mut run: impl FnMut(usize) -> Result<Duration, E>,
) -> Result<Vec<Times>, E> {
    listed(turns, contenders, |times| {
        times.iter_mut().enumerate().try_for_each(|(contender, time)| {
            *time = run(contender)?;
            Ok(())
        })
    })
}

/// Energy of one run of each contender, J, from turns in which each runs for some time in a row, so that what else the
/// machine does meets all of them alike. Each is a phase of the meter by its name. `None` where the meter knows no energy.
///
/// # Errors
/// The first error of a contender.
pub fn energies_in_turns<E>(
    meter: &Meter,
    names: &[&str],
    turns: usize,
    each: Duration,
    mut run: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Option<Quantity>>, E> {
    let mut spent: Vec<(Vec<Quantity>, u32)> = vec![(vec![], 0); names.len()];
    for _ in 0..turns {
        for (contender, (energies, runs)) in spent.iter_mut().enumerate() {
            let scope = meter.scope(names[contender]);
            let start = Instant::now();
            while start.elapsed() < each {
                run(contender)?;
                *runs += 1;
            }
            energies.extend(scope.finish().energy);
        }
    }
    let of_one = |(energies, runs): &(Vec<Quantity>, u32)| {
        let all = (energies.len() == turns).then(|| Quantity::sum(energies).ok().flatten()).flatten()?;
        all.scaled(1.0 / f64::from(*runs)).ok()
    };
    Ok(spent.iter().map(of_one).collect())
}

/// Times a fixed number of parts that one turn gives together.
///
/// # Errors
/// The first error of a turn.
pub fn together<E, const N: usize>(
    turns: &Turns,
    mut turn: impl FnMut(&mut [Duration; N]) -> Result<(), E>,
) -> Result<[Times; N], E> {
    let lists = listed(turns, N, |times| turn(times.try_into().expect("as many as were asked for")))?;
    Ok(lists.try_into().expect("as many as were asked for"))
}

/// Times parts that one turn gives together, such as the steps of a plan: `turn` writes the time of each.
///
/// # Errors
/// The first error of a turn.
pub fn listed<E>(
    turns: &Turns,
    parts: usize,
    mut turn: impl FnMut(&mut [Duration]) -> Result<(), E>,
) -> Result<Vec<Times>, E> {
    let mut once = vec![Duration::ZERO; parts];
    for _ in 0..turns.warm_up {
        turn(&mut once)?;
    }
    let mut all: Vec<Vec<f64>> = vec![Vec::with_capacity(turns.least); parts];
    let start = Instant::now();
    for taken in 0..turns.most.max(turns.least).max(1) {
        if taken >= turns.least.max(1) && start.elapsed() >= turns.enough {
            break;
        }
        turn(&mut once)?;
        all.iter_mut().zip(&once).for_each(|(list, time)| list.push(time.as_secs_f64()));
    }
    Ok(all.into_iter().map(|seconds| Times { seconds }).collect())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::backend::{Backend, Domain, Moment, Part, Reading};
    use crate::{Boundary, MeterConfig, WarningKind};

    fn times(seconds: &[f64]) -> Times {
        Times::of(seconds.to_vec()).unwrap()
    }

    #[test]
    fn quantiles_are_times_by_nearest_rank() {
        let t = times(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((t.least(), t.median(), t.quantile(0.9), t.quartiles()), (1.0, 2.0, 4.0, (1.0, 3.0)));
        assert_eq!(times(&[5.0]).quartiles(), (5.0, 5.0));
        assert_eq!(Times::of(vec![]), None);
        assert!(quantile(&[], 0.5).is_nan());
        let q = t.quantity();
        assert_eq!((q.low(), q.value(), q.high(), q.unit()), (1.0, 2.0, 4.0, Unit::Second));
        assert!(q.source().is_measured());
    }

    #[test]
    fn a_warm_up_is_run_and_not_counted() {
        let mut runs = 0;
        let Ok(times) = repeated(&Turns::exactly(30), || {
            runs += 1;
            Ok::<_, Infallible>(())
        });
        assert_eq!((runs, times.turns()), (33, 30));
    }

    #[test]
    fn contenders_take_turns_and_time_may_run_out() {
        let mut order = vec![];
        let turns = Turns { warm_up: 1, least: 2, most: 9, enough: Duration::ZERO };
        let Ok(times) = in_turns(&turns, 2, |contender| {
            order.push(contender);
            Ok::<_, Infallible>(Duration::from_millis(contender as u64 + 1))
        });
        assert_eq!(order, [0, 1, 0, 1, 0, 1], "a warm-up and the least number of turns");
        assert_eq!(times.iter().map(Times::least).collect::<Vec<_>>(), [1e-3, 2e-3]);
        let forever = Turns { enough: Duration::MAX, ..turns };
        let Ok(times) = in_turns(&forever, 1, |_| Ok::<_, Infallible>(Duration::ZERO));
        assert_eq!(times[0].turns(), 9);
    }

    #[test]
    fn an_error_ends_the_timing() {
        let mut left = 3;
        let found = repeated(&Turns::exactly(10), || {
            left -= 1;
            if left == 0 { Err("out of memory") } else { Ok(()) }
        });
        assert_eq!((found, left), (Err("out of memory"), 0));
    }

    #[test]
    fn repeats_that_drift_are_marked_and_noise_is_not() {
        let noise = |i: usize| 1.0 + 0.02 * ((i * 7919 % 13) as f64 / 13.0);
        assert_eq!(times(&(0..40).map(noise).collect::<Vec<_>>()).drift(), None);
        let slower: Vec<f64> = (0..40).map(|i| noise(i) * if i < 20 { 1.0 } else { 1.2 }).collect();
        let drift = times(&slower).drift().unwrap();
        assert!((drift.change - 0.2).abs() < 0.02, "{drift}");
        assert!(drift.to_string().contains("% longer"), "{drift}");
        let faster: Vec<f64> = slower.iter().rev().copied().collect();
        assert!(times(&faster).drift().unwrap().to_string().contains("% shorter"));
        // One slow repeat is no drift, and nine repeats are too few.
        let mut spike = vec![1.0; 20];
        spike[15] = 9.0;
        assert_eq!(times(&spike).drift(), None);
        assert_eq!(times(&[1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]).drift(), None);
        // Wide repeats whose medians differ by chance overlap.
        let wide: Vec<f64> = (0..20).map(|i| if i % 2 == 0 { 1.0 } else { 2.0 + i as f64 / 100.0 }).collect();
        assert_eq!(times(&wide).drift(), None);
    }

    #[test]
    fn parts_of_one_turn_stay_together() {
        let mut turn = 0;
        let Ok([a, b]) = together(&Turns::exactly(4), |[a, b]: &mut [Duration; 2]| {
            turn += 1;
            (*a, *b) = (Duration::from_secs(turn), Duration::from_secs(10 * turn));
            Ok::<_, Infallible>(())
        });
        assert_eq!(a.seconds(), [3.0, 4.0, 5.0, 6.0]);
        assert_eq!(b.seconds(), [30.0, 40.0, 50.0, 60.0]);
    }

    /// A counter under a load of others that grows: watts by the seconds since the start.
    struct Growing([Domain; 1], [Reading; 1]);

    impl Backend for Growing {
        fn name(&self) -> &'static str {
            "fake"
        }
        fn boundary(&self) -> Boundary {
            Boundary::WholePackages
        }
        fn domains(&self) -> &[Domain] {
            &self.0
        }
        fn read(&mut self, now: Moment) -> &[Reading] {
            let seconds = now.elapsed.as_secs_f64();
            let value = (1e9 * seconds * seconds) as u64;
            self.1 = [Reading { low: value, value, high: value }];
            &self.1
        }
        fn covered(&self) -> Duration {
            Duration::ZERO
        }
        fn shortest(&self) -> Duration {
            Duration::ZERO
        }
        fn warnings(&self) -> Vec<WarningKind> {
            vec![]
        }
    }

    #[test]
    fn a_load_that_grows_meets_both_contenders() {
        let source = Source::measured("fake");
        let domain = Domain { name: "package-0".into(), part: Part::Processor, source, resolution: 0 };
        let meter =
            Meter::start_with(MeterConfig::new(["test"]), Box::new(Growing([domain], [Reading::default()])));
        let (turns, each) = (10, Duration::from_millis(10));
        let run = |_| {
            std::thread::sleep(Duration::from_millis(1));
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(found) = energies_in_turns(&meter, &["a", "b"], turns, each, run);
        let [a, b] = [0, 1].map(|i| found[i].as_ref().unwrap().value());
        // One after the other, the second would take three times as much.
        assert!(b / a < 1.6 && b / a > 0.8, "{a} {b}");
        let scopes = meter.stop().scopes;
        assert_eq!((scopes[0].path.as_str(), scopes[0].count, scopes[1].count), ("a", 10, 10));
    }
}
