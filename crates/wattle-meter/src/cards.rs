//! Graphics cards that the kernel shows in sysfs: AMD's (`amdgpu`) and Intel's (`i915`, `xe`). The vendors' libraries read the
//! same files (decision 31).
//!
//! An energy counter is preferred, for it misses nothing between two readings; of a power sensor the kernel's average,
//! then its momentary value. Units are those of Linux, `Documentation/hwmon/sysfs-interface.rst`: microjoules, microwatts.

use std::fs;
use std::path::{Path, PathBuf};

use crate::backend::Part;
use crate::gpu_metrics::{Energy, GpuMetrics};
use crate::hwmon::{Hwmon, chips, read};

/// One card: its device folder and the sensor chips that belong to it, each with its driver's name.
struct Card {
    device: PathBuf,
    chips: Vec<(String, PathBuf)>,
}

/// All graphics cards that show energy or power, in order of their bus address.
pub(crate) fn open(sys: &Path) -> Option<Hwmon> {
    let mut opened = Hwmon::default();
    for (index, card) in cards(sys).iter().enumerate() {
        card.open(&format!("gpu-{index}"), &mut opened);
    }
    (!opened.is_empty()).then_some(opened)
}

fn cards(sys: &Path) -> Vec<Card> {
    let mut cards: Vec<Card> = vec![];
    for chip in chips(sys) {
        let Some(name) = read(&chip.join("name")) else { continue };
        if !(matches!(name.as_str(), "amdgpu" | "i915" | "xe") || is_tile(&name)) {
            continue;
        }
        let device = fs::canonicalize(chip.join("device")).unwrap_or_else(|_| chip.clone());
        match cards.iter_mut().find(|card| card.device == device) {
            Some(card) => card.chips.push((name, chip)),
            None => cards.push(Card { device, chips: vec![(name, chip)] }),
        }
    }
    cards.sort_by(|a, b| a.device.cmp(&b.device));
    cards
}

/// `i915_gt0`: one of the tiles of a card.
fn is_tile(driver: &str) -> bool {
    driver.starts_with("i915_gt")
}

impl Card {
    /// Adds the one way that knows most: a counter of the whole card, of its parts, an average, a momentary power.
    fn open(&self, name: &str, opened: &mut Hwmon) -> Option<()> {
        let mut metrics = GpuMetrics::of(&self.device);
        match metrics.read().unwrap_or(Energy::Unknown) {
            // What is counted as a processor is not counted again as a card.
            Energy::InProcessor => return Some(()),
            Energy::Counts(first) => return opened.add_metrics(metrics, first, name.to_owned()),
            Energy::Unknown => {}
        }
        let whole = self.chips.iter().filter(|(driver, _)| !is_tile(driver));
        for (driver, chip) in whole.clone() {
            if let Some((file, part)) = energy(chip) {
                return opened.add_energy(file, name.to_owned(), &format!("{driver}{part}"), Part::Gpu);
            }
        }
        let tiles: Vec<_> = self.chips.iter().filter(|(driver, _)| is_tile(driver)).collect();
        let mut found = None;
        for (driver, chip) in tiles {
            if let Some((file, _)) = energy(chip) {
                let tile = driver.trim_start_matches("i915_gt");
                found = opened.add_energy(file, format!("{name}/tile-{tile}"), "i915", Part::Gpu).or(found);
            }
        }
        if found.is_some() {
            return found;
        }
        let (driver, file) = whole.into_iter().find_map(|(driver, chip)| Some((driver, power(chip)?)))?;
        opened.add_power(file, name.to_owned(), driver)
    }
}

