//! Processor time of this process, of its children, or of another process tree, and of the whole machine, from
//! `/proc`.
//!
//! A tree's time has two lower bounds, and the larger counts. *Waited for*: what the kernel adds to a parent when it
//! collects a child (`cutime`, `cstime`) plus the times of those still alive; exact however short-lived the
//! children are, provided that somebody waits for them. *Seen*: the last time seen of every process ever seen in
//! the tree; it holds where nobody waits. The command line makes itself the collector of orphans
//! (`PR_SET_CHILD_SUBREAPER`), so that the first bound is the exact one for everything it starts.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The unit of `/proc/*/stat`: `USER_HZ`, 100 a second on every Linux architecture in use.
const TICK_MILLIS: u64 = 10;

/// How far a difference of two readings may be off: user and system time are each cut to whole ticks.
pub(crate) const RESOLUTION: Duration = Duration::from_millis(20);

/// Listings after which processes known to be strangers are looked at again, should a number have been reused.
const STRANGERS_FORGOTTEN: u32 = 30;

/// Whose processor time is counted as the run's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Subject {
    /// This process, and the children it has waited for.
    #[default]
    This,
    /// The children of this process and all their descendants, without this process.
    Children,
    /// Another process and its descendants.
    Tree(u32),
}

/// A moment of a measurement; all times count from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Time by the monotonic clock; never decreases.
    pub elapsed: Duration,
    /// Processor time of the subject over all its threads; `None` where it is unknown. Never decreases.
    pub own: Option<Duration>,
    /// Processor time of everything on the machine, waiting and stolen time excluded. Never decreases.
    pub busy: Option<Duration>,
}

/// The reader; counts from when it was opened.
#[derive(Debug)]
pub(crate) struct ProcessorTime {
    proc: PathBuf,
    subject: Subject,
    tree: Tree,
    own_at_start: Option<u64>,
    busy_at_start: Option<u64>,
    last: Option<Moment>,
}

impl ProcessorTime {
    /// Starts counting, by the files under `proc`, usually `/proc`.
    pub(crate) fn open(proc: &Path, subject: Subject) -> Self {
        let mut opened = ProcessorTime {
            proc: proc.to_owned(),
            subject,
            tree: Tree::default(),
            own_at_start: None,
            busy_at_start: machine_ticks(proc),
            last: None,
        };
        opened.own_at_start = opened.own_ticks();
        opened.tree.forget_past();
        opened
    }

    /// The moment `elapsed` after the start. Processor times younger than `patience` are not read again.
    pub(crate) fn read(&mut self, elapsed: Duration, patience: Duration) -> Moment {
        if let Some(last) = self.last
            && elapsed.saturating_sub(last.elapsed) < patience
        {
            return Moment { elapsed, ..last };
        }
        let before = self.last.unwrap_or_default();
        // A failed reading keeps the last one: these clocks only grow, so the next good one catches up.
        let own = self.own_ticks().zip(self.own_at_start).map(|(now, then)| now.saturating_sub(then));
        let own = own.map(|own| own.max(self.tree.seen()));
        let busy =
            machine_ticks(&self.proc).zip(self.busy_at_start).map(|(now, then)| now.saturating_sub(then));
        let moment =
            Moment { elapsed, own: own.map(time).max(before.own), busy: busy.map(time).max(before.busy) };
        self.last = Some(moment);
        moment
    }

    /// Ticks of the subject by the *waited for* bound.
    fn own_ticks(&mut self) -> Option<u64> {
        match self.subject {
            Subject::This => Stat::read(&self.proc, "self").map(|own| own.spent.saturating_add(own.waited)),
            Subject::Children => {
                let own = Stat::read(&self.proc, "self")?;
                let pid = own.pid;
                Some(own.waited.saturating_add(self.tree.scan(&self.proc, pid, false)))
            }
            Subject::Tree(root) => Some(self.tree.scan(&self.proc, root, true)),
        }
    }
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(TICK_MILLIS))
}

/// The processes of a tree, as seen from listing to listing.
#[derive(Debug, Default)]
struct Tree {
    /// Own ticks by process number and start time: at the first sight that counts, and last.
    members: HashMap<(u32, u64), (u64, u64)>,
    strangers: HashSet<u32>,
    listings: u32,
}

