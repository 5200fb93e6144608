//! What electricity and rented devices have cost, row by row from published lists. Where there is no row, nothing is assumed
//! from a neighbour.
//!
//! Electricity by state of the US (2023, Energy Information Administration) is the mean over all customers, from the sector
//! that pays least to the one that pays most; by country of Europe (2024, Eurostat, euros at the year's mean rate) it is
//! what a business of 500 to 1999 MWh a year pays without taxes that it gets back, and the interval reaches to what a
//! household pays with all of them. Rents are those of whole cloud instances, with their processors and memory, divided by
//! their devices.

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
    source: String,
    licence: String,
}

#[derive(Deserialize, Clone)]
struct Rent {
    device: String,
    /// A cloud region; empty where the source does not say.
    place: String,
    instance: String,
    devices: u32,
    /// `on demand`; `interruptible` and so cheaper; or `on demand or dedicated`, where the list took now one, now the other.
    terms: String,
    /// Of the whole instance.
    usd_per_hour: f64,
    /// Year and month.
    as_of: String,
    source: String,
    licence: String,
}

/// A device that has no published rent there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no rent of {device}{at}; state it: option `price-per-hour`{known}")]
pub struct NoRent {
    device: String,
    at: String,
    known: String,
}

/// The price of electricity at a place such as `US-CA` or `FR`, USD/kWh.
pub fn electricity(place: &str) -> Option<Quantity> {
    let row =
        rows::<Electricity>("electricity_prices.csv", ELECTRICITY).into_iter().find(|r| r.place == place)?;
    let citation = format!("{place} {}, {}, {}", row.year, row.source, row.licence);
    let (low, high) = (row.usd_per_kwh_low, row.usd_per_kwh_high);
    Quantity::new(row.usd_per_kwh, low, high, Unit::UsdPerKilowattHour, Source::published(citation)).ok()
}

/// The rent of one device such as `v100`, USD/h, in a cloud region such as `aws:us-east-1` or, with `None`, anywhere. The
/// value is the median of what is newest and on demand; the interval holds every row, the interruptible and the older too.
///
/// # Errors
/// [`NoRent`], naming the regions that the table has for the device.
pub fn rent(device: &str, region: Option<&str>) -> Result<Quantity, NoRent> {
    let all: Vec<Rent> =
        rows::<Rent>("rents.csv", RENTS).into_iter().filter(|r| r.device == device).collect();
    let here: Vec<&Rent> = all.iter().filter(|r| region.is_none_or(|region| r.place == region)).collect();
    let newest = here.iter().filter(|r| r.terms.starts_with("on demand")).map(|r| r.as_of.as_str()).max();
    let current =
        here.iter().filter(|r| r.terms.starts_with("on demand") && Some(r.as_of.as_str()) == newest);
    let mut prices: Vec<f64> = current.clone().map(|r| r.each()).collect();
    prices.sort_by(f64::total_cmp);
    let refuse = || {
        let mut places: Vec<&str> = all.iter().map(|r| r.place.as_str()).filter(|p| !p.is_empty()).collect();
        places.sort_unstable();
        places.dedup();
        let known = if places.is_empty() { String::new() } else { format!("; known: {}", places.join(", ")) };
        let at = region.map(|region| format!(" at {region}")).unwrap_or_default();
        NoRent { device: device.to_owned(), at, known }
    };
    let (Some(&lower), Some(&upper)) =
        (prices.get(prices.len().saturating_sub(1) / 2), prices.get(prices.len() / 2))
    else {
        return Err(refuse());
    };
    let low = here.iter().map(|r| r.least()).fold(f64::INFINITY, f64::min);
    let high = here.iter().map(|r| r.each()).fold(0.0, f64::max);
    let mut sources: Vec<String> = current.map(|r| r.citation()).collect();
    sources.sort();
    sources.dedup();
    let source = Source::published(sources.join("; "));
    Quantity::new(f64::midpoint(lower, upper), low, high, Unit::UsdPerHour, source).map_err(|_| refuse())
}

impl Rent {
    /// For one device.
    fn each(&self) -> f64 {
        self.usd_per_hour / f64::from(self.devices.max(1))
    }

    /// A dedicated instance costs a tenth more: three prices of the list are exactly 1.1 times that of another region.
    fn least(&self) -> f64 {
        if self.terms == "on demand or dedicated" { self.each() / 1.1 } else { self.each() }
    }

    fn citation(&self) -> String {
        let whole = match self.instance.as_str() {
            "" => String::new(),
            instance => format!(", {instance} at {} with all that it has", self.place),
        };
        format!("{}{whole}, {}, {}", self.source, self.as_of, self.licence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::intensity::Place;

    /// Terms that allow passing a row on inside a product of any licence; a single price read in a paper is a fact.
    const LICENCES: [&str; 5] =
        ["MIT", "Apache-2.0", "public domain", "reuse with attribution (Decision 2011/833/EU)", "fact"];

    #[test]
    fn every_price_is_ordered_dated_licensed_and_of_something_known() {
        let prices: Vec<Electricity> = rows("electricity_prices.csv", ELECTRICITY);
        assert!(prices.len() > 80);
        for p in prices {
            assert!(Place::find(&p.place).is_ok_and(|place| place.id == p.place), "{}", p.place);
            assert!(electricity(&p.place).is_some_and(|q| q.low() > 0.03 && q.high() < 0.6), "{}", p.place);
            assert!(p.year >= 2020 && !p.source.is_empty() && LICENCES.contains(&&*p.licence), "{}", p.place);
        }
        for r in rows::<Rent>("rents.csv", RENTS) {
            assert!(Device::find(&r.device).is_ok_and(|d| d.id == r.device), "{}", r.device);
            assert!(r.place.is_empty() || Place::find(&r.place).is_ok(), "{}", r.place);
            assert!(
                ["on demand", "interruptible", "on demand or dedicated"].contains(&&*r.terms)
                    && r.devices > 0,
                "{}",
                r.instance
            );
            assert!(r.as_of.len() == 7 && r.as_of.starts_with("20"), "{}", r.as_of);
            assert!(!r.source.is_empty() && LICENCES.contains(&&*r.licence), "{}", r.instance);
            assert!((0.05..25.0).contains(&r.each()), "{} {}", r.instance, r.each());
        }
        assert_eq!(electricity("JP"), None);
    }

    #[test]
    fn euros_became_dollars() {
        // Eurostat nrg_pc_205, Germany 2024: 0.2328 and 0.2359 EUR/kWh; 1.0824 USD/EUR.
        let germany = electricity("DE").unwrap();
        assert!((germany.value() - (0.2328 + 0.2359) / 2.0 * 1.0824).abs() < 1e-4);
        assert!(germany.low() <= germany.value() && germany.high() > 0.4, "a household pays more: {germany}");
    }

    #[test]
    fn a_rent_is_that_of_its_region_for_one_device_and_is_never_taken_from_a_neighbour() {
        let here = rent("h100", Some("aws:us-east-1")).unwrap();
        assert!((here.value() - 55.04 / 8.0).abs() < 1e-9 && here.low() == here.high());
        assert!(here.source().detail().contains("2026-09"), "{here}");
        let anywhere = rent("h100", None).unwrap();
        assert!(anywhere.low() < here.value() && here.value() < anywhere.high());
        let refused = rent("h100", Some("aws:eu-north-9")).unwrap_err().to_string();
        assert!(
            refused.contains("aws:us-east-1") && refused.contains("option `price-per-hour`"),
            "{refused}"
        );
        assert!(rent("tpuv2", None).is_err());
    }
}
