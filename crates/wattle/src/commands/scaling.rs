//! `wattle scaling fit`: error against computation, in both directions, with what a target would take and cost.

use std::fs::File;
use std::path::PathBuf;

use serde::Serialize;
use wattle_meter::device::Device;
use wattle_meter::estimate::{self, Rate, Setting, Work};
use wattle_meter::scaling::{self, Fit, Form, Interval, Line, Point, Projection, Refusal, Summary};
use wattle_meter::{Derivation, Quantity, Source, Unit, stated};
use wattle_report::{Align, Axis, Plot, Report, Table, number};

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

#[derive(Serialize)]
struct Document {
    points: usize,
    fit: Summary,
    projections: Vec<Projected>,
    source: String,
}

#[derive(Serialize)]
struct Projected {
    target_error: f64,
    /// Why there is no projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log10_gflop: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reverse_log10_gflop: Option<Interval>,
    #[serde(flatten)]
    cost: Option<Cost>,
}

#[derive(Serialize)]
struct Cost {
    flops: Quantity,
    device_time: Quantity,
    energy_kwh: Option<Quantity>,
    co2e_kg: Option<Quantity>,
    cost_usd: Option<Quantity>,
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
    let place = args.points.display();
    let file = File::open(&args.points).map_err(|e| Failure::at(place, e))?;
    let points = scaling::read(file).map_err(|e| Failure::at(args.points.display(), e))?;
    let form = match args.form {
        FormName::Power => Form::Power,
        FormName::Exponential => Form::Exponential,
        FormName::PowerLawWithFloor => Form::PowerLawWithFloor,
    };
    let fit = Fit::new(&points, form).map_err(|e| Failure::at(args.points.display(), e))?;
    let mut projections = vec![];
    for &target in &args.target {
        projections.push(match fit.project(target) {
            Ok(found) => projected(&found, &args, context)?,
            Err(refusal) => refused(target, refusal),
        });
    }
    let source = format!("modelled:least squares over {}", args.points.display());
    let document = Document { points: points.len(), fit: fit.summary(), projections, source };
    let text = text(&document);
    if let Some(path) = &args.report {
        let html = report(&args, &points, &fit, &document);
        std::fs::write(path, html).map_err(|e| Failure::Run(format!("{}: {e}", path.display())))?;
    }
    context.print(&document, &text)
}

fn refused(target_error: f64, refusal: Refusal) -> Projected {
    Projected {
        target_error,
        refused: Some(refusal.to_string()),
        log10_gflop: None,
        reverse_log10_gflop: None,
        cost: None,
    }
}

fn projected(found: &Projection, args: &Args, context: &Context) -> Result<Projected, Failure> {
    let x = found.log10_gflop;
    // Beyond 10^270 the products of costs would leave the range of numbers, and of sense.
    let cost = if x.high < 270.0 { Some(cost(x, args, context)?) } else { None };
    Ok(Projected {
        target_error: found.target_error,
        refused: None,
        log10_gflop: Some(x),
        reverse_log10_gflop: found.reverse_log10_gflop,
        cost,
    })
}

/// Time, energy, carbon and money of a computation: one way, whatever form it was projected with.
fn cost(x: Interval, args: &Args, context: &Context) -> Result<Cost, Failure> {
    let input = |e: &dyn std::fmt::Display| Failure::Input(e.to_string());
    let [value, low, high] = [x.value, x.low, x.high].map(|x| 10f64.powf(x + 9.0));
    let flops = Quantity::new(value, low, high, Unit::Flop, Source::modelled("projection of a scaling fit"))
        .map_err(|e| input(&e))?;
    let device = Device::find(&args.device).map_err(|e| input(&e))?;
    let rate = match &args.rate {
        Some(text) => stated("--rate", text, Unit::FlopPerSecond, (1.0, 1e24)).map_err(|e| input(&e))?,
        None => device.peak().ok_or_else(|| {
            Failure::Input(format!("--device {}: its peak is not in the table; state --rate", device.id))
        })?,
    };
    let watts = |text: &String| stated("--watts", text, Unit::Watt, (0.0, 1e6)).map_err(|e| input(&e));
    let power = match &args.watts {
        Some(text) => Some(watts(text)?),
        None => device.training_power().map(|p| p.0),
    };
    let price =
        |text: &String| stated("--price-per-hour", text, Unit::UsdPerHour, (0.0, 1e6)).map_err(|e| input(&e));
    let setting = Setting {
        devices: 1,
        power,
        development: None,
        factors: context.factors().clone(),
        price_per_hour: args.price_per_hour.as_ref().map(price).transpose()?,
        market_intensity: None,
        embodied: None,
        water: None,
        functional_units: None,
    };
    let mut d = Derivation::default();
    let time = estimate::device_time(&mut d, &Work::Flops(flops.clone()), Some(&Rate::Achieved(rate)))
        .map_err(|e| input(&e))?
        .ok_or_else(|| Failure::Run("a rate gives a time".into()))?;
    estimate::footprint(&mut d, &time, &setting).map_err(|e| input(&e))?;
    let get = |name| d.get(name).cloned();
    Ok(Cost {
        flops,
        device_time: time,
        energy_kwh: get("energy"),
        co2e_kg: get("co2e"),
        cost_usd: get("cost"),
    })
}

