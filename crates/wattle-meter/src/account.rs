//! Who the machine's joules went to: the measured process tree, other processes, or nobody (idle).
//!
//! `busy-time-share/1`: over each step, `idle = min(machine, idle power x time)`; what is left is divided between the
//! tree and the rest in the ratio of their processor times, that is over *busy* time, not over wall time x cores.
//! A step in which nobody was seen busy is idle. Processor time that is found late (a child that was not seen before, or
//! counts only once somebody waits for it) takes back, beyond what was busy in its own step, what the rest was given for it
//! before, at the mean power of the rest. Everything is whole microjoules, remainders are assigned, not
//! rounded, so `process + other + idle = machine` holds exactly, for every step and every sum of steps.

use std::time::Duration;

use crate::processor_time::Moment;

/// Energy by who spent it, in microjoules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split {
    /// The measured process tree's work.
    pub process: u64,
    /// Other processes' work.
    pub other: u64,
    /// What the machine draws when nobody works.
    pub idle: u64,
}

impl Split {
    /// The sum of the three.
    pub fn machine(&self) -> u64 {
        self.process.saturating_add(self.other).saturating_add(self.idle)
    }

    /// Divides `machine` microjoules. `own` beyond `busy` (clocks of whole ticks) counts as all of it.
    pub fn of(machine: u64, idle: u64, own: Duration, busy: Duration) -> Split {
        let idle = idle.min(machine);
        let active = machine - idle;
        let (own, busy) = (own.as_micros(), busy.max(own).as_micros());
        if busy == 0 {
            return Split { process: 0, other: 0, idle: machine };
        }
        let process =
            u64::try_from(u128::from(active) * own / busy).expect("own <= busy, so no more than active");
        Split { process, other: active - process, idle }
    }

    fn add(&mut self, more: Split) {
        self.process = self.process.saturating_add(more.process);
        self.other = self.other.saturating_add(more.other);
        self.idle = self.idle.saturating_add(more.idle);
    }
}

/// Processor times come in whole ticks; shorter steps than ten of them are gathered first.
const STEP: Duration = Duration::from_millis(100);
/// Processor times are read at least this often, so a machine whose clock stands still for longer is idle. Before that
/// they may merely not have been read again, and a step must wait for them.
const UNREAD: Duration = Duration::from_secs(4);

/// The running account of one measurement, under one assumption about idle power.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    idle_milliwatts: u64,
    settled: Moment,
    settled_energy: u64,
    split: Split,
    /// Busy time that was taken for other processes'.
    other_time: Duration,
}

impl Account {
    pub(crate) fn new(idle_milliwatts: u64) -> Self {
        Account {
            idle_milliwatts,
            settled: Moment::default(),
            settled_energy: 0,
            split: Split::default(),
            other_time: Duration::ZERO,
        }
    }

    /// Takes the machine's energy since the start at a moment; settles once enough time has passed.
    pub(crate) fn advance(&mut self, now: Moment, machine: u64) {
        let elapsed = now.elapsed.saturating_sub(self.settled.elapsed);
        let read_again = now.busy.unwrap_or_default() != self.settled.busy.unwrap_or_default();
        if elapsed >= UNREAD || (elapsed >= STEP && read_again) {
            self.settle(now, machine);
        }
    }

    /// Settles up to a moment; the split is then of exactly `machine`.
    pub(crate) fn settle(&mut self, now: Moment, machine: u64) -> Split {
        let step = |now: Option<Duration>, then: Option<Duration>| {
            now.unwrap_or_default().saturating_sub(then.unwrap_or_default())
        };
        let elapsed = now.elapsed.saturating_sub(self.settled.elapsed);
        let idle = u128::from(self.idle_milliwatts) * elapsed.as_micros() / 1000;
        let own = step(now.own, self.settled.own);
        let busy = step(now.busy, self.settled.busy);
        self.split.add(Split::of(
            machine.saturating_sub(self.settled_energy),
            u64::try_from(idle).unwrap_or(u64::MAX),
            own,
            busy,
        ));
        self.other_time += busy.saturating_sub(own);
        self.take_back(own.saturating_sub(busy));
        (self.settled, self.settled_energy) = (now, machine.max(self.settled_energy));
        self.split
    }

