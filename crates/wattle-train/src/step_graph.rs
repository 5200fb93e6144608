//! A training step as graphs: gradients, the update by them, and both in one.
//!
//! Every node is an ordinary one, so a step can be printed, costed and planned like a network. What stands between
//! gradients and update (adding up several batches, or several machines) is for the caller, in a fixed order.

use wattle_graph::ops::{Binary, BinaryFunction, Function, Reduce, Reduction, Unary};
use wattle_graph::rewrite::random_inputs;
use wattle_graph::{
    DType, Differentiated, Graph, GraphError, Model, Parameter, Parameters, Role, Shape, Tensor, ValueId,
    differentiate,
};

use crate::fingerprint;
use crate::groups::Groups;
use crate::objective::{Attached, Judged, Objective, Port};
use crate::optimizer::{Initial, Optimizer, state};
use crate::options::TrainOptions;
use crate::training_graph::in_training_mode;

/// Added to the norm of the gradients before something is divided by it, as in PyTorch's `clip_grad_norm_`.
const NORM_EPSILON: f32 = 1e-6;

/// What of the options the nodes of a step depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOptions {
    /// How parameters follow their gradients.
    pub optimizer: Optimizer,
    /// Which parameters are treated otherwise.
    pub groups: Groups,
    /// The largest norm of all gradients together.
    pub clip: Option<f64>,
    /// The share that moving averages of the parameters keep at each step.
    pub average: Option<f64>,
    /// Whether the norm of the gradients is told even where nothing is clipped. It reads every gradient once more, so that
    /// masked weights are no longer trained on their kept elements alone.
    pub norm: bool,
}

impl StepOptions {
    /// This optimiser for all parameters, and nothing else.
    pub fn new(optimizer: Optimizer) -> StepOptions {
        StepOptions { optimizer, groups: Groups::default(), clip: None, average: None, norm: false }
    }
}

impl From<&TrainOptions> for StepOptions {
    fn from(options: &TrainOptions) -> StepOptions {
        let TrainOptions { optimizer, groups, clip, average, .. } = options;
        StepOptions {
            optimizer: *optimizer,
            groups: groups.clone(),
            clip: *clip,
            average: *average,
            norm: false,
        }
    }
}

/// One training step of one network, ready to be planned in three ways.
///
/// [`StepGraph::fused`] is [`StepGraph::gradients`] followed by [`StepGraph::update`], to the bit where both choose the same
/// kernels: nothing is computed in another order. Only weights with a mask may differ in the last digits, where fused their
/// gradient is computed on the kept elements alone.
#[derive(Clone, Debug)]
pub struct StepGraph {
    /// The network in training mode, the loss, and the gradients.
    graph: Graph,
    parameters: Parameters,
    attached: Attached,
    trained: Vec<Trained>,
    /// The inputs of what draws random numbers: its seed, and the number of the batch.
    draws: (Option<ValueId>, Option<ValueId>),
    options: StepOptions,
    facts: Facts,
}

/// A parameter that follows its gradient.
#[derive(Clone, Debug)]
struct Trained {
    parameter: Parameter,
    value: ValueId,
    gradient: ValueId,
    decays: bool,
    rate: f64,
}

/// What whoever trains should know of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Parameters that follow their gradients, by name.
    pub trained: Vec<String>,
    /// Parameters that are left alone because a group says so.
    pub frozen: Vec<String>,
    /// Trainable parameters that the loss does not depend on: they stay what they are.
    pub without_gradient: Vec<String>,
}

/// One graph of a step, and where things are in it.
#[derive(Clone, Debug)]
pub struct Face {
    /// What to plan.
    pub graph: Graph,
    /// What it reads and writes: the network's parameters, and its optimiser's state as it is before the first update.
    pub parameters: Parameters,
    /// The targets that are fed beside the network's inputs.
    pub ports: Vec<Port>,
    /// Positions among the inputs.
    pub inputs: FaceInputs,
    /// Positions among the outputs.
    pub outputs: FaceOutputs,
}

/// Where the inputs of a face are that are neither the network's nor targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaceInputs {
    /// The learning rate: one float.
    pub rate: Option<usize>,
    /// The number of updates so far plus one: one float.
    pub step: Option<usize>,
    /// The seed of what the network draws at random: one i64.
    pub seed: Option<usize>,
    /// What tells its draws apart from batch to batch: one float, the number of the batch.
    pub draw: Option<usize>,
    /// Gradients, in the order of [`Facts::trained`].
    pub gradients: Vec<usize>,
}

