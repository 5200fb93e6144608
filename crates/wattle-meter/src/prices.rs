//! What electricity and rented devices have cost: few rows, each read in its source. Where there is none, nothing is assumed
//! from a neighbour.
//!
//! Electricity is by state of the US, 2023: the mean over all customers, from the sector that pays least to the one that
//! pays most (U.S. Energy Information Administration, Electric Power Annual with data for 2023, average revenue per kWh;
//! a work of the US government, in the public domain). Rents are what interruptible and on-demand devices cost.

use serde::Deserialize;

use crate::table::rows;
use crate::{Quantity, Source, Unit};

const ELECTRICITY: &str = include_str!("../data/electricity_prices.csv");
const RENTS: &str = include_str!("../data/rents.csv");

#[derive(Deserialize)]
struct Electricity {
    place: String,
    usd_per_kwh_low: f64,
    usd_per_kwh: f64,
    usd_per_kwh_high: f64,
    year: u16,
}

#[derive(Deserialize)]
struct Rent {
    device: String,
    usd_per_hour_low: f64,
    usd_per_hour: f64,
    usd_per_hour_high: f64,
    year: u16,
    source: String,
}

/// The price of electricity at a place such as `US-CA`, USD/kWh.
pub fn electricity(place: &str) -> Option<Quantity> {
    let row =
        rows::<Electricity>("electricity_prices.csv", ELECTRICITY).into_iter().find(|r| r.place == place)?;
    let citation = format!("EIA Electric Power Annual, {place} {}, all sectors, public domain", row.year);
    let (low, high) = (row.usd_per_kwh_low, row.usd_per_kwh_high);
    Quantity::new(row.usd_per_kwh, low, high, Unit::UsdPerKilowattHour, Source::published(citation)).ok()
}

/// The rent of a device such as `v100`, USD/h: from an interruptible one to one on demand.
pub fn rent(device: &str) -> Option<Quantity> {
    let row = rows::<Rent>("rents.csv", RENTS).into_iter().find(|r| r.device == device)?;
    let citation = format!("{}, {}", row.source, row.year);
    let (low, high) = (row.usd_per_hour_low, row.usd_per_hour_high);
    Quantity::new(row.usd_per_hour, low, high, Unit::UsdPerHour, Source::published(citation)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::intensity::Place;

    #[test]
    fn every_price_is_ordered_dated_and_of_something_known() {
        let prices: Vec<Electricity> = rows("electricity_prices.csv", ELECTRICITY);
        assert!(prices.len() > 40);
        for p in prices {
            assert!(Place::find(&p.place).is_ok_and(|place| place.kind == "state"), "{}", p.place);
            assert!(electricity(&p.place).is_some_and(|q| q.low() > 0.03 && q.high() < 0.6), "{}", p.place);
            assert!(p.year >= 2020);
        }
        for r in rows::<Rent>("rents.csv", RENTS) {
            assert!(Device::find(&r.device).is_ok() && rent(&r.device).is_some(), "{}", r.device);
            assert!(r.year >= 2015 && !r.source.is_empty());
        }
        assert_eq!((electricity("FR"), rent("h100")), (None, None));
    }
}
