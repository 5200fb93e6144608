//! The closed list of things a receipt warns about, each with advice.

use serde::{Deserialize, Serialize};

/// One warning in a receipt: what happened, in a form for programs ([`WarningKind`]) and in words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What happened, with its particulars.
    #[serde(flatten)]
    pub kind: WarningKind,
    /// What happened, as a sentence.
    pub message: String,
    /// What can be done about it.
    pub advice: String,
}

/// What a receipt can warn about. Names are public: once printed they do not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WarningKind {
    /// No energy counter was usable, so energy is modelled.
    ModelledNotMeasured {
        /// Why no counter was usable.
        reason: String,
    },
    /// An energy counter exists but may not be read.
    CounterDenied {
        /// The file that could not be read.
        path: String,
    },
    /// Some readings of a counter failed; the energy was recovered by later readings.
    CounterReadFailed {
        /// The domain, such as `package-0`.
        domain: String,
        /// How many readings failed.
        readings: u64,
    },
    /// A counter's last readings failed, so energy after its last good reading is missing.
    CounterLost {
        /// The domain, such as `package-0`.
        domain: String,
    },
    /// A counter went backwards in a way no wrap explains; energy in between is only bounded.
    CounterReset {
        /// The domain, such as `package-0`.
        domain: String,
    },
    /// Readings lay so far apart that a counter may have wrapped more than once.
    CounterAmbiguous {
        /// The domain, such as `package-0`.
        domain: String,
    },
    /// A counter of a processor never moved, so the energy is only bounded.
    CounterFrozen {
        /// The domain, such as `package-0`.
        domain: String,
    },
    /// Two counters claim the same domain; the second was ignored.
    DuplicateCounter {
        /// The domain, such as `package-0`.
        domain: String,
        /// The path that was ignored.
        path: String,
    },
    /// The run was too short for its energy to mean much.
    TooShortToMeasure {
        /// The least duration in milliseconds that would have been long enough.
        needed_ms: u64,
    },
    /// Carbon, price or PUE were not given, so wide defaults stand in.
    FactorsAssumed {
        /// Names of the factors that were not given.
        factors: Vec<String>,
    },
    /// The series of carbon intensities does not cover the time of the run.
    IntensityNotCovered {
        /// The series.
        series: String,
    },
    /// The receipt could not be appended to the ledger.
    LedgerNotWritten {
        /// What went wrong, naming the path.
        reason: String,
    },
    /// The machine slept, or its clock was set: the wall clock ran ahead of the monotonic one.
    Suspended {
        /// By how many seconds.
        seconds: u64,
    },
    /// Several ranks of one job run on this node; only the first reports the node's energy.
    NodeShared {
        /// This process's rank on the node.
        rank: u32,
    },
    /// Only instances of a card (MIG) are visible, but its counter is the whole card's.
    GpuShared {
        /// The domain, such as `gpu-nvidia-0`.
        domain: String,
    },
    /// Cards are numbered, and unlike each other, so another tool's numbers may mean others.
    GpuOrderUnknown {
        /// What `CUDA_VISIBLE_DEVICES` says.
        devices: String,
    },
    /// There is a driver for NVIDIA cards, but it cannot be asked, so the cards are not in the energy.
    GpuUnseen {
        /// Why not.
        reason: String,
    },
    /// What the command started in the background still runs; it is counted until the command ended.
    StillRunning {
        /// Numbers of those processes.
        processes: Vec<u32>,
    },
    /// The background sampler could not start; long runs may lose counter wraps.
    NoSampler {
        /// Why it could not start.
        reason: String,
    },
}

