//! Densities of activations, counted while the engine runs a model on real inputs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wattle_accel::Tally;
use wattle_data::{
    BatchOptions, Batches, DataSpec, INPUT, LoadOptions, Loader, ModelNotes, NormalisationChoice, Source,
    SplitOptions, Splits,
};
use wattle_engine::{Plan, Session, Store};
use wattle_graph::{DType, Model, Tensor, ValueId};
use wattle_train::binding::{Bound, Feed};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::npy;
use crate::observer::Observer;
use crate::training::normalised::Known;
use crate::training::sample::tensors;

/// Names the files given with `--input` as the data.
const FILES: &str = "inputs";

/// What a model is run on.
pub(super) struct Inputs<'a> {
    /// The files of inputs.
    pub feeds: &'a BTreeMap<String, Tensor>,
    /// A specification as for training, or `inputs` for the files alone.
    pub data: &'a str,
    /// Samples of the training part, at most.
    pub samples: usize,
    /// How they are normalised; if left out as the model's file says, else as the training part measures.
    pub normalise: Option<&'a NormalisationChoice>,
}

/// Runs a model whose shapes are all known over real inputs and counts. Also says, in a sentence, what was run.
pub(super) fn calibrate(
    model: &Model,
    tally: Tally,
    inputs: &Inputs<'_>,
    env: &Env,
    observer: &mut dyn Observer,
) -> Result<(Tally, String)> {
    let &Inputs { feeds, data, .. } = inputs;
    let mut run = Run::new(model, tally, env)?;
    for (name, tensor) in feeds {
        let id = model.graph.inputs().iter().find(|&&id| model.graph.label(id) == *name);
        let Some(&id) = id else { continue };
        run.feed(id, tensor.clone())?;
    }
    let open: Vec<ValueId> =
        model.graph.inputs().iter().copied().filter(|id| !run.fed.contains_key(id)).collect();
    let names = |ids: &[ValueId]| ids.iter().map(|&id| model.graph.label(id)).collect::<Vec<_>>().join(", ");
    if data == FILES {
        if !open.is_empty() {
            let text = format!("calibration:{FILES}: no file for {}; give one for each input", names(&open));
            return Err(JobError::option("density_from", text));
        }
        run.count()?;
        return Ok((run.tally, format!("counted in one run of {}", plural(feeds.len(), "input file"))));
    }
    let &[input] = open.as_slice() else {
        let text = format!(
            "calibration:{data}: the data feed one input, the model has {} without a file{}{}; give files for the \
             others, or for all of them with calibration:{FILES}",
            open.len(),
            if open.is_empty() { "" } else { ": " },
            names(&open)
        );
        return Err(JobError::option("density_from", text));
    };
    let (seen, normalised) = over_data(&mut run, model, input, inputs, observer)?;
    let text =
        format!("counted while running {} of {data} (training part; {normalised})", plural(seen, "sample"));
    Ok((run.tally, text))
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Feeds samples of a data set to one input; gives how many, and what they were normalised with.
fn over_data(
    run: &mut Run<'_>,
    model: &Model,
    input: ValueId,
    inputs: &Inputs<'_>,
    observer: &mut dyn Observer,
) -> Result<(usize, String)> {
    let &Inputs { data, samples, normalise, .. } = inputs;
    let (name, extents) = (model.graph.label(input), model.graph.extents(input)?);
    let dtype = model.graph.value(input).ty.dtype;
    let image_shape = match extents.as_slice() {
        &[_, channels @ (1 | 3), height, width] => Some([channels, height, width]),
        _ => None,
    };
    let dataset = Arc::new(DataSpec::parse(data)?.load(&LoadOptions { image_shape, task: None })?);
    let splits = Splits::new(&dataset, &SplitOptions::default())?;
    let batch = extents.first().copied().unwrap_or(1).max(1);
    let wanted: usize = extents.iter().product::<usize>() / batch;
    if dataset.shape.elements() != wanted {
        let text = format!(
            "calibration:{data}: a sample has the shape {:?} ({} numbers), input `{name}` takes {:?} ({wanted})",
            dataset.shape.dims(),
            dataset.shape.elements(),
            &extents[1..],
        );
        return Err(JobError::option("density_from", text));
    }
    let notes = ModelNotes::read(&model.metadata)?;
    // An input of bytes takes what is stored.
    let asked = if dtype.is_float() { normalise } else { Some(&NormalisationChoice::None) };
    let known = Known { notes: &notes, asked, table: &dataset, train: splits.train() };
    let (normalised, _) = known.input(&name, 0, true)?;
    // Whole batches, so that no sample counts twice.
    let count = samples.min(splits.train().len()) / batch * batch;
    if count == 0 {
        let found = samples.min(splits.train().len());
        let text = format!("calibration:{data}: {found} samples to run, the model takes {batch} at a time");
        return Err(JobError::option("density_from", text));
    }
    let options = BatchOptions::evaluation(batch).normalised(INPUT, normalised.constants.clone());
    let source = Arc::new(Batches::new(dataset, &splits.train()[..count], options)?);
    run.over(source, &[Feed { input: name, column: INPUT.into(), axis: 0 }], observer)?;
    Ok((count, normalised.to_string()))
}

/// Counts over a source of single samples, to one of which the model is bound.
pub fn over_samples(
    bound: &Bound,
    tally: Tally,
    samples: &Arc<dyn Source>,
    env: &Env,
    observer: &mut dyn Observer,
) -> Result<Tally> {
    let mut run = Run::new(&bound.model, tally, env)?;
    run.over(samples.clone(), &bound.feeds, observer)?;
    Ok(run.tally)
}

/// A model with everything that is to be counted among its outputs.
struct Run<'a> {
    model: &'a Model,
    session: Session,
    tally: Tally,
    /// What the outputs of the session are.
    outputs: Vec<ValueId>,
    /// The tensors last fed.
    fed: HashMap<ValueId, Tensor>,
}

