//! Linux RAPL counters through powercap (`/sys/class/powercap/intel-rapl:*`; AMD processors use the same name).
//!
//! Counted are the packages and, where it is separate, their memory. Left out are the parts of a package (`core`,
//! `uncore`), the platform domain that contains it (`psys`), and the memory-mapped twin (`intel-rapl-mmio`): adding
//! them would count the same joule twice.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::backend::{Backend, Domain, Moment, Part, Reading};
use crate::counter::Counter;
use crate::number_file::NumberFile;
use crate::{Boundary, Source, WarningKind};

const NAME: &str = "rapl-powercap";
/// RAPL refreshes about every millisecond; a hundred times that keeps the error near one per cent.
const SHORTEST: Duration = Duration::from_millis(100);

/// The opened counters.
#[derive(Debug)]
pub struct Powercap {
    domains: Vec<Domain>,
    files: Vec<NumberFile>,
    counters: Vec<Counter>,
    readings: Vec<Reading>,
    duplicates: Vec<WarningKind>,
}

impl Powercap {
    /// Opens all packages and their memory under `root`, usually `/sys/class/powercap`.
    ///
    /// # Errors
    /// Why not: empty if there is no package counter at all; [`WarningKind::CounterDenied`] if one exists but may
    /// not be read. A machine whose packages are only partly readable is not measured in part.
    pub fn open(root: &Path) -> Result<Self, Vec<WarningKind>> {
        let mut opened = Powercap {
            domains: Vec::new(),
            files: Vec::new(),
            counters: Vec::new(),
            readings: Vec::new(),
            duplicates: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for zone in zones(root) {
            let directory = root.join(zone.directory());
            let Some(own_name) = name_of(&directory) else { continue };
            let name = match zone {
                Zone(_, None) if own_name.starts_with("package") => own_name,
                Zone(parent, Some(_)) if own_name == "dram" => {
                    match name_of(&root.join(Zone(parent, None).directory())) {
                        Some(package) if package.starts_with("package") => format!("{package}/dram"),
                        _ => continue,
                    }
                }
                _ => continue,
            };
            let file = directory.join("energy_uj");
            if !seen.insert(name.clone()) {
                opened
                    .duplicates
                    .push(WarningKind::DuplicateCounter { domain: name, path: file.display().to_string() });
                continue;
            }
            let mut numbers = NumberFile::new(file.clone());
            let first = match numbers.read() {
                Ok(first) => first,
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(vec![WarningKind::CounterDenied { path: file.display().to_string() }]);
                }
                Err(_) => return Err(Vec::new()),
            };
            let range = NumberFile::new(directory.join("max_energy_range_uj")).read().ok();
            opened.domains.push(Domain {
                source: Source::measured(format!("{NAME}:{name}")),
                part: if name.ends_with("dram") { Part::Memory } else { Part::Processor },
                name,
                resolution: 0,
            });
            opened.files.push(numbers);
            opened.counters.push(Counter::new(first, range));
            opened.readings.push(Reading::default());
        }
        if opened.counters.is_empty() { Err(Vec::new()) } else { Ok(opened) }
    }
}

impl Backend for Powercap {
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
        for ((file, counter), reading) in
            self.files.iter_mut().zip(&mut self.counters).zip(&mut self.readings)
        {
            counter.advance(file.read().ok(), now.elapsed);
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
        let mut warnings = self.duplicates.clone();
        for (domain, counter) in self.domains.iter().zip(&self.counters) {
            warnings.extend(counter.warnings(&domain.name));
        }
        warnings
    }
}

/// A control zone: `intel-rapl:0` is `Zone(0, None)`, its part `intel-rapl:0:2` is `Zone(0, Some(2))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Zone(u32, Option<u32>);

impl Zone {
    fn parse(directory: &str) -> Option<Zone> {
        let mut numbers = directory.strip_prefix("intel-rapl:")?.split(':').map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(top)), None, None) => Some(Zone(top, None)),
            (Some(Ok(top)), Some(Ok(sub)), None) => Some(Zone(top, Some(sub))),
            _ => None,
        }
    }

    fn directory(self) -> String {
        match self {
            Zone(top, None) => format!("intel-rapl:{top}"),
            Zone(top, Some(sub)) => format!("intel-rapl:{top}:{sub}"),
        }
    }
}

/// All zones under `root`, in order; none if there is no such directory.
fn zones(root: &Path) -> BTreeSet<Zone> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter_map(|entry| Zone::parse(entry.file_name().to_str()?)).collect()
}

