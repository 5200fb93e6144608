//! Processor time of this process, of its children, or of another process tree, and of the whole machine, from
//! `/proc`.
//!
//! A tree's time has two lower bounds, and the larger counts. *Waited for*: what the kernel adds to a parent when it
//! collects a child (`cutime`, `cstime`) plus the times of those still alive; exact however short-lived the
//! children are, provided that somebody waits for them. *Seen*: the last time seen of every process ever seen in
//! the tree; it holds where nobody waits. The command line makes itself the collector of orphans
//! (`PR_SET_CHILD_SUBREAPER`), so that the first bound is the exact one for everything it starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process_tree::{Look, Stat, Tree};
use crate::text_file::TextFile;

/// The unit of `/proc/*/stat`: `USER_HZ`, 100 a second on every Linux architecture in use.
const TICK_MILLIS: u64 = 10;

/// How far a difference of two readings may be off: user and system time are each cut to whole ticks.
pub(crate) const RESOLUTION: Duration = Duration::from_millis(20);

/// The same of the whole machine, whose busy time is the sum of five kinds.
pub(crate) const MACHINE_RESOLUTION: Duration = Duration::from_millis(50);

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
    /// Whether processes were made that nobody has looked for yet: `own` may lack their time, and catches up later.
    pub lagging: bool,
}

/// The reader; counts from when it was opened.
#[derive(Debug)]
pub(crate) struct ProcessorTime {
    proc: PathBuf,
    subject: Subject,
    machine: TextFile,
    own: TextFile,
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
            machine: TextFile::new(proc.join("stat")),
            own: TextFile::new(proc.join("self/stat")),
            tree: Tree::default(),
            own_at_start: None,
            busy_at_start: None,
            last: None,
        };
        let machine = opened.machine_stat();
        opened.busy_at_start = machine.busy;
        opened.own_at_start =
            opened.own_ticks(Look { at: Duration::ZERO, exact: true, forks: machine.forks });
        opened.tree.forget_past();
        opened
    }

    /// Whether processor times `elapsed` after the start are not known yet or older than `patience`.
    pub(crate) fn is_due(&self, elapsed: Duration, patience: Duration) -> bool {
        self.last.is_none_or(|last| elapsed.saturating_sub(last.elapsed) >= patience)
    }

    /// The moment `elapsed` after the start. Processor times younger than `patience` are not read again.
    pub(crate) fn read(&mut self, elapsed: Duration, patience: Duration) -> Moment {
        let before = self.last.unwrap_or_default();
        if !self.is_due(elapsed, patience) {
            return Moment { elapsed, ..before };
        }
        let machine = self.machine_stat();
        // A failed reading keeps the last one: these clocks only grow, so the next good one catches up.
        let look = Look { at: elapsed, exact: patience.is_zero(), forks: machine.forks };
        let own = self.own_ticks(look).zip(self.own_at_start);
        let own = own.map(|(now, then)| now.saturating_sub(then).max(self.tree.seen()));
        let busy = machine.busy.zip(self.busy_at_start).map(|(now, then)| now.saturating_sub(then));
        let moment = Moment {
            elapsed,
            own: own.map(time).max(before.own),
            busy: busy.map(time).max(before.busy),
            lagging: self.tree.is_lagging(),
        };
        self.last = Some(moment);
        moment
    }

    fn machine_stat(&mut self) -> MachineStat {
        self.machine.read().map(MachineStat::parse).unwrap_or_default()
    }

    /// Ticks of the subject by the *waited for* bound.
    fn own_ticks(&mut self, look: Look) -> Option<u64> {
        if let Subject::Tree(root) = self.subject {
            return Some(self.tree.scan(&self.proc, root, true, look));
        }
        let own = Stat::parse(self.own.read()?)?;
        match self.subject {
            Subject::Children => {
                Some(own.waited.saturating_add(self.tree.scan(&self.proc, own.pid, false, look)))
            }
            _ => Some(own.spent.saturating_add(own.waited)),
        }
    }
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(TICK_MILLIS))
}

/// What `/proc/stat` says of the whole machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct MachineStat {
    /// Ticks of all processors together spent in user, nice, system, irq and softirq. Idle, waiting for a disk, and
    /// time that a hypervisor took away (`steal`) are not work of this machine; guests are part of user already.
    busy: Option<u64>,
    /// Processes and threads made since the machine started.
    forks: Option<u64>,
}

