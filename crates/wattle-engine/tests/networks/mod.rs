//! Training steps of small networks, built by hand: one graph each, with loss, gradients and updates.

use wattle_graph::ops::*;
use wattle_graph::{DType, Example, Graph, Op, Parameter, Parameters, Shape, Tensor, ValueId, differentiate};

/// How parameters move.
#[derive(Clone, Copy, Debug)]
pub enum Optimizer {
    Sgd { momentum: f64, nesterov: bool, weight_decay: f64 },
    Adam { weight_decay: f64, decoupled: bool },
}

/// A network under construction.
struct Builder {
    graph: Graph,
    parameters: Parameters,
    trainable: Vec<(ValueId, String)>,
    /// Running statistics and what they become.
    statistics: Vec<(ValueId, ValueId)>,
}

impl Builder {
    fn new(name: &str) -> Builder {
        Builder {
            graph: Graph::new(name),
            parameters: Parameters::new(),
            trainable: vec![],
            statistics: vec![],
        }
    }

    fn apply(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        self.graph.apply(op, operands).expect("operands fit")
    }

    fn parameter(&mut self, name: String, tensor: Tensor) -> ValueId {
        let shape = tensor.shape().to_vec();
        self.parameters.insert(name.clone(), tensor);
        let id = self.graph.parameter(Parameter::trainable(name.clone()), DType::F32, &shape);
        self.trainable.push((id, name));
        id
    }

    fn state(&mut self, name: String, tensor: Tensor) -> ValueId {
        let shape = tensor.shape().to_vec();
        self.parameters.insert(name.clone(), tensor);
        self.graph.parameter(Parameter::state(name), DType::F32, &shape)
    }

    /// Noise of standard deviation about `sqrt(2 / fan_in)`.
    fn weight(&mut self, shape: &[usize]) -> ValueId {
        let fan_in: usize = if shape.len() == 2 { shape[0] } else { shape[1..].iter().product() };
        let noise = Example::noise(shape, self.trainable.len() as u32 + 1);
        let factor = (6.0 / fan_in as f64).sqrt();
        let scaled = noise.to_f64().iter().map(|x| x * factor).collect();
        self.parameter(format!("w{}", self.trainable.len()), Tensor::from_f64(DType::F32, shape, scaled))
    }

    fn vector(&mut self, n: usize, value: f32) -> ValueId {
        self.parameter(format!("v{}", self.trainable.len()), Tensor::f32([n], vec![value; n]))
    }

    fn norm(&mut self, x: ValueId) -> ValueId {
        let channels = self.graph.extents(x).expect("known")[1];
        let index = self.statistics.len();
        let (scale, bias) = (self.vector(channels, 1.0), self.vector(channels, 0.0));
        let mean = self.state(format!("mean{index}"), Tensor::f32([channels], vec![0.0; channels]));
        let variance = self.state(format!("variance{index}"), Tensor::f32([channels], vec![1.0; channels]));
        let op = BatchNormalization { epsilon: 1e-5, momentum: 0.9, training: true };
        let operands = [x, scale, bias, mean, variance].map(Some);
        let results = self.graph.apply_all(op, &operands, "").expect("operands fit");
        self.statistics.extend([(mean, results[1]), (variance, results[2])]);
        results[0]
    }

    fn conv(&mut self, x: ValueId, filters: usize, kernel: usize, stride: usize) -> ValueId {
        let channels = self.graph.extents(x).expect("known")[1];
        let w = self.weight(&[filters, channels, kernel, kernel]);
        let sliding = Sliding { strides: vec![stride; 2], ..Sliding::padded(2, kernel / 2) };
        self.apply(Conv { sliding, groups: 1 }, &[x, w])
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        self.apply(Unary { function: Function::Relu }, &[x])
    }

    fn dense(&mut self, x: ValueId, outputs: usize) -> ValueId {
        let inputs = self.graph.extents(x).expect("known")[1];
        let (w, b) = (self.weight(&[inputs, outputs]), self.vector(outputs, 0.0));
        let y = self.apply(MatMul::default(), &[x, w]);
        self.apply(Binary { function: BinaryFunction::Add }, &[y, b])
    }