/// Where the outputs of a face are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaceOutputs {
    /// The loss before the update.
    pub loss: Option<usize>,
    /// What the loss is a mean over; see [`Attached::weight`].
    pub weight: Option<usize>,
    /// The norm of all gradients together, before they were clipped.
    pub norm: Option<usize>,
    /// Numbers that the objective tells, by name.
    pub metrics: Vec<(String, usize)>,
    /// Gradients, in the order of [`Facts::trained`].
    pub gradients: Vec<usize>,
}

impl StepGraph {
    /// The step of a network whose shapes are known ([`crate::binding::bind`]).
    ///
    /// # Errors
    /// When the objective does not fit the outputs, nothing that may be trained leads to the loss, an operator on the way
    /// has no gradient, or a group names no parameter.
    pub fn new(
        model: &Model,
        objective: &dyn Objective,
        options: &StepOptions,
    ) -> Result<StepGraph, GraphError> {
        let own = in_training_mode(&model.graph)?;
        let mut graph = random_inputs(&own)?;
        // What draws random numbers reads them; a network that has inputs of these names is fed them by its data.
        let added = |name: &str| own.find(name).is_none().then(|| graph.find(name)).flatten();
        let draws = (added("seed"), added("step"));
        let outputs = graph.outputs().to_vec();
        let mut attached = objective.attach(&mut graph, &outputs)?;
        let trainable: Vec<ValueId> = graph
            .parameters()
            .filter(|&p| graph.parameter_of(p).is_some_and(|p| p.role == Role::Trainable))
            .collect();
        if trainable.is_empty() {
            return Err(GraphError::Invalid(format!(
                "the model `{}` has no trainable parameter",
                graph.name
            )));
        }
        let treatments = options.groups.treatments(&graph, &trainable)?;
        let wanted: Vec<ValueId> =
            trainable.iter().zip(&treatments).filter(|(_, t)| t.is_trained).map(|(&id, _)| id).collect();
        // Differentiation starts from all of them, so that what is frozen and what is not reached are told apart.
        let Differentiated { graph: mut step, gradients } = differentiate(&graph, attached.loss, &wanted)?;
        let mut facts = Facts::default();
        let name = |id: ValueId| graph.parameter_of(id).map_or(String::new(), |p| p.tensor.clone());
        for (&id, treatment) in trainable.iter().zip(&treatments) {
            if !treatment.is_trained {
                facts.frozen.push(name(id));
            }
        }
        let mut found = vec![];
        for (&value, gradient) in wanted.iter().zip(gradients) {
            match gradient {
                Some(gradient) => found.push((value, gradient)),
                None => facts.without_gradient.push(name(value)),
            }
        }
        // Windows of one tensor that overlap are one memory: the gradients of what they share add.
        let mut trained: Vec<Trained> = vec![];
        for (value, gradient) in step.join_gradients(&found)? {
            let Some(parameter) = step.parameter_of(value).cloned() else { continue };
            let whole = trainable.iter().position(|&id| name(id) == parameter.tensor);
            let treatment = whole.map(|at| treatments[at]);
            let (decays, rate) = treatment.map_or((true, 1.0), |t| (t.decays, t.rate));
            facts.trained.push(parameter.tensor.clone());
            trained.push(Trained { parameter, value, gradient, decays, rate });
        }
        if trained.is_empty() {
            let reason = match facts.without_gradient.len() {
                0 => "all are frozen".to_string(),
                _ => "none that is not frozen leads to the loss".to_string(),
            };
            let text = format!("none of the {} trainable parameters is trained: {reason}", trainable.len());
            return Err(GraphError::Invalid(text));
        }
        let metrics = std::mem::take(&mut attached.metrics);
        attached.metrics = metrics.into_iter().filter(|(_, id)| *id != attached.loss).collect();
        let parameters = model.parameters.clone();
        let options = options.clone();
        Ok(StepGraph { graph: step, parameters, attached, trained, draws, options, facts })
    }

    /// What whoever trains should know.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// A hash of the nodes of the step and of its options.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(fingerprint::of_graph(&self.graph).as_bytes());
        hasher.update(format!("{:?}", self.options).as_bytes());
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// What metrics compare; its values are those of [`Face::graph`] of gradients and fused steps.
    pub fn judged(&self) -> Option<&Judged> {
        self.attached.judged.as_ref()
    }

    /// The targets that are fed beside the network's inputs.
    pub fn ports(&self) -> &[Port] {
        &self.attached.ports
    }

