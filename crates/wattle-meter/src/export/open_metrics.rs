//! OpenMetrics 1.0 text: counters in base units, `_total`, labels escaped, `# EOF` at the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::{Component, Factors, Quantity, Receipt};

/// The figures of one scrape.
#[derive(Debug, Clone)]
pub struct Exposition<'a> {
    /// Time since measuring started.
    pub elapsed: Duration,
    /// Energy since then, by component, J.
    pub components: &'a [Component],
    /// Average power since the previous scrape, W.
    pub power: Option<f64>,
    /// What turns joules into grams.
    pub factors: &'a Factors,
    /// The user's own labels, on every sample as `label_<name>`.
    pub labels: &'a BTreeMap<String, String>,
}

impl Exposition<'_> {
    /// The page.
    pub fn text(&self) -> String {
        let own = own_labels(self.labels);
        let mut page = String::new();
        let energies: [Family; 3] = [
            ("wattle_energy_joules", "counter", "Energy since the meter started.", Quantity::value),
            (
                "wattle_energy_low_joules",
                "gauge",
                "Least energy, by the interval of its source.",
                Quantity::low,
            ),
            (
                "wattle_energy_high_joules",
                "gauge",
                "Most energy, by the interval of its source.",
                Quantity::high,
            ),
        ];
        for (name, kind, help, of) in energies {
            header(&mut page, name, kind, "joules", help);
            for component in self.components {
                let mut labels = vec![
                    ("component".to_owned(), component.name.clone()),
                    ("source".to_owned(), component.energy.source().to_string()),
                ];
                labels.extend(own.iter().cloned());
                sample(&mut page, name, kind, &labels, of(&component.energy));
            }
        }
        if let Some(power) = self.power {
            header(&mut page, "wattle_power_watts", "gauge", "watts", "Average power since the last scrape.");
            sample(&mut page, "wattle_power_watts", "gauge", &own, power);
        }
        let total = Quantity::sum(self.components.iter().map(|c| &c.energy)).ok().flatten();
        if let Some(carbon) = total.and_then(|total| self.factors.carbon(&total).ok()) {
            header(&mut page, "wattle_carbon_grams", "counter", "grams", "CO2e of that energy, with PUE.");
            sample(&mut page, "wattle_carbon_grams", "counter", &own, carbon.value());
        }
        header(&mut page, "wattle_measured_seconds", "counter", "seconds", "Time since the meter started.");
        sample(&mut page, "wattle_measured_seconds", "counter", &own, self.elapsed.as_secs_f64());
        page + "# EOF\n"
    }
}

/// Name, kind, help, and the number of a metric in joules.
type Family = (&'static str, &'static str, &'static str, fn(&Quantity) -> f64);

/// The user's labels by names that OpenMetrics takes: letters, digits and `_`. Two that would become one are told apart
/// by a number.
fn own_labels(labels: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut own: Vec<(String, String)> = vec![];
    for (key, value) in labels {
        let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name = format!("label_{}", key.chars().map(safe).collect::<String>());
        let taken = |name: &String| own.iter().any(|(other, _)| other == name);
        let numbered = (2..).map(|n| format!("{name}_{n}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name));
        own.push((free.unwrap_or(name), value.clone()));
    }
    own
}

/// A finished receipt as a page, for a textfile collector.
pub fn open_metrics(receipt: &Receipt) -> String {
    let exposition = Exposition {
        elapsed: Duration::try_from_secs_f64(receipt.duration.value()).unwrap_or_default(),
        components: &receipt.energy.components,
        power: receipt.power.as_ref().map(Quantity::value),
        factors: &receipt.factors,
        labels: &receipt.labels,
    };
    exposition.text()
}

fn header(page: &mut String, name: &str, kind: &str, unit: &str, help: &str) {
    let _ = writeln!(page, "# TYPE {name} {kind}\n# UNIT {name} {unit}\n# HELP {name} {help}");
}

/// A counter's sample has `_total` behind its name.
fn sample(page: &mut String, name: &str, kind: &str, labels: &[(String, String)], value: f64) {
    let total = if kind == "counter" { "_total" } else { "" };
    let labels: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(page, "{name}{total}{labels} {value}");
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;

    #[test]
    fn counters_end_in_total_units_are_in_names_and_the_page_ends_in_eof() {
        let page = open_metrics(&example());
        let energy = "wattle_energy_joules_total{component=\"cpu-busy\",source=\"modelled:cpu-time/1\",label_project=\"demo\"} 90\n";
        assert!(page.contains(energy), "{page}");
        assert!(page.contains("\nwattle_measured_seconds_total{label_project=\"demo\"} 12.5\n"), "{page}");
        assert!(page.ends_with("# EOF\n"));
        for line in page.lines().filter(|l| l.starts_with("# UNIT ")) {
            let mut words = line.split(' ').skip(2);
            let (name, unit) = (words.next().unwrap(), words.next().unwrap());
            assert!(name.ends_with(&format!("_{unit}")), "{line}");
        }
    }

    #[test]
    fn the_users_labels_have_names_that_are_allowed_and_stay_apart() {
        let labels = ["a-b", "a.b", "component"].map(|key| (key.to_owned(), key.to_owned()));
        let own = own_labels(&labels.into());
        let names: Vec<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["label_a_b", "label_a_b_2", "label_component"]);
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
