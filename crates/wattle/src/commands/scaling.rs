//! `wattle scaling fit`: error against computation, in both directions, with what a target would take and cost.

use std::path::PathBuf;

use wattle_jobs::Silent;
use wattle_jobs::export::write_new;
use wattle_jobs::scaling::{ScalingOptions, scaling};
use wattle_meter::Unit;
use wattle_meter::scaling::Form;
use wattle_report::scaling::{page, text};

use crate::accounting::given;
use crate::context::Context;
use crate::failure::Failure;

/// What can be done with points.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Fit points, and project to a target if they show a trend.
    Fit(Args),
}

/// Arguments of `wattle scaling fit`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle scaling fit points.csv --target error=0.05 --price-per-hour 2.48\n\
                  Columns: performance_error (0 to 1), compute_gflop [, year, model].")]
pub struct Args {
    /// CSV of points.
    points: PathBuf,
    /// Shape of the relation.
    #[arg(long, value_enum, default_value_t = FormName::Power)]
    form: FormName,
    /// Error to project to, as error=0.05; may be repeated.
    #[arg(long, value_name = "error=E", value_parser = parse_target)]
    target: Vec<f64>,
    /// Device whose time the computation is turned into.
    #[arg(long, default_value = "v100-fp32", value_name = "NAME")]
    device: String,
    /// GFLOP of the points that one device delivers a second, in FLOP/s; its peak by default, since the points of
    /// the literature are processors x peak x time.
    #[arg(long, value_name = "FLOP/s")]
    rate: Option<String>,
    /// Power of one device in W; what the device table has by default.
    #[arg(long, value_name = "W")]
    watts: Option<String>,
    /// Rent of one device in USD/h; without it money is that of the electricity.
    #[arg(long, value_name = "USD")]
    price_per_hour: Option<String>,
    /// Write a report with a plot to this HTML file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum FormName {
    /// error = (C / scale)^-exponent.
    Power,
    /// 1/error = a + b log C.
    Exponential,
    /// error = floor + scale C^-exponent.
    PowerLawWithFloor,
}

fn parse_target(text: &str) -> Result<f64, String> {
    let number = text.strip_prefix("error=").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(error) if error > 0.0 && error < 1.0 => Ok(error),
        _ => Err("expected error=0.05, a fraction between 0 and 1".into()),
    }
}

/// Runs the command.
pub fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    let Command::Fit(args) = command;
    let options = ScalingOptions {
        form: match args.form {
            FormName::Power => Form::Power,
            FormName::Exponential => Form::Exponential,
            FormName::PowerLawWithFloor => Form::PowerLawWithFloor,
        },
        targets: args.target,
        device: args.device,
        rate: given("--rate", &args.rate, Unit::FlopPerSecond, (1.0, 1e24))?,
        watts: given("--watts", &args.watts, Unit::Watt, (0.0, 1e6))?,
        price_per_hour: given("--price-per-hour", &args.price_per_hour, Unit::UsdPerHour, (0.0, 1e6))?,
        points: args.points,
    };
    let found = scaling(&options, context, &mut Silent)?;
    if let Some(path) = &args.report {
        let name = options.points.display().to_string();
        let html = page(&name, &found.observed, &found.curve, &found.projections);
        write_new(path, &html)?;
    }
    context.print(&found, &text(found.points, &found.fit, &found.projections))
}