fn name_of(zone: &Path) -> Option<String> {
    fs::read_to_string(zone.join("name")).ok().map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fake powercap tree; zones are (directory, name, energy, range).
    fn tree(zones: &[(&str, &str, u64, Option<u64>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for &(directory, name, energy, range) in zones {
            let zone = root.path().join(directory);
            fs::create_dir(&zone).unwrap();
            fs::write(zone.join("name"), format!("{name}\n")).unwrap();
            fs::write(zone.join("energy_uj"), format!("{energy}\n")).unwrap();
            if let Some(range) = range {
                fs::write(zone.join("max_energy_range_uj"), format!("{range}\n")).unwrap();
            }
        }
        root
    }

    fn set(root: &tempfile::TempDir, zone: &str, energy: &str) {
        fs::write(root.path().join(zone).join("energy_uj"), energy).unwrap();
    }

    fn at(second: u64) -> Moment {
        Moment { elapsed: Duration::from_secs(second), ..Moment::default() }
    }

    const RANGE: Option<u64> = Some(262_143_328_850);

    #[test]
    fn only_disjoint_domains_are_counted() {
        let root = tree(&[
            ("intel-rapl:0", "package-0", 0, RANGE),
            ("intel-rapl:0:0", "core", 0, RANGE),
            ("intel-rapl:0:1", "uncore", 0, RANGE),
            ("intel-rapl:0:2", "dram", 0, RANGE),
            ("intel-rapl:1", "package-1", 0, RANGE),
            ("intel-rapl:1:0", "dram", 0, RANGE),
            ("intel-rapl:2", "psys", 0, RANGE),
            ("intel-rapl-mmio:0", "package-0", 0, RANGE),
            ("intel-rapl", "intel-rapl", 0, None),
            ("dtpm", "dtpm", 0, None),
        ]);
        let mut p = Powercap::open(root.path()).unwrap();
        let names: Vec<&str> = p.domains().iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["package-0", "package-0/dram", "package-1", "package-1/dram"]);
        for zone in ["0", "0:0", "0:1", "0:2", "1", "1:0", "2"] {
            set(&root, &format!("intel-rapl:{zone}"), "1000000");
        }
        let total: u64 = p.read(at(1)).iter().map(|r| r.value).sum();
        assert_eq!(total, 4_000_000, "four disjoint domains of one joule each");
        assert!(p.warnings().is_empty());
    }

    #[test]
    fn dies_are_packages_of_their_own_but_a_twin_is_not() {
        let root = tree(&[
            ("intel-rapl:0", "package-0-die-0", 0, RANGE),
            ("intel-rapl:1", "package-0-die-1", 0, RANGE),
            ("intel-rapl:2", "package-0-die-1", 0, RANGE),
        ]);
        let p = Powercap::open(root.path()).unwrap();
        assert_eq!(p.domains().len(), 2);
        assert!(matches!(&p.warnings()[..], [WarningKind::DuplicateCounter { .. }]));
    }

    #[test]
    fn a_wrap_between_readings_is_exact() {
        let root = tree(&[("intel-rapl:0", "package-0", 262_143_000_000, RANGE)]);
        let mut p = Powercap::open(root.path()).unwrap();
        set(&root, "intel-rapl:0", "671150");
        let r = p.read(at(1))[0];
        assert_eq!((r.value, r.high), (1_000_001, 1_000_001));
        assert_eq!(p.covered(), Duration::from_secs(1));
    }

    #[test]
    fn one_unreadable_sample_is_bridged_and_counted() {
        let root = tree(&[("intel-rapl:0", "package-0", 0, RANGE)]);
        let mut p = Powercap::open(root.path()).unwrap();
        set(&root, "intel-rapl:0", "garbage");
        assert_eq!(p.read(at(1))[0].value, 0);
        assert!(matches!(&p.warnings()[..], [WarningKind::CounterLost { .. }]));
        set(&root, "intel-rapl:0", "10000000");
        assert_eq!(p.read(at(2))[0].value, 10_000_000);
        assert!(matches!(&p.warnings()[..], [WarningKind::CounterReadFailed { readings: 1, .. }]));
        assert_eq!(p.covered(), Duration::from_secs(2));
    }

    #[test]
    fn a_wrap_without_a_range_file_is_flagged_not_zero() {
        let root = tree(&[("intel-rapl:0", "package-0", 5_000_000, None)]);
        let mut p = Powercap::open(root.path()).unwrap();
        set(&root, "intel-rapl:0", "3000000");
        let r = p.read(at(1))[0];
        assert_eq!(r.low, 3_000_000);
        assert!(r.high > r.low);
        assert!(matches!(&p.warnings()[..], [WarningKind::CounterReset { .. }]));
        assert_eq!(p.covered(), Duration::ZERO);
    }

    #[test]
    fn a_counter_that_disappears_leaves_the_energy_until_then() {
        let root = tree(&[("intel-rapl:0", "package-0", 0, RANGE)]);
        let mut p = Powercap::open(root.path()).unwrap();
        set(&root, "intel-rapl:0", "2000000");
        p.read(at(1));
        set(&root, "intel-rapl:0", ""); // a removed counter that is still open answers with an error
        fs::remove_dir_all(root.path().join("intel-rapl:0")).unwrap();
        assert_eq!(p.read(at(2))[0].value, 2_000_000);
        assert_eq!(p.covered(), Duration::from_secs(1));
        assert!(matches!(&p.warnings()[..], [WarningKind::CounterLost { .. }]));
    }

    #[test]
    fn no_counters_is_not_an_accusation() {
        assert_eq!(Powercap::open(Path::new("/nonexistent")).unwrap_err(), []);
        let root = tree(&[("intel-rapl:0", "psys", 0, RANGE)]);
        assert_eq!(Powercap::open(root.path()).unwrap_err(), []);
    }

    #[cfg(unix)]
    #[test]
    fn a_forbidden_counter_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let root = tree(&[("intel-rapl:0", "package-0", 0, RANGE)]);
        let file = root.path().join("intel-rapl:0/energy_uj");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read_to_string(&file).is_ok() {
            return; // root reads everything; the mapping below is what this test is about
        }
        let warnings = Powercap::open(root.path()).unwrap_err();
        assert_eq!(warnings, [WarningKind::CounterDenied { path: file.display().to_string() }]);
    }
}
