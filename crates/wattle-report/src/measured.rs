//! What a measured command cost, for the terminal: the sums, where the energy went, and what to know before using it.

use wattle_meter::{Boundary, Factors, Forecast, Receipt, Snapshot};

use crate::number;
use crate::receipt::summary;
use crate::table::{Align, Table};

/// The whole of it.
pub fn text(receipt: &Receipt) -> String {
    let mut text = summary(receipt).to_string();
    if let Some(power) = &receipt.power {
        let peak = receipt.samples.power.map(|p| format!(", peak {}", number::si(p.max_w, "W")));
        text += &format!("average power {}{}\n", number::quantity(power), peak.unwrap_or_default());
    }
    text += &format!("\n{}", parts(receipt));
    for warning in &receipt.warnings {
        text += &format!("note: {}; {}\n", warning.message, warning.advice);
    }
    text
}

/// Where a measurement stands, in a line.
pub fn line(now: &Snapshot, factors: &Factors, forecast: Option<&Forecast>) -> String {
    let mut parts = vec![number::seconds(now.elapsed.as_secs_f64())];
    parts.extend(now.power.map(|watts| number::si(watts, "W")));
    if let Some(energy) = &now.energy {
        parts.push(format!("{} {}", number::value_of(energy), energy.source().kind()));
        parts.extend(factors.carbon(energy).ok().map(|grams| number::value_of(&grams)));
    }
    parts.extend(forecast.map(self::forecast));
    parts.join("  ")
}

/// The expected total of a run with epochs.
pub fn forecast(forecast: &Forecast) -> String {
    let (duration, energy) = (number::quantity(&forecast.duration), number::quantity(&forecast.energy));
    format!("forecast after {} epochs: {energy} in {duration}", forecast.after)
}

/// Energy by component, and by who spent it.
fn parts(receipt: &Receipt) -> Table {
    let mut table = Table::new([("where", Align::Left), ("energy", Align::Left), ("known", Align::Left)]);
    for part in &receipt.energy.components {
        table.row([
            part.name.clone(),
            number::quantity(&part.energy),
            part.energy.source().kind().to_owned(),
        ]);
    }
    if let Some(rest) = rest(receipt) {
        table.row(["rest", "not counted", rest]);
    }
    if let Some(shares) = &receipt.shares {
        let joules = |uj: u64| number::si(uj as f64 / 1e6, "J");
        let mut row = |name: &str, energy: String, known: &str| {
            table.row([name, &energy, known]);
        };
        row("this command", number::quantity(&shares.process), "modelled");
        row("  with its part of idle", joules(shares.process_with_idle_uj()), "modelled");
        row("other processes", joules(shares.other_uj), "modelled");
        row("idle", joules(shares.idle_uj), "modelled");
        row("processors and memory", joules(shares.machine_uj), "the sum, exactly");
    }
    table
}

/// What the machine has besides what was counted.
fn rest(receipt: &Receipt) -> Option<&'static str> {
    let memory = receipt.energy.components.iter().any(|part| part.name.ends_with("/dram"));
    match receipt.energy.boundary {
        Boundary::WholeMachine => None,
        _ if memory => Some("disks, board, fans, power supply"),
        _ => Some("memory, disks, board, fans, power supply"),
    }
}
