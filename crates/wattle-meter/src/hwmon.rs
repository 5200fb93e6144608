//! Sensor chips of `/sys/class/hwmon`: AMD's socket energy (`amd_energy`) and graphics cards (`amdgpu` shows power,
//! `i915` and `xe` energy).
//!
//! An energy file is a counter of microjoules. A power file is in microwatts and must be sampled: between two samples
//! the power is taken as their mean, and as no lower than the lower and no higher than the higher of the two in the
//! bounds. Names and units are those of Linux, `Documentation/hwmon/sysfs-interface.rst`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backend::{Backend, Domain, Moment, Part, Reading};
use crate::counter::Counter;
use crate::number_file::NumberFile;
use crate::{Boundary, Source, WarningKind};

/// Chips refresh between a millisecond and a tenth of a second.
const SHORTEST: Duration = Duration::from_secs(1);

/// The opened sensors.
#[derive(Debug)]
pub(crate) struct Hwmon {
    sensors: Vec<Sensor>,
    domains: Vec<Domain>,
    readings: Vec<Reading>,
}

#[derive(Debug)]
struct Sensor {
    file: NumberFile,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Energy(Counter),
    Power(Integral),
}

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
        let energy = |microwatts: u64| {
            u64::try_from(u128::from(microwatts) * elapsed.as_micros() / 1_000_000).unwrap_or(u64::MAX)
        };
        self.total.low = self.total.low.saturating_add(energy(current.min(self.last)));
        self.total.value = self.total.value.saturating_add(energy(current.midpoint(self.last)));
        self.total.high = self.total.high.saturating_add(energy(current.max(self.last)));
        // Power that was not looked at is guessed from its neighbours, not covered.
        if !self.failing {
            self.covered += elapsed;
        }
        (self.last, self.last_at, self.failing) = (current, now, false);
    }
}

/// The processors' sockets, where a chip counts their energy.
pub(crate) fn open_processors(sys: &Path) -> Option<Hwmon> {
    let mut opened = Hwmon { sensors: Vec::new(), domains: Vec::new(), readings: Vec::new() };
    for chip in chips(sys) {
        if read(&chip.join("name")).as_deref() == Some("amd_energy") {
            for (file, label) in energies(&chip) {
                if let Some(socket) = label.as_deref().and_then(|l| l.strip_prefix("Esocket")) {
                    opened.add_energy(file, format!("package-{socket}"), "amd_energy", Part::Processor)?;
                }
            }
        }
    }
    (!opened.sensors.is_empty()).then_some(opened)
}

