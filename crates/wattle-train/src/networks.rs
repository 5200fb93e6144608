//! The networks of a training, planned when they first learn, all on one set of parameters.

use std::sync::Arc;

use wattle_data::error::{Error, Result};
use wattle_data::{Batch, ColumnInfo};
use wattle_engine::{Freeze, Plan, PlanCache, PlanOptions, Session, Store};
use wattle_graph::Parameters;

use crate::binding::Feed;
use crate::refusal::{of_engine, of_graph};
use crate::step_graph::{Face, FaceInputs, FaceOutputs, StepGraph};
use crate::wires::{self, Wire};

const PLACE: &str = "training";

/// Most networks that keep a session with its memory; a plan may stay in the cache longer.
const MOST_SESSIONS: usize = 16;

/// Most bytes that plans are kept in.
const PLANS: usize = 1 << 30;

/// What a step has told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// The loss before the update.
    pub loss: f32,
    /// The norm of all gradients together before they were clipped, where it is told.
    pub norm: Option<f32>,
    /// The objective's numbers, by name.
    pub metrics: Vec<(String, f32)>,
}

/// Planned networks and the parameters they share.
pub(crate) struct Networks {
    plan: PlanOptions,
    feeds: Vec<Feed>,
    columns: Vec<ColumnInfo>,
    batch: usize,
    store: Store,
    plans: PlanCache,
    planned: Vec<Planned>,
}

/// The faces of one network.
struct Planned {
    network: Arc<StepGraph>,
    /// One batch a step: one face. Several: two.
    faces: Vec<Running>,
}

/// A face with its memory.
struct Running {
    session: Session,
    wires: Vec<Wire>,
    inputs: FaceInputs,
    outputs: FaceOutputs,
}

impl Networks {
    /// No network yet. Parameters that one network of `many` leaves alone may be trained by another, so none is frozen.
    pub fn new(
        parameters: &Parameters,
        feeds: Vec<Feed>,
        columns: Vec<ColumnInfo>,
        batch: usize,
        plan: PlanOptions,
        many: bool,
    ) -> Networks {
        let freeze = if many { Freeze::None } else { Freeze::All };
        let (plan, store) = (PlanOptions { freeze, ..plan }, Store::new(parameters));
        Networks { plan, feeds, columns, batch, store, plans: PlanCache::new(PLANS), planned: vec![] }
    }

    /// Plans a network, unless it is planned; `split` for gradients and update apart.
    pub fn prepare(&mut self, network: &Arc<StepGraph>, split: bool) -> Result<()> {
        if let Some(at) = self.planned.iter().position(|p| Arc::ptr_eq(&p.network, network)) {
            let found = self.planned.remove(at);
            self.planned.push(found);
            return Ok(());
        }
        let refuse = of_graph("the model");
        let faces = match split {
            false => vec![network.fused().map_err(&refuse)?],
            true => vec![network.gradients().map_err(&refuse)?, network.update().map_err(&refuse)?],
        };
        let faces = faces.into_iter().map(|face| self.run(face)).collect::<Result<_>>()?;
        if self.planned.len() == MOST_SESSIONS {
            self.planned.remove(0);
        }
        self.planned.push(Planned { network: network.clone(), faces });
        Ok(())
    }

    fn run(&mut self, face: Face) -> Result<Running> {
        for (name, tensor) in face.parameters.iter() {
            if self.store.version(name).is_none() {
                self.store.insert(name, tensor.clone()).map_err(of_engine(PLACE))?;
                self.store.set_mask(name, face.parameters.mask(name).cloned()).map_err(of_engine(PLACE))?;
            }
        }
        let Face { graph, ports, inputs, outputs, .. } = face;
        let wires =
            wires::wires(&graph, &self.feeds, &ports, &self.columns).map_err(of_graph("the model"))?;
        let plan = self.plans.get(&graph, &self.store, &self.plan).map_err(of_engine("the model"))?;
        let session = Session::new(plan, &self.store).map_err(of_engine(PLACE))?;
        Ok(Running { session, wires, inputs, outputs })
    }

    /// One update by one batch. The network is the one prepared last.
    pub fn step(&mut self, batch: &Batch, seed: u64, rate: f32, count: f32) -> Result<Told> {
        let samples = self.batch;
        let face = self.face(0)?;
        wires::feed(&mut face.session, &face.wires, batch, samples)?;
        face.set_draws(seed, batch.step)?;
        face.set_numbers(rate, count)?;
        face.run()?;
        face.told()
    }

    /// Adds a batch's loss and gradients to a sum. The network is the one prepared last.
    pub fn add_gradients(&mut self, batch: &Batch, seed: u64, sum: &mut GradientSum) -> Result<()> {
        let samples = self.batch;
        let face = self.face(0)?;
        wires::feed(&mut face.session, &face.wires, batch, samples)?;
        face.set_draws(seed, batch.step)?;
        face.run()?;
        let told = face.told()?;
        let weight = match face.outputs.weight {
            Some(place) => face.session.output::<f32>(place).map_err(of_engine(PLACE))?[0],
            None => 1.0,
        };
        sum.begin(&told, weight);
        for (index, &place) in face.outputs.gradients.iter().enumerate() {
            sum.add(index, face.session.output::<f32>(place).map_err(of_engine(PLACE))?);
        }
        Ok(())
    }

