//! NVIDIA cards through the driver's library (NVML), loaded at run time where there is a driver.
//!
//! Preferred is the energy counter (`nvmlDeviceGetTotalEnergyConsumption`, mJ, Volta and later). Older cards show only
//! power, which is an average over up to a second and on some models samples a quarter of the time (arXiv 2312.02741);
//! it is integrated between readings, and runs shorter than [`SHORTEST`] are flagged.

use std::time::Duration;

use crate::backend::{Backend, Domain, Moment, Part, Reading, Roots};
use crate::counter::Counter;
use crate::integral::Integral;
use crate::visible_cards::{Card, visible};
use crate::{Boundary, Source, WarningKind};

/// Asking a card takes up to a millisecond and its own sensors are no faster than this.
const PATIENCE: Duration = Duration::from_millis(100);
/// Ten windows of the slowest sensor.
const SHORTEST: Duration = Duration::from_secs(10);
/// The energy counter is renewed every 20 to 100 ms.
const RENEWED: Duration = Duration::from_millis(100);
/// What no card draws more than, W, where it does not tell its own limit.
const MOST_WATTS: u64 = 1500;

/// What is asked of the driver; tests answer in its place.
pub(crate) trait Driver: Send {
    /// The cards, in order of the bus.
    fn cards(&self) -> Vec<Card>;
    /// Energy of a card since the driver was loaded, mJ.
    fn energy(&self, card: usize) -> Option<u64>;
    /// Power of a card, mW.
    fn power(&self, card: usize) -> Option<u64>;
    /// The most that a card may draw, mW.
    fn limit(&self, card: usize) -> Option<u64>;
}

/// The cards that the program may use.
pub(crate) struct Nvidia {
    driver: Box<dyn Driver>,
    sensors: Vec<(usize, Sensor)>,
    domains: Vec<Domain>,
    readings: Vec<Reading>,
    read_at: Option<Duration>,
    warnings: Vec<WarningKind>,
}

enum Sensor {
    Energy(Counter),
    Power(Integral),
}

/// Opens the cards that this process may use; `None` without a driver or such a card.
///
/// # Errors
/// [`WarningKind::GpuUnseen`] where there is a driver and its library cannot be used.
pub(crate) fn open(roots: &Roots) -> Result<Option<Nvidia>, WarningKind> {
    open_by(roots, library::load)
}

fn open_by(
    roots: &Roots,
    load: impl Fn() -> Result<Box<dyn Driver>, String>,
) -> Result<Option<Nvidia>, WarningKind> {
    // Loading the library costs milliseconds, so it is tried only where the kernel has the driver, or where Windows has it
    // for Linux beside it (WSL 2): there the cards are one device, whoever made them.
    let (own, windows) = (roots.proc.join("driver/nvidia").exists(), roots.dev.join("dxg").exists());
    if !own && !windows {
        return Ok(None);
    }
    let environment = |name: &str| std::env::var(name).ok();
    let (devices, order) = (environment("CUDA_VISIBLE_DEVICES"), environment("CUDA_DEVICE_ORDER"));
    match load() {
        Ok(driver) => Ok(Nvidia::of(driver, devices.as_deref(), order.as_deref())),
        Err(reason) if own => Err(WarningKind::GpuUnseen { reason }),
        Err(_) => Ok(None),
    }
}

impl Nvidia {
    fn of(driver: Box<dyn Driver>, devices: Option<&str>, order: Option<&str>) -> Option<Nvidia> {
        let cards = driver.cards();
        let seen = visible(&cards, devices, order);
        let mut warnings = Vec::new();
        if seen.ambiguous {
            warnings.push(WarningKind::GpuOrderUnknown { devices: devices.unwrap_or_default().to_owned() });
        }
        let (mut sensors, mut domains) = (Vec::new(), Vec::new());
        for card in seen.cards {
            let (sensor, how, resolution) = if let Some(first) = driver.energy(card) {
                let watts = driver.limit(card).map_or(MOST_WATTS, |milliwatts| milliwatts / 1000);
                let unseen = watts.saturating_mul(RENEWED.as_micros() as u64);
                (Sensor::Energy(Counter::with_unit(first, None, 1000)), "nvml", unseen)
            } else if let Some(first) = driver.power(card) {
                (Sensor::Power(Integral::starting_at(first.saturating_mul(1000))), "nvml-power", 0)
            } else {
                continue;
            };
            let name = format!("gpu-nvidia-{card}");
            if seen.shared.contains(&card) {
                warnings.push(WarningKind::GpuShared { domain: name.clone() });
            }
            let source = Source::measured(format!("{how}:{name}:{}", cards[card].uuid));
            domains.push(Domain { name, part: Part::Gpu, source, resolution });
            sensors.push((card, sensor));
        }
        let readings = vec![Reading::default(); sensors.len()];
        (!sensors.is_empty()).then_some(Nvidia {
            driver,
            sensors,
            domains,
            readings,
            read_at: None,
            warnings,
        })
    }
}

