//! Networks whose layers are prefixes of larger ones, built by hand: as windows on stored tensors, or as slices of them.

use wattle_graph::ops::*;
use wattle_graph::{
    AxisWindow, DType, Example, Graph, Op, Parameter, Parameters, Role, Shape, Tensor, ValueId, Window,
    differentiate,
};

/// How a network sees the part of a tensor that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As a window.
    Windows,
    /// By a Slice of the whole tensor; what is updated is put back among the elements that are not.
    Slices,
}

/// A part of a tensor that a network reads and may update.
struct Seen {
    name: String,
    full: Vec<usize>,
    part: Vec<usize>,
    value: ValueId,
}

/// A network under construction.
pub struct Elastic {
    pub graph: Graph,
    view: View,
    wholes: Vec<(String, ValueId)>,
    seen: Vec<Seen>,
}

/// Sizes of a Transformer; a sub-network has at most those of the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transformer {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub hidden: usize,
}

/// What a Transformer has whatever its size.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    /// The largest network.
    pub most: Transformer,
    pub head_width: usize,
    pub tokens: usize,
    pub batch: usize,
    pub length: usize,
}

impl Elastic {
    pub fn new(name: &str, view: View) -> Elastic {
        Elastic { graph: Graph::new(name), view, wholes: vec![], seen: vec![] }
    }

    pub fn apply(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        self.graph.apply(op, operands).expect("operands fit")
    }

    fn numbers(&mut self, numbers: &[usize]) -> ValueId {
        self.graph.constant(Tensor::ints(&numbers.iter().map(|&n| n as i64).collect::<Vec<_>>()))
    }

    fn whole(&mut self, name: &str, full: &[usize], role: Role) -> ValueId {
        if let Some((_, id)) = self.wholes.iter().find(|(n, _)| n == name) {
            return *id;
        }
        let parameter = Parameter { tensor: name.into(), window: Window::full(), role };
        let id = self.graph.parameter(parameter, DType::F32, full);
        self.wholes.push((name.into(), id));
        id
    }

    /// The first `part` elements along each axis of a tensor of extents `full`.
    fn part(&mut self, name: &str, full: &[usize], part: &[usize], role: Role) -> ValueId {
        if full == part {
            return self.whole(name, full, role);
        }
        match self.view {
            View::Windows => {
                let window = Window::new(part.iter().map(|&n| AxisWindow::Range(0, n)).collect());
                self.graph.parameter(Parameter { tensor: name.into(), window, role }, DType::F32, full)
            }
            View::Slices => {
                let whole = self.whole(name, full, role);
                let axes: Vec<usize> = (0..part.len()).collect();
                let lists = [vec![0; part.len()], part.to_vec(), axes].map(|list| self.numbers(&list));
                self.apply(Slice, &[whole, lists[0], lists[1], lists[2]])
            }
        }
    }

    /// A trained part of a tensor.
    pub fn weight(&mut self, name: &str, full: &[usize], part: &[usize]) -> ValueId {
        let value = self.part(name, full, part, Role::Trainable);
        self.seen.push(Seen { name: name.into(), full: full.to_vec(), part: part.to_vec(), value });
        value
    }

