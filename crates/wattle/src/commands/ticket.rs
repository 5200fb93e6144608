//! `wattle ticket find`: iterative magnitude pruning with rewinding, level by level.

use std::path::PathBuf;

use wattle_jobs::{FindJob, find_tickets};
use wattle_report::{Align, Table, number, receipt as receipts};
use wattle_tickets::{PRESETS, Scope};
use wattle_train::moment::Moment;

use super::model::{NETWORK, Network};
use super::training::{ColumnArgs, DataArgs, TrainArgs, inputs, told};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::named;

/// What can be done with tickets.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Find tickets: train, prune, rewind, again.
    Find(Box<Args>),
}

/// Arguments of `wattle ticket find`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle ticket find small-conv --data digits --levels 5 --rewind 2%")]
#[command(group = clap::ArgGroup::new("needed").args(NETWORK).arg("preset").required(true).multiple(true))]
pub struct Args {
    #[command(flatten)]
    model: Network,
    /// Settings by name: paper-2019, google-tf1, open-lth. Flags given beside it win.
    #[arg(long, value_parser = PRESETS)]
    preset: Option<String>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    train: TrainArgs,
    /// Rounds of pruning.
    #[arg(long, default_value_t = 10)]
    levels: u32,
    /// Share of the remaining weights pruned in a round.
    #[arg(long)]
    fraction: Option<f64>,
    /// Whether weights compete across the network or within layers.
    #[arg(long, value_parser = named(&SCOPES))]
    scope: Option<Scope>,
    /// Point of the dense training that tickets start from: `0it`, `2%`, `1ep`.
    #[arg(long, default_value = "0it", value_name = "STEP")]
    rewind: Moment,
    /// Folder of the run; by default one named by what decides its result, under `runs`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Scopes by name.
const SCOPES: [(&str, Scope, &str); 2] = [
    ("global", Scope::Global, "one ranking of all weights"),
    ("layer-wise", Scope::LayerWise, "a ranking for each layer"),
];

impl Args {
    /// What is asked for.
    pub fn job(self) -> FindJob {
        FindJob {
            model: self.model.name(),
            preset: self.preset,
            data: self.data.with_columns(self.columns),
            init_from: self.train.init_from.clone(),
            learning: self.train.options(),
            levels: self.levels,
            fraction: self.fraction,
            scope: self.scope,
            rewind: self.rewind,
            out: self.out,
        }
    }
}

/// Runs the command.
pub fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    let Command::Find(args) = command;
    let found = find_tickets(&args.job(), context, &mut Bars::listening()?)?;
    let mut table = Table::new([
        ("level".to_string(), Align::Right),
        ("density".to_string(), Align::Right),
        (format!("validation {}", found.metric), Align::Right),
        (format!("test {}", found.metric), Align::Right),
    ]);
    for row in &found.levels {
        table.row([
            row.level.to_string(),
            number::percent(row.density),
            found.metric.shown(row.validation_value),
            found.metric.shown(row.test_value),
        ]);
    }
    let (inputs, notes, run) = (inputs(&found.normalisation), told(&found.notes), found.run.display());
    context
        .print(&found, &format!("{table}\n{inputs}{notes}run {run}\n\n{}", receipts::summary(&found.receipt)))
}
