//! `wattle estimate`: what a run will cost or did cost, from device-hours, operations, parameters and tokens, or
//! from a graph.

#[cfg(feature = "networks")]
mod graph;
#[cfg(not(feature = "networks"))]
#[path = "no_graph.rs"]
mod graph;

use serde::Serialize;
use serde_json::{Map, Value};
use wattle_meter::device::{Device, PowerBoundary};
use wattle_meter::estimate::{self, RESULTS, Rate, Setting, Work};
use wattle_meter::prices;
use wattle_meter::schedule;
use wattle_meter::{Accounting, Derivation, Machine, Quantity, Unit, working_power};
use wattle_report::derivation::{results, steps};

use crate::accounting::{AccountingArgs, given};
use crate::context::Context;
use crate::failure::Failure;

/// Requests that costs of inference are given for.
const REQUESTS: f64 = 1000.0;

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
    let device = args.hardware.device.as_deref().map(Device::find).transpose().map_err(input)?;
    let mut derivation = Derivation::default();
    let mut notes = vec![];
    let (mut power, mut boundary) = power(&args.hardware, device.as_ref())?;
    let graph = graph::timed(&args, device.as_ref(), &mut derivation, &mut notes, context)?;
    let time = match &graph {
        Some(graph) => {
            if device.is_none() && power.is_none() {
                power = Some(working_power(&Machine::identify(), graph.threads));
                boundary = Some(PowerBoundary::Chip);
            }
            graph.time.clone()
        }
        None => device_time(&args, device.as_ref(), &mut derivation)?,
    };
    let setting = setting(&args, device.as_ref(), power, &time, context)?;
    estimate::footprint(&mut derivation, &time, &setting).map_err(input)?;
    if args.work.inference || graph.as_ref().is_some_and(|graph| graph.answers_requests) {
        notes.push(format!("all figures are for {REQUESTS} requests"));
    }
    let assumed = assumed(&derivation, context);
    let mut document = document(&derivation, boundary);
    document.insert("assumed".into(), assumed.clone().into());
    document.insert("notes".into(), notes.clone().into());
    if args.explain {
        document.insert("derivation".into(), json(&derivation)?);
    }
    let mut text = text(&derivation, boundary, &notes, &assumed);
    if args.explain {
        text += &format!("\n{}", steps(&derivation));
    }
    if let Some(GraphTime { kernels: Kernels { json: Some(json), text: table }, .. }) = graph {
        document.insert("kernels".into(), json);
        text += &table;
    }
    context.print(&document, &text)
}

/// How long a graph takes.
struct GraphTime {
    /// On one device.
    time: Quantity,
    /// Threads that it was timed for.
    threads: usize,
    /// Whether the time is that of so many requests, not of a training.
    answers_requests: bool,
    /// Where the time goes, if that was asked for.
    kernels: Kernels,
}

/// The parts of a graph's time, as a document and for people.
#[derive(Default)]
struct Kernels {
    json: Option<Value>,
    text: String,
}

/// Hours of one device without a graph.
fn device_time(
    args: &Args,
    device: Option<&Device>,
    derivation: &mut Derivation,
) -> Result<Quantity, Failure> {
    let rate = rate(&args.hardware, device)?;
    let time = estimate::device_time(derivation, &work(&args.work)?, rate.as_ref()).map_err(input)?;
    time.ok_or_else(|| {
        Failure::Input(match device {
            Some(d) => format!("--device {}: its peak is not in the table; state --achieved", d.id),
            None => "operations take no time without a rate; give --achieved or --device".into(),
        })
    })
}

/// Ingredients that nobody gave: those of the derivation that are assumptions, and factors that are wide defaults.
fn assumed(derivation: &Derivation, context: &Context) -> Vec<String> {
    let mut names: Vec<String> = derivation.assumed().into_iter().map(str::to_owned).collect();
    if derivation.get("intensity").is_some() && context.factors_assumed().iter().any(|f| f == "intensity") {
        names.push("intensity".into());
    }
    names
}

fn input(error: impl std::fmt::Display) -> Failure {
    Failure::Input(error.to_string())
}