    pub fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.apply(Binary { function: BinaryFunction::Add }, &[a, b])
    }

    pub fn relu(&mut self, x: ValueId) -> ValueId {
        self.apply(Unary { function: Function::Relu }, &[x])
    }

    /// `x W + b`, where W is `[inputs, outputs]` and may be a part of a larger matrix.
    pub fn dense(&mut self, x: ValueId, name: &str, full: [usize; 2], part: [usize; 2]) -> ValueId {
        let w = self.weight(&format!("{name}.weight"), &full, &part);
        let b = self.weight(&format!("{name}.bias"), &full[1..], &part[1..]);
        let y = self.apply(MatMul::default(), &[x, w]);
        self.add(y, b)
    }

    pub fn norm(&mut self, x: ValueId, name: &str, full: usize, part: usize) -> ValueId {
        let [scale, shift] =
            ["scale", "shift"].map(|n| self.weight(&format!("{name}.{n}"), &[full], &[part]));
        let op = LayerNormalization { axis: -1, epsilon: 1e-5 };
        self.graph.apply_all(op, &[Some(x), Some(scale), Some(shift)], "").expect("operands fit")[0]
    }

    pub fn reshape(&mut self, x: ValueId, extents: &[usize]) -> ValueId {
        let extents = self.numbers(extents);
        self.apply(Reshape { allow_zero: false }, &[x, extents])
    }

    pub fn transpose(&mut self, x: ValueId, permutation: &[usize]) -> ValueId {
        self.apply(Transpose { permutation: permutation.to_vec() }, &[x])
    }

    /// `softmax(q k^T / sqrt(width) + mask) v` for `[.., rows, width]`.
    pub fn attend(
        &mut self,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        mask: Option<ValueId>,
        width: usize,
    ) -> ValueId {
        let factor = self.graph.constant(Tensor::f32([], vec![1.0 / (width as f32).sqrt()]));
        let scores = self.apply(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k]);
        let mut scores = self.apply(Binary { function: BinaryFunction::Mul }, &[scores, factor]);
        if let Some(mask) = mask {
            scores = self.add(scores, mask);
        }
        let shares = self.apply(Softmax { axis: -1, log: false }, &[scores]);
        self.apply(MatMul::default(), &[shares, v])
    }

    /// Loss, gradients and an update of everything seen by stochastic gradients with momentum 0.9; the loss is the output.
    pub fn training_step(mut self, logits: ValueId) -> Graph {
        let rows = self.graph.extents(logits).expect("known")[0];
        let labels = self.graph.input("labels", DType::I64, Shape::known(&[rows]));
        let rate = self.graph.input("rate", DType::F32, Shape::known(&[]));
        let op = SoftmaxCrossEntropy { label_smoothing: 0.0 };
        let loss = self.graph.apply_all(op, &[Some(logits), Some(labels)], "loss").expect("operands fit")[0];
        let wrt: Vec<ValueId> = self.seen.iter().map(|seen| seen.value).collect();
        let differentiated = differentiate(&self.graph, loss, &wrt).expect("differentiable");
        self.graph = differentiated.graph;
        for (seen, gradient) in std::mem::take(&mut self.seen).into_iter().zip(differentiated.gradients) {
            let gradient = gradient.expect("every parameter is used");
            let state = format!("{}.velocity", seen.name);
            let velocity = self.part(&state, &seen.full, &seen.part, Role::State);
            let op = SgdUpdate { momentum: 0.9, nesterov: false, weight_decay: 1e-3 };
            let operands = [seen.value, gradient, velocity, rate].map(Some);
            let next = self.graph.apply_all(op, &operands, "").expect("operands fit");
            self.assign(&seen.name, &seen, seen.value, next[0]);
            self.assign(&state, &seen, velocity, next[1]);
        }
        self.graph.set_outputs(vec![loss]);
        self.graph
    }

    fn assign(&mut self, name: &str, seen: &Seen, value: ValueId, next: ValueId) {
        if self.view == View::Windows || seen.full == seen.part {
            return self.graph.assign(value, next).expect("types agree");
        }
        let whole = self.whole(name, &seen.full, Role::State);
        let more = seen.full.iter().zip(&seen.part).map(|(full, part)| full - part);
        let pads: Vec<usize> = vec![0; seen.full.len()].into_iter().chain(more).collect();
        let pads = self.numbers(&pads);
        let padded = self.apply(Pad { mode: PadMode::Constant }, &[next, pads]);
        let mut inside = vec![];
        wattle_graph::each_index(&seen.full, |index| {
            inside.push(index.iter().zip(&seen.part).all(|(i, n)| i < n));
        });
        let inside = Tensor::new(seen.full.clone(), wattle_graph::Data::Bool(inside)).expect("as many");
        let inside = self.graph.constant(inside);
        let chosen = self.apply(Where, &[inside, padded, whole]);
        self.graph.assign(whole, chosen).expect("types agree");
    }
}

