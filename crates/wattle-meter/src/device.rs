//! Devices that estimates are made for: peak arithmetic, memory traffic, and power while training.

use serde::Deserialize;

use crate::table::rows;
use crate::{Quantity, Source, Unit};

const TABLE: &str = include_str!("../data/devices.csv");

/// Share of the maximum that accelerators drew in the training runs of OLMo (Morrison et al. 2025: 15 to 85 %),
/// with the maximum as the upper end.
const SHARE_OF_TDP: [f64; 3] = [0.15, 0.85, 1.0];

/// What a power figure includes. It decides what may still be added to it: the facility (PUE) always, host and
/// network only to a chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerBoundary {
    /// The accelerator or processor alone.
    Chip,
    /// With its share of the host and, for clusters, the network.
    ChipAndHost,
    /// What a person stated.
    AsStated,
}

impl PowerBoundary {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            PowerBoundary::Chip => "the chip alone, without host and network",
            PowerBoundary::ChipAndHost => "the chip with its share of host and network",
            PowerBoundary::AsStated => "whatever the stated power includes",
        }
    }
}

/// One device. What nobody whom we have read states is `None`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Device {
    /// Such as `v100`.
    pub id: String,
    aliases: String,
    /// Its full name.
    pub name: String,
    /// `gpu`, `tpu` or `cpu`.
    pub kind: String,
    peak_flops: Option<f64>,
    /// Of the peak.
    pub precision: String,
    bytes_per_second: Option<f64>,
    tdp_w: Option<f64>,
    watts_low: Option<f64>,
    watts: Option<f64>,
    watts_high: Option<f64>,
    boundary: PowerBoundary,
    /// Of its introduction.
    pub year: u16,
    /// Of peak, traffic and maximum power.
    pub source: String,
    power_source: String,
}

/// A device that the table does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "option `device`: {found:?} is not in the table; expected one of: {known}; or state option `achieved` and option `watts` instead"
)]
pub struct UnknownDevice {
    found: String,
    known: String,
}

/// All devices, in the order of the table.
pub fn devices() -> Vec<Device> {
    rows("devices.csv", TABLE)
}

impl Device {
    /// Finds a device by its id or an alias, upper or lower case. Never a near match: another device's power is
    /// worse than none.
    ///
    /// # Errors
    /// [`UnknownDevice`] with all ids.
    pub fn find(text: &str) -> Result<Device, UnknownDevice> {
        let wanted = text.trim().to_lowercase();
        let devices = devices();
        let names = |d: &Device| d.id == wanted || d.aliases.split(' ').any(|a| a == wanted);
        match devices.iter().find(|d| names(d)) {
            Some(device) if !wanted.is_empty() => Ok(device.clone()),
            _ => {
                let known: Vec<_> = devices.into_iter().map(|d| d.id).collect();
                Err(UnknownDevice { found: text.to_owned(), known: known.join(", ") })
            }
        }
    }

    /// Peak arithmetic in its [`precision`](Self::precision), dense.
    pub fn peak(&self) -> Option<Quantity> {
        self.published(self.peak_flops?, Unit::FlopPerSecond)
    }

    /// Peak memory traffic.
    pub fn traffic(&self) -> Option<Quantity> {
        self.published(self.bytes_per_second?, Unit::BytePerSecond)
    }

    /// Average power while training, with what it includes: measured averages where they are published, else a
    /// share of the maximum power with a wide interval, since a maximum is not a draw.
    pub fn training_power(&self) -> Option<(Quantity, PowerBoundary)> {
        let power = match (self.watts, self.tdp_w) {
            (Some(watts), _) => {
                let (low, high) = (self.watts_low.unwrap_or(watts), self.watts_high.unwrap_or(watts));
                let source = Source::published(&self.power_source);
                Quantity::new(watts, low, high, Unit::Watt, source)
            }
            (None, Some(tdp)) => {
                let [low, value, high] = SHARE_OF_TDP.map(|share| share * tdp);
                let reason = format!(
                    "15 %, 85 % and 100 % of {tdp} W, the maximum of {}: GPUs drew 15 to 85 % of theirs in \
                     Morrison et al. 2025",
                    self.name
                );
                Quantity::new(value, low, high, Unit::Watt, Source::assumed(reason))
            }
            (None, None) => return None,
        };
        Some((power.expect("a test checks that every row is ordered"), self.boundary))
    }

    fn published(&self, value: f64, unit: Unit) -> Option<Quantity> {
        Quantity::exact(value, unit, Source::published(&self.source)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_ordered_dated_and_sourced() {
        let devices = devices();
        assert!(devices.len() >= 12);
        for d in &devices {
            assert!((2010..2027).contains(&d.year) && d.source.len() > 10, "{d:?}");
            if let Some((power, _)) = d.training_power() {
                assert!(power.low() > 0.0 && power.high() < 2000.0, "{d:?}");
            }
            assert!(d.watts.is_none() || !d.power_source.is_empty(), "{d:?}");
            assert!(d.peak_flops.is_none_or(|p| p > 1e12 && p < 1e16), "{d:?}: FLOP/s, not TFLOP/s");
            assert!(d.bytes_per_second.is_none_or(|b| b > 1e10 && b < 1e14), "{d:?}");
        }
    }

    #[test]
    fn a_maximum_power_is_not_taken_for_the_draw() {
        let (power, boundary) = Device::find("h100").unwrap().training_power().unwrap();
        assert!(power.value() < 700.0 && power.low() < 0.2 * 700.0 && power.high() == 700.0);
        assert_eq!((power.source().kind(), boundary), ("assumed", PowerBoundary::Chip));
        let (power, boundary) = Device::find("V100").unwrap().training_power().unwrap();
        assert_eq!((power.value(), boundary), (330.0, PowerBoundary::ChipAndHost));
    }

    #[test]
    fn an_unknown_device_is_refused_and_never_matched_to_a_near_one() {
        for text in ["v1000", "v10", "AMD EPYC", ""] {
            let error = Device::find(text).unwrap_err().to_string();
            assert!(error.contains("v100") && error.contains("option `watts`"), "{error}");
        }
    }
}
