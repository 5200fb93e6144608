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
            _ => None,
        }
    }

    /// The factor that turns a value in `self` into one in `to`, or `None` where they measure different things.
    pub(crate) fn factor_to(self, to: Unit) -> Option<f64> {
        match (self, to) {
            (a, b) if a == b => Some(1.0),
            (Unit::Joule, Unit::KilowattHour) => Some(1.0 / JOULES_PER_KWH),
            (Unit::KilowattHour, Unit::Joule) => Some(JOULES_PER_KWH),
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
        (Unit::Joule, Unit::UsdPerKilowattHour) => Some((Unit::Usd, 1.0 / JOULES_PER_KWH)),
        _ => None,
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}
