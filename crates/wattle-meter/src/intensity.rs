//! Carbon intensity of electricity by place: countries, states of the US, cloud regions.
//!
//! Every row carries its year, source, basis and licence. Rows of countries are life-cycle intensities of the
//! generation mix (Ember, CC BY 4.0), rows of US states are output emission rates (EPA eGRID2023), rows of
//! `gcp:` regions are Google's annual grid averages. All are location-based: what certificates and contracts
//! change (market-based) is never mixed in. A place that is not in the table is an error that names near ones;
//! it is never replaced by a country.

use serde::Deserialize;

use crate::table::rows;
use crate::{Quantity, Source, Unit};

const TABLE: &str = include_str!("../data/intensity.csv");
const REGIONS: &str = include_str!("../data/cloud_regions.csv");

/// One place of the table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Place {
    /// `FR`, `US-CA`, `gcp:europe-west1`.
    #[serde(rename = "place")]
    pub id: String,
    /// `country`, `state` or `cloud`.
    pub kind: String,
    /// Its name in English.
    pub name: String,
    /// Annual average, gCO2e/kWh.
    pub g_per_kwh: f64,
    /// The year that the average is of.
    pub year: u16,
    /// `lifecycle` (construction and fuel chain included) or `generation` (emitted while generating).
    pub basis: String,
    /// Who says so.
    pub source: String,
    /// On what terms the row may be passed on.
    pub licence: String,
}

/// A cloud region that has no figure of its own, and the place whose grid feeds it.
#[derive(Deserialize)]
struct Region {
    region: String,
    place: String,
}

/// A place that the table does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no carbon intensity for {found:?}; expected a country (FR), a US state (US-CA) or a cloud region \
     (gcp:europe-west1, aws:us-east-1, azure:westeurope){near}; or state it yourself: option `intensity`"
)]
pub struct UnknownPlace {
    found: String,
    near: String,
}

/// All places, in the order of the table.
pub fn places() -> Vec<Place> {
    rows("intensity.csv", TABLE)
}

impl Place {
    /// Finds a place by its id or name, upper or lower case.
    ///
    /// # Errors
    /// [`UnknownPlace`], which lists places that the text occurs in.
    pub fn find(text: &str) -> Result<Place, UnknownPlace> {
        let wanted = text.trim().to_lowercase();
        let regions: Vec<Region> = rows("cloud_regions.csv", REGIONS);
        let region = regions.into_iter().find(|r| r.region == wanted);
        let id = region.as_ref().map_or(wanted.clone(), |r| r.place.to_lowercase());
        let places = places();
        let mut found =
            places.iter().find(|p| p.id.to_lowercase() == id || p.name.to_lowercase() == id).cloned();
        if let (Some(place), Some(region)) = (&mut found, region) {
            place.name = format!("{}, the grid of {}", place.name, region.region);
        }
        found.ok_or_else(|| {
            let near: Vec<String> = places
                .iter()
                .filter(|p| wanted.len() > 2 && p.name.to_lowercase().contains(&wanted))
                .take(4)
                .map(|p| format!("{} ({})", p.id, p.name))
                .collect();
            let near =
                if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) };
            UnknownPlace { found: text.to_owned(), near }
        })
    }

    /// The place's intensity. The interval is the point: the table states no uncertainty; the average hides that
    /// hours differ, for which there is [`schedule`](crate::schedule).
    pub fn intensity(&self) -> Quantity {
        let citation =
            format!("{}, {} {}, {}, {}", self.name, self.year, self.basis, self.source, self.licence);
        Quantity::exact(self.g_per_kwh, Unit::GramCo2ePerKilowattHour, Source::published(citation))
            .expect("a test checks that every row is finite")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_dated_sourced_licensed_and_plausible() {
        let places = places();
        assert!(places.len() > 290, "{}", places.len());
        for p in &places {
            assert!((0.0..1500.0).contains(&p.g_per_kwh), "{p:?}");
            assert!((2000..2027).contains(&p.year), "{p:?}");
            assert!(!p.source.is_empty() && ["lifecycle", "generation"].contains(&&*p.basis), "{p:?}");
            // Terms that allow passing the row on inside a product of any licence.
            assert!(["CC-BY-4.0", "MIT", "public domain; MIT"].contains(&&*p.licence), "{p:?}");
        }
        let ids: BTreeSet<_> = places.iter().map(|p| p.id.to_lowercase()).collect();
        assert_eq!(ids.len(), places.len(), "an id twice");
    }

    #[test]
    fn every_cloud_region_leads_to_a_place() {
        for region in rows::<Region>("cloud_regions.csv", REGIONS) {
            Place::find(&region.region).unwrap();
        }
    }

    #[test]
    fn places_are_found_by_code_name_and_region() {
        assert_eq!(Place::find("fr").unwrap(), Place::find("France").unwrap());
        assert_eq!(Place::find("US-WV").unwrap().kind, "state");
        assert_eq!(Place::find("aws:us-east-1").unwrap().id, "US-VA");
        let belgium = Place::find("gcp:europe-west1").unwrap().intensity();
        assert_eq!(belgium.value(), 122.0);
        assert!(belgium.source().detail().contains("2023"), "{belgium}");
    }

    #[test]
    fn pounds_per_megawatt_hour_became_grams_per_kilowatt_hour() {
        // eGRID2023 gives Alabama 713.976 lb/MWh.
        assert!((Place::find("US-AL").unwrap().g_per_kwh - 713.976 * 0.453_592_37).abs() < 0.06);
    }

    #[test]
    fn an_unknown_place_is_refused_with_its_neighbours_and_never_replaced() {
        let error = Place::find("Guinee").unwrap_err().to_string();
        assert!(error.contains("Guinee") && error.contains("option `intensity`"), "{error}");
        assert!(Place::find("Guine").unwrap_err().to_string().contains("GN (Guinea)"));
        assert!(Place::find("").is_err());
        assert!(Place::find("kansa").is_err());
    }
}
