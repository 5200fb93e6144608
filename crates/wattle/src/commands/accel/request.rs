//! What the subcommands share: a model as a workload, an architecture, an objective.

use std::path::{Path, PathBuf};

use serde::Serialize;
use wattle_accel::{
    AccelError, Architecture, Effort, EnergyFile, Estimate, MappingFile, Objective, Syntax, Workload,
    estimate, estimate_given,
};
use wattle_report::number;

use super::calibration::calibrate;
use super::densities;
use crate::context::Context;
use crate::failure::Failure;
use wattle_jobs::models::{self, InputText};

/// Arguments that name a model and how its zeros are known.
#[derive(clap::Args, Debug)]
pub struct ModelArgs {
    /// The ONNX model.
    model: PathBuf,
    /// Shape or .npy file of an input; may be repeated.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = models::parse_input)]
    inputs: Vec<(String, InputText)>,
    /// Where densities come from. `weights`: zeros of the weights are counted, activations are dense.
    /// `calibration:DATA`: activations are counted too, while the model runs on DATA (as in `wattle eval --data`, or
    /// `inputs` for the files of --input). A JSON file sets densities of layers on top of `weights`:
    /// {"conv1": {"iact": 0.6, "weight": [0.3, 0.2]}}, numbers, lists by input channel or .npy masks; the output of
    /// `wattle accel estimate --json` is such a file.
    #[arg(long, default_value = "weights", value_name = "SOURCE")]
    density_from: String,
    /// Samples to run for calibration:DATA, at most.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calibration_samples: u32,
    /// What mappings are chosen for.
    #[arg(long, value_enum, default_value_t)]
    objective: ObjectiveName,
}

/// Objectives by name.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObjectiveName {
    /// Least energy.
    Energy,
    /// Fewest cycles.
    Delay,
    /// Least product of both.
    #[default]
    Edp,
}

impl ModelArgs {
    /// The objective.
    pub fn objective(&self) -> Objective {
        match self.objective {
            ObjectiveName::Energy => Objective::Energy,
            ObjectiveName::Delay => Objective::Delay,
            ObjectiveName::Edp => Objective::Edp,
        }
    }

    /// The model as layers, and a sentence on where its densities come from.
    pub fn workload(&self, context: &Context) -> Result<(Workload, String), Failure> {
        let model = models::load(&self.model)?;
        let feeds = models::read_feeds(&self.inputs)?;
        let model = models::bind(&model, &self.inputs, &feeds)?;
        let (mut workload, tally) =
            Workload::with_tally(&model).map_err(|e| Failure::at(self.model.display(), e))?;
        let counted = "densities of weights: counted in the model";
        if self.density_from == "weights" {
            return Ok((workload, format!("{counted}; of activations: assumed dense")));
        }
        if let Some(data) = self.density_from.strip_prefix("calibration:") {
            let samples = self.calibration_samples as usize;
            let (tally, told) = calibrate(&model, tally, &feeds, data, samples, context)?;
            tally.apply(&mut workload);
            return Ok((workload, format!("{counted}; of activations: {told}")));
        }
        let given = densities::read(Path::new(&self.density_from))?;
        workload.set_densities(&given).map_err(|e| Failure::at(&self.density_from, e))?;
        let set = given.len();
        let text =
            format!("{counted}; of activations: assumed dense; {set} layers as {} says", self.density_from);
        Ok((workload, text))
    }
}

/// A shipped architecture by name, or one from a `.toml` or `.yaml` file.
pub fn architecture(name: &str) -> Result<Architecture, Failure> {
    let Some(syntax) = Syntax::of(Path::new(name)) else { return Ok(Architecture::named(name)?) };
    let text = std::fs::read_to_string(name).map_err(|e| Failure::at(name, e))?;
    Architecture::parse_as(syntax, &text).map_err(|e| Failure::at(name, e))
}

/// An architecture with the energy table of a file in place of its own: a table, or the binding of an Accelergy
/// table, which lies beside it.
pub fn priced(arch: Architecture, energy: Option<&Path>) -> Result<Architecture, Failure> {
    let Some(path) = energy else { return Ok(arch) };
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Failure::at(path.display(), e));
    let at = |e| Failure::at(path.display(), e);
    let syntax = Syntax::of(path).unwrap_or(Syntax::Toml);
    let text = read(path)?;
    let table = match EnergyFile::parse(syntax, &text).map_err(at)? {
        EnergyFile::Binding(binding) => {
            let ert = path.parent().unwrap_or(Path::new("")).join(&binding.ert);
            binding.table(&read(&ert)?).map_err(at)?
        }
        EnergyFile::Table(table) => *table,
    };
    Ok(arch.with_energy(table)?)
}

