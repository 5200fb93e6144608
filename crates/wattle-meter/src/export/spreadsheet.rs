//! The ledger as a plain CSV: one row a receipt, the unit in every column's name.

use super::{line, value};
use crate::{Quantity, Receipt};

/// The receipts with a column for every label that any of them has.
pub fn spreadsheet(receipts: &[Receipt]) -> String {
    let mut labels: Vec<&String> = receipts.iter().flat_map(|r| r.labels.keys()).collect();
    labels.sort();
    labels.dedup();
    let columns = [
        "started",
        "command",
        "duration_s",
        "cpu_time_s",
        "energy_j",
        "energy_low_j",
        "energy_high_j",
        "process_j",
        "energy_source",
        "power_w",
        "carbon_g",
        "carbon_low_g",
        "carbon_high_g",
        "cost_usd",
        "intensity_g_per_kwh",
        "pue",
        "warnings",
    ];
    let header = columns.map(str::to_owned).into_iter().chain(labels.iter().map(|l| format!("label_{l}")));
    let mut text = line(header);
    for r in receipts {
        let number = |x: Option<f64>| x.map(|x| x.to_string()).unwrap_or_default();
        let low = |q: &Option<Quantity>| number(q.as_ref().map(Quantity::low));
        let high = |q: &Option<Quantity>| number(q.as_ref().map(Quantity::high));
        let energy = &r.energy.total;
        let fixed = [
            r.started.to_string(),
            r.command.join(" "),
            r.duration.value().to_string(),
            number(value(r.cpu_time.as_ref())),
            number(value(energy.as_ref())),
            low(energy),
            high(energy),
            number(r.shares.as_ref().map(|s| s.process.value())),
            energy.as_ref().map(|e| e.source().to_string()).unwrap_or_default(),
            number(value(r.power.as_ref())),
            number(value(r.carbon.as_ref())),
            low(&r.carbon),
            high(&r.carbon),
            number(value(r.cost.as_ref())),
            r.factors.carbon_intensity.value().to_string(),
            r.factors.pue.value().to_string(),
            r.warnings.len().to_string(),
        ];
        let own = labels.iter().map(|l| r.labels.get(*l).cloned().unwrap_or_default());
        text += &line(fixed.into_iter().chain(own));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;

    #[test]
    fn every_row_has_every_column() {
        let mut other = example();
        other.labels = [("b".to_owned(), "x,y".to_owned())].into();
        let text = spreadsheet(&[example(), other]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("warnings,label_b,label_project"));
        assert!(lines[1].ends_with(",,demo"));
        assert!(lines[2].ends_with(",\"x,y\","));
        assert!(lines[1].contains("modelled:cpu-time/1"));
    }
}
