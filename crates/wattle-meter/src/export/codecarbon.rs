//! `emissions.csv` as CodeCarbon 3.3 writes it: kilograms, kilowatt-hours, watts; its columns in its order. Its power and
//! energy are those of the facility: the PUE is in them.

use super::{is_card, is_memory, is_processor, kilowatt_hours, line, run_id, value};
use crate::intensity::Place;
use crate::{Boundary, Receipt};

const COLUMNS: [&str; 38] = [
    "timestamp",
    "project_name",
    "run_id",
    "experiment_id",
    "duration",
    "emissions",
    "emissions_rate",
    "cpu_power",
    "gpu_power",
    "ram_power",
    "cpu_energy",
    "gpu_energy",
    "ram_energy",
    "energy_consumed",
    "water_consumed",
    "country_name",
    "country_iso_code",
    "region",
    "cloud_provider",
    "cloud_region",
    "os",
    "python_version",
    "codecarbon_version",
    "cpu_count",
    "cpu_model",
    "gpu_count",
    "gpu_model",
    "longitude",
    "latitude",
    "ram_total_size",
    "tracking_mode",
    "cpu_utilization_percent",
    "gpu_utilization_percent",
    "ram_utilization_percent",
    "ram_used_gb",
    "on_cloud",
    "pue",
    "wue",
];

/// The receipts as `emissions.csv`. What a receipt does not know stays empty; `codecarbon_version` names wattle, so
/// that nobody takes the figures for CodeCarbon's own.
pub fn codecarbon(receipts: &[Receipt]) -> String {
    let mut text = line(COLUMNS.map(str::to_owned));
    receipts.iter().for_each(|receipt| text += &row(receipt));
    text
}

fn row(receipt: &Receipt) -> String {
    let seconds = receipt.duration.value();
    let pue = receipt.factors.pue.value();
    let energy = |of: fn(&str) -> bool| kilowatt_hours(receipt, of).map(|kwh| kwh * pue);
    let processor = energy(is_processor);
    let cards = energy(is_card);
    let memory = energy(is_memory);
    let place = Where::of(receipt.labels.get("region").map_or("", String::as_str));
    let water = receipt.accounts.as_ref().and_then(|accounts| value(accounts.water.as_ref()));
    let watts = |kwh: Option<f64>| kwh.filter(|_| seconds > 0.0).map(|kwh| kwh * 3.6e6 / seconds);
    let kilograms = value(receipt.carbon.as_ref()).map(|grams| grams / 1000.0);
    let number = |x: Option<f64>| x.map(|x| x.to_string()).unwrap_or_default();
    let card_count = receipt.energy.components.iter().filter(|c| is_card(&c.name)).count();
    let busy = receipt.cpu_time.as_ref().filter(|_| seconds > 0.0);
    let columns = COLUMNS.map(|column| match column {
        "timestamp" => receipt.started.to_string().chars().take(19).collect(),
        "project_name" => receipt.labels.get("project").cloned().unwrap_or_else(|| "wattle".to_owned()),
        "run_id" => format!("wattle-{}", run_id(receipt)),
        "experiment_id" => receipt.labels.get("experiment").cloned().unwrap_or_default(),
        "duration" => seconds.to_string(),
        "emissions" => number(kilograms),
        "emissions_rate" => number(kilograms.filter(|_| seconds > 0.0).map(|kg| kg / seconds)),
        "cpu_power" => number(watts(processor)),
        "gpu_power" => number(watts(cards)),
        "ram_power" => number(watts(memory)),
        "cpu_energy" => number(processor),
        "gpu_energy" => number(cards.or(Some(0.0)).filter(|_| card_count == 0 || cards.is_some())),
        "ram_energy" => number(memory),
        "energy_consumed" => number(energy(|_| true)),
        "water_consumed" => number(water),
        "country_name" => place.country.clone(),
        "country_iso_code" => place.code.to_owned(),
        "region" => place.region.clone(),
        "cloud_provider" => place.provider.clone(),
        "cloud_region" => place.cloud_region.clone(),
        "on_cloud" => if place.provider.is_empty() { "N" } else { "Y" }.to_owned(),
        "os" => receipt.machine.os.clone(),
        "codecarbon_version" => format!("wattle {}", receipt.software.wattle),
        "cpu_count" => receipt.machine.cores.to_string(),
        "cpu_model" => receipt.machine.cpu_model.clone().unwrap_or_default(),
        "gpu_count" => card_count.to_string(),
        "ram_total_size" => number(receipt.machine.memory_bytes.map(|b| b as f64 / f64::from(1 << 30))),
        "tracking_mode" => match receipt.energy.boundary {
            Boundary::ProcessShare => "process".to_owned(),
            _ => "machine".to_owned(),
        },
        "cpu_utilization_percent" => {
            number(busy.map(|t| 100.0 * t.value() / seconds / receipt.machine.cores as f64))
        }
        "pue" => pue.to_string(),
        "wue" => number(wue(receipt, water)),
        _ => String::new(),
    });
    line(columns)
}

