//! What a run will cost or did cost, from device-hours, operations, parameters and tokens, or from a graph.

#[cfg(feature = "networks")]
mod graph;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use wattle_meter::device::{Device, PowerBoundary};
use wattle_meter::estimate::{self, Demand, RESULTS, Rate, Setting};
use wattle_meter::{Derivation, Machine, Quantity, Unit, prices, schedule, working_power};

use crate::accounting::Accounting;
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;

#[cfg(feature = "networks")]
pub use self::graph::{GraphOptions, TrainingRuns};

/// Requests that costs of inference are given for.
pub const REQUESTS: u64 = 1000;

/// A run and where it happens; all of it but the work may be left out.
#[derive(Clone, Debug)]
pub struct EstimateOptions {
    /// What is done; of tokens, those of one request where `inference` says so.
    pub work: Option<Demand>,
    /// Cost of [`REQUESTS`] requests instead of a training.
    pub inference: bool,
    /// A graph whose runs are timed, in place of `work`.
    #[cfg(feature = "networks")]
    pub graph: Option<GraphOptions>,
    /// Device by name.
    pub device: Option<String>,
    /// Devices that share the work.
    pub devices: u32,
    /// Operations a second that one device achieves, FLOP/s.
    pub achieved: Option<Quantity>,
    /// Share of the device's peak that is achieved, 0 to 1.
    pub utilisation: Option<Quantity>,
    /// Average power of one device in W.
    pub watts: Option<Quantity>,
    /// Rent of one device in USD/h; without it the cost is that of the electricity.
    pub price_per_hour: Option<Quantity>,
    /// The device is rented at what clouds charge for it, at the environment's place if that is a cloud's.
    pub rented: bool,
    /// Everything spent over what the final run spends, at least 1: failed runs, searches, retraining.
    pub development: Option<Quantity>,
    /// Requests or samples that the run serves: gives emissions for each (SCI, ISO/IEC 21031).
    pub functional_units: Option<Quantity>,
    /// What else is accounted for.
    pub accounting: Accounting,
    /// Whether every step is told, with its formula, interval and source.
    pub explain: bool,
}

/// What a run costs.
#[derive(Clone, Debug)]
pub struct Estimated {
    /// Every step of the computation; its results are named in [`RESULTS`].
    pub derivation: Derivation,
    /// What the power includes; `None` where none is known.
    pub boundary: Option<PowerBoundary>,
    /// Ingredients that nobody stated.
    pub assumed: Vec<String>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Where a graph's time goes, most of it first; empty unless it is to be explained.
    #[cfg(feature = "networks")]
    pub kernels: Vec<crate::roofline::KernelTime>,
    /// Whether the document has every step.
    pub explained: bool,
}

impl Serialize for Estimated {
    /// The results by their names in JSON, and what is said of them.
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut document = Map::new();
        if let Some(time) = self.derivation.get("device_time") {
            for (key, unit) in [("device_years", Unit::Year), ("device_hours", Unit::Hour)] {
                document.insert(key.into(), time.to(unit).map_or(Value::Null, |t| t.value().into()));
            }
        }
        for (step, key, _) in RESULTS {
            if let Some(quantity) = self.derivation.get(step) {
                document.insert(key.into(), json::<S>(quantity)?);
            }
        }
        let boundary = self.boundary.map_or(Value::Null, |b| b.describe().into());
        document.insert("power_includes".into(), boundary);
        document.insert("assumed".into(), json::<S>(&self.assumed)?);
        document.insert("notes".into(), json::<S>(&self.notes)?);
        if self.explained {
            document.insert("derivation".into(), json::<S>(&self.derivation)?);
        }
        #[cfg(feature = "networks")]
        if !self.kernels.is_empty() {
            document.insert("kernels".into(), json::<S>(&self.kernels)?);
        }
        document.serialize(serializer)
    }
}

/// A part of the document.
fn json<S: Serializer>(value: &impl Serialize) -> std::result::Result<Value, S::Error> {
    serde_json::to_value(value).map_err(serde::ser::Error::custom)
}

/// Estimates.
///
/// # Errors
/// If there is nothing to estimate, an option is out of range or unit, or a table lacks what is asked for.
pub fn estimate(options: &EstimateOptions, env: &Env, observer: &mut dyn Observer) -> Result<Estimated> {
    let device = options.device.as_deref().map(Device::find).transpose();
    let device = device.map_err(|e| JobError::option("device", e))?;
    let mut derivation = Derivation::default();
    let mut notes = vec![];
    let (mut power, mut boundary) = power(options, device.as_ref());
    let timed = timed(options, device.as_ref(), &mut derivation, &mut notes, env, observer)?;
    let time = match &timed {
        Some(timed) => {
            if device.is_none() && power.is_none() {
                power = Some(working_power(&Machine::identify(), env.package(), timed.threads));
                boundary = Some(PowerBoundary::Chip);
            }
            timed.time.clone()
        }
        None => device_time(options, device.as_ref(), &mut derivation)?,
    };
    let mut env = env.clone();
    let setting = setting(options, device.as_ref(), power, &time, &mut env)?;
    estimate::footprint(&mut derivation, &time, &setting).map_err(JobError::input)?;
    if options.inference || timed.as_ref().is_some_and(|timed| timed.answers_requests) {
        notes.push(format!("all figures are for {REQUESTS} requests"));
    }
    let assumed = assumed(&derivation, &env);
    #[cfg(feature = "networks")]
    let kernels = timed.map(|timed| timed.kernels).unwrap_or_default();
    Ok(Estimated {
        derivation,
        boundary,
        assumed,
        notes,
        #[cfg(feature = "networks")]
        kernels,
        explained: options.explain,
    })
}

