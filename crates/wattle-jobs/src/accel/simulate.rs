//! The PE array run tile by tile, beside the model.

use std::time::Instant;

use serde::Serialize;
use wattle_accel::{made_up, simulate as run_array};

use super::request::{HardwareOptions, ModelOptions};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;

/// A model on an architecture.
#[derive(Clone, Debug)]
pub struct SimulateOptions {
    /// The model.
    pub model: ModelOptions,
    /// The architecture.
    pub hardware: HardwareOptions,
    /// Largest layer to simulate, in multiply-accumulates; larger ones are left out and named.
    pub max_macs: f64,
}

/// Simulated cycles beside modelled ones.
#[derive(Clone, Debug, Serialize)]
pub struct Simulated {
    schema: u32,
    /// The architecture.
    pub arch: String,
    /// Layers that were simulated.
    pub layers: Vec<Layer>,
    /// Names of layers that were too large.
    pub left_out: Vec<String>,
    /// All layers that were simulated, by the simulator.
    pub total_cycles: f64,
    /// The same layers by the model.
    pub total_model_cycles: f64,
    /// What simulating took.
    pub seconds: f64,
    /// What the layers worked on.
    pub values: &'static str,
    /// Where the numbers come from.
    pub sources: Vec<String>,
}

/// A simulated layer.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// By the simulator.
    pub cycles: f64,
    /// By the model.
    pub model_cycles: f64,
    /// Products that were computed.
    pub products: u64,
    /// Share of the cycles in which the PEs multiply, least and most busy one.
    pub busy: [f64; 2],
}

/// Simulates every layer that is small enough.
///
/// # Errors
/// If the model or the architecture cannot be used, or the architecture cannot be simulated.
pub fn simulate(options: &SimulateOptions, env: &Env, observer: &mut dyn Observer) -> Result<Simulated> {
    let arch = options.hardware.architecture()?;
    let table = arch.table()?;
    let (workload, densities) = options.model.workload(env, observer)?;
    let objective = options.model.objective;
    let estimate = options.hardware.estimate(&arch, &workload, objective, env, observer)?;
    let (mut layers, mut left_out, mut seconds) = (vec![], vec![], 0.0);
    let all = estimate.layers.len() as u64;
    for (index, found) in estimate.layers.iter().enumerate() {
        observer.progress("simulating", index as u64, all);
        if observer.cancelled() {
            return Err(JobError::cancelled());
        }
        let Some(layer) = workload.layers.iter().find(|l| l.name == found.name) else { continue };
        if layer.macs() > options.max_macs {
            left_out.push(layer.name.clone());
            continue;
        }
        let (iacts, weights) = made_up(layer, 1);
        let start = Instant::now();
        let mapped = &found.mapped;
        let run = run_array(&arch, layer, &table, mapped.format, &mapped.mapping, &iacts, &weights)?;
        seconds += start.elapsed().as_secs_f64();
        let share = |x: f64| x / run.cycles.max(1.0);
        let least = run.busy.iter().copied().fold(f64::INFINITY, f64::min);
        let most = run.busy.iter().copied().fold(0.0, f64::max);
        layers.push(Layer {
            name: layer.name.clone(),
            cycles: run.cycles,
            model_cycles: mapped.cost.cycles.total(),
            products: run.products,
            busy: [share(least), share(most)],
        });
    }
    observer.progress("simulating", all, all);
    // From zero, since a sum of nothing is minus zero.
    let sum = |of: fn(&Layer) -> f64| layers.iter().map(of).fold(0.0, |sum, x| sum + x);
    let (total_cycles, total_model_cycles) = (sum(|l| l.cycles), sum(|l| l.model_cycles));
    let mut sources = estimate.sources;
    sources.push(densities);
    Ok(Simulated {
        schema: 1,
        arch: arch.name,
        total_cycles,
        total_model_cycles,
        layers,
        left_out,
        seconds,
        values: "zeros of known masks, all else drawn to the densities",
        sources,
    })
}
