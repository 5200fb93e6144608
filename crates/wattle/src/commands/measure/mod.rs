//! `wattle measure`: runs any command, or watches a running process, and ends with a receipt.
//!
//! Standard streams belong to the command: the receipt goes to stderr after it ended, and to files.

mod child;
mod epochs;
mod exports;
mod live;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use wattle_meter::backend::Subject;
use wattle_meter::schedule::Series;
use wattle_meter::{
    Boundary, EXPLAINED, Meter, MeterConfig, Quantity, Receipt, Source, StopReason, Unit, WarningKind,
    explain,
};
use wattle_report::{Align, Table, number, receipt as receipts};

use self::child::Ending;
use self::epochs::Epochs;
use self::live::Live;
use crate::accounting::AccountingArgs;
use crate::context::Context;
use crate::failure::Failure;

pub use self::exports::{Format, write as export};

/// Arguments of `wattle measure`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle measure --label project=demo --out receipt.json -- python train.py")]
pub struct Args {
    /// The command and its arguments, after `--`.
    #[arg(last = true, required_unless_present = "attach")]
    command: Vec<OsString>,
    /// Watch this running process and its descendants instead, until it ends or Ctrl-C.
    #[arg(long, value_name = "PID", conflicts_with = "command")]
    attach: Option<u32>,
    /// Seconds between readings.
    #[arg(long, value_name = "S", default_value = "1", value_parser = parse_interval)]
    interval: Duration,
    /// A label for the ledger; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Write the receipt to this file as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write it in another form; may be repeated.
    #[arg(long = "export", value_name = "FORMAT=FILE", value_parser = exports::parse)]
    exports: Vec<(Format, PathBuf)>,
    /// Print a line with watts, joules and grams to stderr while the command runs.
    #[arg(long)]
    follow: bool,
    /// What the machine's processors draw at rest, in W; estimated from the kind of processor if not given.
    #[arg(long, value_name = "W")]
    idle_power: Option<f64>,
    /// The run has this many epochs: forecast its total.
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// A line with this text ends an epoch; with `--epoch-log`, lines with a new `"epoch"` do by default.
    #[arg(long, value_name = "TEXT", requires = "epochs")]
    epoch_pattern: Option<String>,
    /// The file that the run logs its epochs to, such as its metrics.jsonl; standard output by default.
    #[arg(long, value_name = "FILE", requires = "epochs")]
    epoch_log: Option<PathBuf>,
    #[command(flatten)]
    accounting: AccountingArgs,
    /// Print how a number came about.
    #[arg(long, value_name = "NAME", value_parser = EXPLAINED)]
    explain: Option<String>,
    /// Root of the energy counters, where a container has the host's `/sys` elsewhere.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    sysfs: PathBuf,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s| (0.001..=3600.0).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds from 0.001 to 3600".to_owned())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let accounting = args.accounting.read()?;
    if let Some((name, series)) = &accounting.series {
        context.set_intensity(range(name, series)?);
    }
    let rank = node_rank(|name| std::env::var(name).ok());
    let mut config = configure(&args, context)?;
    if let Some(rank) = rank {
        config.labels.insert("slurm_localid".to_owned(), rank.to_string());
        config.labels.extend(slurm_labels(|name| std::env::var(name).ok()));
        config.warnings.extend((rank > 0).then_some(WarningKind::NodeShared { rank }));
    }
    let factors = config.factors.clone();
    let epochs = Epochs::new(args.epochs, args.epoch_pattern.clone(), args.epoch_log.clone());
    // Before the meter starts its thread, so that no signal meant for the command is lost.
    let signals = child::Signals::catch()?;
    child::adopt_orphans();
    let meter = Meter::start(config);
    let ending = std::thread::scope(|scope| {
        let live = Live::start(scope, &meter, &epochs, &factors, args.follow);
        let ending = match args.attach {
            Some(pid) => child::watch(pid, signals),
            None => child::run(&args.command, signals, &epochs, &meter),
        };
        live.stop();
        ending
    });
    let mut receipt = meter.stop();
    let ending = ending?;
    accounting.apply(&mut receipt).map_err(|e| Failure::Run(e.to_string()))?;
    receipt.stop_reason = match ending {
        Ending::Exited(0) => StopReason::Completed,
        Ending::Exited(_) => StopReason::Failed,
        Ending::Killed(_) => StopReason::Interrupted,
    };
    // The node's energy is one rank's to report; another copy would be summed N-fold.
    if rank.is_none_or(|rank| rank == 0) {
        context.record(&mut receipt);
    }
    let written = write_files(&args, &receipt);
    say(&text(&args, &receipt, context.json));
    written?;
    match ending.code() {
        0 => Ok(()),
        code => Err(Failure::Passed(code)),
    }
}

