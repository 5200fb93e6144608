//! RAPL counters through the kernel's perf interface (`perf_event_open` on the `power` unit), for machines where powercap
//! is closed but perf is open (`perf_event_paranoid` at most 0, or CAP_PERFMON).
//!
//! The kernel adds the 32-bit registers up to 64 bits, so nothing wraps. Counted are `energy-pkg` and, on processors
//! that are not AMD's, `energy-ram`; `energy-cores` and `energy-gpu` are inside the package, `energy-psys` is around
//! it. AMD's kernel driver listed events before Linux 5.17 that its processors do not have, so there only the package is
//! believed. `cpumask` names one processor for each package (or die), on which its counter is opened.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::backend::{Backend, Domain, Moment, Part, Reading, Roots};
use crate::counter::Counter;
use crate::{Boundary, Machine, Source, WarningKind};

const NAME: &str = "rapl-perf";
/// The registers below are refreshed about every millisecond.
const SHORTEST: Duration = Duration::from_millis(100);

/// An opened counter of the kernel; tests count in its place.
pub(crate) trait Count: Send {
    /// Counts since it was opened.
    fn read(&mut self) -> Option<u64>;
}

/// Opens an event of the unit described in a folder, on a processor, for all processes.
type Opener<'a> = &'a dyn Fn(&Path, &str, usize) -> io::Result<Box<dyn Count>>;

/// The opened counters, one a package and one for its memory.
pub(crate) struct PerfPower {
    counts: Vec<Box<dyn Count>>,
    counters: Vec<Counter>,
    domains: Vec<Domain>,
    readings: Vec<Reading>,
}

impl PerfPower {
    /// Opens the counters.
    ///
    /// # Errors
    /// Why not: empty if there is no such unit; [`WarningKind::CounterDenied`] if there is one and perf is closed. A
    /// machine whose packages are only partly readable is not measured in part.
    pub(crate) fn open(roots: &Roots, machine: &Machine) -> Result<PerfPower, Vec<WarningKind>> {
        PerfPower::open_by(roots, machine, &kernel::open)
    }

    fn open_by(roots: &Roots, machine: &Machine, open: Opener<'_>) -> Result<PerfPower, Vec<WarningKind>> {
        let unit = roots.sys.join("bus/event_source/devices/power");
        let none = Vec::new;
        let processors = fs::read_to_string(unit.join("cpumask")).ok().as_deref().and_then(processors);
        let vendor = machine.cpu_id.as_deref().unwrap_or_default();
        let believed = if vendor.starts_with("AuthenticAMD") || vendor.starts_with("HygonGenuine") {
            &EVENTS[..1]
        } else {
            &EVENTS[..]
        };
        let mut opened = PerfPower { counts: vec![], counters: vec![], domains: vec![], readings: vec![] };
        let mut names: Vec<String> = vec![];
        for cpu in processors.ok_or_else(none)? {
            let name = package(&roots.sys, cpu).ok_or_else(none)?;
            if names.contains(&name) {
                let path = format!("{}: processor {cpu}", unit.display());
                return Err(vec![WarningKind::DuplicateCounter { domain: name, path }]);
            }
            for (event, part, suffix) in believed {
                let Some(per_joule) = per_joule(&unit.join("events"), event) else { continue };
                let mut count = open(&unit, event, cpu).map_err(|e| match e.kind() {
                    io::ErrorKind::PermissionDenied => {
                        vec![WarningKind::CounterDenied { path: unit.display().to_string() }]
                    }
                    _ => none(),
                })?;
                let first = count.read().ok_or_else(none)?;
                opened.counts.push(count);
                opened.counters.push(Counter::with_unit(first, None, per_joule));
                let name = format!("{name}{suffix}");
                let source = Source::measured(format!("{NAME}:{name}"));
                opened.domains.push(Domain { name, part: *part, source, resolution: 0 });
                opened.readings.push(Reading::default());
            }
            names.push(name);
        }
        let packages = opened.domains.iter().filter(|d| d.part == Part::Processor).count();
        if packages == names.len() && packages > 0 { Ok(opened) } else { Err(Vec::new()) }
    }
}

/// Events that do not overlap, with what they count and what follows the package's name.
const EVENTS: [(&str, Part, &str); 2] =
    [("energy-pkg", Part::Processor, ""), ("energy-ram", Part::Memory, "/dram")];

fn number(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `0,18-19`.
fn processors(list: &str) -> Option<Vec<usize>> {
    let mut all = vec![];
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last.min(first + 65_536));
    }
    Some(all)
}

/// The package or die that a processor belongs to, as powercap would call it.
fn package(sys: &Path, cpu: usize) -> Option<String> {
    let topology = sys.join(format!("devices/system/cpu/cpu{cpu}/topology"));
    let package = number(&topology.join("physical_package_id"))?;
    Some(match number(&topology.join("die_id")) {
        Some(die) if dies(sys, package) > 1 => format!("package-{package}-die-{die}"),
        _ => format!("package-{package}"),
    })
}