impl MachineStat {
    fn parse(text: &str) -> MachineStat {
        let busy = || {
            let mut fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
            let mut number = || fields.next()?.parse::<u64>().ok();
            let [user, nice, system] = [number()?, number()?, number()?];
            let [_idle, _iowait] = [number()?, number()?];
            let [irq, softirq] = [number()?, number()?];
            user.checked_add(nice)?.checked_add(system)?.checked_add(irq)?.checked_add(softirq)
        };
        let forks = || {
            let line = &text[text.find("\nprocesses ")? + "\nprocesses ".len()..];
            line.lines().next()?.trim().parse().ok()
        };
        MachineStat { busy: busy(), forks: forks() }
    }
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

        /// The children of a process's only thread.
        pub(crate) fn children(&self, pid: u32, children: &str) {
            let thread = self.0.path().join(format!("{pid}/task/{pid}"));
            fs::create_dir_all(&thread).unwrap();
            fs::write(thread.join("children"), children).unwrap();
        }

        /// As in the real one, an open file of an ended process has no more to say.
        pub(crate) fn exit(&self, pid: u32) {
            fs::write(self.0.path().join(pid.to_string()).join("stat"), "").unwrap();
            fs::remove_dir_all(self.0.path().join(pid.to_string())).unwrap();
        }

        pub(crate) fn forks(&self, forks: u64) {
            let text = format!("cpu  1 0 0 1 0 0 0 0 0 0\nintr 5\nprocesses {forks}\nprocs_running 1\n");
            fs::write(self.0.path().join("stat"), text).unwrap();
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
    fn anything_else_is_unknown() {
        for text in ["", ")", "7 (a) R 1 2 3", "7 (a) S 1 1 1 0 -1 4194304 900 0 0 0 x 50 7 3 20 0 4 0 100"] {
            assert!(Stat::parse(text).is_none(), "{text:?}");
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

    #[test]
    fn processes_are_listed_only_when_some_were_made() {
        let proc = FakeProc::new();
        proc.process("self", 10, 1, 0, 0);
        proc.process("11", 11, 10, 0, 0);
        proc.forks(500);
        let mut time = ProcessorTime::open(proc.path(), Subject::Children);
        proc.process("11", 11, 10, 3, 0);
        proc.process("12", 12, 11, 40, 0);
        assert_eq!(own(&mut time, 1), 3, "no process was made, says the kernel");
        proc.forks(501);
        assert_eq!(own(&mut time, 2), 43);
    }

    /// A listing that has just been made, and children made since.
    fn made_since(told: bool) -> Moment {
        let proc = FakeProc::new();
        proc.process("self", 10, 1, 0, 0);
        proc.process("10", 10, 1, 0, 0);
        proc.forks(500);
        let mut time = ProcessorTime::open(proc.path(), Subject::Children);
        proc.process("11", 11, 10, 20, 0);
        proc.process("12", 12, 11, 40, 5);
        if told {
            for (pid, children) in [(10, "11 "), (11, "12 "), (12, "")] {
                proc.children(pid, children);
            }
        }
        proc.forks(502);
        // As if listing were dear: the next one would be due in five seconds.
        time.tree.put_listing_off();
        let moment = time.read(Duration::from_millis(200), Duration::from_millis(100));
        let exact = time.read(Duration::from_millis(300), Duration::ZERO);
        assert_eq!((exact.own, exact.lagging), (Some(Duration::from_millis(650)), false));
        moment
    }

    #[test]
    fn children_are_seen_at_once_where_the_kernel_names_them_and_missed_with_a_word_elsewhere() {
        let seen = made_since(true);
        assert_eq!((seen.own, seen.lagging), (Some(Duration::from_millis(650)), false));
        let missed = made_since(false);
        assert_eq!((missed.own, missed.lagging), (Some(Duration::ZERO), true));
    }

    #[test]
    fn a_daemon_that_left_a_watched_tree_is_still_a_member() {
        let proc = FakeProc::new();
        proc.process("20", 20, 1, 100, 0);
        proc.process("21", 21, 20, 0, 0);
        let mut time = ProcessorTime::open(proc.path(), Subject::Tree(20));
        proc.exit(20);
        proc.process("21", 21, 1, 7, 0);
        proc.process("22", 22, 21, 5, 0);
        assert_eq!(own(&mut time, 1), 12, "with the child it made since");
    }
}