impl Backend for Nvidia {
    fn name(&self) -> &'static str {
        "nvml"
    }

    fn boundary(&self) -> Boundary {
        Boundary::WholePackages
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Moment) -> &[Reading] {
        if self.read_at.is_some_and(|at| now.elapsed.saturating_sub(at) < PATIENCE) {
            return &self.readings;
        }
        self.read_at = Some(now.elapsed);
        for ((card, sensor), reading) in self.sensors.iter_mut().zip(&mut self.readings) {
            *reading = match sensor {
                Sensor::Energy(counter) => {
                    counter.advance(self.driver.energy(*card), now.elapsed);
                    counter.total()
                }
                Sensor::Power(integral) => {
                    let microwatts = self.driver.power(*card).map(|milliwatts| milliwatts * 1000);
                    integral.advance(microwatts, now.elapsed);
                    integral.total()
                }
            };
        }
        &self.readings
    }

    fn covered(&self) -> Duration {
        let covered = self.sensors.iter().map(|(_, sensor)| match sensor {
            Sensor::Energy(counter) => counter.covered(),
            Sensor::Power(integral) => integral.covered(),
        });
        covered.min().unwrap_or_default()
    }

    fn shortest(&self) -> Duration {
        SHORTEST
    }

    fn warnings(&self) -> Vec<WarningKind> {
        let mut warnings = self.warnings.clone();
        for (domain, (_, sensor)) in self.domains.iter().zip(&self.sensors) {
            warnings.extend(match sensor {
                Sensor::Energy(counter) => counter.warnings(&domain.name),
                Sensor::Power(integral) => integral.warnings(&domain.name),
            });
        }
        warnings
    }
}

#[cfg(target_os = "linux")]
mod library {
    use std::ffi::OsStr;

    use nvml_wrapper::{Device, Nvml};

    use super::{Card, Driver};

    /// Without the development package there is only the name with the version; WSL 2 has a folder of its own.
    const NAMES: [&str; 3] = ["libnvidia-ml.so.1", "libnvidia-ml.so", "/usr/lib/wsl/lib/libnvidia-ml.so.1"];

    struct Library(Nvml);

    pub(super) fn load() -> Result<Box<dyn Driver>, String> {
        let mut reason = String::new();
        for name in NAMES {
            match Nvml::builder().lib_path(OsStr::new(name)).init() {
                Ok(library) => return Ok(Box::new(Library(library))),
                // What the first says of a library that is there says more than that the others are missing.
                Err(error) if reason.is_empty() => reason = format!("{name}: {error}"),
                Err(_) => {}
            }
        }
        Err(reason)
    }

