//! How error falls with computation, in both directions, with what a target would take and cost.

use std::path::PathBuf;

use serde::Serialize;
use wattle_meter::Quantity;
use wattle_meter::device::Device;
use wattle_meter::scaling::{self, Fit, Form, Hardware, Point, Projected, Summary};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::given_file;
use crate::observer::Observer;

/// Points, and how far to project.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingOptions {
    /// CSV of points: performance_error (0 to 1), compute_gflop [, year, model].
    pub points: PathBuf,
    /// Shape of the relation.
    pub form: Form,
    /// Errors to project to, from 0 to 1.
    pub targets: Vec<f64>,
    /// Device whose time the computation is turned into, by name.
    pub device: String,
    /// GFLOP of the points that one device delivers a second, in FLOP/s; its peak by default, since the points of the
    /// literature are processors x peak x time.
    pub rate: Option<Quantity>,
    /// Power of one device in W; what the device table has by default.
    pub watts: Option<Quantity>,
    /// Rent of one device in USD/h; without it money is that of the electricity.
    pub price_per_hour: Option<Quantity>,
}

/// A fit and its projections.
#[derive(Clone, Debug, Serialize)]
pub struct Scaled {
    /// How many points there are.
    pub points: usize,
    /// The fit.
    pub fit: Summary,
    /// What each target takes, or why that is not said.
    pub projections: Vec<Projected>,
    /// Where the numbers come from.
    pub source: String,
    /// The points, for a picture.
    #[serde(skip)]
    pub observed: Vec<Point>,
    /// The fitted curve, for a picture.
    #[serde(skip)]
    pub curve: Fit,
}

/// Fits points, and projects to targets if they show a trend.
///
/// # Errors
/// If the points cannot be read or fitted, or a projection needs what the device table does not have.
pub fn scaling(options: &ScalingOptions, env: &Env, _observer: &mut dyn Observer) -> Result<Scaled> {
    let place = options.points.display();
    let at = |e: &dyn std::fmt::Display| JobError::at(options.points.display(), e);
    let file = given_file::open(&options.points)?;
    let points = scaling::read(file).map_err(|e| at(&e))?;
    let fit = Fit::new(&points, options.form).map_err(|e| at(&e))?;
    let mut projections = vec![];
    for &target in &options.targets {
        projections.push(match fit.project(target) {
            Ok(found) => Projected::priced(&found, &hardware(options, env)?).map_err(JobError::input)?,
            Err(refusal) => Projected::refused(target, &refusal),
        });
    }
    let source = format!("modelled:least squares over {place}");
    Ok(Scaled { points: points.len(), fit: fit.summary(), projections, source, observed: points, curve: fit })
}

fn hardware(options: &ScalingOptions, env: &Env) -> Result<Hardware> {
    let device = Device::find(&options.device).map_err(|e| JobError::option("device", e))?;
    let rate = options.rate.clone().or_else(|| device.peak());
    let rate = rate.ok_or_else(|| {
        JobError::option("device", format_args!("{}: its peak is not in the table; state a rate", device.id))
    })?;
    Ok(Hardware {
        rate,
        power: options.watts.clone().or_else(|| device.training_power().map(|p| p.0)),
        price_per_hour: options.price_per_hour.clone(),
        factors: env.factors().clone(),
    })
}
