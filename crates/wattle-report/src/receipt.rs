//! A receipt for people: every quantity beside its source.

use wattle_meter::{Boundary, Quantity, Receipt, StopReason};

use crate::number;
use crate::plot::Plot;
use crate::scale::Axis;
use crate::table::{Align, Table};

/// What the receipt says, line by line: name, value with interval, source.
pub fn table(receipt: &Receipt) -> Table {
    let mut table = Table::new([("", Align::Left), ("value", Align::Left), ("source", Align::Left)]);
    let mut plain = |name: &str, value: String| {
        if !value.is_empty() {
            table.row([name, &value, ""]);
        }
    };
    plain("command", receipt.command.join(" "));
    for (key, value) in &receipt.labels {
        plain(&format!("label {key}"), value.clone());
    }
    plain("started", receipt.started.to_string());
    plain("ended", stop_reason(receipt.stop_reason).to_owned());
    let work = &receipt.work;
    let accounts = receipt.accounts.clone().unwrap_or_default();
    let several = receipt.energy.components.len() > 1;
    let known = |name: &str, q: &Option<Quantity>| q.clone().map(|q| (name.to_owned(), q));
    let rows: Vec<(String, Quantity)> = [
        Some(("duration".to_owned(), receipt.duration.clone())),
        known("processor time", &receipt.cpu_time),
        known("energy", &receipt.energy.total),
    ]
    .into_iter()
    .flatten()
    .chain(
        receipt
            .energy
            .components
            .iter()
            .filter(|_| several)
            .map(|part| (format!("  of which {}", part.name), part.energy.clone())),
    )
    .chain(
        [
            known("average power", &receipt.power),
            known("carbon", &receipt.carbon),
            known("carbon, market-based", &accounts.market_carbon),
            known("carbon of making the machine", &accounts.embodied_carbon),
            known("water", &accounts.water),
            known("electricity cost", &receipt.cost),
            Some(("carbon intensity".to_owned(), receipt.factors.carbon_intensity.clone())),
            Some(("electricity price".to_owned(), receipt.factors.price.clone())),
            Some(("PUE".to_owned(), receipt.factors.pue.clone())),
            known("MACs, nominal", &work.macs_nominal),
            known("MACs, effective", &work.macs_effective),
            known("bytes read", &work.bytes_read),
            known("bytes written", &work.bytes_written),
            known("samples", &work.samples),
        ]
        .into_iter()
        .flatten(),
    )
    .chain(work.files.iter().map(|(name, size)| (format!("size of {name}"), size.clone())))
    .collect();
    for (name, q) in &rows {
        table.row([name.as_str(), &number::quantity(q), &q.source().to_string()]);
    }
    let mut plain = |name: &str, value: String| {
        table.row([name, &value, ""]);
    };
    plain("energy covers", boundary(receipt.energy.boundary).to_owned());
    plain("machine", machine(receipt));
    plain("software", software(receipt));
    for (stream, seed) in &receipt.seeds {
        plain(&format!("seed {stream}"), seed.to_string());
    }
    table
}

/// The few lines a terminal shows at the end of a command: what it cost, and for each figure how it is known.
pub fn summary(receipt: &Receipt) -> Table {
    let mut table = Table::new([("cost", Align::Left), ("value", Align::Left), ("known", Align::Left)]);
    let rows = [
        ("duration", Some(&receipt.duration)),
        ("energy", receipt.energy.total.as_ref()),
        ("carbon", receipt.carbon.as_ref()),
        ("electricity", receipt.cost.as_ref()),
    ];
    for (name, quantity) in rows {
        match quantity {
            Some(q) => table.row([name, &number::quantity(q), q.source().kind()]),
            None => table.row([name, "unknown", ""]),
        };
    }
    let accounts = receipt.accounts.clone().unwrap_or_default();
    let besides = [
        ("carbon, market-based", accounts.market_carbon),
        ("carbon of making the machine", accounts.embodied_carbon),
        ("water", accounts.water),
    ];
    for (name, quantity) in besides {
        if let Some(q) = quantity {
            table.row([name, &number::quantity(&q), q.source().kind()]);
        }
    }
    table
}

/// The phases of the run; empty if it had none.
pub fn scopes(receipt: &Receipt) -> Table {
    let mut table = Table::new([
        ("phase", Align::Left),
        ("times", Align::Right),
        ("duration", Align::Right),
        ("energy", Align::Right),
    ]);
    for scope in &receipt.scopes {
        let energy = scope.energy.as_ref().map_or("unknown".to_owned(), |energy| {
            format!("{}, {}", number::quantity(energy), energy.source().kind())
        });
        table.row([scope.path.clone(), scope.count.to_string(), number::value_of(&scope.duration), energy]);
    }
    table
}