    impl Library {
        fn card(&self, card: usize) -> Option<Device<'_>> {
            self.0.device_by_index(u32::try_from(card).ok()?).ok()
        }
    }

    fn instances(card: &Device<'_>) -> Vec<String> {
        let count = card.mig_device_count().unwrap_or(0);
        (0..count).filter_map(|i| card.mig_device_by_index(i).ok()?.uuid().ok()).collect()
    }

    impl Driver for Library {
        fn cards(&self) -> Vec<Card> {
            let count = self.0.device_count().unwrap_or(0) as usize;
            // A card that cannot be asked keeps its place, so that the numbers of the others stay right.
            let describe = |place| {
                let card = self.card(place);
                let of =
                    |ask: fn(&Device<'_>) -> Option<String>| card.as_ref().and_then(ask).unwrap_or_default();
                Card {
                    uuid: of(|card| card.uuid().ok()),
                    model: of(|card| card.name().ok()),
                    instances: card.as_ref().map(instances).unwrap_or_default(),
                }
            };
            (0..count).map(describe).collect()
        }

        fn energy(&self, card: usize) -> Option<u64> {
            self.card(card)?.total_energy_consumption().ok()
        }

        fn power(&self, card: usize) -> Option<u64> {
            self.card(card)?.power_usage().ok().map(u64::from)
        }

        fn limit(&self, card: usize) -> Option<u64> {
            self.card(card)?.enforced_power_limit().ok().map(u64::from)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod library {
    pub(super) fn load() -> Result<Box<dyn super::Driver>, String> {
        Err("the driver's library is only used on Linux".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Energy and power of each card; a card without energy is an old one.
    type Meters = Arc<Mutex<Vec<(Option<u64>, Option<u64>)>>>;

    struct Fake(Meters);

    impl Fake {
        fn of(&self, card: usize) -> (Option<u64>, Option<u64>) {
            self.0.lock().unwrap()[card]
        }
    }

    impl Driver for Fake {
        fn cards(&self) -> Vec<Card> {
            let card = |i| Card {
                uuid: format!("GPU-{i}"),
                model: "A100".to_owned(),
                instances: vec![format!("MIG-{i}0")],
            };
            (0..self.0.lock().unwrap().len()).map(card).collect()
        }
        fn energy(&self, card: usize) -> Option<u64> {
            self.of(card).0
        }
        fn power(&self, card: usize) -> Option<u64> {
            self.of(card).1
        }
        fn limit(&self, _: usize) -> Option<u64> {
            Some(400_000)
        }
    }

    fn open(meters: &[(Option<u64>, Option<u64>)], devices: Option<&str>) -> (Meters, Option<Nvidia>) {
        let meters = Arc::new(Mutex::new(meters.to_vec()));
        let opened = Nvidia::of(Box::new(Fake(Arc::clone(&meters))), devices, None);
        (meters, opened)
    }

    fn at(milliseconds: u64) -> Moment {
        Moment { elapsed: Duration::from_millis(milliseconds), ..Moment::default() }
    }

    #[test]
    fn a_driver_without_its_library_is_told_and_windows_cards_are_found() {
        let fake = || -> Result<Box<dyn Driver>, String> {
            Ok(Box::new(Fake(Arc::new(Mutex::new(vec![(Some(5), None)])))))
        };
        let missing = || Err("libnvidia-ml.so.1: not found".to_owned());
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| root.path().join(name);
        let roots = Roots { proc: folder("proc"), sys: folder("sys"), dev: folder("dev") };
        assert!(open_by(&roots, fake).unwrap().is_none(), "nothing is loaded where there is no driver");
        std::fs::create_dir_all(folder("dev/dxg")).unwrap();
        assert!(open_by(&roots, missing).unwrap().is_none(), "the cards there may be of another maker");
        assert!(open_by(&roots, fake).unwrap().is_some(), "WSL 2");
        std::fs::create_dir_all(folder("proc/driver/nvidia")).unwrap();
        let Err(WarningKind::GpuUnseen { reason }) = open_by(&roots, missing) else { panic!("not told") };
        assert!(reason.contains("libnvidia-ml.so.1"));
    }

    #[test]
    fn only_visible_cards_are_counted_by_differences_of_their_counters() {
        let (meters, cards) = open(&[(Some(5), None), (Some(7_000), None), (Some(9), None)], Some("1"));
        let mut cards = cards.unwrap();
        assert_eq!(cards.domains()[0].source.to_string(), "measured:nvml:gpu-nvidia-1:GPU-1");
        assert_eq!(cards.domains()[0].resolution, 40_000_000, "0.1 s at 400 W");
        *meters.lock().unwrap() = vec![(Some(99), None), (Some(8_500), None), (Some(99), None)];
        assert_eq!(cards.read(at(1000))[0].value, 1_500_000, "microjoules");
        assert_eq!(cards.warnings(), []);
        assert!(open(&[(Some(5), None)], Some("")).1.is_none());
        assert!(open(&[(None, None)], None).1.is_none(), "a card that shows nothing is not opened");
    }

    #[test]
    fn a_failed_reading_loses_nothing_and_a_driver_that_was_reloaded_is_a_reset() {
        let (meters, cards) = open(&[(Some(0), None)], None);
        let mut cards = cards.unwrap();
        meters.lock().unwrap()[0] = (None, None);
        cards.read(at(1000));
        assert!(matches!(&cards.warnings()[..], [WarningKind::CounterLost { .. }]));
        meters.lock().unwrap()[0] = (Some(250_000), None);
        assert_eq!(cards.read(at(2000))[0].value, 250_000_000);
        meters.lock().unwrap()[0] = (Some(1_000), None);
        assert_eq!(cards.read(at(3000))[0].low, 251_000_000);
        assert!(cards.warnings().iter().any(|w| matches!(w, WarningKind::CounterReset { .. })));
    }

    #[test]
    fn an_old_card_is_integrated_and_a_short_run_of_it_means_little() {
        let (meters, cards) = open(&[(None, Some(100_000))], None);
        let mut cards = cards.unwrap();
        meters.lock().unwrap()[0].1 = Some(200_000);
        let reading = cards.read(at(1000))[0];
        assert_eq!((reading.low, reading.value, reading.high), (95_000_000, 150_000_000, 210_000_000));
        assert!(cards.shortest() >= Duration::from_secs(1), "the sensor averages over a second");
        assert!(cards.domains()[0].source.to_string().starts_with("measured:nvml-power:"));
    }

    #[test]
    fn a_fast_meter_does_not_ask_the_card_faster_than_its_sensor() {
        let (meters, cards) = open(&[(Some(0), None)], None);
        let mut cards = cards.unwrap();
        cards.read(at(0));
        meters.lock().unwrap()[0] = (Some(1_000), None);
        assert_eq!(cards.read(at(50))[0].value, 0);
        assert_eq!(cards.read(at(100))[0].value, 1_000_000);
    }

    #[test]
    fn an_instance_is_told_that_it_shares_its_card() {
        let (_, cards) = open(&[(Some(0), None), (Some(0), None)], Some("MIG-10"));
        let cards = cards.unwrap();
        assert_eq!(cards.domains()[0].name, "gpu-nvidia-1");
        assert_eq!(cards.warnings(), [WarningKind::GpuShared { domain: "gpu-nvidia-1".to_owned() }]);
    }
}