    /// Loss, gradients and updates; the loss is the only output.
    fn training_step(mut self, logits: ValueId, batch: usize, optimizer: Optimizer) -> (Graph, Parameters) {
        let labels = self.graph.input("labels", DType::I64, Shape::known(&[batch]));
        let rate = self.graph.input("rate", DType::F32, Shape::known(&[]));
        let step = match optimizer {
            Optimizer::Adam { .. } => Some(self.graph.input("step", DType::F32, Shape::known(&[]))),
            Optimizer::Sgd { .. } => None,
        };
        let op = SoftmaxCrossEntropy::plain();
        let loss = self.graph.apply_all(op, &[Some(logits), Some(labels)], "loss").expect("operands fit")[0];
        let wrt: Vec<ValueId> = self.trainable.iter().map(|t| t.0).collect();
        let differentiated = differentiate(&self.graph, loss, &wrt).expect("differentiable");
        self.graph = differentiated.graph;
        for ((w, name), gradient) in self.trainable.clone().into_iter().zip(differentiated.gradients) {
            let gradient = gradient.expect("every parameter is used");
            let shape = self.graph.extents(w).expect("known");
            let zeros = || Tensor::f32(shape.as_slice(), vec![0.0; shape.iter().product()]);
            match optimizer {
                Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                    let velocity = self.state(format!("{name}.velocity"), zeros());
                    let op = SgdUpdate { momentum, nesterov, weight_decay };
                    let operands = [w, gradient, velocity, rate].map(Some);
                    let next = self.graph.apply_all(op, &operands, "").expect("operands fit");
                    self.assign(&[(w, next[0]), (velocity, next[1])]);
                }
                Optimizer::Adam { weight_decay, decoupled } => {
                    let first = self.state(format!("{name}.first"), zeros());
                    let second = self.state(format!("{name}.second"), zeros());
                    let op = AdamUpdate { weight_decay, decoupled, ..AdamUpdate::default() };
                    let operands = [Some(w), Some(gradient), Some(first), Some(second), Some(rate), step];
                    let next = self.graph.apply_all(op, &operands, "").expect("operands fit");
                    self.assign(&[(w, next[0]), (first, next[1]), (second, next[2])]);
                }
            }
        }
        let statistics = std::mem::take(&mut self.statistics);
        self.assign(&statistics);
        self.graph.set_outputs(vec![loss]);
        (self.graph, self.parameters)
    }

    fn assign(&mut self, pairs: &[(ValueId, ValueId)]) {
        for &(target, value) in pairs {
            self.graph.assign(target, value).expect("types agree");
        }
    }
}

/// LeNet-300-100 (LeCun et al. 1998, section III.C.4) on 28x28 images.
pub fn lenet(batch: usize, optimizer: Optimizer) -> (Graph, Parameters) {
    let mut b = Builder::new("lenet-300-100");
    let mut x = b.graph.input("x", DType::F32, Shape::known(&[batch, 784]));
    for width in [300, 100] {
        x = b.dense(x, width);
        x = b.relu(x);
    }
    let logits = b.dense(x, 10);
    b.training_step(logits, batch, optimizer)
}

/// A residual network for small images (He et al. 2016, section 4.2) with `blocks` blocks a stage: 3 make
/// ResNet-20. Shortcuts that change the shape are 1x1 convolutions.
pub fn resnet(
    batch: usize,
    size: usize,
    widths: &[usize],
    blocks: usize,
    optimizer: Optimizer,
) -> (Graph, Parameters) {
    let mut b = Builder::new("resnet");
    let x = b.graph.input("x", DType::F32, Shape::known(&[batch, 3, size, size]));
    let y = b.conv(x, widths[0], 3, 1);
    let y = b.norm(y);
    let mut y = b.relu(y);
    for (stage, &width) in widths.iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let shortcut = if stride == 1 {
                y
            } else {
                let projected = b.conv(y, width, 1, stride);
                b.norm(projected)
            };
            let z = b.conv(y, width, 3, stride);
            let z = b.norm(z);
            let z = b.relu(z);
            let z = b.conv(z, width, 3, 1);
            let z = b.norm(z);
            let sum = b.apply(Binary { function: BinaryFunction::Add }, &[z, shortcut]);
            y = b.relu(sum);
        }
    }
    let pooled = b.apply(GlobalPool { kind: PoolKind::Average }, &[y]);
    let flat = b.apply(Flatten { axis: 1 }, &[pooled]);
    let logits = b.dense(flat, 10);
    b.training_step(logits, batch, optimizer)
}