impl WarningKind {
    fn message(&self) -> String {
        match self {
            Self::ModelledNotMeasured { reason } => {
                format!("energy is modelled, not measured: {reason}")
            }
            Self::CounterDenied { path } => format!("{path}: the energy counter may not be read"),
            Self::CounterReadFailed { domain, readings } => {
                format!("{domain}: {readings} reading(s) of the energy counter failed and were bridged")
            }
            Self::CounterLost { domain } => {
                format!("{domain}: the energy counter stopped answering; the energy since then is missing")
            }
            Self::CounterReset { domain } => {
                format!("{domain}: the energy counter was reset; the energy around the reset is only bounded")
            }
            Self::CounterAmbiguous { domain } => {
                format!("{domain}: readings lie too far apart to tell one counter wrap from several")
            }
            Self::CounterFrozen { domain } => {
                format!(
                    "{domain}: the energy counter never moved, so it counts nothing; the energy is only bounded"
                )
            }
            Self::DuplicateCounter { domain, path } => {
                format!("{path}: counts {domain} a second time and was left out")
            }
            Self::TooShortToMeasure { needed_ms } => {
                format!("the run was shorter than {needed_ms} ms, too short for its energy to mean much")
            }
            Self::FactorsAssumed { factors } => {
                format!("not given, so a wide default stands in: {}", factors.join(", "))
            }
            Self::IntensityNotCovered { series } => {
                format!(
                    "{series} does not cover the time of the run, so the range of carbon intensity stands as it was"
                )
            }
            Self::LedgerNotWritten { reason } => format!("the ledger was not written: {reason}"),
            Self::Suspended { seconds } => {
                format!("the machine slept, or its clock was set: {seconds} s are outside the measurement")
            }
            Self::NodeShared { rank } => {
                format!("rank {rank} of several on this node: the node's energy is in the ledger of rank 0")
            }
            Self::GpuShared { domain } => {
                format!("{domain}: only a part of the card is visible, but its energy is the whole card's")
            }
            Self::GpuOrderUnknown { devices } => {
                format!("CUDA_VISIBLE_DEVICES={devices} numbers unlike cards, which programs order by speed")
            }
            Self::GpuUnseen { reason } => {
                format!("there is a driver for NVIDIA cards, but they are not in the energy: {reason}")
            }
            Self::StillRunning { processes } => {
                format!(
                    "{} process(es) that the command started still run ({}); what they spend from now on is not counted",
                    processes.len(),
                    joined(processes)
                )
            }
            Self::NoSampler { reason } => format!("no background sampling: {reason}"),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::ModelledNotMeasured { .. } => {
                "read the interval, not the value; on a machine with RAPL counters make them readable"
                    .to_owned()
            }
            Self::CounterDenied { path } => format!(
                "let an administrator run `chmod a+r {path}` (until the next boot) or add a udev rule; \
                 it is closed by default because fine power traces can leak secrets (PLATYPUS, 2020)"
            ),
            Self::CounterReadFailed { .. } => "nothing is lost; see coverage for the time it took".to_owned(),
            Self::CounterLost { .. } => "treat the energy as a lower bound and measure again".to_owned(),
            Self::CounterReset { .. } => {
                "avoid suspending the machine or reloading its power driver while measuring".to_owned()
            }
            Self::CounterAmbiguous { .. } => "choose a shorter sampling interval".to_owned(),
            Self::CounterFrozen { .. } => {
                "do not use the value; a virtual machine may show counters that nothing drives".to_owned()
            }
            Self::DuplicateCounter { .. } => "nothing: counting it once is right".to_owned(),
            Self::TooShortToMeasure { .. } => "repeat the work within one measurement".to_owned(),
            Self::FactorsAssumed { factors } => {
                let options: Vec<&str> = factors.iter().map(|factor| option_of(factor)).collect();
                format!("state {}: {}", if options.len() == 1 { "it" } else { "them" }, options.join(", "))
            }
            Self::IntensityNotCovered { .. } => {
                "give a series from before the start to after the end, in the time zone it says".to_owned()
            }
            Self::LedgerNotWritten { .. } => {
                "the receipt itself is complete; name a writable file as ledger".to_owned()
            }
            Self::Suspended { .. } => "keep the machine awake while measuring".to_owned(),
            Self::NodeShared { .. } => "sum ledgers of rank 0 only; use `shares` for this rank".to_owned(),
            Self::GpuShared { .. } => "take the energy as an upper bound of this part's".to_owned(),
            Self::GpuOrderUnknown { .. } => {
                "set CUDA_DEVICE_ORDER=PCI_BUS_ID for the run, or name cards by UUID".to_owned()
            }
            Self::GpuUnseen { .. } => {
                "make the driver's library libnvidia-ml.so.1 known to the loader; a container needs the capability \
                 `utility` (NVIDIA_DRIVER_CAPABILITIES)"
                    .to_owned()
            }
            Self::StillRunning { processes } => {
                let first = processes.first().map_or_else(String::new, |pid| format!("={pid}"));
                format!("let the command wait for them (`wait` in a shell), or watch them: option `attach{first}`")
            }
            Self::NoSampler { .. } => "keep runs short or free some threads".to_owned(),
        }
    }
}

