//! `wattle data`: what data are understood as, before anything is trained on them.

use std::path::PathBuf;

use wattle_jobs::data::{DescribeOptions, Described, describe};
use wattle_jobs::training::data::DataOptions;

use super::training::{ColumnArgs, told};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle data`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle data images --report images.html\n\
    Example: wattle data npz:two.npz --target demand --model two.onnx")]
pub struct Args {
    /// `digits`, a directory, a file, or `idx:DIR`, `cifar:DIR`, `folder:DIR`, `npz:FILE`, `csv:FILE`.
    spec: String,
    /// The .onnx model that will take it, which says which columns are inputs.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    columns: ColumnArgs,
    /// Share of the training samples kept aside for choosing: `10%` or `0.1`; 0.2 by default.
    #[arg(long, value_name = "SHARE", value_parser = wattle_data::parse_share)]
    validation: Option<f64>,
    /// Also a page with samples to look at: an .html file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Classes in the table; `--json` and the page have all.
const CLASSES: usize = 20;

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let Args { spec, model, columns, validation, report } = args;
    let data = columns.of(DataOptions { validation, ..DataOptions::of(spec) });
    let described = describe(&DescribeOptions { data, model, report }, context, &mut Bars::default())?;
    context.print(&described, &text(&described))
}

fn text(described: &Described) -> String {
    let looked_at = described.columns.iter().map(|column| column.looked_at).max().unwrap_or(0);
    let mut text = format!(
        "{}: {} samples\n\n{}numbers as stored, of {looked_at} training samples\n\n",
        described.data,
        described.samples,
        described.column_table()
    );
    if !described.classes.is_empty() {
        text += &described.class_table(CLASSES).to_string();
        match described.classes.len().saturating_sub(CLASSES) {
            0 => {}
            more => text += &format!("and {more} classes more\n"),
        }
    }
    text += &format!("{}\n{}", described.division(), told(&described.notes));
    if let Some(report) = &described.report {
        text += &format!("report {}\n", report.display());
    }
    text
}