/// Power over time; `None` with fewer than three readings, which would show nothing.
pub(crate) fn power_plot(receipt: &Receipt) -> Option<String> {
    let kind = receipt.energy.total.as_ref()?.source().kind();
    let powers = receipt.samples.powers();
    if powers.len() < 2 {
        return None;
    }
    let steps = powers.into_iter().map(|(from, to, watts)| ((from + to) / 2.0, watts));
    let plot = Plot::new(
        format!("Power over time ({kind})"),
        Axis::linear("seconds since start"),
        Axis::linear("power (W)"),
    );
    Some(plot.line("power", steps).to_svg())
}

fn stop_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Completed => "completed",
        StopReason::Converged => "converged: nothing improved any more",
        StopReason::TargetReached => "target reached",
        StopReason::Budget => "budget used up",
        StopReason::Time => "time limit reached",
        StopReason::Interrupted => "interrupted",
        StopReason::Failed => "failed",
        StopReason::FoundFinished => "nothing to do: finished before",
        _ => "unknown",
    }
}

fn boundary(boundary: Boundary) -> &'static str {
    match boundary {
        Boundary::WholePackages => {
            "whole processor packages and metered memory, idle power and other processes included; \
             not disks, fans, power supply, cooling"
        }
        Boundary::ProcessShare => {
            "this process's share of the processor; not memory, disks, fans, power supply, cooling, other processes"
        }
        Boundary::WholeMachine => "everything the battery feeds, other processes included",
        Boundary::Mixed => "differs between the parts that were added up",
        _ => "unknown",
    }
}

fn machine(receipt: &Receipt) -> String {
    let m = &receipt.machine;
    let mut parts = vec![m.cpu_model.clone().unwrap_or_else(|| "unknown processor".to_owned())];
    parts.extend(m.cpu_id.clone());
    parts.push(format!("{} logical cores", m.cores));
    parts.extend((!m.isa.is_empty()).then(|| m.isa.join(" ")));
    parts.extend(m.memory_bytes.map(|bytes| format!("{} memory", number::si(bytes as f64, "B"))));
    parts.push(m.os.clone());
    parts.extend((m.virtualised == Some(true)).then(|| "virtual machine".to_owned()));
    parts.join(", ")
}

fn software(receipt: &Receipt) -> String {
    let s = &receipt.software;
    format!("wattle {}, {}, {} build", s.wattle, s.target, s.profile)
}

#[cfg(test)]
mod tests {
    use wattle_meter::{Meter, MeterConfig, Unit, WorkDone};

    use super::*;

    fn receipt() -> Receipt {
        Meter::start(MeterConfig::new(["wattle", "shrink"])).stop()
    }

    #[test]
    fn unknown_quantities_have_no_line_and_known_ones_name_their_source() {
        let mut r = receipt();
        assert!(!table(&r).to_string().contains("MACs"));
        r.work.macs_nominal = Some(WorkDone::counted(2_233_000_000, Unit::Mac));
        let text = table(&r).to_string();
        let line = text.lines().find(|l| l.starts_with("MACs, nominal")).unwrap();
        assert!(line.contains("2.23 GMAC") && line.ends_with("measured:count"), "{line}");
    }

    #[test]
    fn every_energy_line_says_how_it_is_known() {
        let text = table(&receipt()).to_string();
        for name in ["energy ", "average power", "carbon ", "electricity cost"] {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap();
            assert!(line.contains("measured:") || line.contains("modelled:"), "{line}");
        }
    }

    #[test]
    fn the_summary_labels_each_figure_and_shows_the_unknown_as_unknown() {
        let mut r = receipt();
        r.carbon = None;
        let text = summary(&r).to_string();
        let line = |name: &str| text.lines().find(|l| l.starts_with(name)).unwrap().to_owned();
        assert!(line("duration").ends_with("measured"));
        assert!(line("energy").ends_with(r.energy.total.as_ref().unwrap().source().kind()));
        assert!(line("carbon").ends_with("unknown"));
    }

    #[test]
    fn a_handful_of_readings_makes_no_plot() {
        let mut r = receipt();
        r.samples.readings = vec![(0.0, 0.0), (1.0, 5.0)];
        assert_eq!(power_plot(&r), None);
        r.samples.readings = vec![(0.0, 0.0), (1.0, 5.0), (2.0, 9.0)];
        assert!(power_plot(&r).unwrap().contains("<polyline"));
    }
}