impl From<WarningKind> for Warning {
    fn from(kind: WarningKind) -> Self {
        Warning { message: kind.message(), advice: kind.advice(), kind }
    }
}

/// The first few numbers.
fn joined(processes: &[u32]) -> String {
    let shown: Vec<String> = processes.iter().take(8).map(u32::to_string).collect();
    shown.join(", ") + if processes.len() > 8 { ", ..." } else { "" }
}

/// How a factor is stated, as an option or in the environment.
fn option_of(factor: &str) -> &str {
    match factor {
        "intensity" => "option `region` or option `intensity` (WATTLE_CARBON_INTENSITY)",
        "price" => "option `price` (WATTLE_PRICE)",
        "pue" => "option `pue` (WATTLE_PUE)",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::FACTORS;

    /// One of each. The exhaustive match below fails to compile when a kind is added and forgotten here.
    fn all() -> Vec<WarningKind> {
        let text = || "x".to_owned();
        let all = vec![
            WarningKind::ModelledNotMeasured { reason: text() },
            WarningKind::CounterDenied { path: text() },
            WarningKind::CounterReadFailed { domain: text(), readings: 1 },
            WarningKind::CounterLost { domain: text() },
            WarningKind::CounterReset { domain: text() },
            WarningKind::CounterAmbiguous { domain: text() },
            WarningKind::DuplicateCounter { domain: text(), path: text() },
            WarningKind::TooShortToMeasure { needed_ms: 1 },
            WarningKind::FactorsAssumed { factors: vec![text()] },
            WarningKind::LedgerNotWritten { reason: text() },
            WarningKind::NoSampler { reason: text() },
            WarningKind::Suspended { seconds: 9 },
            WarningKind::NodeShared { rank: 1 },
            WarningKind::GpuShared { domain: text() },
            WarningKind::GpuOrderUnknown { devices: text() },
            WarningKind::IntensityNotCovered { series: text() },
            WarningKind::CounterFrozen { domain: text() },
            WarningKind::GpuUnseen { reason: text() },
            WarningKind::StillRunning { processes: vec![7] },
        ];
        let number = |kind: &WarningKind| match kind {
            WarningKind::ModelledNotMeasured { .. } => 0,
            WarningKind::CounterDenied { .. } => 1,
            WarningKind::CounterReadFailed { .. } => 2,
            WarningKind::CounterLost { .. } => 3,
            WarningKind::CounterReset { .. } => 4,
            WarningKind::CounterAmbiguous { .. } => 5,
            WarningKind::DuplicateCounter { .. } => 6,
            WarningKind::TooShortToMeasure { .. } => 7,
            WarningKind::FactorsAssumed { .. } => 8,
            WarningKind::LedgerNotWritten { .. } => 9,
            WarningKind::NoSampler { .. } => 10,
            WarningKind::Suspended { .. } => 11,
            WarningKind::NodeShared { .. } => 12,
            WarningKind::GpuShared { .. } => 13,
            WarningKind::GpuOrderUnknown { .. } => 14,
            WarningKind::IntensityNotCovered { .. } => 15,
            WarningKind::CounterFrozen { .. } => 16,
            WarningKind::GpuUnseen { .. } => 17,
            WarningKind::StillRunning { .. } => 18,
        };
        assert!(all.iter().map(number).eq(0..all.len()));
        all
    }

    #[test]
    fn advice_on_factors_names_the_options_and_the_variables_of_those_that_are_missing() {
        for variable in FACTORS {
            assert!(["intensity", "price", "pue"].into_iter().any(|f| option_of(f).contains(variable.name)));
        }
        let missing = WarningKind::FactorsAssumed { factors: vec!["pue".to_owned()] };
        assert_eq!(Warning::from(missing).advice, "state it: option `pue` (WATTLE_PUE)");
    }

    #[test]
    fn every_kind_is_documented_and_survives_json() {
        let page = include_str!("../../../docs/reference/receipt.md");
        for warning in all().into_iter().map(Warning::from) {
            let json = serde_json::to_value(&warning).unwrap();
            let name = json["kind"].as_str().unwrap();
            assert!(page.contains(&format!("`{name}`")), "docs/reference/receipt.md lacks `{name}`");
            assert_eq!(serde_json::from_value::<Warning>(json).unwrap(), warning);
        }
    }
}
