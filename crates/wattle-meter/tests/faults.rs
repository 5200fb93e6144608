//! Counters that misbehave, one fault a test, through the same door as any measurement: never a negative difference, never
//! an invented wrap, exact to one count where the information exists, and flagged where it does not.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use wattle_meter::WarningKind;
use wattle_meter::backend::{self, Backend, Moment, Roots};

const RANGE: u64 = 262_143_328_850;

/// A machine of fake files.
struct Fake {
    folder: TempDir,
}

impl Fake {
    /// Counters as (zone, name, microjoules), each with a range.
    fn new(zones: &[(&str, &str, u64)]) -> Fake {
        let fake = Fake { folder: TempDir::new().expect("a temporary folder") };
        for (zone, name, energy) in zones {
            let folder = fake.zone(zone);
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("name"), name).expect("a file");
            fs::write(folder.join("max_energy_range_uj"), RANGE.to_string()).expect("a file");
            fake.set(zone, *energy);
        }
        fake
    }

    fn zone(&self, zone: &str) -> PathBuf {
        self.folder.path().join("sys/class/powercap").join(zone)
    }

    fn set(&self, zone: &str, energy: u64) {
        fs::write(self.zone(zone).join("energy_uj"), energy.to_string()).expect("a file");
    }

    fn open(&self) -> Watched {
        let root = |name: &str| self.folder.path().join(name);
        let roots = Roots { proc: root("proc"), sys: root("sys"), dev: root("dev") };
        let (backend, warnings) = backend::open(&roots);
        assert_eq!(warnings, [], "the counters are readable");
        Watched { backend, last: vec![] }
    }
}

/// An energy source that is checked at every reading.
struct Watched {
    backend: Box<dyn Backend>,
    last: Vec<u64>,
}

impl Watched {
    /// The sum of all domains after so many seconds: low, value, high.
    fn read(&mut self, seconds: u64) -> (u64, u64, u64) {
        let moment = Moment { elapsed: Duration::from_secs(seconds), ..Moment::default() };
        let readings = self.backend.read(moment).to_vec();
        for (now, before) in readings.iter().zip(&self.last) {
            assert!(now.value >= *before, "energy fell from {before} to {}", now.value);
        }
        assert!(readings.iter().all(|r| r.low <= r.value && r.value <= r.high));
        self.last = readings.iter().map(|r| r.value).collect();
        readings.iter().fold((0, 0, 0), |(l, v, h), r| (l + r.low, v + r.value, h + r.high))
    }

    fn flagged(&self, kind: fn(&WarningKind) -> bool) -> bool {
        self.backend.warnings().iter().any(kind)
    }
}

#[test]
fn a_wrap_is_exact() {
    let fake = Fake::new(&[("intel-rapl:0", "package-0", RANGE - 999_999)]);
    let mut source = fake.open();
    fake.set("intel-rapl:0", 4_000_000);
    assert_eq!(source.read(1), (5_000_000, 5_000_000, 5_000_000));
    assert_eq!(source.backend.warnings(), []);
}

#[test]
fn two_wraps_between_readings_are_flagged_and_inside_the_interval() {
    let fake = Fake::new(&[("intel-rapl:0", "package-0", RANGE - 999_999)]);
    let mut source = fake.open();
    // Half an hour at 300 W: 540 kJ, more than two ranges; all that shows is the rest.
    let spent: u64 = 540_000_000_000;
    fake.set("intel-rapl:0", (RANGE - 999_999 + spent) % (RANGE + 1));
    let (low, _, high) = source.read(1800);
    assert!(low <= spent && spent <= high, "{spent} within {low} and {high}");
    assert!(source.flagged(|w| matches!(w, WarningKind::CounterAmbiguous { .. })));
}

#[test]
fn one_reading_that_is_refused_loses_nothing() {
    let fake = Fake::new(&[("intel-rapl:0", "package-0", 5)]);
    let mut source = fake.open();
    // The file stays open, so that taking its content away stands for EACCES, as it also does for root.
    fs::write(fake.zone("intel-rapl:0").join("energy_uj"), "").expect("a file");
    assert_eq!(source.read(1).1, 0);
    fake.set("intel-rapl:0", 10_000_005);
    assert_eq!(source.read(2), (10_000_000, 10_000_000, 10_000_000));
    assert!(source.flagged(|w| matches!(w, WarningKind::CounterReadFailed { readings: 1, .. })));
}

#[test]
fn one_refused_reading_before_a_wrap_loses_nothing_either() {
    let fake = Fake::new(&[("intel-rapl:0", "package-0", RANGE)]);
    let mut source = fake.open();
    fs::write(fake.zone("intel-rapl:0").join("energy_uj"), "").expect("a file");
    source.read(1);
    fake.set("intel-rapl:0", 9_999_999);
    assert_eq!(source.read(2), (10_000_000, 10_000_000, 10_000_000));
}

#[test]
fn without_a_range_file_a_wrap_is_a_flagged_gap_and_no_energy_is_invented() {
    let fake = Fake::new(&[("intel-rapl:0", "package-0", 5_000_000)]);
    fs::remove_file(fake.zone("intel-rapl:0").join("max_energy_range_uj")).expect("it was there");
    let mut source = fake.open();
    fake.set("intel-rapl:0", 3_000_000);
    let (low, value, high) = source.read(1);
    assert_eq!((low, value), (3_000_000, 3_000_000));
    assert!(high >= 100_000_000, "the gap is bounded by what a package may draw: {high}");
    assert!(source.flagged(|w| matches!(w, WarningKind::CounterReset { .. })));
    fake.set("intel-rapl:0", 4_000_000);
    assert_eq!(source.read(2).1, 4_000_000);
}