/// How long a graph takes.
struct Timed {
    /// On one device.
    time: Quantity,
    /// Threads that it was timed for.
    threads: usize,
    /// Whether the time is that of so many requests, not of a training.
    answers_requests: bool,
    /// Where the time goes, if that was asked for.
    #[cfg(feature = "networks")]
    kernels: Vec<crate::roofline::KernelTime>,
}

#[cfg(feature = "networks")]
use self::graph::timed;

/// Without networks, no graph can be given.
#[cfg(not(feature = "networks"))]
fn timed(
    _: &EstimateOptions,
    _: Option<&Device>,
    _: &mut Derivation,
    _: &mut [String],
    _: &Env,
    _: &mut dyn Observer,
) -> Result<Option<Timed>> {
    Ok(None)
}

/// Hours of one device without a graph.
fn device_time(
    options: &EstimateOptions,
    device: Option<&Device>,
    derivation: &mut Derivation,
) -> Result<Quantity> {
    let rate = match &options.achieved {
        Some(rate) => Some(Rate::Achieved(rate.clone())),
        None => device.and_then(|device| estimate::rate_of(device, options.utilisation.clone())),
    };
    let time = estimate::device_time(derivation, &work(options)?, rate.as_ref()).map_err(JobError::input)?;
    time.ok_or_else(|| match device {
        Some(d) => JobError::option(
            "device",
            format_args!("{}: its peak is not in the table; state what it achieves: option `achieved`", d.id),
        ),
        None => JobError::option(
            "achieved",
            "operations take no time without a rate; state the rate, or name a device",
        ),
    })
}

/// The work; of tokens, those of all requests.
fn work(options: &EstimateOptions) -> Result<Demand> {
    let Some(work) = options.work.clone() else {
        return Err(JobError::input(
            "nothing to estimate: give operations (option `flops`), device-hours, parameters and tokens, or a model",
        ));
    };
    let Demand::Tokens { params, active, tokens, .. } = work else { return Ok(work) };
    if active.as_ref().is_some_and(|a| a.low() > params.high()) {
        return Err(JobError::option("active_params", "more than there are parameters"));
    }
    let requests = if options.inference { REQUESTS as f64 } else { 1.0 };
    let tokens = tokens.scaled(requests).map_err(JobError::input)?;
    Ok(Demand::Tokens { params, active, tokens, training: !options.inference })
}

/// Ingredients that nobody gave: those of the derivation that are assumptions, and factors that are wide defaults.
fn assumed(derivation: &Derivation, env: &Env) -> Vec<String> {
    let mut names: Vec<String> = derivation.assumed().into_iter().map(str::to_owned).collect();
    if derivation.get("intensity").is_some() && env.factors_assumed().iter().any(|f| f == "intensity") {
        names.push("intensity".into());
    }
    names
}

/// Power of one device, and what it includes.
fn power(options: &EstimateOptions, device: Option<&Device>) -> (Option<Quantity>, Option<PowerBoundary>) {
    match (&options.watts, device.and_then(Device::training_power)) {
        (Some(power), _) => (Some(power.clone()), Some(PowerBoundary::AsStated)),
        (None, Some((power, boundary))) => (Some(power), Some(boundary)),
        (None, None) => (None, None),
    }
}

fn setting(
    options: &EstimateOptions,
    device: Option<&Device>,
    power: Option<Quantity>,
    time: &Quantity,
    env: &mut Env,
) -> Result<Setting> {
    let accounting = options.accounting.read()?;
    if let Some((name, series)) = &accounting.series {
        let hours = time.to(Unit::Hour).map_err(JobError::input)?.value() / f64::from(options.devices);
        env.set_intensity(schedule::met(series, name, hours).map_err(|e| JobError::at(name, e))?);
    }
    Ok(Setting {
        devices: options.devices,
        power,
        development: options.development.clone(),
        factors: env.factors().clone(),
        price_per_hour: match device {
            Some(device) if options.rented => {
                let rent = prices::rent(&device.id, env.cloud_region());
                Some(rent.map_err(|e| JobError::option("rented", e))?)
            }
            _ => options.price_per_hour.clone(),
        },
        market_intensity: accounting.market_intensity,
        embodied: accounting.embodied,
        water: accounting.water,
        functional_units: options.functional_units.clone(),
    })
}