fn work(args: &WorkArgs) -> Result<Work, Failure> {
    if let Some(hours) = given("--device-hours", &args.device_hours, Unit::Hour, (0.0, 1e15))? {
        return Ok(Work::DeviceTime(hours));
    }
    if let Some(flops) = given("--flops", &args.flops, Unit::Flop, (0.0, 1e60))? {
        return Ok(Work::Flops(flops));
    }
    let params = given("--params", &args.params, Unit::One, (1.0, 1e18))?;
    let tokens = given("--tokens", &args.tokens, Unit::One, (1.0, 1e24))?;
    let (Some(params), Some(tokens)) = (params, tokens) else {
        return Err(Failure::Input(
            "nothing to estimate: give --flops, --device-hours, --params and --tokens, or --model".into(),
        ));
    };
    let active = given("--active-params", &args.active_params, Unit::One, (1.0, 1e18))?;
    if active.as_ref().is_some_and(|a| a.low() > params.high()) {
        return Err(Failure::Input("--active-params: more than --params".into()));
    }
    let tokens = if args.inference { tokens.scaled(REQUESTS).map_err(input)? } else { tokens };
    Ok(Work::Tokens { params, active, tokens, training: !args.inference })
}

fn rate(args: &HardwareArgs, device: Option<&Device>) -> Result<Option<Rate>, Failure> {
    if let Some(rate) = given("--achieved", &args.achieved, Unit::FlopPerSecond, (1.0, 1e21))? {
        return Ok(Some(Rate::Achieved(rate)));
    }
    let utilisation = given("--utilisation", &args.utilisation, Unit::One, (1e-6, 1.0))?;
    Ok(device.and_then(|device| estimate::rate_of(device, utilisation)))
}

/// Power of one device, and what it includes.
fn power(
    args: &HardwareArgs,
    device: Option<&Device>,
) -> Result<(Option<Quantity>, Option<PowerBoundary>), Failure> {
    let stated = given("--watts", &args.watts, Unit::Watt, (0.0, 1e6))?;
    let known = device.and_then(Device::training_power);
    Ok(match (stated, known) {
        (Some(power), _) => (Some(power), Some(PowerBoundary::AsStated)),
        (None, Some((power, boundary))) => (Some(power), Some(boundary)),
        (None, None) => (None, None),
    })
}

fn setting(
    args: &Args,
    device: Option<&Device>,
    power: Option<Quantity>,
    time: &Quantity,
    context: &mut Context,
) -> Result<Setting, Failure> {
    let a = &args.purpose;
    let Accounting { series, market_intensity, embodied, water } = args.accounting.options()?.read()?;
    if let Some((name, series)) = series {
        let hours = time.to(Unit::Hour).map_err(input)?.value() / f64::from(args.hardware.devices);
        context.set_intensity(schedule::met(&series, &name, hours).map_err(|e| Failure::at(name, e))?);
    }
    Ok(Setting {
        devices: args.hardware.devices,
        power,
        development: given("--development", &a.development, Unit::One, (1.0, 1e6))?,
        factors: context.factors().clone(),
        price_per_hour: match device {
            Some(device) if a.rented => {
                let rent = prices::rent(&device.id, context.cloud_region());
                Some(rent.map_err(|e| Failure::at("--rented", e))?)
            }
            _ => given("--price-per-hour", &a.price_per_hour, Unit::UsdPerHour, (0.0, 1e6))?,
        },
        market_intensity,
        embodied,
        water,
        functional_units: given("--functional-units", &a.functional_units, Unit::Sample, (1e-9, 1e24))?,
    })
}

fn document(derivation: &Derivation, boundary: Option<PowerBoundary>) -> Map<String, Value> {
    let mut document = Map::new();
    if let Some(time) = derivation.get("device_time") {
        for (key, unit) in [("device_years", Unit::Year), ("device_hours", Unit::Hour)] {
            document.insert(key.into(), time.to(unit).map_or(Value::Null, |t| t.value().into()));
        }
    }
    for (step, key, _) in RESULTS {
        if let Some(quantity) = derivation.get(step) {
            document.insert(key.into(), json(quantity).unwrap_or(Value::Null));
        }
    }
    document.insert("power_includes".into(), boundary.map_or(Value::Null, |b| b.describe().into()));
    document
}

fn json(value: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value)
        .map_err(|e| Failure::Run(format!("the estimate cannot be written as JSON: {e}")))
}

fn text(
    derivation: &Derivation,
    boundary: Option<PowerBoundary>,
    notes: &[String],
    assumed: &[String],
) -> String {
    let mut text = format!("{}\n", results(derivation));
    for note in notes {
        text += &format!("Note: {note}.\n");
    }
    text += &match boundary {
        Some(boundary) => format!("The power includes {}.\n", boundary.describe()),
        None => "No energy: no power is known; give --watts or another --device.\n".to_owned(),
    };
    if !assumed.is_empty() {
        text += &format!("Assumed, so look here first: {}.\n", assumed.join(", "));
    }
    text
}