/// Layers of these widths over inputs of 12 and outputs of 5; widths are at most `most`.
pub fn mlp(view: View, batch: usize, most: usize, widths: &[usize]) -> (Elastic, ValueId) {
    let mut e = Elastic::new("mlp", view);
    let mut x = e.graph.input("x", DType::F32, Shape::known(&[batch, 12]));
    let (mut full, mut part) = (12, 12);
    for (layer, &width) in widths.iter().enumerate() {
        x = e.dense(x, &format!("layer{layer}"), [full, most], [part, width]);
        x = e.relu(x);
        (full, part) = (most, width);
    }
    let logits = e.dense(x, "head", [full, 5], [part, 5]);
    (e, logits)
}

/// A Transformer over tokens `[batch * length]`: its logits of the next token, `[batch * length, tokens]`.
pub fn transformer(view: View, fixed: &Fixed, own: &Transformer) -> (Elastic, ValueId) {
    let (mut e, most) = (Elastic::new("transformer", view), fixed.most);
    let rows = fixed.batch * fixed.length;
    let tokens = e.graph.input("x", DType::I64, Shape::known(&[rows]));
    let table = e.weight("embedding", &[fixed.tokens, most.width], &[fixed.tokens, own.width]);
    let mut x = e.apply(Gather { axis: 0 }, &[table, tokens]);
    let inner = [most, *own].map(|t| t.heads * fixed.head_width);
    let split = [fixed.batch, fixed.length, own.heads, fixed.head_width];
    for layer in 0..own.layers {
        let name = |part: &str| format!("layer{layer}.{part}");
        let y = e.norm(x, &name("norm1"), most.width, own.width);
        let [q, k, v] = ["q", "k", "v"].map(|n| {
            let y = e.dense(y, &name(n), [most.width, inner[0]], [own.width, inner[1]]);
            let y = e.reshape(y, &split);
            e.transpose(y, &[0, 2, 1, 3])
        });
        let y = e.attend(q, k, v, None, fixed.head_width);
        let y = e.transpose(y, &[0, 2, 1, 3]);
        let y = e.reshape(y, &[rows, inner[1]]);
        let y = e.dense(y, &name("out"), [inner[0], most.width], [inner[1], own.width]);
        x = e.add(x, y);
        let y = e.norm(x, &name("norm2"), most.width, own.width);
        let y = e.dense(y, &name("up"), [most.width, most.hidden], [own.width, own.hidden]);
        let y = e.relu(y);
        let y = e.dense(y, &name("down"), [most.hidden, most.width], [own.hidden, own.width]);
        x = e.add(x, y);
    }
    let x = e.norm(x, "norm", most.width, own.width);
    let logits = e.dense(x, "head", [most.width, fixed.tokens], [own.width, fixed.tokens]);
    (e, logits)
}

/// Noise for every tensor that the graph of the largest network names; zeros for the optimiser's state.
pub fn initial(largest: &Graph) -> Parameters {
    let mut parameters = Parameters::new();
    for id in largest.parameters() {
        let parameter = largest.parameter_of(id).expect("a parameter");
        let extents = largest.extents(id).expect("known");
        let scale = match extents[..] {
            _ if parameter.role == Role::State => 0.0,
            [inputs, _] => (3.0 / inputs as f64).sqrt(),
            _ => 0.5,
        };
        let shift = if parameter.tensor.ends_with(".scale") { 1.0 } else { 0.0 };
        let noise = Example::noise(&extents, id.index() as u32);
        let values = noise.to_f64().iter().map(|x| x * scale + shift).collect();
        parameters.insert(parameter.tensor.clone(), Tensor::from_f64(DType::F32, extents, values));
    }
    parameters
}
