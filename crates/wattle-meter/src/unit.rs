//! The closed list of units, and which products and quotients of them mean something.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The unit of a [`Quantity`](crate::Quantity). In JSON it is its symbol (`"J"`, `"gCO2e/kWh"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Unit {
    /// Energy, J.
    #[serde(rename = "J")]
    Joule,
    /// Energy, kWh (3.6 MJ exactly).
    #[serde(rename = "kWh")]
    KilowattHour,
    /// Power, W.
    #[serde(rename = "W")]
    Watt,
    /// Time, s.
    #[serde(rename = "s")]
    Second,
    /// Greenhouse gas as grams of CO2 equivalent.
    #[serde(rename = "gCO2e")]
    GramCo2e,
    /// Carbon intensity of electricity.
    #[serde(rename = "gCO2e/kWh")]
    GramCo2ePerKilowattHour,
    /// Money, US dollars.
    #[serde(rename = "USD")]
    Usd,
    /// Price of electricity.
    #[serde(rename = "USD/kWh")]
    UsdPerKilowattHour,
    /// Multiply-accumulate operations (one MAC is two FLOP).
    #[serde(rename = "MAC")]
    Mac,
    /// Floating point operations.
    #[serde(rename = "FLOP")]
    Flop,
    /// Bytes.
    #[serde(rename = "B")]
    Byte,
    /// Time, hours.
    #[serde(rename = "h")]
    Hour,
    /// Time, days of 24 h.
    #[serde(rename = "d")]
    Day,
    /// Time, years of 365 d, as those who count "GPU-years" do.
    #[serde(rename = "a")]
    Year,
    /// Greenhouse gas as kilograms of CO2 equivalent.
    #[serde(rename = "kgCO2e")]
    KilogramCo2e,
    /// Arithmetic rate. Not to be confused with the count [`Unit::Flop`].
    #[serde(rename = "FLOP/s")]
    FlopPerSecond,
    /// Memory traffic.
    #[serde(rename = "B/s")]
    BytePerSecond,
    /// Price of renting a device.
    #[serde(rename = "USD/h")]
    UsdPerHour,
    /// Water.
    #[serde(rename = "L")]
    Litre,
    /// Water per energy (water usage effectiveness).
    #[serde(rename = "L/kWh")]
    LitrePerKilowattHour,
    /// Samples (images, sequences, requests) processed.
    #[serde(rename = "sample")]
    Sample,
    /// A pure number: a share, a ratio, a power usage effectiveness.
    #[serde(rename = "1")]
    One,
}

/// Joules in one kilowatt hour.
const JOULES_PER_KWH: f64 = 3.6e6;

