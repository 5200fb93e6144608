//! `wattle measure`: runs any command, or watches a running process, and ends with a receipt.
//!
//! Standard streams belong to the command: the receipt goes to stderr after it ended, and to files.

mod format;
mod live;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use wattle_jobs::export::{add, write_new};
use wattle_jobs::measure::{Ending, EpochOptions, MeasureOptions, measure};
use wattle_meter::{EXPLAINED, Quantity, Receipt, Source, Unit, explain};
use wattle_report::{measured, visible_lines};

use self::live::Live;
use crate::accounting::AccountingArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::flags::typed;

pub use self::format::FormatName;

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
    #[arg(long = "export", value_name = "FORMAT=FILE", value_parser = format::parse)]
    exports: Vec<(FormatName, PathBuf)>,
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

/// Parses `key=value`.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let options = options(&args)?;
    let found = measure(&options, context, &mut Live::new(args.follow))?;
    if let Ending::NotStarted { reason, .. } = &found.ending {
        Failure::Input(reason.clone()).report();
        return Err(Failure::Passed(found.ending.code()));
    }
    let written = write_files(&args, &found.receipt);
    say(&text(&args, &found.receipt, context.json));
    // The exit code is the command's: what it did is done, whatever became of the receipt.
    if let Err(failure) = written {
        failure.report();
    }
    match found.ending.code() {
        0 => Ok(()),
        code => Err(Failure::Passed(code)),
    }
}

fn options(args: &Args) -> Result<MeasureOptions, Failure> {
    let watts = |watts: f64| {
        let idle = Quantity::exact(watts, Unit::Watt, Source::assumed("stated by --idle-power"));
        idle.ok()
            .filter(|idle| idle.value() >= 0.0)
            .ok_or_else(|| Failure::at("--idle-power", format!("{watts}: expected watts, 0 or more")))
    };
    let (pattern, log) = (args.epoch_pattern.clone(), args.epoch_log.clone());
    Ok(MeasureOptions {
        command: args.command.clone(),
        attach: args.attach,
        interval: args.interval,
        labels: args.labels.iter().cloned().collect(),
        idle_power: args.idle_power.map(watts).transpose()?,
        epochs: args.epochs.map(|total| EpochOptions { total, pattern, log }),
        accounting: args.accounting.options()?,
        sysfs: args.sysfs.clone(),
    })
}

fn write_files(args: &Args, receipt: &Receipt) -> Result<(), Failure> {
    if let Some(path) = &args.out {
        write_new(path, &receipt.to_json())?;
    }
    for (format, path) in &args.exports {
        add((*format).into(), receipt, path)?;
    }
    Ok(())
}

fn text(args: &Args, receipt: &Receipt, json: bool) -> String {
    if json {
        // stdout is the command's. Without a file to go to, the document takes the place of the text.
        return if args.out.is_some() { String::new() } else { receipt.to_json() + "\n" };
    }
    let mut text = format!("\n{}", measured::text(receipt));
    if let Some(explained) = args.explain.as_deref().and_then(|name| explain(receipt, name)) {
        text += &format!("\n{explained}");
    }
    text
}

#[allow(clippy::print_stderr, reason = "stdout belongs to the measured command")]
fn say(text: &str) {
    eprint!("{}", visible_lines(&typed(text)));
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
}
