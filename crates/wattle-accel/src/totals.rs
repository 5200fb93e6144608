//! The sums of an estimate.

use serde::Serialize;

use crate::estimate::Estimate;

/// Sums over the layers; host work is not in them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Totals {
    /// Seconds of an inference.
    pub latency_s: f64,
    /// Joules of an inference, external memory included.
    pub energy_j: f64,
    /// Without external memory, as chips publish it.
    pub chip_energy_j: f64,
    /// Inferences a second; zero where there is nothing to do here.
    pub inferences_per_s: f64,
    /// Inferences a joule; likewise.
    pub inferences_per_j: f64,
    /// Bytes moved from and to external memory.
    pub dram_bytes: f64,
    /// Share of the multipliers that do useful products.
    pub utilisation: f64,
    /// Multiply-accumulates, zeros included.
    pub macs: f64,
    /// Products of two values that are not zero.
    pub macs_effective: f64,
    /// Multiply-accumulates of host work.
    pub host_macs: u64,
}

impl Estimate {
    /// The sums.
    pub fn totals(&self) -> Totals {
        // A model without layers takes no time here; rates of it mean nothing and are zero.
        let rate = |x: f64| if x > 0.0 { 1.0 / x } else { 0.0 };
        Totals {
            latency_s: self.latency_s(),
            energy_j: self.energy_j(),
            chip_energy_j: self.chip_energy_j(),
            inferences_per_s: rate(self.latency_s()),
            inferences_per_j: rate(self.energy_j()),
            dram_bytes: self.dram_bytes(),
            utilisation: self.utilisation(),
            macs: self.sum(|l| l.macs),
            macs_effective: self.sum(|l| l.effective_macs),
            host_macs: self.host.iter().map(|h| h.macs).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_zero_and_not_minus_zero() {
        let nothing = Estimate {
            arch: "a".into(),
            buffers: vec![],
            clock_hz: 1e6,
            layers: vec![],
            host: vec![],
            sources: vec![],
        };
        let json = serde_json::to_string(&nothing.totals()).unwrap();
        assert!(!json.contains('-'), "{json}");
    }
}