/// Litres per kilowatt-hour of the facility, which CodeCarbon multiplies with the energy of the facility.
fn wue(receipt: &Receipt, litres: Option<f64>) -> Option<f64> {
    let kwh = kilowatt_hours(receipt, |_| true)? * receipt.factors.pue.value();
    litres.filter(|_| kwh > 0.0).map(|litres| litres / kwh)
}

/// The place of a run in CodeCarbon's words; what is not known is empty.
#[derive(Default)]
struct Where {
    country: String,
    /// Of three letters, which our table has of no other country.
    code: &'static str,
    region: String,
    provider: String,
    cloud_region: String,
}

impl Where {
    fn of(label: &str) -> Where {
        let Ok(place) = Place::find(label) else { return Where::default() };
        let mut found = Where::default();
        if let Some((provider, region)) = label.split_once(':') {
            (found.provider, found.cloud_region) = (provider.to_owned(), region.to_owned());
        }
        match &*place.kind {
            "country" if found.provider.is_empty() => found.country = place.name,
            "state" => {
                (found.country, found.code) = ("United States".to_owned(), "USA");
                if found.provider.is_empty() {
                    found.region = place.name.to_lowercase();
                }
            }
            _ => {}
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;

    #[test]
    fn columns_are_codecarbons_and_units_are_kilograms_and_kilowatt_hours() {
        let mut receipt = example();
        receipt.labels.insert("project".to_owned(), "a, \"b\"".to_owned());
        let text = codecarbon(&[receipt]);
        let mut lines = text.lines();
        let header = lines.next().unwrap();
        assert!(
            header.starts_with(
                "timestamp,project_name,run_id,experiment_id,duration,emissions,emissions_rate,"
            )
        );
        assert!(header.ends_with(",on_cloud,pue,wue"));
        let row = lines.next().unwrap();
        assert!(row.starts_with("2026-11-23T01:48:18,\"a, \"\"b\"\"\",wattle-"), "{row}");
        let plain = row.replace("\"a, \"\"b\"\"\"", "p");
        let cells: Vec<&str> = plain.split(',').collect();
        assert_eq!(cells.len(), COLUMNS.len());
        let cell =
            |name: &str| cells[COLUMNS.iter().position(|c| *c == name).unwrap()].parse::<f64>().unwrap();
        assert!((cell("emissions") - 13.35e-6).abs() < 1e-12, "kilograms");
        let pue = cell("pue");
        assert!((cell("energy_consumed") - pue * 90.0 / 3.6e6).abs() < 1e-15, "kilowatt-hours, with the PUE");
        assert!((cell("cpu_power") - pue * 7.2).abs() < 1e-9, "watts, with the PUE");
        assert!((cell("emissions") / cell("energy_consumed") - 0.445).abs() < 1e-9, "the grid's intensity");
        assert_eq!(cell("ram_total_size"), 8.0);
    }

    #[test]
    fn places_and_water_fill_their_columns() {
        let cells = |region: &str| {
            let mut receipt = example();
            receipt.labels = [("region".to_owned(), region.to_owned())].into();
            let litres = crate::Quantity::exact(0.5, crate::Unit::Litre, crate::Source::assumed("stated"));
            receipt.accounts = Some(crate::Accounts { water: litres.ok(), ..Default::default() });
            let text = codecarbon(&[receipt]);
            let row: Vec<String> = text.lines().nth(1).unwrap().split(',').map(str::to_owned).collect();
            let cell = |name: &str| row[COLUMNS.iter().position(|c| *c == name).unwrap()].clone();
            let names =
                ["country_name", "country_iso_code", "region", "cloud_provider", "cloud_region", "on_cloud"];
            assert_eq!(cell("water_consumed"), "0.5");
            assert!(cell("wue").parse::<f64>().unwrap() > 0.0);
            names.map(cell)
        };
        assert_eq!(cells("FR"), ["France", "", "", "", "", "N"]);
        assert_eq!(cells("US-CA"), ["United States", "USA", "california", "", "", "N"]);
        assert_eq!(cells("aws:us-east-1"), ["United States", "USA", "", "aws", "us-east-1", "Y"]);
        assert_eq!(cells("Atlantis"), ["", "", "", "", "", "N"]);
    }
}
