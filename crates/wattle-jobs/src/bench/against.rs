//! The same work here and in another runtime, in turns.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wattle_engine::Session;
use wattle_graph::Tensor;
use wattle_meter::bystanders::Watch;
use wattle_meter::timing::{Turns, quantile, repeated};

use super::peer::{Peer, PeerName, Task};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;

/// How long a turn should take when nobody says how many runs it has, in milliseconds.
const TURN_MS: f64 = 60.0;
/// Between turns: threads of the one before wait awake and would slow the next. onnxruntime's were seen to take a processor
/// for 60 ms after their last run, and OpenMP's may for 200.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(300);

/// The other runtime, and how the two are compared.
#[derive(Clone, Debug, Serialize)]
pub struct AgainstOptions {
    /// The runtime.
    pub peer: PeerName,
    /// The Python that has it.
    pub python: PathBuf,
    /// Turns of each contender.
    pub rounds: u32,
    /// Largest difference of outputs that counts as agreement, as a share of the output's largest element.
    pub tolerance: f64,
}

/// The same work here and in another runtime.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// What was run.
    pub model: String,
    /// This engine.
    pub wattle: Side,
    /// The peer's fastest way of running.
    pub peer: Side,
    /// The peer's other ways of running, all slower.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slower: Vec<Side>,
    /// The peer's time over ours, above 1 where wattle is faster: median over rounds.
    pub ratio: f64,
    /// A tenth of the rounds has a smaller ratio.
    pub ratio_p10: f64,
    /// Nine tenths have a smaller ratio.
    pub ratio_p90: f64,
    /// Whether the interval of the ratio has 1 in it.
    pub undecided: bool,
    /// How far outputs differ.
    pub agreement: Agreement,
    /// Turns of each contender.
    pub rounds: u32,
    /// Threads that computed.
    pub threads: usize,
    /// Instruction set.
    pub isa: &'static str,
    /// Whether sparse kernels were forbidden.
    pub dense: bool,
    /// What disturbed the comparison, if anything did.
    pub disturbed: Option<String>,
    /// How times are known.
    pub source: &'static str,
}

/// One contender.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How it ran the model, where it has several ways.
    pub variant: Option<String>,
    /// Half of the runs are shorter.
    pub median_ms: f64,
    /// A tenth is shorter.
    pub p10_ms: f64,
    /// Nine tenths are shorter.
    pub p90_ms: f64,
    /// Runs of a turn.
    pub runs_per_round: usize,
    /// Medians of its rounds.
    pub rounds_ms: Vec<f64>,
}

/// How far outputs differ.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Agreement {
    /// Largest difference.
    pub max_absolute: f64,
    /// As a share of the largest element of the output it occurs in.
    pub max_relative: f64,
    /// What counts as agreement.
    pub tolerance: f64,
    /// Outputs compared.
    pub outputs: usize,
}

/// A contender's times in milliseconds, round by round.
pub(super) struct Contender {
    variant: String,
    pub(super) runs: usize,
    pub(super) rounds: Vec<Vec<f64>>,
}

impl Contender {
    pub(super) fn new(variant: &str, runs: Option<u32>, once_ms: f64) -> Contender {
        let fill = (TURN_MS / once_ms.max(1e-4)).ceil().clamp(3.0, 2000.0) as usize;
        Contender { variant: variant.into(), runs: runs.map_or(fill, |n| n as usize), rounds: vec![] }
    }

    pub(super) fn medians(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| quantile(round, 0.5)).collect()
    }

    fn side(&self, name: &str, version: &str, several: bool) -> Side {
        let all = self.rounds.concat();
        Side {
            name: name.into(),
            version: version.into(),
            variant: several.then(|| self.variant.clone()),
            median_ms: quantile(&all, 0.5),
            p10_ms: quantile(&all, 0.1),
            p90_ms: quantile(&all, 0.9),
            runs_per_round: self.runs,
            rounds_ms: self.medians(),
        }
    }
}