#[test]
fn the_memory_mapped_twin_and_the_platform_around_are_not_added() {
    let fake = Fake::new(&[
        ("intel-rapl:0", "package-0", 0),
        ("intel-rapl:0:0", "core", 0),
        ("intel-rapl:0:1", "dram", 0),
        ("intel-rapl:1", "psys", 0),
        ("intel-rapl-mmio:0", "package-0", 0),
    ]);
    let mut source = fake.open();
    for zone in ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:1", "intel-rapl-mmio:0"] {
        fake.set(zone, 7_000_000);
    }
    assert_eq!(source.read(1).1, 14_000_000, "the package and its memory, once");
}

#[test]
fn several_dies_are_each_counted_once() {
    let fake = Fake::new(&[
        ("intel-rapl:0", "package-0-die-0", 0),
        ("intel-rapl:1", "package-0-die-1", 0),
        ("intel-rapl:2", "package-1-die-0", 0),
        ("intel-rapl:3", "package-1-die-0", 0),
    ]);
    let mut source = fake.open();
    // Dies with counters of their own never agree to the microjoule.
    for (zone, spent) in [1_000_000, 1_000_100, 1_000_200, 1_000_200].into_iter().enumerate() {
        fake.set(&format!("intel-rapl:{zone}"), spent);
    }
    assert_eq!(source.read(1).1, 3_000_300);
    assert!(source.flagged(|w| matches!(w, WarningKind::DuplicateCounter { .. })));
}

#[test]
fn the_same_counter_behind_two_doors_is_counted_once() {
    let fake = Fake::new(&[("intel-rapl:0", "package-0", 0)]);
    let unit = fake.folder.path().join("sys/bus/event_source/devices/power");
    fs::create_dir_all(unit.join("events")).expect("a folder");
    for (file, text) in [
        ("cpumask", "0"),
        ("type", "9"),
        ("events/energy-pkg", "event=0x02"),
        ("events/energy-pkg.scale", "2.3283064365386962890625e-10"),
        ("events/energy-pkg.unit", "Joules"),
    ] {
        fs::write(unit.join(file), text).expect("a file");
    }
    let mut source = fake.open();
    assert_eq!((source.backend.name(), source.backend.domains().len()), ("rapl-powercap", 1));
    fake.set("intel-rapl:0", 7_000_000);
    assert_eq!(source.read(1).1, 7_000_000);
}

#[test]
fn sockets_that_mirror_one_counter_or_never_move_are_doubted_as_packages_are() {
    let fake = Fake { folder: TempDir::new().expect("a temporary folder") };
    let chip = fake.folder.path().join("sys/class/hwmon/hwmon0");
    fs::create_dir_all(&chip).expect("a folder");
    let set = |file: &str, text: &str| fs::write(chip.join(file), text).expect("a file");
    for (file, text) in [("name", "amd_energy"), ("energy1_label", "Esocket0"), ("energy2_label", "Esocket1")]
    {
        set(file, text);
    }
    let both = |text: &str| ["energy1_input", "energy2_input"].map(|file| set(file, text));
    both("100");
    let mut source = fake.open();
    both("5000100");
    assert_eq!(source.read(1).1, 5_000_000);
    assert!(source.flagged(|w| matches!(w, WarningKind::DuplicateCounter { .. })));
    let mut frozen = fake.open();
    assert!(frozen.read(2).2 > 0, "only bounded");
    assert!(frozen.flagged(|w| matches!(w, WarningKind::CounterFrozen { .. })));
}

#[test]
fn a_counter_that_is_unplugged_keeps_what_it_counted_and_is_reported() {
    let fake = Fake::new(&[("intel-rapl:0", "package-0", 0), ("intel-rapl:1", "package-1", 0)]);
    let mut source = fake.open();
    fake.set("intel-rapl:0", 2_000_000);
    fake.set("intel-rapl:1", 3_000_000);
    assert_eq!(source.read(1).1, 5_000_000);
    fs::write(fake.zone("intel-rapl:1").join("energy_uj"), "").expect("a file");
    fs::remove_dir_all(fake.zone("intel-rapl:1")).expect("it was there");
    fake.set("intel-rapl:0", 4_000_000);
    assert_eq!(source.read(2).1, 7_000_000);
    assert!(source.flagged(|w| matches!(w, WarningKind::CounterLost { .. })));
}

#[test]
fn a_counter_that_starts_anew_after_a_suspend_is_no_wrap() {
    let fake = Fake::new(&[("intel-rapl:0", "package-0", 60_000_000_000)]);
    let mut source = fake.open();
    fake.set("intel-rapl:0", 60_010_000_000);
    assert_eq!(source.read(1).1, 10_000_000);
    // The monotonic clock stood still; a wrap would be 202 kJ in a second.
    fake.set("intel-rapl:0", 500_000);
    let (low, value, high) = source.read(2);
    assert_eq!((low, value), (10_500_000, 10_500_000));
    assert!(high < 2_000_000_000, "no spurious wrap: at most {high}");
    assert!(source.flagged(|w| matches!(w, WarningKind::CounterReset { .. })));
}
