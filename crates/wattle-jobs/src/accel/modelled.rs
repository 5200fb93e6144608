//! What an architecture would make of a network, in a few numbers; for jobs that are about something else.

use serde::Serialize;
use wattle_accel::Estimate;
use wattle_report::number;

/// The sums of an estimate.
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
        let totals = estimate.totals();
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