impl<'a> Run<'a> {
    fn new(model: &'a Model, tally: Tally, env: &Env) -> Result<Run<'a>> {
        let outputs: Vec<ValueId> =
            tally.values().into_iter().filter(|id| !model.graph.inputs().contains(id)).collect();
        let mut graph = model.graph.clone();
        graph.set_outputs(outputs.clone());
        let store = Store::new(&model.parameters);
        let plan = Plan::compile(&graph, &store, &env.plan_options())?;
        let session = Session::new(plan, &store)?;
        Ok(Run { model, session, tally, outputs, fed: HashMap::new() })
    }

    fn feed(&mut self, id: ValueId, tensor: Tensor) -> Result<()> {
        let name = self.model.graph.label(id);
        let dtype: DType = self.model.graph.value(id).ty.dtype;
        let found = tensor.dtype();
        let tensor = npy::fitted(tensor, dtype).ok_or_else(|| {
            JobError::input(format_args!("input `{name}`: found elements of {found}, expected {dtype}"))
        })?;
        self.session.set_input(&name, &tensor)?;
        self.fed.insert(id, tensor);
        Ok(())
    }

    /// Runs the batches of an epoch, each of as many samples as the inputs take.
    fn over(&mut self, source: Arc<dyn Source>, feeds: &[Feed], observer: &mut dyn Observer) -> Result<()> {
        let mut loader = Loader::new(source, 2);
        let steps = loader.epoch_len();
        for step in 0..steps {
            observer.progress("calibrating", step, steps);
            if observer.cancelled() {
                return Err(JobError::cancelled());
            }
            for (name, tensor) in tensors(loader.next_batch()?, feeds, &self.model.graph)? {
                let id =
                    self.model.graph.inputs().iter().copied().find(|&id| self.model.graph.label(id) == name);
                self.feed(id.ok_or_else(|| JobError::run(format_args!("no input `{name}`")))?, tensor)?;
            }
            self.count()?;
        }
        observer.progress("calibrating", steps, steps);
        Ok(())
    }

    fn count(&mut self) -> Result<()> {
        self.session.run()?;
        let tensors: HashMap<ValueId, Tensor> =
            self.outputs.iter().copied().zip(self.session.outputs()?.into_iter().map(|(_, t)| t)).collect();
        let fed = &self.fed;
        self.tally.count(self.model, |id| tensors.get(&id).or_else(|| fed.get(&id)));
        Ok(())
    }
}