fn text(document: &Document) -> String {
    let fit = &document.fit;
    let mut text = format!("{} points, R2 {:.3}\n", document.points, fit.r2);
    let line = |name: &str, line: &Line| {
        format!(
            "{name}: intercept {:.4} ± {:.4}, slope {:.4} ± {:.4}, 95 % interval of the slope {:.4} to {:.4}\n",
            line.intercept,
            line.intercept_se,
            line.slope.value,
            line.slope_se,
            line.slope.low,
            line.slope.high
        )
    };
    if let Some(forward) = &fit.forward {
        text += &line("performance on log10 computation", forward);
    }
    if let Some(reverse) = &fit.reverse {
        text += &line("log10 computation on performance", reverse);
    }
    if let Some(floor) = &fit.floor {
        text += &format!("floor {} of the error\n", interval(floor));
    }
    if let Some(exponent) = &fit.exponent {
        text += &format!("error falls with computation to the power of -{}\n", interval(exponent));
    }
    if let Some(power) = &fit.power_of_inverse_error {
        text += &format!("computation grows with 1/error to the power of {}\n", interval(power));
    }
    if document.projections.is_empty() {
        return text;
    }
    let mut table = Table::new([
        ("target error", Align::Right),
        ("GFLOP", Align::Left),
        ("other direction", Align::Left),
        ("energy", Align::Left),
        ("carbon", Align::Left),
        ("money", Align::Left),
    ]);
    let mut refusals = String::new();
    for p in &document.projections {
        if let Some(refusal) = &p.refused {
            refusals += &format!("error {}: {refusal}\n", p.target_error);
            continue;
        }
        let exponent = |x: Option<Interval>| x.map_or(String::new(), |x| format!("10^{}", tenths(&x)));
        let cost = |pick: fn(&Cost) -> Option<&Quantity>| {
            p.cost.as_ref().and_then(pick).map_or(String::new(), number::quantity)
        };
        table.row([
            p.target_error.to_string(),
            exponent(p.log10_gflop),
            exponent(p.reverse_log10_gflop),
            cost(|c| c.energy_kwh.as_ref()),
            cost(|c| c.co2e_kg.as_ref()),
            cost(|c| c.cost_usd.as_ref()),
        ]);
    }
    if !table.is_empty() {
        text += &format!("\n{table}");
        text += "Extrapolated: read the intervals, and the other direction beside them.\n";
    }
    text + &refusals
}

fn interval(x: &Interval) -> String {
    format!("{} [{}, {}]", number::plain(x.value), number::plain(x.low), number::plain(x.high))
}

fn tenths(x: &Interval) -> String {
    format!("{:.1} [{:.1}, {:.1}]", x.value, x.low, x.high)
}

fn report(args: &Args, points: &[Point], fit: &Fit, document: &Document) -> String {
    let observed = points.iter().map(|p| (p.compute_gflop, p.performance_error));
    let logs = || points.iter().map(|p| p.compute_gflop.log10());
    let (low, high) = logs().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    let far = document.projections.iter().filter_map(|p| p.log10_gflop.map(|x| x.value)).fold(high, f64::max);
    let curve = (0..=60).filter_map(|i| {
        let x = low + (far.min(high + 12.0) - low) * f64::from(i) / 60.0;
        Some((10f64.powf(x), fit.error_at(x)?))
    });
    let plot = Plot::new("Error against computation", Axis::log("computation (GFLOP)"), Axis::log("error"))
        .scatter("points", observed)
        .line("fit", curve);
    let caption = "Regression of performance on computation; beyond the points it is an extrapolation.";
    let mut report = Report::new("wattle scaling fit", &args.points.display().to_string())
        .section("Fit")
        .figure(&plot.to_svg(), caption)
        .details("In numbers", &text(document));
    for refusal in document.projections.iter().filter_map(|p| p.refused.as_ref()) {
        report = report.note(refusal);
    }
    let mut table = Table::new([
        ("model", Align::Left),
        ("year", Align::Right),
        ("error", Align::Right),
        ("GFLOP", Align::Right),
    ]);
    for p in points {
        table.row([
            p.model.clone().unwrap_or_default(),
            p.year.map_or(String::new(), |y| y.to_string()),
            p.performance_error.to_string(),
            number::plain(p.compute_gflop),
        ]);
    }
    report.section("Points").table(&table).to_html()
}
