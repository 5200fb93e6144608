//! Sensors of sysfs, read together: chips of `/sys/class/hwmon` and, for graphics cards, the tables beside them.
//!
//! An energy file is a counter of microjoules, a power file is in microwatts. Names and units are those of Linux,
//! `Documentation/hwmon/sysfs-interface.rst`. Here are AMD's sockets (`amd_energy`); which sensors a graphics card has is
//! known to `cards`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backend::{Backend, Domain, Moment, Part, Reading};
use crate::counter::Counter;
use crate::gpu_metrics::{self, GpuMetrics};
use crate::integral::Integral;
use crate::number_file::NumberFile;
use crate::{Boundary, Source, WarningKind};

/// Chips refresh between a millisecond and a tenth of a second.
const SHORTEST: Duration = Duration::from_secs(1);

/// The opened sensors.
#[derive(Debug, Default)]
pub(crate) struct Hwmon {
    sensors: Vec<Sensor>,
    domains: Vec<Domain>,
    readings: Vec<Reading>,
}

#[derive(Debug)]
enum Sensor {
    Energy(NumberFile, Counter),
    Metrics(GpuMetrics, Counter),
    Power(NumberFile, Integral),
}

/// The processors' sockets, where a chip counts their energy.
pub(crate) fn open_processors(sys: &Path) -> Option<Hwmon> {
    let mut opened = Hwmon::default();
    for chip in chips(sys) {
        if read(&chip.join("name")).as_deref() == Some("amd_energy") {
            for (file, label) in energies(&chip) {
                if let Some(socket) = label.as_deref().and_then(|l| l.strip_prefix("Esocket")) {
                    opened.add_energy(file, format!("package-{socket}"), "amd_energy", Part::Processor)?;
                }
            }
        }
    }
    (!opened.is_empty()).then_some(opened)
}

/// Chips in a fixed order.
pub(crate) fn chips(sys: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(sys.join("class/hwmon")).into_iter().flatten().flatten();
    let mut chips: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    chips.sort();
    chips
}

/// A file's one line.
pub(crate) fn read(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

/// Energy files of a chip with their labels, by number.
fn energies(chip: &Path) -> Vec<(PathBuf, Option<String>)> {
    let numbers =
        (1..=1024).map(|n| (chip.join(format!("energy{n}_input")), chip.join(format!("energy{n}_label"))));
    numbers.take_while(|(file, _)| file.exists()).map(|(file, label)| (file, read(&label))).collect()
}

impl Hwmon {
    pub(crate) fn is_empty(&self) -> bool {
        self.sensors.is_empty()
    }

    /// Adds an energy counter; `None` if it cannot be read.
    pub(crate) fn add_energy(&mut self, path: PathBuf, name: String, driver: &str, part: Part) -> Option<()> {
        let mut file = NumberFile::new(path);
        let first = file.read().ok()?;
        // These counters are accumulated by the driver in 64 bits; they do not wrap.
        self.add(Sensor::Energy(file, Counter::new(first, None)), name, &format!("hwmon:{driver}"), part)
    }

    /// Adds the counter of a table that reads `first` now.
    pub(crate) fn add_metrics(&mut self, metrics: GpuMetrics, first: u64, name: String) -> Option<()> {
        let counter = Counter::with_unit(first, None, gpu_metrics::PER_JOULE);
        self.add(Sensor::Metrics(metrics, counter), name, "gpu_metrics:amdgpu", Part::Gpu)
    }

    /// Adds a power sensor of a card; `None` if it cannot be read.
    pub(crate) fn add_power(&mut self, path: PathBuf, name: String, driver: &str) -> Option<()> {
        let mut file = NumberFile::new(path);
        let integral = Integral::starting_at(file.read().ok()?);
        self.add(Sensor::Power(file, integral), name, &format!("hwmon:{driver}-power"), Part::Gpu)
    }

    fn add(&mut self, sensor: Sensor, name: String, how: &str, part: Part) -> Option<()> {
        self.sensors.push(sensor);
        let source = Source::measured(format!("{how}:{name}"));
        self.domains.push(Domain { source, name, part, resolution: 0 });
        self.readings.push(Reading::default());
        Some(())
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
            *reading = match sensor {
                Sensor::Energy(file, counter) => {
                    counter.advance(file.read().ok(), now.elapsed);
                    counter.total()
                }
                Sensor::Metrics(metrics, counter) => {
                    counter.advance(metrics.counts().ok(), now.elapsed);
                    counter.total()
                }
                Sensor::Power(file, integral) => {
                    integral.advance(file.read().ok(), now.elapsed);
                    integral.total()
                }
            };
        }
        &self.readings
    }

    fn covered(&self) -> Duration {
        let covered = self.sensors.iter().map(|sensor| match sensor {
            Sensor::Energy(_, counter) | Sensor::Metrics(_, counter) => counter.covered(),
            Sensor::Power(_, integral) => integral.covered(),
        });
        covered.min().unwrap_or_default()
    }

    fn shortest(&self) -> Duration {
        SHORTEST
    }

    fn warnings(&self) -> Vec<WarningKind> {
        let of = |(sensor, domain): (&Sensor, &Domain)| match sensor {
            Sensor::Energy(_, counter) | Sensor::Metrics(_, counter) => counter.warnings(&domain.name),
            Sensor::Power(_, integral) => integral.warnings(&domain.name),
        };
        self.sensors.iter().zip(&self.domains).flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_and_their_cores_are_not_counted_again() {
        let root = tempfile::tempdir().unwrap();
        let set = |chip: &str, file: &str, text: &str| {
            let folder = root.path().join("class/hwmon").join(chip);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), text).unwrap();
        };
        set("hwmon0", "name", "acpitz");
        let amd = [("name", "amd_energy"), ("energy1_input", "5"), ("energy1_label", "Ecore000")];
        for (file, text) in amd.into_iter().chain([("energy2_input", "100"), ("energy2_label", "Esocket0")]) {
            set("hwmon1", file, text);
        }
        let mut sensors = open_processors(root.path()).unwrap();
        assert_eq!(sensors.domains().len(), 1);
        set("hwmon1", "energy2_input", "3000100");
        let now = Moment { elapsed: Duration::from_secs(1), ..Moment::default() };
        assert_eq!(sensors.read(now)[0].value, 3_000_000);
    }
}
