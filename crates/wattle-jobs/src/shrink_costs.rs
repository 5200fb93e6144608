//! What the two networks of a shrinking cost: counted, timed in turns, modelled on an accelerator.

use std::sync::Arc;
use std::time::Duration;

use wattle_accel::{Architecture, Objective, Workload};
use wattle_data::Source;
use wattle_engine::{Plan, Session, Store};
use wattle_graph::{Model, Totals, costs, totals};
use wattle_meter::bystanders::Watch;
use wattle_meter::timing::{Turns, energies_in_turns, in_turns, once};
use wattle_meter::{Meter, Quantity};

use crate::accel::calibration::over_samples;
use crate::accel::{self, Modelled};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;
use crate::training::sample::Sample;

/// How often, and how long each time, inferences of one network are repeated to know their energy.
const ENERGY_TURNS: usize = 4;
const ENERGY_TURN: Duration = Duration::from_millis(300);

/// Costs of one sample.
pub(crate) fn sums(model: &Model, sample: &Sample) -> Result<Totals> {
    let bound = sample.bind(model)?.model;
    Ok(totals(&costs(&bound.graph, &bound.parameters)?))
}

/// Samples on which activations are counted, at most.
pub(crate) const CALIBRATION: usize = 64;

/// A network on an architecture, with the zeros that training samples leave in its activations.
pub(crate) fn on_accelerator(
    arch: &Architecture,
    model: &Model,
    sample: &Sample,
    samples: &Arc<dyn Source>,
    env: &Env,
    observer: &mut dyn Observer,
) -> Result<Modelled> {
    let bound = sample.bind(model)?;
    let (mut workload, tally) = Workload::with_tally(&bound.model)?;
    over_samples(&bound, tally, samples, env, observer)?.apply(&mut workload);
    let estimate = accel::estimated(arch, &workload, Objective::default(), env, observer)?;
    let counted = samples.epoch_len();
    let densities = format!(
        "densities of weights: counted in the model; of activations: counted over {counted} training samples"
    );
    Ok(Modelled::of(&estimate, &densities))
}

/// Time and energy of inferences of one sample.
pub(crate) struct Timed {
    /// Median of one inference.
    pub latency_ms: f64,
    /// Energy of 1000 inferences.
    pub energy_per_1000: Option<Quantity>,
    /// How many of its steps run on sparse kernels.
    pub sparse_steps: usize,
}

/// Times both networks in turns, then repeats them in longer turns to know their energy; with a warning where others used
/// the machine.
pub(crate) fn time(
    dense: &Model,
    lean: &Model,
    sample: &Sample,
    env: &Env,
    meter: &Meter,
) -> Result<([Timed; 2], Option<String>)> {
    let mut sessions = vec![];
    for model in [dense, lean] {
        let bound = sample.bind(model)?;
        let store = Store::new(&bound.model.parameters);
        let plan = Plan::compile(&bound.model.graph, &store, &env.plan_options())?;
        let mut session = Session::new(plan, &store)?;
        for (name, tensor) in sample.tensors(&bound)? {
            session.set_input(&name, &tensor)?;
        }
        session.run()?;
        sessions.push(session);
    }
    let watch = Watch::begin(&[]);
    let times = in_turns(&Turns::exactly(201).warmed(0), sessions.len(), |network| {
        let session = &mut sessions[network];
        once(|| session.run())
    })?;
    let names = ["dense inference", "lean inference"];
    let energies = energies_in_turns(meter, &names, ENERGY_TURNS, ENERGY_TURN, |n| sessions[n].run())?;
    let timed = sessions.iter().zip(times).zip(energies).map(|((session, times), energy)| Timed {
        latency_ms: 1e3 * times.median(),
        energy_per_1000: energy.and_then(|energy| energy.scaled(1000.0).ok()),
        sparse_steps: session.plan().steps().filter(|s| s.kernel.contains("-sparse-")).count(),
    });
    let timed: [Timed; 2] =
        timed.collect::<Vec<_>>().try_into().map_err(|_| JobError::run("two networks were not timed"))?;
    Ok((timed, watch.warning()))
}