impl Tree {
    /// Looks at the descendants of `root` that are alive; returns their ticks and those of the children they waited
    /// for.
    fn scan(&mut self, proc: &Path, root: u32, with_root: bool) -> u64 {
        self.listings += 1;
        if self.listings.is_multiple_of(STRANGERS_FORGOTTEN) {
            self.strangers.clear();
        }
        let entries = fs::read_dir(proc).into_iter().flatten().flatten();
        let alive: HashSet<u32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        self.strangers.retain(|pid| alive.contains(pid));
        let candidates = alive.iter().filter(|pid| !self.strangers.contains(pid));
        let stats: HashMap<u32, Stat> =
            candidates.filter_map(|&pid| Some((pid, Stat::read(proc, &pid.to_string())?))).collect();
        let mut total = 0u64;
        for (&pid, stat) in &stats {
            let belongs = if pid == root { with_root } else { descends(&stats, stat, root) };
            if belongs {
                total = total.saturating_add(stat.spent).saturating_add(stat.waited);
                self.members.entry((pid, stat.started)).or_insert((0, 0)).1 = stat.spent;
            } else if pid != root {
                self.strangers.insert(pid);
            }
        }
        total
    }

    /// What the members have spent so far does not count.
    fn forget_past(&mut self) {
        for (first, last) in self.members.values_mut() {
            *first = *last;
        }
    }

    /// Ticks by the *seen* bound.
    fn seen(&self) -> u64 {
        self.members.values().fold(0, |sum, (first, last)| sum.saturating_add(last.saturating_sub(*first)))
    }
}

/// Whether the chain of parents leads to `root`; a chain longer than any real one is a torn listing.
fn descends(stats: &HashMap<u32, Stat>, of: &Stat, root: u32) -> bool {
    let mut parent = of.parent;
    for _ in 0..4096 {
        if parent == root {
            return true;
        }
        match stats.get(&parent) {
            Some(next) => parent = next.parent,
            None => return false,
        }
    }
    false
}

/// What `/proc/<pid>/stat` says, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// User and system time of all its threads.
    spent: u64,
    /// The same of children that ended and were waited for, and of theirs.
    waited: u64,
    started: u64,
}

impl Stat {
    fn read(proc: &Path, pid: &str) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(proc.join(pid).join("stat")).ok()?)
    }

    /// Fields 1, 4, 14 to 17 and 22 of proc(5). The name in field 2 may hold spaces and brackets.
    fn parse(stat: &str) -> Option<Stat> {
        let pid = stat.split_ascii_whitespace().next()?.parse().ok()?;
        let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
        // The first field after the name is number 3.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            pid,
            parent: u32::try_from(number(4)?).ok()?,
            spent: number(14)?.checked_add(number(15)?)?,
            waited: number(16)?.checked_add(number(17)?)?,
            started: number(22)?,
        })
    }
}

/// Ticks of all processors together spent in user, nice, system, irq and softirq. Idle, waiting for a disk, and time
/// that a hypervisor took away (`steal`) are not work of this machine; guests are part of user already.
fn machine_ticks(proc: &Path) -> Option<u64> {
    let text = fs::read_to_string(proc.join("stat")).ok()?;
    let fields: Vec<u64> =
        text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|f| f.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields[..] else { return None };
    user.checked_add(nice)?.checked_add(system)?.checked_add(irq)?.checked_add(softirq)
}