/// An energy table and mappings in place of the architecture's and of a search.
#[derive(clap::Args, Debug)]
pub struct Given {
    /// Energy table, or binding of an Accelergy table, in place of the architecture's.
    #[arg(long, value_name = "FILE")]
    energy: Option<PathBuf>,
    /// Use these mappings, which `accel map --out` writes, as given instead of searching.
    #[arg(long, value_name = "FILE", conflicts_with = "objective")]
    mapping: Option<PathBuf>,
}

impl Given {
    /// The architecture of a name with the table given, if one is.
    pub fn architecture(&self, name: &str) -> Result<Architecture, Failure> {
        priced(architecture(name)?, self.energy.as_deref())
    }

    /// The workload under the mappings given, or under those that are best.
    pub fn estimate(
        &self,
        arch: &Architecture,
        workload: &Workload,
        objective: Objective,
        context: &Context,
    ) -> Result<Estimate, Failure> {
        match &self.mapping {
            Some(path) => given(arch, workload, path),
            None => estimated(arch, workload, objective, context),
        }
    }
}

/// A workload under the mappings of a file.
pub fn given(arch: &Architecture, workload: &Workload, path: &Path) -> Result<Estimate, Failure> {
    let at = |e: AccelError| Failure::at(path.display(), e);
    let text = std::fs::read_to_string(path).map_err(|e| Failure::at(path.display(), e))?;
    estimate_given(arch, workload, &MappingFile::parse(&text).map_err(at)?).map_err(at)
}

/// What an architecture would make of a network; for commands that are about something else.
#[derive(Clone, Debug, Serialize)]
pub struct Modelled {
    /// Name of the architecture.
    pub arch: String,
    /// Always `modelled`.
    pub kind: &'static str,
    /// Seconds of an inference.
    pub latency_s: f64,
    /// Joules of an inference, external memory included.
    pub energy_j: f64,
    /// Inferences a second.
    pub inferences_per_s: f64,
    /// Inferences a joule.
    pub inferences_per_j: f64,
    /// Multiply-accumulates that stay on the host; their time and energy are in no figure here.
    pub host_macs: u64,
    /// Where the figures come from.
    pub sources: Vec<String>,
}

impl Modelled {
    /// The sums of an estimate.
    pub fn of(estimate: &Estimate, densities: &str) -> Modelled {
        let totals = super::estimate::totals(estimate);
        let mut sources = estimate.sources.clone();
        sources.push(densities.to_string());
        Modelled {
            arch: estimate.arch.clone(),
            kind: "modelled",
            latency_s: totals.latency_s,
            energy_j: totals.energy_j,
            inferences_per_s: totals.inferences_per_s,
            inferences_per_j: totals.inferences_per_j,
            host_macs: totals.host_macs,
            sources,
        }
    }
}

impl Modelled {
    /// `modelled on eyeriss-v2: 1470 inferences/s, 2560 inferences/J`, with what stays on the host.
    pub fn sentence(&self) -> String {
        let host = match self.host_macs {
            0 => String::new(),
            macs => {
                format!("; {} MACs stay on the host and are in no figure here", number::count(macs as f64))
            }
        };
        format!(
            "modelled on {}: {} inferences/s, {} inferences/J{host}",
            self.arch,
            number::plain(self.inferences_per_s),
            number::plain(self.inferences_per_j)
        )
    }
}

/// Maps a workload, with a progress bar.
pub fn estimated(
    arch: &Architecture,
    workload: &Workload,
    objective: Objective,
    context: &Context,
) -> Result<Estimate, Failure> {
    let bar = crate::bars::bar(&format!("mapping on {}", arch.name), workload.layers.len() as u64);
    let threads = context.cpu.threads.count();
    let found = estimate(arch, workload, objective, Effort::default(), threads, &|| bar.inc(1))?;
    bar.finish_and_clear();
    Ok(found)
}
