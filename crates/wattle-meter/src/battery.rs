//! A discharging battery: the energy of the whole machine, screen included, in coarse steps.
//!
//! `energy_now` is in microwatt-hours, `charge_now` in microampere-hours and worth its voltage; both as Linux documents
//! in `Documentation/ABI/testing/sysfs-class-power`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backend::{Backend, Domain, Moment, Part, Reading};
use crate::number_file::NumberFile;
use crate::{Boundary, Source, WarningKind};

/// Batteries report about every ten seconds and in steps of about 10 mWh.
const SHORTEST: Duration = Duration::from_secs(600);
const STEP_MICROJOULES: u64 = 36_000_000;

/// The machine's first battery that is discharging.
#[derive(Debug)]
pub(crate) struct Battery {
    status: PathBuf,
    stock: Stock,
    last: u64,
    covered: Duration,
    plugged_in: bool,
    domain: [Domain; 1],
    reading: [Reading; 1],
}

#[derive(Debug)]
enum Stock {
    Energy(NumberFile),
    Charge(NumberFile, NumberFile),
}

impl Stock {
    /// Microjoules left.
    fn read(&mut self) -> Option<u64> {
        match self {
            Stock::Energy(microwatt_hours) => microwatt_hours.read().ok()?.checked_mul(3600),
            Stock::Charge(microampere_hours, microvolts) => {
                let charge = u128::from(microampere_hours.read().ok()?) * 3600;
                u64::try_from(charge * u128::from(microvolts.read().ok()?) / 1_000_000).ok()
            }
        }
    }
}

impl Battery {
    /// Opens the battery under `root`, usually `/sys/class/power_supply`; `None` if none is discharging.
    pub(crate) fn open(root: &Path) -> Option<Battery> {
        let mut supplies: Vec<PathBuf> =
            fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path()).collect();
        supplies.sort();
        let mut discharging = supplies.into_iter().filter(|supply| is_discharging(&supply.join("status")));
        let supply = discharging.next()?;
        // With two batteries in use, one alone would undercount.
        if discharging.next().is_some() {
            return None;
        }
        let file = |name: &str| NumberFile::new(supply.join(name));
        let mut stock = match supply.join("energy_now").exists() {
            true => Stock::Energy(file("energy_now")),
            // The design voltage, where there is one, does not wander with the load.
            false if supply.join("voltage_min_design").exists() => {
                Stock::Charge(file("charge_now"), file("voltage_min_design"))
            }
            false => Stock::Charge(file("charge_now"), file("voltage_now")),
        };
        let name = supply.file_name()?.to_string_lossy().into_owned();
        Some(Battery {
            status: supply.join("status"),
            last: stock.read()?,
            stock,
            covered: Duration::ZERO,
            plugged_in: false,
            domain: [Domain {
                name: "machine".to_owned(),
                part: Part::Machine,
                source: Source::measured(format!("battery:{name}")),
                resolution: STEP_MICROJOULES,
            }],
            reading: [Reading::default()],
        })
    }
}

fn is_discharging(status: &Path) -> bool {
    fs::read_to_string(status).is_ok_and(|s| s.trim() == "Discharging")
}

impl Backend for Battery {
    fn name(&self) -> &'static str {
        "battery"
    }

    fn boundary(&self) -> Boundary {
        Boundary::WholeMachine
    }

    fn domains(&self) -> &[Domain] {
        &self.domain
    }

    fn read(&mut self, now: Moment) -> &[Reading] {
        // Once the mains supply the machine, its battery knows nothing any more.
        self.plugged_in |= !is_discharging(&self.status);
        if !self.plugged_in
            && let Some(left) = self.stock.read()
            && left <= self.last
        {
            let value = self.reading[0].value.saturating_add(self.last - left);
            self.reading = [Reading { low: value, value, high: value }];
            self.last = left;
            self.covered = now.elapsed;
        }
        &self.reading
    }

    fn covered(&self) -> Duration {
        self.covered
    }

    fn shortest(&self) -> Duration {
        SHORTEST
    }

    fn warnings(&self) -> Vec<WarningKind> {
        let lost = || WarningKind::CounterLost { domain: self.domain[0].name.clone() };
        self.plugged_in.then(lost).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn battery(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("BAT0")).unwrap();
        files.iter().for_each(|(file, text)| set(&root, file, text));
        root
    }

    fn set(root: &tempfile::TempDir, file: &str, text: &str) {
        fs::write(root.path().join("BAT0").join(file), text).unwrap();
    }

    fn at(seconds: u64) -> Moment {
        Moment { elapsed: Duration::from_secs(seconds), ..Moment::default() }
    }

    #[test]
    fn a_watt_hour_from_the_battery_is_3600_joules() {
        let root = battery(&[("status", "Discharging\n"), ("energy_now", "50000000")]);
        let mut b = Battery::open(root.path()).unwrap();
        set(&root, "energy_now", "49000000");
        assert_eq!(b.read(at(60))[0].value, 3_600_000_000);
        let root = battery(&[
            ("status", "Discharging"),
            ("charge_now", "2000000"),
            ("voltage_min_design", "10000000"),
        ]);
        let mut b = Battery::open(root.path()).unwrap();
        set(&root, "charge_now", "1900000");
        assert_eq!(b.read(at(60))[0].value, 3_600_000_000, "0.1 Ah at 10 V");
    }

    #[test]
    fn plugging_in_ends_the_measurement_without_negative_energy() {
        let root = battery(&[("status", "Discharging"), ("energy_now", "1000")]);
        let mut b = Battery::open(root.path()).unwrap();
        set(&root, "energy_now", "900");
        b.read(at(60));
        set(&root, "status", "Charging");
        set(&root, "energy_now", "5000");
        assert_eq!(b.read(at(120))[0].value, 360_000);
        assert_eq!(b.covered(), Duration::from_secs(60));
        assert!(matches!(&b.warnings()[..], [WarningKind::CounterLost { .. }]));
    }

    #[test]
    fn a_full_battery_on_the_mains_measures_nothing() {
        let root = battery(&[("status", "Full"), ("energy_now", "1000")]);
        assert!(Battery::open(root.path()).is_none());
    }
}
