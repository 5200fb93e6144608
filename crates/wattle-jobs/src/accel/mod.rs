//! What jobs ask of the accelerator lens: an architecture, a network mapped on it, and the sums of that.

pub mod calibration;

use std::path::Path;

use serde::Serialize;
use wattle_accel::{
    AccelError, Architecture, Effort, EnergyFile, Estimate, MappingFile, Objective, Syntax, Workload,
    estimate, estimate_given,
};
use wattle_report::number;

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::{Observer, Stage};

/// A shipped architecture by name, or one from a `.toml` or `.yaml` file.
pub fn architecture(name: &str) -> Result<Architecture> {
    let Some(syntax) = Syntax::of(Path::new(name)) else { return Ok(Architecture::named(name)?) };
    let text = std::fs::read_to_string(name).map_err(|e| JobError::at(name, e))?;
    Architecture::parse_as(syntax, &text).map_err(|e| JobError::at(name, e))
}

/// An architecture with the energy table of a file in place of its own: a table, or the binding of an Accelergy
/// table, which lies beside it.
pub fn priced(arch: Architecture, energy: Option<&Path>) -> Result<Architecture> {
    let Some(path) = energy else { return Ok(arch) };
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| JobError::at(path.display(), e));
    let at = |e| JobError::at(path.display(), e);
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

/// Sums over the layers; host work is not in them.
#[derive(Serialize)]
pub struct Totals {
    /// Seconds of an inference.
    pub latency_s: f64,
    /// Joules of an inference, external memory included.
    pub energy_j: f64,
    /// Joules without external memory, as chips publish it.
    pub chip_energy_j: f64,
    /// Inferences a second.
    pub inferences_per_s: f64,
    /// Inferences a joule.
    pub inferences_per_j: f64,
    /// Bytes to and from external memory.
    pub dram_bytes: f64,
    /// Share of the multipliers that are busy, 0 to 1.
    pub utilisation: f64,
    /// Multiply-accumulates.
    pub macs: f64,
    /// Those without a zero operand.
    pub macs_effective: f64,
    /// Multiply-accumulates of host work.
    pub host_macs: u64,
}

/// Sums of an estimate.
pub fn totals(estimate: &Estimate) -> Totals {
    // A model without layers takes no time here; rates of it mean nothing and are zero.
    let rate = |x: f64| if x > 0.0 { 1.0 / x } else { 0.0 };
    Totals {
        latency_s: estimate.latency_s(),
        energy_j: estimate.energy_j(),
        chip_energy_j: estimate.chip_energy_j(),
        inferences_per_s: rate(estimate.latency_s()),
        inferences_per_j: rate(estimate.energy_j()),
        dram_bytes: estimate.dram_bytes(),
        utilisation: estimate.utilisation(),
        macs: estimate.layers.iter().map(|l| l.macs).sum(),
        macs_effective: estimate.layers.iter().map(|l| l.effective_macs).sum(),
        host_macs: estimate.host.iter().map(|h| h.macs).sum(),
    }
}

/// A workload under the mappings of a file.
pub fn given(arch: &Architecture, workload: &Workload, path: &Path) -> Result<Estimate> {
    let at = |e: AccelError| JobError::at(path.display(), e);
    let text = std::fs::read_to_string(path).map_err(|e| JobError::at(path.display(), e))?;
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
        let totals = totals(estimate);
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

/// The best mappings of a workload.
pub fn estimated(
    arch: &Architecture,
    workload: &Workload,
    objective: Objective,
    env: &Env,
    observer: &mut dyn Observer,
) -> Result<Estimate> {
    let stage = Stage::begin(observer, format!("mapping on {}", arch.name), workload.layers.len() as u64);
    let threads = env.cpu.threads.count();
    Ok(estimate(arch, workload, objective, Effort::default(), threads, &|| stage.advance())?)
}