    /// Loss and gradients of one batch. Running statistics are assigned here, once for every batch.
    ///
    /// Inputs: the network's and the targets. Outputs: the loss, what it is a mean over, the objective's numbers, the
    /// gradients. To be planned without freezing anything: it assigns next to nothing, and yet its parameters change.
    pub fn gradients(&self) -> Result<Face, GraphError> {
        let mut graph = self.graph.clone();
        let mut outputs = Outputs::of(&self.attached, true);
        let gradients = self.trained.iter().map(|t| outputs.add(t.gradient)).collect();
        graph.set_outputs(outputs.values);
        // A graph that assigns nothing is planned for inference: by other rewrites, which give other bits.
        let first = self.trained[0].value;
        if graph.assignments().is_empty() {
            graph.assign(first, first)?;
        }
        let places = FaceOutputs { gradients, ..outputs.places };
        let (ports, inputs) = (self.attached.ports.clone(), self.draw_inputs());
        Ok(Face { graph, parameters: self.parameters.clone(), ports, inputs, outputs: places })
    }

    /// The update of all parameters by given gradients.
    ///
    /// Inputs: a gradient for each trained parameter, then the learning rate and the step. Output: the norm, if it is told.
    pub fn update(&self) -> Result<Face, GraphError> {
        let mut graph = Graph::new(format!("{} update", self.graph.name));
        let mut parameters = self.parameters.clone();
        let (mut targets, mut gradients) = (vec![], vec![]);
        for trained in &self.trained {
            let ty = &self.graph.value(trained.value).ty;
            let gradient = format!("gradient:{}", self.graph.label(trained.value));
            gradients.push(graph.input(gradient, ty.dtype, ty.shape.clone()));
        }
        for trained in &self.trained {
            let tensor = parameters.get(&trained.parameter.tensor).cloned().ok_or_else(|| {
                GraphError::Invalid(format!("parameter `{}` has no tensor", trained.parameter.tensor))
            })?;
            targets.push(graph.parameter(trained.parameter.clone(), tensor.dtype(), tensor.shape()));
        }
        let mut outputs = Outputs::default();
        let inputs = self.attach(&mut graph, &mut parameters, &targets, &gradients, &mut outputs)?;
        graph.set_outputs(outputs.values);
        let inputs = FaceInputs { gradients: (0..gradients.len()).collect(), ..inputs };
        Ok(Face { graph, parameters, ports: vec![], inputs, outputs: outputs.places })
    }

    /// Gradients and update in one graph, for a step of one batch.
    ///
    /// Inputs: the network's, the targets, the learning rate and the step. Outputs: the loss before the update, the
    /// objective's numbers, the norm if it is told.
    pub fn fused(&self) -> Result<Face, GraphError> {
        let mut graph = self.graph.clone();
        let mut parameters = self.parameters.clone();
        let (targets, gradients): (Vec<_>, Vec<_>) =
            self.trained.iter().map(|t| (t.value, t.gradient)).unzip();
        let mut outputs = Outputs::of(&self.attached, false);
        let inputs = self.attach(&mut graph, &mut parameters, &targets, &gradients, &mut outputs)?;
        let inputs = FaceInputs { rate: inputs.rate, step: inputs.step, ..self.draw_inputs() };
        graph.set_outputs(outputs.values);
        let ports = self.attached.ports.clone();
        Ok(Face { graph, parameters, ports, inputs, outputs: outputs.places })
    }

    /// Adds the updates of `targets` by `gradients`, both in the order of the trained parameters.
    fn attach(
        &self,
        graph: &mut Graph,
        parameters: &mut Parameters,
        targets: &[ValueId],
        gradients: &[ValueId],
        outputs: &mut Outputs,
    ) -> Result<FaceInputs, GraphError> {
        let binary = |function| Binary { function };
        let number = |graph: &mut Graph, name: &str| {
            let mut name = name.to_string();
            while graph.find(&name).is_some() {
                name = format!("update:{name}");
            }
            graph.input(name, DType::F32, Shape::known(&[]))
        };
        let place = graph.inputs().len();
        let (rate, step) = (number(graph, "learning_rate"), number(graph, "step"));
        let mut gradients = gradients.to_vec();
        if self.options.clip.is_some() || self.options.norm {
            let norm = self.norm(graph, parameters, &gradients)?;
            if let Some(clip) = self.options.clip {
                let [largest, epsilon, one] =
                    [clip as f32, NORM_EPSILON, 1.0].map(|x| graph.constant(Tensor::scalar(x)));
                let above = graph.apply(binary(BinaryFunction::Add), &[norm, epsilon])?;
                let factor = graph.apply(binary(BinaryFunction::Div), &[largest, above])?;
                let factor = graph.apply(binary(BinaryFunction::Min), &[factor, one])?;
                for gradient in &mut gradients {
                    *gradient = graph.apply(binary(BinaryFunction::Mul), &[*gradient, factor])?;
                }
            }
            outputs.places.norm = Some(outputs.add(norm));
        }
        let mut rates: Vec<(f64, ValueId)> = vec![(1.0, rate)];
        for ((trained, &target), gradient) in self.trained.iter().zip(targets).zip(gradients) {
            let known = rates.iter().find(|(factor, _)| *factor == trained.rate).map(|(_, rate)| *rate);
            let rate = match known {
                Some(rate) => rate,
                None => {
                    let factor = graph.constant(Tensor::scalar(trained.rate as f32));
                    let scaled = graph.apply(binary(BinaryFunction::Mul), &[rate, factor])?;
                    rates.push((trained.rate, scaled));
                    scaled
                }
            };
            let next = self.options.optimizer.attach(
                graph,
                parameters,
                target,
                gradient,
                [rate, step],
                trained.decays,
            )?;
            if let Some(kept) = self.options.average {
                let average = state(graph, parameters, target, AVERAGE, Initial::Owner)?;
                let [old, new] = [kept, 1.0 - kept].map(|x| graph.constant(Tensor::scalar(x as f32)));
                let old = graph.apply(binary(BinaryFunction::Mul), &[average, old])?;
                let new = graph.apply(binary(BinaryFunction::Mul), &[next, new])?;
                let moved = graph.apply(binary(BinaryFunction::Add), &[old, new])?;
                graph.assign(average, moved)?;
            }
        }
        Ok(FaceInputs { rate: Some(place), step: Some(place + 1), ..FaceInputs::default() })
    }

