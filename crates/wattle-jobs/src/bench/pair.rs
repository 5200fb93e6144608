//! Two models on this engine, in turns: what disturbs the machine disturbs both.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use wattle_engine::Session;
use wattle_graph::Tensor;
use wattle_meter::bystanders::Watch;
use wattle_meter::timing::{Turns, quantile, repeated};

use super::BenchOptions;
use super::against::{self, Contender};
use super::inference::Inference;
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;

/// Version of the document.
const SCHEMA: u32 = 1;

/// Two models, timed in turns.
#[derive(Clone, Debug, Serialize)]
pub struct Paired {
    /// Version of this document.
    pub schema: u32,
    /// Both, in the order in which they were named.
    pub models: [Side; 2],
    /// The first's time over the second's, above 1 where the second is faster: median over rounds.
    pub ratio: f64,
    /// A tenth of the rounds has a smaller ratio.
    pub ratio_p10: f64,
    /// Nine tenths have a smaller ratio.
    pub ratio_p90: f64,
    /// Whether the interval of the ratio has 1 in it.
    pub undecided: bool,
    /// How far outputs of the same inputs differ; `None` where they are of other names or shapes.
    pub difference: Option<Difference>,
    /// Turns of each.
    pub rounds: u32,
    /// Threads that computed.
    pub threads: usize,
    /// Instruction set.
    pub isa: &'static str,
    /// What disturbed the comparison, if anything did.
    pub disturbed: Option<String>,
    /// How times are known.
    pub source: &'static str,
}

/// One of both.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Its file.
    pub model: String,
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
    /// Nodes that only the reference interpreter can run, slowly.
    pub interpreted_nodes: Vec<String>,
}

/// How far outputs differ. Two models may differ on purpose: nothing is refused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Largest difference.
    pub max_absolute: f64,
    /// As a share of the largest element of the first model's output it occurs in.
    pub max_relative: f64,
    /// Outputs compared.
    pub outputs: usize,
}

/// Times both in turns, on the same numbers where their inputs have the same shapes.
pub(super) fn compare(
    options: &BenchOptions,
    other: &Path,
    env: &Env,
    observer: &mut dyn Observer,
) -> Result<Paired> {
    let read = |path: &Path| {
        let found = Inference::read(path, &options.inputs, options.dense, env);
        found.map_err(|error| error.context(path.display()))
    };
    let paths = [options.model.as_path(), other];
    let mut sessions = [read(paths[0])?.session, read(paths[1])?.session];
    let mut contenders = vec![];
    for session in &mut sessions {
        session.run()?;
        let once = repeated(&Turns::exactly(2).warmed(0), || session.run())?;
        contenders.push(Contender::new("", options.runs, 1e3 * once.least()));
    }
    let difference = difference(&sessions[0], &sessions[1])?;
    let watch = Watch::begin(&[]);
    for round in 0..options.rounds {
        observer.progress("rounds", u64::from(round), u64::from(options.rounds));
        if observer.cancelled() {
            return Err(JobError::cancelled());
        }
        for (session, contender) in sessions.iter_mut().zip(&mut contenders) {
            // Brings its weights back into the caches, which the other has filled.
            session.run()?;
            let times = repeated(&Turns::exactly(contender.runs).warmed(0), || session.run())?;
            contender.rounds.push(times.seconds().iter().map(|s| 1e3 * s).collect());
        }
    }
    let disturbed = watch.warning();
    let sides = [0, 1].map(|at| side(paths[at], &contenders[at], &sessions[at]));
    let ratios: Vec<f64> = sides[0].rounds_ms.iter().zip(&sides[1].rounds_ms).map(|(a, b)| a / b).collect();
    let (ratio_p10, ratio_p90) = (quantile(&ratios, 0.1), quantile(&ratios, 0.9));
    Ok(Paired {
        schema: SCHEMA,
        models: sides,
        ratio: quantile(&ratios, 0.5),
        ratio_p10,
        ratio_p90,
        undecided: (ratio_p10..=ratio_p90).contains(&1.0),
        difference,
        rounds: options.rounds,
        threads: env.cpu.threads.count(),
        isa: env.cpu.isa.name(),
        disturbed,
        source: "measured:monotonic clock around each run",
    })
}

fn side(path: &Path, contender: &Contender, session: &Session) -> Side {
    let all = contender.rounds.concat();
    Side {
        model: path.display().to_string(),
        median_ms: quantile(&all, 0.5),
        p10_ms: quantile(&all, 0.1),
        p90_ms: quantile(&all, 0.9),
        runs_per_round: contender.runs,
        rounds_ms: contender.medians(),
        interpreted_nodes: session.plan().interpreted().into_iter().map(String::from).collect(),
    }
}

/// How far the outputs of both differ, if they are of the same names and shapes.
fn difference(first: &Session, second: &Session) -> Result<Option<Difference>> {
    let theirs: BTreeMap<String, Tensor> = second.outputs()?.into_iter().collect();
    let ours = first.outputs()?;
    let mut found = Difference { max_absolute: 0.0, max_relative: 0.0, outputs: ours.len() };
    for (name, ours) in &ours {
        let Some(theirs) = theirs.get(name).filter(|theirs| theirs.shape() == ours.shape()) else {
            return Ok(None);
        };
        let (absolute, relative) = against::difference(theirs, ours);
        found.max_absolute = found.max_absolute.max(absolute);
        found.max_relative = found.max_relative.max(relative);
    }
    Ok(Some(found))
}