impl Unit {
    /// The symbol that people and JSON see.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::Joule => "J",
            Unit::KilowattHour => "kWh",
            Unit::Watt => "W",
            Unit::Second => "s",
            Unit::GramCo2e => "gCO2e",
            Unit::GramCo2ePerKilowattHour => "gCO2e/kWh",
            Unit::Usd => "USD",
            Unit::UsdPerKilowattHour => "USD/kWh",
            Unit::Mac => "MAC",
            Unit::Flop => "FLOP",
            Unit::Byte => "B",
            Unit::Hour => "h",
            Unit::Day => "d",
            Unit::Year => "a",
            Unit::KilogramCo2e => "kgCO2e",
            Unit::FlopPerSecond => "FLOP/s",
            Unit::BytePerSecond => "B/s",
            Unit::UsdPerHour => "USD/h",
            Unit::Litre => "L",
            Unit::LitrePerKilowattHour => "L/kWh",
            Unit::Sample => "sample",
            Unit::One => "1",
        }
    }

    /// The unit of `self * other` with the factor that brings the product into it, or `None` where the
    /// product means nothing to us.
    pub(crate) fn times(self, other: Unit) -> Option<(Unit, f64)> {
        product(self, other).or_else(|| product(other, self))
    }

    /// The unit of `self / other` with its factor, or `None` where the quotient means nothing to us.
    pub(crate) fn per(self, other: Unit) -> Option<(Unit, f64)> {
        match (self, other) {
            (a, b) if a == b => Some((Unit::One, 1.0)),
            (a, Unit::One) => Some((a, 1.0)),
            (Unit::Joule, Unit::Second) => Some((Unit::Watt, 1.0)),
            (Unit::Joule, Unit::Watt) => Some((Unit::Second, 1.0)),
            (Unit::Flop, Unit::FlopPerSecond) | (Unit::Byte, Unit::BytePerSecond) => {
                Some((Unit::Second, 1.0))
            }
            (Unit::Flop, Unit::Second) => Some((Unit::FlopPerSecond, 1.0)),
            (Unit::Byte, Unit::Second) => Some((Unit::BytePerSecond, 1.0)),
            (Unit::Usd, Unit::Hour) => Some((Unit::UsdPerHour, 1.0)),
            _ => None,
        }
    }

    /// The factor that turns a value in `self` into one in `to`, or `None` where they measure different things.
    pub(crate) fn factor_to(self, to: Unit) -> Option<f64> {
        if self == to {
            return Some(1.0);
        }
        let ((what, size), (wanted, unit)) = (self.scale()?, to.scale()?);
        (what == wanted).then_some(size / unit)
    }

    /// The unit that this one is a multiple of, and the multiple; `None` for units that stand alone.
    fn scale(self) -> Option<(Unit, f64)> {
        match self {
            Unit::Joule => Some((Unit::Joule, 1.0)),
            Unit::KilowattHour => Some((Unit::Joule, JOULES_PER_KWH)),
            Unit::Second => Some((Unit::Second, 1.0)),
            Unit::Hour => Some((Unit::Second, 3600.0)),
            Unit::Day => Some((Unit::Second, 86_400.0)),
            Unit::Year => Some((Unit::Second, 365.0 * 86_400.0)),
            Unit::GramCo2e => Some((Unit::GramCo2e, 1.0)),
            Unit::KilogramCo2e => Some((Unit::GramCo2e, 1000.0)),
            _ => None,
        }
    }
}

fn product(a: Unit, b: Unit) -> Option<(Unit, f64)> {
    match (a, b) {
        (a, Unit::One) => Some((a, 1.0)),
        (Unit::Watt, Unit::Second) => Some((Unit::Joule, 1.0)),
        (Unit::KilowattHour, Unit::GramCo2ePerKilowattHour) => Some((Unit::GramCo2e, 1.0)),
        (Unit::Joule, Unit::GramCo2ePerKilowattHour) => Some((Unit::GramCo2e, 1.0 / JOULES_PER_KWH)),
        (Unit::KilowattHour, Unit::UsdPerKilowattHour) => Some((Unit::Usd, 1.0)),
        (Unit::Watt, Unit::Hour) => Some((Unit::Joule, 3600.0)),
        (Unit::FlopPerSecond, Unit::Second) => Some((Unit::Flop, 1.0)),
        (Unit::FlopPerSecond, Unit::Hour) => Some((Unit::Flop, 3600.0)),
        (Unit::UsdPerHour, Unit::Hour) => Some((Unit::Usd, 1.0)),
        (Unit::KilowattHour, Unit::LitrePerKilowattHour) => Some((Unit::Litre, 1.0)),
        (Unit::Joule, Unit::LitrePerKilowattHour) => Some((Unit::Litre, 1.0 / JOULES_PER_KWH)),
        (Unit::Joule, Unit::UsdPerKilowattHour) => Some((Unit::Usd, 1.0 / JOULES_PER_KWH)),
        _ => None,
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_rates_and_multiply_accumulates_never_mix() {
        assert_eq!(Unit::Mac.factor_to(Unit::Flop), None);
        assert_eq!(Unit::Flop.factor_to(Unit::FlopPerSecond), None);
        assert_eq!(Unit::Mac.per(Unit::FlopPerSecond), None);
        assert_eq!(Unit::Flop.per(Unit::FlopPerSecond), Some((Unit::Second, 1.0)));
    }

    #[test]
    fn grams_and_kilograms_watts_and_kilowatt_hours_convert_as_they_should() {
        assert_eq!(Unit::GramCo2e.factor_to(Unit::KilogramCo2e), Some(0.001));
        assert_eq!(Unit::KilowattHour.factor_to(Unit::Joule), Some(3.6e6));
        assert_eq!(Unit::Year.factor_to(Unit::Hour), Some(8760.0));
        assert_eq!(Unit::Watt.factor_to(Unit::KilowattHour), None);
        assert_eq!(Unit::Watt.times(Unit::Hour), Some((Unit::Joule, 3600.0)));
    }
}