fn dies(sys: &Path, package: u32) -> usize {
    let mut found = std::collections::BTreeSet::new();
    for entry in fs::read_dir(sys.join("devices/system/cpu")).into_iter().flatten().flatten() {
        let topology = entry.path().join("topology");
        if number(&topology.join("physical_package_id")) == Some(package) {
            found.extend(number(&topology.join("die_id")));
        }
    }
    found.len()
}

/// The counts of an event in a joule; `None` if there is no such event, or it counts something else.
fn per_joule(events: &Path, name: &str) -> Option<u64> {
    let text = |suffix: &str| fs::read_to_string(events.join(format!("{name}{suffix}"))).ok();
    let scale: f64 = text(".scale")?.trim().parse().ok()?;
    let joules = text(".unit")?.trim() == "Joules";
    let per_joule = (1.0 / scale).round();
    (joules && (1.0..=1e18).contains(&per_joule)).then_some(per_joule as u64)
}

impl Backend for PerfPower {
    fn name(&self) -> &'static str {
        NAME
    }

    fn boundary(&self) -> Boundary {
        Boundary::WholePackages
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Moment) -> &[Reading] {
        for ((count, counter), reading) in
            self.counts.iter_mut().zip(&mut self.counters).zip(&mut self.readings)
        {
            counter.advance(count.read(), now.elapsed);
            *reading = counter.total();
        }
        &self.readings
    }

    fn covered(&self) -> Duration {
        self.counters.iter().map(Counter::covered).min().unwrap_or_default()
    }

    fn shortest(&self) -> Duration {
        SHORTEST
    }

    fn warnings(&self) -> Vec<WarningKind> {
        let named = self.domains.iter().zip(&self.counters);
        named.flat_map(|(domain, counter)| counter.warnings(&domain.name)).collect()
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use perf_event::events::Dynamic;
    use perf_event::{Builder, Counter};

    use super::*;

    impl Count for Counter {
        fn read(&mut self) -> Option<u64> {
            Counter::read(self).ok()
        }
    }

    pub(super) fn open(unit: &Path, event: &str, cpu: usize) -> io::Result<Box<dyn Count>> {
        let mut described = Dynamic::builder(unit)?;
        described.event(event)?;
        let mut builder = Builder::new(described.build()?);
        // Such a unit counts for everybody; asked to leave the kernel out, it refuses.
        builder.any_pid().one_cpu(cpu).include_kernel().include_hv();
        let mut counter = builder.build()?;
        counter.enable()?;
        Ok(Box::new(counter))
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use super::*;

    pub(super) fn open(_: &Path, _: &str, _: usize) -> io::Result<Box<dyn Count>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What each (event, processor) reads; `None` cannot be read.
    type Counts = Arc<Mutex<BTreeMap<(String, usize), Option<u64>>>>;

    struct Fake(Counts, (String, usize));

    impl Count for Fake {
        fn read(&mut self) -> Option<u64> {
            self.0.lock().unwrap().get(&self.1).copied().unwrap_or(Some(7))
        }
    }

    /// Two packages, 0 with processors 0 and 1, 1 with 2 and 3; `dies` a package.
    fn machine(vendor: &str, cpumask: &str, dies: u32) -> (tempfile::TempDir, Roots) {
        let folder = tempfile::tempdir().unwrap();
        let root = |name: &str| folder.path().join(name);
        let roots = Roots { proc: root("proc"), sys: root("sys"), dev: root("dev") };
        let write = |path: std::path::PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(roots.proc.join("cpuinfo"), &format!("vendor_id : {vendor}\n"));
        for cpu in 0..4u32 {
            let topology = roots.sys.join(format!("devices/system/cpu/cpu{cpu}/topology"));
            write(topology.join("physical_package_id"), &format!("{}\n", cpu / 2));
            write(topology.join("die_id"), &format!("{}\n", cpu % dies));
        }
        let unit = roots.sys.join("bus/event_source/devices/power");
        write(unit.join("type"), "21\n");
        write(unit.join("cpumask"), cpumask);
        write(unit.join("format/event"), "config:0-7\n");
        for (name, code) in
            [("cores", "0x01"), ("pkg", "0x02"), ("ram", "0x03"), ("gpu", "0x04"), ("psys", "0x05")]
        {
            let event = |suffix: &str| unit.join(format!("events/energy-{name}{suffix}"));
            write(event(""), &format!("event={code}\n"));
            write(event(".unit"), "Joules\n");
            write(event(".scale"), "2.3283064365386962890625e-10\n");
        }
        (folder, roots)
    }

    fn open(roots: &Roots, counts: &Counts) -> Result<PerfPower, Vec<WarningKind>> {
        PerfPower::open_by(roots, &roots.machine(), &|_, event, cpu| {
            Ok(Box::new(Fake(Arc::clone(counts), (event.to_owned(), cpu))))
        })
    }

    fn set(counts: &Counts, event: &str, cpu: usize, count: Option<u64>) {
        counts.lock().unwrap().insert((event.to_owned(), cpu), count);
    }

    fn names(p: &PerfPower) -> Vec<&str> {
        p.domains.iter().map(|d| d.name.as_str()).collect()
    }

    fn at(seconds: u64) -> Moment {
        Moment { elapsed: Duration::from_secs(seconds), ..Moment::default() }
    }

    #[test]
    fn packages_and_their_memory_are_counted_and_nothing_inside_or_around_them() {
        let (_folder, roots) = machine("GenuineIntel", "0,2\n", 1);
        let counts = Counts::default();
        let mut p = open(&roots, &counts).unwrap();
        assert_eq!(names(&p), ["package-0", "package-0/dram", "package-1", "package-1/dram"]);
        for (event, cpu, joules) in [("pkg", 0, 3), ("ram", 0, 1), ("pkg", 2, 5), ("ram", 2, 2)] {
            set(&counts, &format!("energy-{event}"), cpu, Some(7 + (joules << 32)));
        }
        let joules: Vec<u64> = p.read(at(1)).iter().map(|r| r.value).collect();
        assert_eq!(joules, [3_000_000, 1_000_000, 5_000_000, 2_000_000]);
        assert_eq!((p.covered(), p.warnings()), (Duration::from_secs(1), vec![]));
    }

    #[test]
    fn of_amd_only_the_package_is_believed() {
        let (_folder, roots) = machine("AuthenticAMD", "0,2", 1);
        assert_eq!(names(&open(&roots, &Counts::default()).unwrap()), ["package-0", "package-1"]);
    }

    #[test]
    fn dies_are_packages_of_their_own_and_a_package_is_never_counted_twice() {
        let (_folder, roots) = machine("GenuineIntel", "0-3", 2);
        let p = open(&roots, &Counts::default()).unwrap();
        let packages: Vec<&str> = names(&p).into_iter().filter(|n| !n.ends_with("dram")).collect();
        assert_eq!(packages, ["package-0-die-0", "package-0-die-1", "package-1-die-0", "package-1-die-1"]);
        let (_folder, roots) = machine("GenuineIntel", "0,1", 1);
        assert!(matches!(
            open(&roots, &Counts::default()).err().unwrap()[..],
            [WarningKind::DuplicateCounter { .. }]
        ));
    }

    #[test]
    fn a_failed_reading_loses_nothing() {
        let (_folder, roots) = machine("AuthenticAMD", "0", 1);
        let counts = Counts::default();
        let mut p = open(&roots, &counts).unwrap();
        set(&counts, "energy-pkg", 0, None);
        assert_eq!(p.read(at(1))[0].value, 0);
        set(&counts, "energy-pkg", 0, Some(7 + (10 << 32)));
        assert_eq!(p.read(at(2))[0].value, 10_000_000);
        assert!(matches!(p.warnings()[..], [WarningKind::CounterReadFailed { readings: 1, .. }]));
    }

    #[test]
    fn a_closed_interface_is_named_and_a_missing_or_odd_one_is_not_an_accusation() {
        let (folder, roots) = machine("GenuineIntel", "0,2", 1);
        let closed = PerfPower::open_by(&roots, &roots.machine(), &|_, _, _| {
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert!(matches!(closed.err().unwrap()[..], [WarningKind::CounterDenied { .. }]));
        fs::write(
            folder.path().join("sys/bus/event_source/devices/power/events/energy-pkg.unit"),
            "Furlongs",
        )
        .unwrap();
        assert_eq!(open(&roots, &Counts::default()).err().unwrap(), []);
        let nowhere = Roots { sys: "/nonexistent".into(), ..roots };
        assert_eq!(PerfPower::open(&nowhere, &nowhere.machine()).err().unwrap(), []);
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(processors("0,18-20\n"), Some(vec![0, 18, 19, 20]));
        assert_eq!(processors("x"), None);
    }

    /// The kernel itself, by another unit that counts on its own and that virtual machines have too: the time stamp
    /// counter, called energy.
    #[cfg(target_os = "linux")]
    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn the_kernel_answers_where_it_may() {
        let Some(kind) = number(Path::new("/sys/bus/event_source/devices/msr/type")) else {
            return eprintln!("SKIPPED: this machine's kernel has no `msr` unit");
        };
        let (folder, roots) = machine("AuthenticAMD", "0", 1);
        let unit = folder.path().join("sys/bus/event_source/devices/power");
        fs::write(unit.join("type"), kind.to_string()).unwrap();
        fs::write(unit.join("events/energy-pkg"), "event=0x00").unwrap();
        fs::write(unit.join("events/energy-pkg.scale"), "1e-9").unwrap();
        let mut p = match PerfPower::open(&roots, &roots.machine()) {
            Ok(p) => p,
            Err(why) => return eprintln!("SKIPPED: perf is closed here: {why:?}"),
        };
        let begun = std::time::Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        let ticks = p.read(at(1))[0].value as f64 * 1e3;
        let gigahertz = ticks / begun.elapsed().as_nanos() as f64;
        assert!((0.1..10.0).contains(&gigahertz), "{gigahertz} GHz");
    }
}
