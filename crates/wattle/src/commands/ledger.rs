//! `wattle ledger`: the receipts kept so far, listed, summed, compared, exported, shown and explained.

use std::path::PathBuf;

use wattle_jobs::Observer;
use wattle_jobs::ledger::{LedgerOptions, Ledgered, ledger};
use wattle_jobs::ledger_filter::{Filter, instant};
use wattle_meter::ledger::Group;
use wattle_meter::{EXPLAINED, Timestamp};
use wattle_report::ledger::{Entry, comparison, list, sums};
use wattle_report::receipt as receipts;

use super::measure::{FormatName, parse_label};
use crate::context::Context;
use crate::failure::Failure;

/// What the ledger can be asked.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// One line a receipt, oldest first.
    #[command(after_help = "Example: wattle ledger list --since 7d --last 10")]
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Only the last so many.
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Sums of time, energy, carbon and money.
    #[command(after_help = "Example: wattle ledger sum --by project --since 2026-11-01 --until 2026-12-01")]
    Sum {
        #[command(flatten)]
        filter: FilterArgs,
        /// `month`, `all`, or the name of a label.
        #[arg(long, value_name = "WHAT", default_value = "all")]
        by: String,
    },
    /// Writes receipts in another form.
    #[command(after_help = "Example: wattle ledger export csv --out ledger.csv")]
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        /// The form.
        format: FormatName,
        /// The file; stdout by default. MLflow wants a folder.
        #[arg(long, value_name = "FILE", default_value = "-")]
        out: PathBuf,
    },
    /// One receipt in full; the last by default.
    #[command(after_help = "Example: wattle ledger show --explain carbon")]
    Show {
        /// Its number in the list.
        number: Option<usize>,
        /// Print how a number came about instead.
        #[arg(long, value_name = "NAME", value_parser = EXPLAINED)]
        explain: Option<String>,
    },
    /// The ratio of two receipts; of one machine, with the error that they share cancelled.
    #[command(after_help = "Example: wattle ledger compare 3 5")]
    Compare {
        /// Number of the first in the list.
        first: usize,
        /// Number of the one that it is divided by.
        second: usize,
    },
}

/// Which receipts; all conditions must hold.
#[derive(clap::Args, Debug)]
pub struct FilterArgs {
    /// Started then or later: 2026-11-23 (UTC), an instant, or how long ago: 90min, 12h, 7d, 4w.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Started before then.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Have this label; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Have this text in their command.
    #[arg(long = "command", value_name = "TEXT")]
    text: Option<String>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    instant(text, Timestamp::now())
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Filter {
        Filter { since: args.since, until: args.until, labels: args.labels, command: args.text }
    }
}

impl Command {
    fn options(self) -> LedgerOptions {
        match self {
            Command::List { filter, last } => LedgerOptions::List { filter: filter.into(), last },
            Command::Sum { filter, by } => LedgerOptions::Sum {
                filter: filter.into(),
                by: match by.as_str() {
                    "all" => Group::All,
                    "month" => Group::Month,
                    label => Group::Label(label.trim_start_matches("label:").to_owned()),
                },
            },
            Command::Export { filter, format, out } => {
                LedgerOptions::Export { filter: filter.into(), format: format.into(), out }
            }
            Command::Show { number, explain } => LedgerOptions::Show { number, explain },
            Command::Compare { first, second } => LedgerOptions::Compare { first, second },
        }
    }
}

/// Keeps what is said, for the end of a table.
#[derive(Default)]
struct Notes(String);

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.0 += &format!("{text}\n");
    }
}

/// Runs the command.
pub fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    let mut notes = Notes::default();
    let found = ledger(&command.options(), context, &mut notes)?;
    let Notes(note) = notes;
    let text = match &found {
        Ledgered::List(lines) => {
            let entries = lines.iter().map(|line| Entry {
                number: line.number,
                started: line.started,
                duration: &line.duration,
                energy: line.energy.as_ref(),
                carbon: line.carbon.as_ref(),
                command: &line.shown,
            });
            format!("{}{note}", list(entries))
        }
        Ledgered::Sums(found) => format!("{}{note}", sums(found)),
        Ledgered::Receipt(receipt) => receipts::table(receipt).to_string(),
        Ledgered::Explanation(text) => text.clone(),
        Ledgered::Comparison(found) => comparison(&found.ratios, found.first, found.second),
        Ledgered::Exported => return Ok(()),
    };
    context.print(&found, &text)
}