    /// One update by summed gradients. The network is the one prepared last.
    pub fn update(&mut self, sum: &GradientSum, rate: f32, count: f32) -> Result<Told> {
        let face = self.face(1)?;
        for (index, &place) in face.inputs.gradients.iter().enumerate() {
            sum.write(index, face.session.input_mut::<f32>(place).map_err(of_engine(PLACE))?);
        }
        face.set_numbers(rate, count)?;
        face.run()?;
        Ok(Told { norm: face.told()?.norm, ..sum.told() })
    }

    /// The parameters as they are now.
    pub fn parameters(&self) -> Parameters {
        self.store.parameters()
    }

    /// The plans of the network prepared last.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.planned.last().into_iter().flat_map(|p| &p.faces).map(|face| face.session.plan())
    }

    fn face(&mut self, index: usize) -> Result<&mut Running> {
        let faces = self.planned.last_mut().map(|planned| &mut planned.faces);
        faces
            .and_then(|faces| faces.get_mut(index))
            .ok_or_else(|| Error::machine(PLACE, "a step of a network that was not prepared"))
    }
}

impl Running {
    fn set_numbers(&mut self, rate: f32, count: f32) -> Result<()> {
        for (place, number) in [(self.inputs.rate, rate), (self.inputs.step, count)] {
            if let Some(place) = place {
                self.session.input_mut::<f32>(place).map_err(of_engine(PLACE))?[0] = number;
            }
        }
        Ok(())
    }

    fn set_draws(&mut self, seed: u64, step: u64) -> Result<()> {
        if let Some(place) = self.inputs.seed {
            self.session.input_mut::<i64>(place).map_err(of_engine(PLACE))?[0] = seed as i64;
        }
        if let Some(place) = self.inputs.draw {
            self.session.input_mut::<f32>(place).map_err(of_engine(PLACE))?[0] = step as f32;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        self.session.run().map_err(of_engine(PLACE))
    }

    fn told(&mut self) -> Result<Told> {
        let session = &mut self.session;
        let mut number = |place: usize| Ok(session.output::<f32>(place).map_err(of_engine(PLACE))?[0]);
        Ok(Told {
            loss: self.outputs.loss.map(&mut number).transpose()?.unwrap_or_default(),
            norm: self.outputs.norm.map(&mut number).transpose()?,
            metrics: self
                .outputs
                .metrics
                .iter()
                .map(|(name, place)| Ok((name.clone(), number(*place)?)))
                .collect::<Result<_>>()?,
        })
    }
}

/// Gradients of several batches, added up in their order and averaged by what each batch's loss is a mean over: for a loss
/// that is a mean over samples, or over the positions that are not ignored, the gradient of all batches as one.
#[derive(Debug, Default)]
pub(crate) struct GradientSum {
    gradients: Vec<Vec<f32>>,
    weight: f32,
    weights: f64,
    batches: u64,
    loss: f64,
    metrics: Vec<(String, f64)>,
}

impl GradientSum {
    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.gradients.iter_mut().for_each(|sum| sum.fill(0.0));
        (self.weights, self.batches, self.loss) = (0.0, 0, 0.0);
        self.metrics.clear();
    }

    fn begin(&mut self, told: &Told, weight: f32) {
        self.weight = weight;
        self.weights += f64::from(weight);
        self.batches += 1;
        self.loss += f64::from(told.loss) * f64::from(weight);
        if self.metrics.is_empty() {
            self.metrics = told.metrics.iter().map(|(name, _)| (name.clone(), 0.0)).collect();
        }
        for ((_, sum), (_, one)) in self.metrics.iter_mut().zip(&told.metrics) {
            *sum += f64::from(*one);
        }
    }

    fn add(&mut self, index: usize, gradient: &[f32]) {
        if self.gradients.len() <= index {
            self.gradients.resize(index + 1, vec![]);
        }
        let (sum, weight) = (&mut self.gradients[index], self.weight);
        if sum.len() != gradient.len() {
            *sum = vec![0.0; gradient.len()];
        }
        for (sum, one) in sum.iter_mut().zip(gradient) {
            *sum += one * weight;
        }
    }

    /// The mean of one gradient.
    fn write(&self, index: usize, to: &mut [f32]) {
        let share = if self.weights > 0.0 { (1.0 / self.weights) as f32 } else { 0.0 };
        for (to, sum) in to.iter_mut().zip(&self.gradients[index]) {
            *to = sum * share;
        }
    }

    fn told(&self) -> Told {
        let mean = |sum: f64, over: f64| if over > 0.0 { (sum / over) as f32 } else { 0.0 };
        let each = self.metrics.iter().map(|(name, sum)| (name.clone(), mean(*sum, self.batches as f64)));
        Told { loss: mean(self.loss, self.weights), norm: None, metrics: each.collect() }
    }
}