/// The energy counter of a chip that is around all its others, and what to add to the driver's name if it is not the
/// whole card's. `xe` labels them `card` and `pkg`, and on some cards there is only the second; others have one, the card's.
fn energy(chip: &Path) -> Option<(PathBuf, &'static str)> {
    let files: Vec<(PathBuf, Option<String>)> = (1..=8)
        .map(|n| (chip.join(format!("energy{n}_input")), read(&chip.join(format!("energy{n}_label")))))
        .filter(|(file, _)| file.exists())
        .collect();
    let labelled = |wanted: &str| files.iter().find(|(_, label)| label.as_deref() == Some(wanted));
    if let Some((file, _)) = labelled("card") {
        return Some((file.clone(), ""));
    }
    if let Some((file, _)) = labelled("pkg") {
        return Some((file.clone(), "-package"));
    }
    files.first().map(|(file, _)| (file.clone(), ""))
}

/// The power file of a card: the average where there is one.
fn power(chip: &Path) -> Option<PathBuf> {
    let names = ["power1_average", "power1_input", "power2_average", "power2_input"];
    names.into_iter().map(|name| chip.join(name)).find(|file| file.exists())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::WarningKind;
    use crate::backend::{Backend, Moment, Reading};
    use crate::gpu_metrics::tests::table;

    /// A fake tree of chips, each with its device folder.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new(chips: &[(&str, &[(&str, &str)])]) -> Fake {
            let fake = Fake(tempfile::tempdir().unwrap());
            for (chip, files) in chips {
                for (file, text) in *files {
                    fake.set(chip, file, text);
                }
            }
            fake
        }

        fn set(&self, chip: &str, file: &str, bytes: impl AsRef<[u8]>) {
            let path = self.0.path().join("class/hwmon").join(chip).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        fn open(&self) -> Option<Hwmon> {
            open(self.0.path())
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment { elapsed: Duration::from_secs(seconds), ..Moment::default() }
    }

    fn sources(cards: &Hwmon) -> Vec<String> {
        cards.domains().iter().map(|d| d.source.to_string()).collect()
    }

    #[test]
    fn cards_are_read_by_counter_where_there_is_one_and_by_power_elsewhere() {
        let root = Fake::new(&[
            ("hwmon3", &[("name", "i915"), ("energy1_input", "0")]),
            ("hwmon4", &[("name", "amdgpu"), ("power1_average", "10000000"), ("power1_input", "1")]),
            ("hwmon5", &[("name", "nvme"), ("power1_input", "5")]),
        ]);
        let mut cards = root.open().unwrap();
        assert_eq!(sources(&cards), ["measured:hwmon:i915:gpu-0", "measured:hwmon:amdgpu-power:gpu-1"]);
        root.set("hwmon3", "energy1_input", "7000000");
        root.set("hwmon4", "power1_average", "30000000");
        let readings = cards.read(at(2));
        assert_eq!(readings[0].value, 7_000_000);
        assert_eq!(readings[1], Reading { low: 19_000_000, value: 40_000_000, high: 63_000_000 });
    }

    #[test]
    fn of_card_and_package_the_card_is_counted_and_the_package_only_where_it_is_alone() {
        let both = [
            ("energy1_input", "1"),
            ("energy1_label", "card"),
            ("energy2_input", "1"),
            ("energy2_label", "pkg"),
        ];
        let root = Fake::new(&[
            ("hwmon1", &[&[("name", "xe")], &both[..]].concat()),
            ("hwmon2", &[("name", "xe"), ("energy2_input", "0"), ("energy2_label", "pkg")]),
        ]);
        let mut cards = root.open().unwrap();
        assert_eq!(sources(&cards), ["measured:hwmon:xe:gpu-0", "measured:hwmon:xe-package:gpu-1"]);
        root.set("hwmon1", "energy1_input", "5000001");
        root.set("hwmon1", "energy2_input", "4000001");
        root.set("hwmon2", "energy2_input", "3000000");
        let values: Vec<u64> = cards.read(at(1)).iter().map(|r| r.value).collect();
        assert_eq!(values, [5_000_000, 3_000_000]);
    }

    #[cfg(unix)]
    #[test]
    fn tiles_are_counted_only_where_their_card_is_not() {
        let root = Fake::new(&[
            ("hwmon1", &[("name", "i915"), ("power1_max", "1"), ("device/device", "0x0bd5")]),
            ("hwmon2", &[("name", "i915_gt0"), ("energy1_input", "0")]),
            ("hwmon3", &[("name", "i915_gt1"), ("energy1_input", "0")]),
        ]);
        let device = root.0.path().join("class/hwmon/hwmon1/device");
        for tile in ["hwmon2", "hwmon3"] {
            std::os::unix::fs::symlink(&device, root.0.path().join("class/hwmon").join(tile).join("device"))
                .unwrap();
        }
        let mut cards = root.open().unwrap();
        assert_eq!(sources(&cards), ["measured:hwmon:i915:gpu-0/tile-0", "measured:hwmon:i915:gpu-0/tile-1"]);
        root.set("hwmon3", "energy1_input", "2000000");
        assert_eq!(cards.read(at(1))[1].value, 2_000_000);
        root.set("hwmon1", "energy1_input", "9");
        assert_eq!(sources(&root.open().unwrap()), ["measured:hwmon:i915:gpu-0"]);
    }

    #[test]
    fn an_instinct_is_counted_by_its_table_in_units_of_the_header() {
        let root = Fake::new(&[("hwmon1", &[("name", "amdgpu"), ("power1_input", "100000000")])]);
        let mut counts = 5 << 32;
        root.set("hwmon1", "device/gpu_metrics", table(1, 5, 360, 88, counts));
        let mut cards = root.open().unwrap();
        assert_eq!(sources(&cards), ["measured:gpu_metrics:amdgpu:gpu-0"]);
        counts += 300 << 16;
        root.set("hwmon1", "device/gpu_metrics", table(1, 5, 360, 88, counts));
        assert_eq!(cards.read(at(1))[0], Reading { low: 300_000_000, value: 300_000_000, high: 300_000_000 });
        // One unreadable table loses nothing.
        root.set("hwmon1", "device/gpu_metrics", [0; 7]);
        assert_eq!(cards.read(at(2))[0].value, 300_000_000);
        root.set("hwmon1", "device/gpu_metrics", table(1, 5, 360, 88, counts + (50 << 16)));
        assert_eq!(cards.read(at(3))[0].value, 350_000_000);
        assert!(matches!(&cards.warnings()[..], [WarningKind::CounterReadFailed { readings: 1, .. }]));
    }

    #[test]
    fn a_radeon_is_read_by_its_power_and_graphics_inside_a_processor_not_again() {
        let root = Fake::new(&[
            ("hwmon1", &[("name", "amdgpu"), ("power1_average", "5")]),
            ("hwmon2", &[("name", "amdgpu"), ("power1_average", "5")]),
        ]);
        root.set("hwmon1", "device/gpu_metrics", table(1, 3, 120, 24, 77));
        root.set("hwmon2", "device/gpu_metrics", table(2, 2, 128, 24, 77));
        assert_eq!(sources(&root.open().unwrap()), ["measured:hwmon:amdgpu-power:gpu-0"]);
    }

    #[test]
    fn a_card_that_is_unplugged_keeps_its_energy_and_is_reported() {
        let root = Fake::new(&[("hwmon4", &[("name", "amdgpu"), ("power1_average", "10000000")])]);
        let mut cards = root.open().unwrap();
        cards.read(at(1));
        root.set("hwmon4", "power1_average", "");
        assert_eq!(cards.read(at(2))[0].value, 10_000_000);
        assert_eq!(cards.covered(), Duration::from_secs(1));
        assert!(matches!(&cards.warnings()[..], [WarningKind::CounterLost { .. }]));
    }

    #[test]
    fn pulses_between_samples_stay_inside_the_interval_of_a_counter() {
        // A square wave of 10 ms pulses: 100 W for 10 ms of every 100, sampled each second, is 10 W.
        let root = Fake::new(&[("hwmon3", &[("name", "i915"), ("energy1_input", "0")])]);
        let mut cards = root.open().unwrap();
        let mut last = 0;
        for second in 1..=10u64 {
            root.set("hwmon3", "energy1_input", (second * 10 * 1_000_000).to_string());
            last = cards.read(at(second))[0].value;
        }
        assert_eq!(last, 100_000_000);
    }
}