/// Logical processors of the machine, whatever this process may use of them; `None` if unknown.
pub(crate) fn machine_cores(proc: &Path) -> Option<u64> {
    let text = fs::read_to_string(proc.join("stat")).ok()?;
    let cores = text.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")).count();
    (cores > 0).then_some(cores as u64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A `/proc` of our own making.
    pub(crate) struct FakeProc(tempfile::TempDir);

    impl FakeProc {
        pub(crate) fn new() -> FakeProc {
            FakeProc(tempfile::tempdir().unwrap())
        }

        pub(crate) fn path(&self) -> &Path {
            self.0.path()
        }

        pub(crate) fn process(&self, entry: &str, pid: u32, parent: u32, spent: u64, waited: u64) {
            let folder = self.0.path().join(entry);
            fs::create_dir_all(&folder).unwrap();
            let text = format!(
                "{pid} (a) b) R {parent} 1 1 0 -1 0 0 0 0 0 {spent} 0 {waited} 0 20 0 1 0 {} 0",
                pid + 1000
            );
            fs::write(folder.join("stat"), text).unwrap();
        }

        pub(crate) fn exit(&self, pid: u32) {
            fs::remove_dir_all(self.0.path().join(pid.to_string())).unwrap();
        }

        pub(crate) fn machine(&self, user: u64, idle: u64, steal: u64) {
            let text = format!("cpu  {user} 0 0 {idle} 7 0 0 {steal} 0 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n");
            fs::write(self.0.path().join("stat"), text).unwrap();
        }
    }

    fn own(time: &mut ProcessorTime, second: u64) -> u64 {
        time.read(Duration::from_secs(second), Duration::ZERO).own.unwrap().as_millis() as u64 / TICK_MILLIS
    }

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let stat =
            Stat::parse("7 (a) R 1 (b) S 9 1 1 0 -1 4194304 900 0 0 0 150 50 7 3 20 0 4 0 100").unwrap();
        assert_eq!(stat, Stat { pid: 7, parent: 9, spent: 200, waited: 10, started: 100 });
    }

    #[test]
    fn anything_else_is_unknown() {
        for text in ["", ")", "7 (a) R 1 2 3", "7 (a) S 1 1 1 0 -1 4194304 900 0 0 0 x 50 7 3 20 0 4 0 100"] {
            assert_eq!(Stat::parse(text), None, "{text:?}");
        }
        let mut nowhere = ProcessorTime::open(Path::new("/nonexistent"), Subject::This);
        assert_eq!(nowhere.read(Duration::ZERO, Duration::ZERO), Moment::default());
    }

    #[test]
    fn grandchildren_that_are_forked_and_collected_between_samples_are_counted() {
        let proc = FakeProc::new();
        proc.process("self", 10, 1, 500, 0);
        proc.process("10", 10, 1, 500, 0);
        proc.process("11", 11, 10, 0, 0);
        let mut time = ProcessorTime::open(proc.path(), Subject::Children);
        // 11 has forked, run and collected a child of 30 ticks; it itself spent 5.
        proc.process("11", 11, 10, 5, 30);
        assert_eq!(own(&mut time, 1), 35, "without the 500 of this process");
        // 11 ended, and the kernel moved its time to its parent.
        proc.exit(11);
        proc.process("self", 10, 1, 500, 36);
        assert_eq!(own(&mut time, 2), 36);
    }

    #[test]
    fn a_process_that_reparents_and_is_collected_here_stays_in_the_tree() {
        let proc = FakeProc::new();
        proc.process("self", 10, 1, 0, 0);
        proc.process("10", 10, 1, 0, 0);
        proc.process("11", 11, 10, 0, 0);
        proc.process("12", 12, 11, 0, 0);
        let mut time = ProcessorTime::open(proc.path(), Subject::Children);
        proc.exit(11);
        proc.process("12", 12, 10, 40, 0); // the subreaper became its parent
        assert_eq!(own(&mut time, 1), 40);
        proc.exit(12);
        proc.process("self", 10, 1, 0, 41);
        assert_eq!(own(&mut time, 2), 41);
    }

    #[test]
    fn a_process_that_nobody_waits_for_counts_as_last_seen() {
        let proc = FakeProc::new();
        proc.process("20", 20, 1, 100, 0);
        let mut time = ProcessorTime::open(proc.path(), Subject::Tree(20));
        proc.process("21", 21, 20, 50, 0);
        proc.process("20", 20, 1, 110, 0);
        assert_eq!(own(&mut time, 1), 60, "what the root spent before is not ours");
        proc.exit(21);
        assert_eq!(own(&mut time, 2), 60, "never less than before");
        proc.process("20", 20, 1, 125, 0);
        assert_eq!(own(&mut time, 3), 75);
        proc.exit(20);
        assert_eq!(own(&mut time, 4), 75);
    }

    #[test]
    fn strangers_are_not_counted_but_a_reused_number_is() {
        let proc = FakeProc::new();
        proc.process("self", 10, 1, 0, 0);
        proc.process("30", 30, 1, 900, 0);
        let mut time = ProcessorTime::open(proc.path(), Subject::Children);
        assert_eq!(own(&mut time, 1), 0);
        proc.exit(30);
        assert_eq!(own(&mut time, 2), 0);
        proc.process("30", 30, 10, 12, 0);
        assert_eq!(own(&mut time, 3), 12);
    }

    #[test]
    fn stolen_and_idle_time_is_not_busy() {
        let proc = FakeProc::new();
        proc.process("self", 10, 1, 0, 0);
        proc.machine(100, 100, 0);
        let mut time = ProcessorTime::open(proc.path(), Subject::This);
        proc.machine(150, 300, 400);
        let busy = time.read(Duration::from_secs(1), Duration::ZERO).busy;
        assert_eq!(busy, Some(Duration::from_millis(500)));
        assert_eq!(machine_cores(proc.path()), Some(2));
    }

    #[test]
    fn young_times_are_not_read_again() {
        let proc = FakeProc::new();
        proc.process("self", 10, 1, 0, 0);
        let mut time = ProcessorTime::open(proc.path(), Subject::This);
        let patience = Duration::from_millis(100);
        time.read(Duration::from_secs(1), patience);
        proc.process("self", 10, 1, 70, 0);
        assert_eq!(time.read(Duration::from_millis(1050), patience).own, Some(Duration::ZERO));
        assert_eq!(time.read(Duration::from_millis(1200), patience).own, Some(Duration::from_millis(700)));
    }
}