/// What both run, and what this side makes of it.
pub struct Contest {
    /// As it is reported.
    pub name: String,
    /// The session, its inputs set.
    pub session: Session,
    /// The file that the peer reads.
    pub model: PathBuf,
    /// What the peer is fed.
    pub feeds: BTreeMap<String, Tensor>,
    /// A training step: the optimiser by name, its rate, and the labels.
    pub training: Option<(String, f64, Tensor)>,
    /// Whether sparse kernels are forbidden.
    pub dense: bool,
}

/// Runs both in turns.
pub fn compare(
    options: &AgainstOptions,
    mut work: Contest,
    runs: Option<u32>,
    env: &Env,
    observer: &mut dyn Observer,
) -> Result<Compared> {
    let name = options.peer;
    if work.training.is_some() && name != PeerName::Torch {
        let text = format!("{}: training steps are compared with torch only", name.as_str());
        return Err(JobError::option("against", text));
    }
    if !(options.tolerance >= 0.0 && options.tolerance.is_finite()) {
        let text = format!("{} is no share, such as 1e-4", options.tolerance);
        return Err(JobError::option("tolerance", text));
    }
    let threads = env.cpu.threads.count();
    let ours = &mut work.session;
    // A training step changes the weights: its results are those of the first.
    ours.run()?;
    let (outputs, expected): (Vec<String>, Vec<Tensor>) = ours.outputs()?.into_iter().unzip();
    let training =
        work.training.as_ref().map(|(optimizer, rate, labels)| (optimizer.as_str(), *rate, labels));
    let task = Task { model: &work.model, feeds: &work.feeds, outputs: &outputs, threads, training };
    let mut peer = Peer::start(&options.python, name, &task)?;
    let mut agreement =
        Agreement { max_absolute: 0.0, max_relative: 0.0, tolerance: options.tolerance, outputs: 0 };
    for variant in peer.variants.clone() {
        let found = peer.outputs(&variant)?;
        agreement = agreement.with(&outputs, &expected, &found)?;
    }
    agreement.check(name)?;

    let unmeasured = |turns: usize| Turns::exactly(turns).warmed(0);
    let once = repeated(&unmeasured(2), || ours.run())?;
    let mut own = Contender::new("", runs, 1e3 * once.least());
    let mut theirs = vec![];
    for variant in peer.variants.clone() {
        peer.run(&variant, 2)?;
        let once = peer.run(&variant, 3)?;
        theirs.push(Contender::new(&variant, runs, quantile(&once, 0.0)));
    }
    let watch = Watch::begin(&[peer.id()]);
    for round in 0..options.rounds {
        observer.progress("rounds", u64::from(round), u64::from(options.rounds));
        if observer.cancelled() {
            return Err(JobError::cancelled());
        }
        std::thread::sleep(PAUSE);
        ours.run()?;
        let times = repeated(&unmeasured(own.runs), || ours.run())?;
        own.rounds.push(times.seconds().iter().map(|s| 1e3 * s).collect());
        for contender in &mut theirs {
            std::thread::sleep(PAUSE);
            contender.rounds.push(peer.run(&contender.variant, contender.runs)?);
        }
    }
    let disturbed = watch.warning();

    let several = theirs.len() > 1;
    let mut sides: Vec<Side> =
        theirs.iter().map(|contender| contender.side(name.as_str(), &peer.version, several)).collect();
    sides.sort_by(|a, b| a.median_ms.total_cmp(&b.median_ms));
    let best = sides.remove(0);
    let wattle = own.side("wattle", env!("CARGO_PKG_VERSION"), false);
    let ratios: Vec<f64> = best.rounds_ms.iter().zip(&wattle.rounds_ms).map(|(a, b)| a / b).collect();
    let (ratio_p10, ratio_p90) = (quantile(&ratios, 0.1), quantile(&ratios, 0.9));
    Ok(Compared {
        model: work.name,
        wattle,
        peer: best,
        slower: sides,
        ratio: quantile(&ratios, 0.5),
        ratio_p10,
        ratio_p90,
        undecided: (ratio_p10..=ratio_p90).contains(&1.0),
        agreement,
        rounds: options.rounds,
        threads,
        isa: env.cpu.isa.name(),
        dense: work.dense,
        disturbed,
        source: "measured:monotonic clock around each run, in each process",
    })
}

