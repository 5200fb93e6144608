//! Any command run, or a running process watched, with a receipt at the end.
//!
//! Standard streams belong to the command: nothing else is written to them.

mod child;
mod epochs;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use wattle_meter::backend::Subject;
use wattle_meter::{Factors, Meter, MeterConfig, Quantity, Receipt, StopReason, WarningKind};

use self::child::Signals;
pub use self::epochs::Epochs;
use crate::accounting::Accounting;
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::given_file;
use crate::observer::{Observer, Standing};

pub use self::child::Ending;

/// What to measure, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureOptions {
    /// A program and its arguments, to be run.
    pub command: Vec<OsString>,
    /// The number of a running process to watch with its descendants instead, until it ends or a signal stops us.
    pub attach: Option<u32>,
    /// Time between readings.
    pub interval: Duration,
    /// Labels for the ledger.
    pub labels: BTreeMap<String, String>,
    /// What the machine's processors draw at rest, W; estimated from the kind of processor if not given.
    pub idle_power: Option<Quantity>,
    /// The epochs of the run, for a forecast of its total.
    pub epochs: Option<EpochOptions>,
    /// What else is accounted for.
    pub accounting: Accounting,
    /// Root of the energy counters: `/sys`, or where a container has the host's.
    pub sysfs: PathBuf,
}

/// How the epochs of a run are recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochOptions {
    /// How many there are.
    pub total: usize,
    /// A line with this text ends one; without it, lines of JSON with a new `epoch` do, in a log.
    pub pattern: Option<String>,
    /// The file that the run logs to; standard output without one.
    pub log: Option<PathBuf>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What it cost.
    pub receipt: Receipt,
    /// How the command ended.
    pub ending: Ending,
}

/// How often the command is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Runs or watches, to the end; the receipt is in the ledger then, unless nothing was started.
///
/// # Errors
/// If an option cannot be used, or the process does not exist.
pub fn measure(options: &MeasureOptions, env: &Env, observer: &mut dyn Observer) -> Result<Measured> {
    let accounting = options.accounting.read()?;
    let mut env = env.clone();
    if let Some((name, series)) = &accounting.series {
        env.set_intensity(series.any(name).map_err(|e| JobError::at(name, e))?);
    }
    let rank = node_rank(|name| std::env::var(name).ok());
    let mut config = configured(options, &env);
    if let Some(rank) = rank {
        config.labels.insert("slurm_localid".to_owned(), rank.to_string());
        config.labels.extend(slurm_labels(|name| std::env::var(name).ok()));
        config.warnings.extend((rank > 0).then_some(WarningKind::NodeShared { rank }));
    }
    if let Some(log) =
        options.epochs.as_ref().and_then(|epochs| epochs.log.as_ref()).filter(|log| log.exists())
    {
        given_file::refuse_others(log).map_err(|e| e.of("epoch_log"))?;
    }
    let epochs = options.epochs.clone().map(Epochs::new);
    // Before the meter starts its thread, so that no signal meant for the command is lost.
    let signals = Signals::catch()?;
    child::adopt_orphans();
    let meter = Meter::start(config);
    let ending = std::thread::scope(|scope| {
        let (finished, end) = channel::<()>();
        let (meter, epochs) = (&meter, epochs.as_ref());
        let running = scope.spawn(move || {
            let ending = match options.attach {
                Some(pid) => child::watch(pid, signals),
                None => child::run(&options.command, signals, epochs, meter),
            };
            drop(finished);
            ending
        });
        look(&end, meter, epochs, env.factors(), observer);
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let mut receipt = meter.stop();
    let ending = ending?;
    let left = if options.attach.is_none() { child::left_running() } else { Vec::new() };
    if !left.is_empty() {
        receipt.warn(WarningKind::StillRunning { processes: left });
    }
    accounting.apply(&mut receipt).map_err(JobError::run)?;
    receipt.stop_reason = match ending {
        Ending::Exited(0) => StopReason::Completed,
        Ending::Killed(_) => StopReason::Interrupted,
        Ending::Exited(_) | Ending::NotStarted { .. } => StopReason::Failed,
    };
    let started = !matches!(ending, Ending::NotStarted { .. });
    // The node's energy is one rank's to report; another copy would be summed N-fold.
    if started && rank.is_none_or(|rank| rank == 0) {
        env.record(&mut receipt);
    }
    Ok(Measured { receipt, ending })
}

/// Tells the observer and watches epochs until the command has ended; costs nothing if there is neither to do.
fn look(
    end: &Receiver<()>,
    meter: &Meter,
    epochs: Option<&Epochs>,
    factors: &Factors,
    observer: &mut dyn Observer,
) {
    let follows = observer.follows_meter();
    let mut ended = false;
    while !ended {
        ended = end.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout);
        if follows || epochs.is_some() {
            let now = meter.snapshot();
            let forecast = epochs.and_then(|epochs| epochs.look(&now));
            if follows {
                observer.standing(&Standing { now, factors, forecast, ended });
            }
        }
        if !ended && observer.cancelled() {
            child::stop();
        }
    }
}

fn configured(options: &MeasureOptions, env: &Env) -> MeterConfig {
    let mut config = env.meter_config();
    config.interval = options.interval;
    config.labels.extend(options.labels.clone());
    config.subject = options.attach.map_or(Subject::Children, Subject::Tree);
    config.roots.sys = options.sysfs.clone();
    config.idle_power = options.idle_power.clone();
    config
}

/// This process's rank among those of its SLURM job on this node.
fn node_rank(environment: impl Fn(&str) -> Option<String>) -> Option<u32> {
    environment("SLURM_JOB_ID")?;
    environment("SLURM_LOCALID")?.parse().ok()
}

fn slurm_labels(environment: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let pairs = [("slurm_job", "SLURM_JOB_ID"), ("slurm_procid", "SLURM_PROCID")];
    pairs.into_iter().filter_map(|(label, name)| Some((label.to_owned(), environment(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_rank_of_a_node_speaks_for_it() {
        let slurm = |local: &'static str| {
            move |name: &str| match name {
                "SLURM_JOB_ID" => Some("7".to_owned()),
                "SLURM_LOCALID" => Some(local.to_owned()),
                _ => None,
            }
        };
        assert_eq!(node_rank(slurm("3")), Some(3));
        assert_eq!(node_rank(|_| None), None);
        assert_eq!(slurm_labels(slurm("0")), [("slurm_job".to_owned(), "7".to_owned())]);
    }
}