    /// Own time that was taken for others' before.
    fn take_back(&mut self, late: Duration) {
        let late = late.min(self.other_time);
        let shares = (late.as_micros(), self.other_time.as_micros());
        if let Some(energy) = (u128::from(self.split.other) * shares.0).checked_div(shares.1) {
            let energy = u64::try_from(energy).expect("a part of what others have");
            self.split.other -= energy;
            self.split.process = self.split.process.saturating_add(energy);
            self.other_time -= late;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(elapsed: u64, own: u64, busy: u64) -> Moment {
        let ms = Duration::from_millis;
        Moment { elapsed: ms(elapsed), own: Some(ms(own)), busy: Some(ms(busy)), lagging: false }
    }

    /// Marsaglia 2003, xorshift64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    #[test]
    fn a_million_random_traces_are_conserved_to_the_microjoule() {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for trace in 0..1_000_000 {
            let mut account = Account::new(random.below(400_000));
            let (mut now, mut machine) = (Moment::default(), 0u64);
            for _ in 0..1 + random.below(5) {
                now.elapsed += Duration::from_micros(random.below(300_000));
                // Energy of up to 1 kW, now and then a huge catch-up after a failed reading.
                machine +=
                    if random.below(50) == 0 { random.below(1 << 50) } else { random.below(300_000_000) };
                // Clocks may stand still, be missing, or be inconsistent with each other.
                let more = |time: Option<Duration>, by: u64| {
                    Some(time.unwrap_or_default() + Duration::from_millis(by / 10 * 10))
                };
                if random.below(10) > 0 {
                    now.own = more(now.own, random.below(300));
                    now.busy = more(now.busy, random.below(600));
                }
                account.advance(now, machine);
            }
            let split = account.settle(now, machine);
            assert_eq!(split.process + split.other + split.idle, machine, "trace {trace}");
        }
    }

    #[test]
    fn active_energy_is_shared_by_busy_time_not_by_wall_time_times_cores() {
        // 10 s at 50 W; 20 W idle; the tree worked 3 s, others 1 s, of 64 core-seconds.
        let split = Account::new(20_000).settle(moment(10_000, 3_000, 4_000), 500_000_000);
        assert_eq!(split, Split { process: 225_000_000, other: 75_000_000, idle: 200_000_000 });
    }

    #[test]
    fn idle_never_takes_more_than_there_is() {
        let split = Account::new(100_000).settle(moment(1000, 10, 10), 7);
        assert_eq!(split, Split { process: 0, other: 0, idle: 7 });
    }

    #[test]
    fn ticks_that_claim_more_than_everybody_together_are_everybody() {
        assert_eq!(Split::of(100, 0, Duration::from_secs(3), Duration::from_secs(2)).process, 100);
    }

    #[test]
    fn a_kilohertz_of_samples_gives_what_one_sample_gives() {
        let mut fine = Account::new(10_000);
        for ms in 1..=1000u64 {
            // Ticks arrive every 10 ms, energy every sample.
            fine.advance(moment(ms, ms / 10 * 10 / 2 / 10 * 10, ms / 10 * 10), ms * 30_000);
        }
        let fine = fine.settle(moment(1000, 500, 1000), 30_000_000);
        let coarse = Account::new(10_000).settle(moment(1000, 500, 1000), 30_000_000);
        assert_eq!(fine.machine(), coarse.machine());
        assert!(fine.process.abs_diff(coarse.process) < 200_000, "{fine:?} {coarse:?}");
    }

    #[test]
    fn energy_between_two_looks_at_the_clocks_waits_for_the_second_look() {
        let mut account = Account::new(0);
        for ms in 1..1000 {
            account.advance(moment(ms, 0, 0), ms * 10_000);
        }
        let split = account.settle(moment(1000, 500, 1000), 10_000_000);
        assert_eq!(split, Split { process: 5_000_000, other: 5_000_000, idle: 0 });
    }

    #[test]
    fn time_that_is_found_late_takes_back_what_others_were_given_for_it() {
        // The command works alone on one of two processors beside another, and is not seen before the end.
        for unseen in [vec![], vec![1900], vec![1900, 3800], vec![100, 1900, 3800]] {
            let mut account = Account::new(10_000);
            for ms in unseen {
                account.advance(moment(ms, 0, 2 * ms), ms * 30_000);
            }
            let split = account.settle(moment(4200, 4200, 8400), 4200 * 30_000);
            assert_eq!(split.machine(), 126_000_000);
            assert!(split.process.abs_diff(42_000_000) <= 2, "half of 20 W for 4.2 s: {split:?}");
        }
    }

    #[test]
    fn where_nobody_was_seen_busy_everything_is_idle() {
        let unknown = Moment { elapsed: Duration::from_secs(1), ..Moment::default() };
        assert_eq!(Account::new(1).settle(unknown, 99), Split { process: 0, other: 0, idle: 99 });
    }
}