/// All graphics cards that show energy or power, in order of their bus address.
pub(crate) fn open_cards(sys: &Path) -> Option<Hwmon> {
    let mut opened = Hwmon { sensors: Vec::new(), domains: Vec::new(), readings: Vec::new() };
    let mut cards: Vec<(PathBuf, &'static str, PathBuf)> = chips(sys)
        .into_iter()
        .filter_map(|chip| {
            let name = read(&chip.join("name"))?;
            let driver = ["amdgpu", "i915", "xe"].into_iter().find(|driver| *driver == name)?;
            let device = fs::canonicalize(chip.join("device")).unwrap_or_else(|_| chip.clone());
            Some((device, driver, chip))
        })
        .collect();
    cards.sort();
    for (index, (_, driver, chip)) in cards.into_iter().enumerate() {
        let name = format!("gpu-{index}");
        // A card's first energy counter is the whole card; others are parts of it.
        if let Some((file, _)) = energies(&chip).into_iter().next() {
            let _ = opened.add_energy(file, name, driver, Part::Gpu);
        } else if let Some(file) = power(&chip) {
            let _ = opened.add_power(file, name, driver);
        }
    }
    (!opened.sensors.is_empty()).then_some(opened)
}

/// Chips in a fixed order.
fn chips(sys: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(sys.join("class/hwmon")).into_iter().flatten().flatten();
    let mut chips: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    chips.sort();
    chips
}

fn read(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

/// Energy files of a chip with their labels, by number.
fn energies(chip: &Path) -> Vec<(PathBuf, Option<String>)> {
    let numbers =
        (1..=1024).map(|n| (chip.join(format!("energy{n}_input")), chip.join(format!("energy{n}_label"))));
    numbers.take_while(|(file, _)| file.exists()).map(|(file, label)| (file, read(&label))).collect()
}

/// The power file of a card: the average where there is one, for it misses nothing between two samples.
fn power(chip: &Path) -> Option<PathBuf> {
    ["power1_average", "power1_input"].into_iter().map(|name| chip.join(name)).find(|file| file.exists())
}

impl Hwmon {
    fn add_energy(&mut self, path: PathBuf, name: String, driver: &str, part: Part) -> Option<()> {
        let mut file = NumberFile::new(path);
        let first = file.read().ok()?;
        // These counters are accumulated by the driver in 64 bits; they do not wrap.
        self.add(Sensor { file, kind: Kind::Energy(Counter::new(first, None)) }, name, driver, part);
        Some(())
    }

    fn add_power(&mut self, path: PathBuf, name: String, driver: &str) -> Option<()> {
        let mut file = NumberFile::new(path);
        let integral = Integral::starting_at(file.read().ok()?);
        self.add(Sensor { file, kind: Kind::Power(integral) }, name, &format!("{driver}-power"), Part::Gpu);
        Some(())
    }

    fn add(&mut self, sensor: Sensor, name: String, driver: &str, part: Part) {
        self.sensors.push(sensor);
        self.domains.push(Domain {
            source: Source::measured(format!("hwmon:{driver}:{name}")),
            name,
            part,
            resolution: 0,
        });
        self.readings.push(Reading::default());
    }
}

impl Backend for Hwmon {
    fn name(&self) -> &'static str {
        "hwmon"
    }

    fn boundary(&self) -> Boundary {
        Boundary::WholePackages
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Moment) -> &[Reading] {
        for (sensor, reading) in self.sensors.iter_mut().zip(&mut self.readings) {
            let number = sensor.file.read().ok();
            *reading = match &mut sensor.kind {
                Kind::Energy(counter) => {
                    counter.advance(number, now.elapsed);
                    counter.total()
                }
                Kind::Power(integral) => {
                    integral.advance(number, now.elapsed);
                    integral.total
                }
            };
        }
        &self.readings
    }

    fn covered(&self) -> Duration {
        let covered = self.sensors.iter().map(|sensor| match &sensor.kind {
            Kind::Energy(counter) => counter.covered(),
            Kind::Power(integral) => integral.covered,
        });
        covered.min().unwrap_or_default()
    }

    fn shortest(&self) -> Duration {
        SHORTEST
    }

    fn warnings(&self) -> Vec<WarningKind> {
        let of = |(sensor, domain): (&Sensor, &Domain)| match &sensor.kind {
            Kind::Energy(counter) => counter.warnings(&domain.name),
            Kind::Power(integral) => integral.warnings(&domain.name),
        };
        self.sensors.iter().zip(&self.domains).flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fake tree; chips are (directory, files).
    fn tree(chips: &[(&str, &[(&str, &str)])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (chip, files) in chips {
            for (file, text) in *files {
                set(&root, chip, file, text);
            }
        }
        root
    }

    fn set(root: &tempfile::TempDir, chip: &str, file: &str, text: &str) {
        let folder = root.path().join("class/hwmon").join(chip);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), text).unwrap();
    }

    fn at(seconds: u64) -> Moment {
        Moment { elapsed: Duration::from_secs(seconds), ..Moment::default() }
    }

    #[test]
    fn sockets_are_counted_and_their_cores_are_not_counted_again() {
        let root = tree(&[
            ("hwmon0", &[("name", "acpitz")]),
            (
                "hwmon1",
                &[
                    ("name", "amd_energy"),
                    ("energy1_input", "5"),
                    ("energy1_label", "Ecore000"),
                    ("energy2_input", "100"),
                    ("energy2_label", "Esocket0"),
                ],
            ),
        ]);
        let mut sensors = open_processors(root.path()).unwrap();
        assert_eq!(sensors.domains().len(), 1);
        set(&root, "hwmon1", "energy2_input", "3000100");
        assert_eq!(sensors.read(at(1))[0].value, 3_000_000);
    }

    #[test]
    fn cards_are_read_by_counter_where_there_is_one_and_by_power_elsewhere() {
        let root = tree(&[
            ("hwmon3", &[("name", "xe"), ("energy1_input", "0"), ("energy2_input", "0")]),
            ("hwmon4", &[("name", "amdgpu"), ("power1_average", "10000000"), ("power1_input", "1")]),
            ("hwmon5", &[("name", "nvme"), ("power1_input", "5")]),
        ]);
        let mut cards = open_cards(root.path()).unwrap();
        let names: Vec<String> = cards.domains().iter().map(|d| d.source.to_string()).collect();
        assert_eq!(names, ["measured:hwmon:xe:gpu-0", "measured:hwmon:amdgpu-power:gpu-1"]);
        set(&root, "hwmon3", "energy1_input", "7000000");
        set(&root, "hwmon4", "power1_average", "30000000");
        let readings = cards.read(at(2));
        assert_eq!(readings[0].value, 7_000_000);
        assert_eq!(readings[1], Reading { low: 20_000_000, value: 40_000_000, high: 60_000_000 });
    }

    #[test]
    fn a_card_that_is_unplugged_keeps_its_energy_and_is_reported() {
        let root = tree(&[("hwmon4", &[("name", "amdgpu"), ("power1_average", "10000000")])]);
        let mut cards = open_cards(root.path()).unwrap();
        cards.read(at(1));
        set(&root, "hwmon4", "power1_average", "");
        assert_eq!(cards.read(at(2))[0].value, 10_000_000);
        assert_eq!(cards.covered(), Duration::from_secs(1));
        assert!(matches!(&cards.warnings()[..], [WarningKind::CounterLost { .. }]));
    }

    #[test]
    fn pulses_between_samples_stay_inside_the_interval_of_a_counter() {
        // A square wave of 10 ms pulses: 100 W for 10 ms of every 100, sampled each second, is 10 W.
        let root = tree(&[("hwmon3", &[("name", "i915"), ("energy1_input", "0")])]);
        let mut cards = open_cards(root.path()).unwrap();
        for second in 1..=10u64 {
            set(&root, "hwmon3", "energy1_input", &(second * 10 * 1_000_000).to_string());
            cards.read(at(second));
        }
        assert_eq!(cards.readings[0].value, 100_000_000);
    }
}