/// Any hour of a series, until it is known which ones the run meets.
fn range(name: &str, series: &Series) -> Result<Quantity, Failure> {
    let g = &series.g_per_kwh;
    let (low, high) =
        (g.iter().copied().fold(f64::INFINITY, f64::min), g.iter().copied().fold(0.0, f64::max));
    let mean = g.iter().sum::<f64>() / g.len() as f64;
    let source = Source::assumed(format!("stated by {name}, any of its steps"));
    Quantity::new(mean.clamp(low, high), low, high, Unit::GramCo2ePerKilowattHour, source)
        .map_err(|e| Failure::at(name, e))
}

fn configure(args: &Args, context: &Context) -> Result<MeterConfig, Failure> {
    let mut config = context.meter_config();
    config.interval = args.interval;
    config.labels.extend(args.labels.iter().cloned());
    config.subject = args.attach.map_or(Subject::Children, Subject::Tree);
    config.roots.sys = args.sysfs.clone();
    if let Some(watts) = args.idle_power {
        let idle = Quantity::exact(watts, Unit::Watt, Source::assumed("stated by --idle-power"));
        let idle = idle.ok().filter(|idle| idle.value() >= 0.0);
        let idle =
            idle.ok_or_else(|| Failure::at("--idle-power", format!("{watts}: expected watts, 0 or more")))?;
        config.idle_power = Some(idle);
    }
    Ok(config)
}

/// This process's rank among those of its SLURM job on this node.
fn node_rank(environment: impl Fn(&str) -> Option<String>) -> Option<u32> {
    environment("SLURM_JOB_ID")?;
    environment("SLURM_LOCALID")?.parse().ok()
}

fn slurm_labels(environment: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let pairs = [("slurm_job", "SLURM_JOB_ID"), ("slurm_procid", "SLURM_PROCID")];
    pairs.into_iter().filter_map(|(label, name)| Some((label.to_owned(), environment(name)?))).collect()
}

fn write_files(args: &Args, receipt: &Receipt) -> Result<(), Failure> {
    if let Some(path) = &args.out {
        exports::write_new(path, &receipt.to_json())?;
    }
    args.exports.iter().try_for_each(|(format, path)| export(*format, std::slice::from_ref(receipt), path))
}

fn text(args: &Args, receipt: &Receipt, json: bool) -> String {
    if json {
        // stdout is the command's. Without a file to go to, the document takes the place of the text.
        return if args.out.is_some() { String::new() } else { receipt.to_json() + "\n" };
    }
    let mut text = format!("\n{}", receipts::summary(receipt));
    if let Some(power) = &receipt.power {
        let peak = receipt.samples.power.map(|p| format!(", peak {}", number::si(p.max_w, "W")));
        text += &format!("average power {}{}\n", number::quantity(power), peak.unwrap_or_default());
    }
    text += &format!("\n{}", parts(receipt));
    for warning in &receipt.warnings {
        text += &format!("note: {}; {}\n", warning.message, warning.advice);
    }
    if let Some(explained) = args.explain.as_deref().and_then(|name| explain(receipt, name)) {
        text += &format!("\n{explained}");
    }
    text
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

#[allow(clippy::print_stderr, reason = "stdout belongs to the measured command")]
fn say(text: &str) {
    eprint!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_intervals_are_understood_or_refused() {
        assert_eq!(parse_label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_label("=b").is_err() && parse_label("a").is_err());
        assert_eq!(parse_interval("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "1e9", "x"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_first_rank_of_a_node_speaks_for_it() {
        let slurm = |local: &'static str| {
            move |name: &str| match name {
                "SLURM_JOB_ID" => Some("7".to_owned()),
                "SLURM_LOCALID" => Some(local.to_owned()),
                _ => None,
            }
        };
        assert_eq!(node_rank(slurm("3")), Some(3));
        assert_eq!(node_rank(|_| None), None);
        assert_eq!(slurm_labels(slurm("0")), [("slurm_job".to_owned(), "7".to_owned())]);
    }
}
