//! `wattle estimate`: what a run will cost or did cost, from device-hours, operations, parameters and tokens, or
//! from a graph.

#[cfg(feature = "networks")]
mod graph;
#[cfg(not(feature = "networks"))]
#[path = "no_graph.rs"]
mod graph;

use wattle_jobs::Silent;
use wattle_jobs::estimate::{EstimateOptions, Estimated, estimate};
use wattle_meter::Unit;
use wattle_meter::estimate::Demand;
use wattle_report::derivation::{results, steps};

use crate::accounting::{AccountingArgs, given};
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle estimate`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example: wattle estimate --flops 3.14e23 --device v100 --achieved 28e12 --price-per-hour 1.5\n\
                  Example: wattle estimate --params 7e9 --tokens 2e12 --device a100 --devices 1024 --utilisation 0.4\n\
                  Example: wattle estimate --model m.onnx --train --samples 50000 --epochs 90 --batch 128\n\n\
                  Every number may be a range: 30..57..90 is 57, at least 30, at most 90."
)]
pub struct Args {
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    graph: graph::GraphArgs,
    #[command(flatten)]
    hardware: HardwareArgs,
    #[command(flatten)]
    purpose: PurposeArgs,
    #[command(flatten)]
    accounting: AccountingArgs,
    /// Show every step with its formula, interval and source.
    #[arg(long)]
    explain: bool,
}

impl Args {
    /// Whether networks are timed for it.
    pub fn runs_networks(&self) -> bool {
        self.graph.is_given()
    }
}

/// What is to be done.
#[derive(clap::Args, Debug)]
struct WorkArgs {
    /// Floating point operations (one multiply-add is two).
    #[arg(long, value_name = "FLOP", conflicts_with_all = ["params", "device_hours"])]
    flops: Option<String>,
    /// Hours of one device, summed over devices.
    #[arg(long, value_name = "H", conflicts_with = "params")]
    device_hours: Option<String>,
    /// Parameters of a transformer: training takes 6 operations for each and each token, inference 2.
    #[arg(long, value_name = "N", requires = "tokens")]
    params: Option<String>,
    /// Parameters that work on one token, for mixtures of experts.
    #[arg(long, value_name = "N", requires = "params")]
    active_params: Option<String>,
    /// Tokens trained on, over all epochs; with --inference the tokens of one request.
    #[arg(long, value_name = "D", requires = "params")]
    tokens: Option<String>,
    /// Cost of 1000 requests instead of a training.
    #[arg(long)]
    inference: bool,
}

/// With what.
#[derive(clap::Args, Debug)]
struct HardwareArgs {
    /// Device by name: v100, a100, h100, tpuv3, ...
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Devices that share the work.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Operations a second that one device achieves.
    #[arg(long, value_name = "FLOP/s", conflicts_with = "utilisation")]
    achieved: Option<String>,
    /// Share of the device's peak that is achieved, 0 to 1.
    #[arg(long, value_name = "U", requires = "device")]
    utilisation: Option<String>,
    /// Average power of one device in W.
    #[arg(long, value_name = "W")]
    watts: Option<String>,
}

/// What is paid for, and for what.
#[derive(clap::Args, Debug)]
struct PurposeArgs {
    /// Rent of one device in USD/h; without it the cost is that of the electricity.
    #[arg(long, value_name = "USD")]
    price_per_hour: Option<String>,
    /// The device is rented at what clouds charge for it, at the --region if that is a cloud's.
    #[arg(long, requires = "device", conflicts_with = "price_per_hour")]
    rented: bool,
    /// Everything spent over what the final run spends, at least 1: failed runs, searches, retraining.
    #[arg(long, value_name = "X")]
    development: Option<String>,
    /// Requests or samples that the run serves: gives emissions for each (SCI, ISO/IEC 21031).
    #[arg(long, value_name = "R")]
    functional_units: Option<String>,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let found = estimate(&options(&args)?, context, &mut Silent)?;
    context.print(&found, &text(&found))
}

fn options(args: &Args) -> Result<EstimateOptions, Failure> {
    let (hardware, purpose) = (&args.hardware, &args.purpose);
    let rent = ("--price-per-hour", &purpose.price_per_hour);
    Ok(EstimateOptions {
        work: work(&args.work)?,
        inference: args.work.inference,
        #[cfg(feature = "networks")]
        graph: args.graph.options(),
        device: hardware.device.clone(),
        devices: hardware.devices,
        achieved: given("--achieved", &hardware.achieved, Unit::FlopPerSecond, (1.0, 1e21))?,
        utilisation: given("--utilisation", &hardware.utilisation, Unit::One, (1e-6, 1.0))?,
        watts: given("--watts", &hardware.watts, Unit::Watt, (0.0, 1e6))?,
        price_per_hour: given(rent.0, rent.1, Unit::UsdPerHour, (0.0, 1e6))?,
        rented: purpose.rented,
        development: given("--development", &purpose.development, Unit::One, (1.0, 1e6))?,
        functional_units: given("--functional-units", &purpose.functional_units, Unit::Sample, (1e-9, 1e24))?,
        accounting: args.accounting.options()?,
        explain: args.explain,
    })
}

fn work(args: &WorkArgs) -> Result<Option<Demand>, Failure> {
    if let Some(hours) = given("--device-hours", &args.device_hours, Unit::Hour, (0.0, 1e15))? {
        return Ok(Some(Demand::DeviceTime(hours)));
    }
    if let Some(flops) = given("--flops", &args.flops, Unit::Flop, (0.0, 1e60))? {
        return Ok(Some(Demand::Flops(flops)));
    }
    let params = given("--params", &args.params, Unit::One, (1.0, 1e18))?;
    let tokens = given("--tokens", &args.tokens, Unit::One, (1.0, 1e24))?;
    let active = given("--active-params", &args.active_params, Unit::One, (1.0, 1e18))?;
    let training = !args.inference;
    Ok(params.zip(tokens).map(|(params, tokens)| Demand::Tokens { params, active, tokens, training }))
}

fn text(found: &Estimated) -> String {
    let mut text = format!("{}\n", results(&found.derivation));
    for note in &found.notes {
        text += &format!("Note: {note}.\n");
    }
    text += &match found.boundary {
        Some(boundary) => format!("The power includes {}.\n", boundary.describe()),
        None => "No energy: no power is known; give --watts or another --device.\n".to_owned(),
    };
    if !found.assumed.is_empty() {
        text += &format!("Assumed, so look here first: {}.\n", found.assumed.join(", "));
    }
    if found.explained {
        text += &format!("\n{}", steps(&found.derivation));
    }
    text + &graph::table(found)
}