    /// Where the inputs are of what draws random numbers.
    fn draw_inputs(&self) -> FaceInputs {
        let place = |id: Option<ValueId>| self.graph.inputs().iter().position(|&input| Some(input) == id);
        FaceInputs { seed: place(self.draws.0), draw: place(self.draws.1), ..FaceInputs::default() }
    }

    /// The norm of all gradients together: the root of the sum of all their squares. Elements under a mask do not count.
    fn norm(
        &self,
        graph: &mut Graph,
        parameters: &Parameters,
        gradients: &[ValueId],
    ) -> Result<ValueId, GraphError> {
        let square = Reduce { kind: Reduction::SumSquare, axes: vec![], keep_dims: false };
        let mut sum: Option<ValueId> = None;
        for (trained, &gradient) in self.trained.iter().zip(gradients) {
            let mut counted = gradient;
            if let Some(mask) = parameters.mask(&trained.parameter.tensor) {
                let mut whole = Parameters::new();
                let ones = vec![1.0; mask.len()];
                let shape = parameters.get(&trained.parameter.tensor).map_or(vec![], |t| t.shape().to_vec());
                whole.insert(trained.parameter.tensor.clone(), Tensor::f32(shape, ones));
                whole.set_mask(&trained.parameter.tensor, mask.clone());
                let part = whole.view(&trained.parameter).ok_or_else(|| {
                    GraphError::Invalid(format!("`{}` is outside its tensor", trained.parameter.tensor))
                })?;
                let part = graph.constant(part);
                counted = graph.apply(Binary { function: BinaryFunction::Mul }, &[gradient, part])?;
            }
            let squares = graph.apply(square.clone(), &[counted])?;
            sum = Some(match sum {
                None => squares,
                Some(sum) => graph.apply(Binary { function: BinaryFunction::Add }, &[sum, squares])?,
            });
        }
        let sum = sum.ok_or_else(|| GraphError::Invalid("no gradients".into()))?;
        graph.apply(Unary { function: Function::Sqrt }, &[sum])
    }
}

/// Ends the name of a parameter's moving average.
const AVERAGE: &str = "average";

/// The parameters with their moving averages in their place, where there are any.
pub fn averaged(parameters: &Parameters) -> Parameters {
    let mut averaged = parameters.clone();
    for (name, _) in parameters.iter() {
        if let Some(average) = parameters.get(&format!("{name}.{AVERAGE}")) {
            averaged.insert(name, average.clone());
        }
    }
    averaged
}

/// Outputs being listed.
#[derive(Default)]
struct Outputs {
    values: Vec<ValueId>,
    places: FaceOutputs,
}

impl Outputs {
    /// The loss and what the objective tells; its weight, if it is asked for.
    fn of(attached: &Attached, with_weight: bool) -> Outputs {
        let mut outputs = Outputs::default();
        outputs.places.loss = Some(outputs.add(attached.loss));
        if let (Some(weight), true) = (attached.weight, with_weight) {
            outputs.places.weight = Some(outputs.add(weight));
        }
        for (name, id) in &attached.metrics {
            let place = outputs.add(*id);
            outputs.places.metrics.push((name.clone(), place));
        }
        outputs
    }

    fn add(&mut self, value: ValueId) -> usize {
        self.values.push(value);
        self.values.len() - 1
    }
}

#[cfg(test)]
mod tests;