/// The largest difference of two tensors of one shape, and that as a share of the reference's largest element.
pub(super) fn difference(found: &Tensor, reference: &Tensor) -> (f64, f64) {
    let (found, reference) = (found.to_f64(), reference.to_f64());
    let largest = reference.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let of = |(a, b): (&f64, &f64)| {
        // Equal infinities agree; a NaN on one side alone does not.
        let same = a == b || a.is_nan() && b.is_nan();
        let difference = if same { 0.0 } else { (a - b).abs() };
        if difference.is_nan() { f64::INFINITY } else { difference }
    };
    let absolute = found.iter().zip(reference.iter()).map(of).fold(0.0, f64::max);
    (absolute, absolute / largest.max(f64::MIN_POSITIVE))
}

impl Agreement {
    /// The larger of this and the difference of these outputs.
    fn with(mut self, names: &[String], expected: &[Tensor], found: &[Tensor]) -> Result<Agreement> {
        if expected.len() != found.len() {
            return Err(JobError::run(format!(
                "the peer has {} outputs, wattle {}",
                found.len(),
                expected.len()
            )));
        }
        self.outputs = names.len();
        for ((name, ours), theirs) in names.iter().zip(expected).zip(found) {
            if ours.shape() != theirs.shape() {
                let text = format!(
                    "output `{name}`: the peer's shape is {:?}, wattle's {:?}",
                    theirs.shape(),
                    ours.shape()
                );
                return Err(JobError::run(text));
            }
            let (absolute, relative) = difference(ours, theirs);
            self.max_absolute = self.max_absolute.max(absolute);
            self.max_relative = self.max_relative.max(relative);
        }
        Ok(self)
    }

    /// A comparison of times says nothing when results differ.
    fn check(&self, peer: PeerName) -> Result<()> {
        if self.max_relative <= self.tolerance {
            return Ok(());
        }
        Err(JobError::run(format!(
            "outputs differ from {}'s by up to {:.2e} ({:.2e} of the largest element), tolerated is {:.0e}: times of \
             different results are not compared; if the difference is meant, allow it with a larger one: option `tolerance`",
            peer.as_str(),
            self.max_absolute,
            self.max_relative,
            self.tolerance
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(ours: Vec<f32>, theirs: Vec<f32>) -> Agreement {
        let none = Agreement { max_absolute: 0.0, max_relative: 0.0, tolerance: 1e-4, outputs: 0 };
        let tensor = |v: Vec<f32>| Tensor::f32([v.len()], v);
        none.with(&["y".into()], &[tensor(ours)], &[tensor(theirs)]).unwrap()
    }

    #[test]
    fn differences_count_against_the_largest_element() {
        let close = agreement(vec![100.0, 0.001], vec![100.0, 0.0]);
        assert!(close.check(PeerName::Torch).is_ok() && (close.max_absolute - 0.001).abs() < 1e-9);
        assert!(agreement(vec![1.0, 0.001], vec![1.0, 0.0]).check(PeerName::Torch).is_err());
    }

    #[test]
    fn numbers_and_nan_never_agree() {
        assert!(agreement(vec![f32::NAN], vec![1.0]).check(PeerName::Torch).is_err());
        assert!(agreement(vec![f32::NAN, 1.0], vec![f32::NAN, 1.0]).check(PeerName::Torch).is_ok());
        assert!(agreement(vec![f32::INFINITY], vec![f32::INFINITY]).check(PeerName::Torch).is_ok());
    }

    #[test]
    fn turns_are_filled_with_runs() {
        assert_eq!(Contender::new("", None, 0.1).runs, 600);
        assert_eq!(Contender::new("", None, 500.0).runs, 3);
        assert_eq!(Contender::new("", Some(7), 500.0).runs, 7);
    }
}
