//! How a number of a receipt came about: its formula, what went into it, and where that comes from.

use std::fmt::Write;

use crate::{Quantity, Receipt};

/// The numbers of a receipt that [`explain`] derives.
pub const EXPLAINED: [&str; 10] = [
    "energy",
    "power",
    "carbon",
    "cost",
    "shares",
    "duration",
    "cpu_time",
    "market_carbon",
    "embodied_carbon",
    "water",
];

/// The derivation of one of [`EXPLAINED`], as text; `None` for any other name or an unknown number.
pub fn explain(receipt: &Receipt, name: &str) -> Option<String> {
    let energy = receipt.energy.total.as_ref()?;
    let mut text = String::new();
    match name {
        "energy" => {
            describe(&mut text, "energy", "sum of the components", energy);
            for part in &receipt.energy.components {
                describe(&mut text, &format!("  {}", part.name), "", &part.energy);
            }
            let c = &receipt.coverage;
            let _ = writeln!(
                text,
                "coverage: {} s measured, {} s modelled, of {} s; {} readings",
                c.measured.value(),
                c.modelled.value(),
                c.elapsed.value(),
                receipt.samples.taken
            );
        }
        "power" => {
            describe(&mut text, "power", "energy / duration", receipt.power.as_ref()?);
            describe(&mut text, "  energy", "", energy);
            describe(&mut text, "  duration", "", &receipt.duration);
        }
        "carbon" | "cost" => {
            let f = &receipt.factors;
            let (result, factor, called) = match name {
                "carbon" => (receipt.carbon.as_ref()?, &f.carbon_intensity, "carbon intensity"),
                _ => (receipt.cost.as_ref()?, &f.price, "price"),
            };
            describe(&mut text, name, &format!("energy x PUE x {called}, J in kWh by / 3.6e6"), result);
            describe(&mut text, "  energy", "", energy);
            describe(&mut text, "  PUE", "", &f.pue);
            describe(&mut text, &format!("  {called}"), "", factor);
        }
        "shares" => {
            let s = receipt.shares.as_ref()?;
            let _ = writeln!(
                text,
                "machine = process + other + idle\n{} uJ = {} + {} + {} uJ",
                s.machine_uj, s.process_uj, s.other_uj, s.idle_uj
            );
            let formula = match s.idle_power {
                Some(_) => {
                    "(machine - idle) x processor time of the tree / busy time of the machine, step by step"
                }
                None => "processor time of the tree x watts of a busy logical processor",
            };
            describe(&mut text, "  process", formula, &s.process);
            if let Some(idle) = &s.idle_power {
                describe(&mut text, "  idle", "idle power x time, at most the machine's energy", idle);
            }
            if let Some(time) = &receipt.cpu_time {
                describe(&mut text, "  processor time", "", time);
            }
        }
        "duration" => {
            describe(&mut text, "duration", "end - start by the monotonic clock", &receipt.duration)
        }
        "cpu_time" => {
            let formula = "user and system time of the process, and of its children once it waited for them";
            describe(&mut text, "cpu_time", formula, receipt.cpu_time.as_ref()?);
        }
        "market_carbon" | "embodied_carbon" | "water" => {
            let accounts = receipt.accounts.as_ref()?;
            let (result, formula) = match name {
                "market_carbon" => {
                    (&accounts.market_carbon, "energy x PUE x market intensity, J in kWh by / 3.6e6")
                }
                "embodied_carbon" => {
                    (&accounts.embodied_carbon, "emissions of making the machine x duration / lifespan")
                }
                _ => (&accounts.water, "energy x WUE of the site + energy x PUE x water of the grid"),
            };
            describe(&mut text, name, formula, result.as_ref()?);
            describe(&mut text, "  energy", "", energy);
            describe(&mut text, "  PUE", "", &receipt.factors.pue);
            describe(&mut text, "  duration", "", &receipt.duration);
        }
        _ => return None,
    }
    for warning in &receipt.warnings {
        let _ = writeln!(text, "note: {}", warning.message);
    }
    Some(text)
}

fn describe(text: &mut String, name: &str, formula: &str, q: &Quantity) {
    let equals = if formula.is_empty() { String::new() } else { format!(" = {formula}") };
    let range = if q.low() == q.high() { String::new() } else { format!(" [{}, {}]", q.low(), q.high()) };
    let _ = writeln!(text, "{name}{equals}\n    {}{range} {}   from {}", q.value(), q.unit(), q.source());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::example;

    #[test]
    fn carbon_is_explained_down_to_the_source_of_each_factor() {
        let text = explain(&example(), "carbon").unwrap();
        for part in
            ["energy x PUE x carbon intensity", "445", "published:world average 2024", "modelled:cpu-time/1"]
        {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }

    #[test]
    fn every_name_is_explained_and_others_are_not() {
        let mut receipt = example();
        let litre =
            crate::Quantity::exact(1.0, crate::Unit::Litre, crate::Source::assumed("stated")).unwrap();
        let some = Some(litre);
        receipt.accounts =
            Some(crate::Accounts { market_carbon: some.clone(), embodied_carbon: some.clone(), water: some });
        for name in EXPLAINED {
            assert!(explain(&receipt, name).is_some(), "{name}");
        }
        assert_eq!(explain(&example(), "water"), None);
        assert_eq!(explain(&example(), "luck"), None);
    }
}
