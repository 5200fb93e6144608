//! Eyexam's seven bounds, layer by layer and summed, the layers that lose most, and what would help them.

use std::collections::BTreeMap;

use serde::Serialize;
use wattle_accel::{
    Architecture, Effort, Estimate, Layer as WorkloadLayer, LayerEstimate, Remedy, STEPS, Workload, advice,
    bandwidths, eyexam, held_back, made_up, network_bounds, remedies, simulate, simulates,
};

use super::request::{HardwareOptions, ModelOptions};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;

/// A model on an architecture.
#[derive(Clone, Debug)]
pub struct ExplainOptions {
    /// The model.
    pub model: ModelOptions,
    /// The architecture.
    pub hardware: HardwareOptions,
    /// For how many layers, those that lose most cycles first, to try what would help: each is mapped again after every
    /// change.
    pub remedies: usize,
    /// Largest layer to simulate for the last step, in multiply-accumulates; the model sets it for larger ones, for
    /// all with 0, and for all on architectures of more than one buffer.
    pub max_macs: f64,
}

/// Why a model is as slow as it is.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    schema: u32,
    /// The architecture.
    pub arch: String,
    /// Always `modelled`.
    pub kind: &'static str,
    /// Its multipliers.
    pub multipliers: usize,
    /// Names of the steps.
    pub steps: [&'static str; 7],
    /// The whole network, in multiplications a cycle after each step.
    pub bounds: [f64; 7],
    /// The layers that lose most cycles first.
    pub layers: Vec<Layer>,
    /// Where the numbers come from.
    pub sources: Vec<String>,
    /// Why the architecture cannot be simulated, where it cannot.
    #[serde(skip)]
    pub not_simulated: Option<String>,
}

/// Why a layer is.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Multiplications a cycle after each step.
    pub bounds: [f64; 7],
    /// The sixth step for each network and memory that limits delivery, alone.
    pub bandwidths: BTreeMap<String, f64>,
    /// Whether `simulated` or `modelled` cycles set the last step; `cycles` are these.
    pub last_step: &'static str,
    /// Cycles, as simulated or modelled.
    pub cycles: f64,
    /// Cycles by the model.
    pub model_cycles: f64,
    /// Cycles beyond those that fully busy multipliers would take.
    pub lost_cycles: f64,
    /// The step after the size of the layer at which most is lost.
    pub held_back_by: &'static str,
    /// What would lift the bound.
    pub advice: &'static str,
    /// What was tried, where it was: those that help, best first.
    pub would_help: Option<Vec<Help>>,
}

/// The layer mapped again after one change.
#[derive(Clone, Debug, Serialize)]
pub struct Help {
    /// What was changed.
    pub change: String,
    /// How many times faster it then is.
    pub speed_up: f64,
    /// How many times the inferences a joule.
    pub energy_gain: f64,
}

/// Examines every layer.
///
/// # Errors
/// If the model or the architecture cannot be used, or a layer has no mapping.
pub fn explain(options: &ExplainOptions, env: &Env, observer: &mut dyn Observer) -> Result<Explained> {
    let arch = options.hardware.architecture()?;
    let (workload, densities) = options.model.workload(env, observer)?;
    let objective = options.model.objective;
    let estimate = options.hardware.estimate(&arch, &workload, objective, env, observer)?;
    let mut examined = examined(&arch, &workload, &estimate, options.max_macs, observer)?;
    let pairs: Vec<_> = examined.iter().map(|e| (e.found, e.bounds)).collect();
    let bounds = network_bounds(&arch, &pairs);
    let peak = arch.multipliers() as f64;
    examined.sort_by(|a, b| b.lost(peak).total_cmp(&a.lost(peak)));
    let tried = options.remedies.min(examined.len());
    let mut layers = vec![];
    for (index, examined) in examined.iter().enumerate() {
        let would_help = if index < tried {
            observer.progress("trying what would help", index as u64, tried as u64);
            let list = remedies(&arch, examined.layer, examined.found, objective, Effort::default())?;
            Some(list.into_iter().map(help).collect())
        } else {
            None
        };
        layers.push(examined.told(&arch, peak, would_help));
        cancelled(observer)?;
    }
    observer.progress("trying what would help", tried as u64, tried as u64);
    let mut sources = estimate.sources;
    sources.push(densities);
    Ok(Explained {
        schema: 1,
        multipliers: arch.multipliers(),
        not_simulated: simulates(&arch).err().map(|error| error.to_string()),
        arch: arch.name,
        kind: "modelled",
        steps: STEPS,
        bounds,
        layers,
        sources,
    })
}

/// A layer with its bounds, and with its cycles where it was simulated.
struct Examined<'a> {
    layer: &'a WorkloadLayer,
    found: &'a LayerEstimate,
    bounds: [f64; 7],
    simulated: Option<f64>,
}

/// The bounds of every layer; those small enough are simulated, where the architecture can be.
fn examined<'a>(
    arch: &Architecture,
    workload: &'a Workload,
    estimate: &'a Estimate,
    max_macs: f64,
    observer: &mut dyn Observer,
) -> Result<Vec<Examined<'a>>> {
    let table = arch.table()?;
    let can_simulate = simulates(arch).is_ok();
    let all = estimate.layers.len() as u64;
    let mut examined = vec![];
    for (index, found) in estimate.layers.iter().enumerate() {
        observer.progress("simulating", index as u64, all);
        cancelled(observer)?;
        let Some(layer) = workload.layers.iter().find(|l| l.name == found.name) else { continue };
        let mut simulated = None;
        if can_simulate && layer.macs() <= max_macs {
            let (iacts, weights) = made_up(layer, 1);
            let mapped = &found.mapped;
            let run = simulate(arch, layer, &table, mapped.format, &mapped.mapping, &iacts, &weights)?;
            simulated = Some(run.cycles);
        }
        examined.push(Examined { layer, found, bounds: eyexam(arch, layer, found, simulated)?, simulated });
    }
    observer.progress("simulating", all, all);
    Ok(examined)
}

fn cancelled(observer: &mut dyn Observer) -> Result<()> {
    if observer.cancelled() { Err(JobError::cancelled()) } else { Ok(()) }
}

impl Examined<'_> {
    /// Simulated cycles, or the model's.
    fn cycles(&self) -> f64 {
        self.simulated.unwrap_or(self.found.mapped.cost.cycles.total())
    }

    /// Cycles beyond those that fully busy multipliers would take.
    fn lost(&self, peak: f64) -> f64 {
        self.cycles() * (1.0 - self.bounds[6] / peak)
    }

    fn told(&self, arch: &Architecture, peak: f64, would_help: Option<Vec<Help>>) -> Layer {
        let step = held_back(&self.bounds, peak);
        Layer {
            name: self.found.name.clone(),
            bounds: self.bounds,
            bandwidths: bandwidths(arch, self.found).into_iter().collect(),
            last_step: if self.simulated.is_some() { "simulated" } else { "modelled" },
            cycles: self.cycles(),
            model_cycles: self.found.mapped.cost.cycles.total(),
            lost_cycles: self.lost(peak),
            held_back_by: STEPS[step],
            advice: advice(step),
            would_help,
        }
    }
}

fn help(remedy: Remedy) -> Help {
    Help { change: remedy.change, speed_up: remedy.speed_up, energy_gain: remedy.energy_gain }
}
