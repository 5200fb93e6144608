//! OpenMetrics 1.0 text: counters in base units, `_total`, labels escaped, `# EOF` at the end.

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
}

impl Exposition<'_> {
    /// The page.
    pub fn text(&self) -> String {
        let mut page = String::new();
        header(&mut page, "wattle_energy_joules", "counter", "joules", "Energy since the meter started.");
        for component in self.components {
            sample(&mut page, "wattle_energy_joules_total", component, component.energy.value());
        }
        header(
            &mut page,
            "wattle_energy_low_joules",
            "gauge",
            "joules",
            "Least energy, by the interval of its source.",
        );
        for component in self.components {
            sample(&mut page, "wattle_energy_low_joules", component, component.energy.low());
        }
        header(
            &mut page,
            "wattle_energy_high_joules",
            "gauge",
            "joules",
            "Most energy, by the interval of its source.",
        );
        for component in self.components {
            sample(&mut page, "wattle_energy_high_joules", component, component.energy.high());
        }
        if let Some(power) = self.power {
            header(&mut page, "wattle_power_watts", "gauge", "watts", "Average power since the last scrape.");
            let _ = writeln!(page, "wattle_power_watts {power}");
        }
        let total = Quantity::sum(self.components.iter().map(|c| &c.energy)).ok().flatten();
        if let Some(carbon) = total.and_then(|total| self.factors.carbon(&total).ok()) {
            header(&mut page, "wattle_carbon_grams", "counter", "grams", "CO2e of that energy, with PUE.");
            let _ = writeln!(page, "wattle_carbon_grams_total {}", carbon.value());
        }
        header(&mut page, "wattle_measured_seconds", "counter", "seconds", "Time since the meter started.");
        let _ = writeln!(page, "wattle_measured_seconds_total {}", self.elapsed.as_secs_f64());
        page + "# EOF\n"
    }
}

/// A finished receipt as a page, for a textfile collector.
pub fn open_metrics(receipt: &Receipt) -> String {
    let exposition = Exposition {
        elapsed: Duration::try_from_secs_f64(receipt.duration.value()).unwrap_or_default(),
        components: &receipt.energy.components,
        power: receipt.power.as_ref().map(Quantity::value),
        factors: &receipt.factors,
    };
    exposition.text()
}

fn header(page: &mut String, name: &str, kind: &str, unit: &str, help: &str) {
    let _ = writeln!(page, "# TYPE {name} {kind}\n# UNIT {name} {unit}\n# HELP {name} {help}");
}

fn sample(page: &mut String, name: &str, component: &Component, value: f64) {
    let (what, source) = (escape(&component.name), escape(&component.energy.source().to_string()));
    let _ = writeln!(page, "{name}{{component=\"{what}\",source=\"{source}\"}} {value}");
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
        let energy = "wattle_energy_joules_total{component=\"cpu-busy\",source=\"modelled:cpu-time/1\"} 90\n";
        assert!(page.contains(energy), "{page}");
        assert!(page.ends_with("# EOF\n"));
        for line in page.lines().filter(|l| l.starts_with("# UNIT ")) {
            let mut words = line.split(' ').skip(2);
            let (name, unit) = (words.next().unwrap(), words.next().unwrap());
            assert!(name.ends_with(&format!("_{unit}")), "{line}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
