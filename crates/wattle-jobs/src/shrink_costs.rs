//! What the two networks of a shrinking cost: counted, timed in turns, modelled on an accelerator.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wattle_accel::{Architecture, Objective, Workload};
use wattle_data::Source;
use wattle_engine::{Plan, Session, Store};
use wattle_graph::{Model, Totals, costs, totals};
use wattle_meter::timing::{Turns, in_turns, once};
use wattle_meter::{Meter, Quantity};

use crate::accel::calibration::over_samples;
use crate::accel::{self, Modelled};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;
use crate::training::sample::Sample;

/// How long inferences are repeated to know their energy.
const ENERGY_TIME: Duration = Duration::from_millis(1000);

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

/// Times both networks in turn, then repeats each long enough to know its energy.
pub(crate) fn time(
    dense: &Model,
    lean: &Model,
    sample: &Sample,
    env: &Env,
    meter: &Meter,
) -> Result<[Timed; 2]> {
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
    let times = in_turns(&Turns::exactly(201).warmed(0), sessions.len(), |network| {
        let session = &mut sessions[network];
        once(|| session.run())
    })?;
    let mut timed = vec![];
    for ((session, times), name) in sessions.iter_mut().zip(times).zip(["dense inference", "lean inference"])
    {
        let scope = meter.scope(name);
        let (start, mut count) = (Instant::now(), 0u32);
        while start.elapsed() < ENERGY_TIME {
            session.run()?;
            count += 1;
        }
        let energy = scope.finish().energy;
        let energy_per_1000 = energy.and_then(|e| e.scaled(1000.0 / f64::from(count)).ok());
        let sparse_steps = session.plan().steps().filter(|s| s.kernel.contains("-sparse-")).count();
        timed.push(Timed { latency_ms: 1e3 * times.median(), energy_per_1000, sparse_steps });
    }
    let lean = timed.pop();
    let dense = timed.pop();
    dense.zip(lean).map(|(d, l)| [d, l]).ok_or_else(|| JobError::run("two networks were not timed"))
}
