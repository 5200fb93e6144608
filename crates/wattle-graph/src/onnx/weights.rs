//! Which tensors of a file are parameters, and why the others are not: decision 3, "parameters on import".

use std::collections::{HashMap, HashSet};

use super::proto::GraphProto;
use crate::fact::Fact;
use crate::graph::ValueId;
use crate::model::Model;
use crate::ops::{Binary, BinaryFunction, Op};
use crate::parameter::{Parameter, Role};
use crate::tensor::Tensor;

/// A node that reads a tensor.
#[derive(Clone, Debug)]
struct Reader {
    op: String,
    /// Position of the tensor among its operands.
    operand: usize,
    /// Its first result.
    result: String,
    /// Whether it shifts or scales an input of the graph by the tensor: `(x - mean) / std`.
    normalises: bool,
}

/// How the nodes of a graph use its tensors.
#[derive(Debug, Default)]
pub(super) struct Uses(HashMap<String, Vec<Reader>>);

/// Whether a tensor is trained.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Parameter(Role),
    /// For a reason to be told, where it is none that the operator itself states.
    Constant(Option<&'static str>),
}

impl Uses {
    pub(super) fn of(proto: &GraphProto) -> Uses {
        let mut uses: HashMap<String, Vec<Reader>> = HashMap::new();
        // Inputs, and what they are after a shift.
        let mut samples: HashSet<&str> = proto.input.iter().map(|input| input.name.as_str()).collect();
        proto.initializer.iter().for_each(|tensor| _ = samples.remove(tensor.name.as_str()));
        for node in &proto.node {
            let of_samples = node.input.first().is_some_and(|name| samples.contains(name.as_str()));
            let normalises = of_samples && matches!(node.op_type.as_str(), "Sub" | "Div");
            if normalises && node.op_type == "Sub" {
                samples.extend(node.output.first().map(String::as_str));
            }
            for (operand, name) in node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let result = node.output.first().cloned().unwrap_or_default();
                uses.entry(name.clone()).or_default().push(Reader {
                    op: node.op_type.clone(),
                    operand,
                    result,
                    normalises: normalises && operand == 1,
                });
            }
        }
        Uses(uses)
    }

    fn readers(&self, name: &str) -> &[Reader] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// What becomes of a tensor of the outer graph.
    pub(super) fn decide(&self, name: &str, tensor: &Tensor, initialiser: bool) -> Decision {
        let readers = self.readers(name);
        if !tensor.dtype().is_float() || name.is_empty() || tensor.is_empty() {
            return Decision::Constant(None);
        }
        if readers.iter().any(|r| configures(&r.op, r.operand, tensor)) {
            return Decision::Constant(None);
        }
        if readers.iter().any(|r| r.op == "BatchNormalization" && r.operand > 2) {
            return Decision::Parameter(Role::State);
        }
        if !readers.is_empty() && readers.iter().all(|r| r.normalises) {
            return Decision::Constant(Some("it normalises an input"));
        }
        let multiplies = !readers.is_empty() && readers.iter().all(|r| r.op == "Mul");
        match mask(tensor, multiplies) {
            Some(why) if is_array(tensor) => return Decision::Constant(Some(why)),
            Some(_) => return Decision::Constant(None),
            None => {}
        }
        let weighs = readers.iter().any(|r| is_weight(&r.op, r.operand));
        if is_array(tensor) || weighs || initialiser && self.is_trained_number(name) {
            return Decision::Parameter(Role::Trainable);
        }
        let told = initialiser && readers.iter().any(|r| combines(&r.op));
        Decision::Constant(told.then_some("a single number whose name or place is that of a fixed one"))
    }

    /// Whether a single number under this name looks like one that its author trains: it has a name of its own and is
    /// added or multiplied, and does not guard a root, a logarithm or a quotient.
    fn is_trained_number(&self, name: &str) -> bool {
        let guards = |r: &Reader| {
            self.readers(&r.result).iter().any(|next| {
                matches!(next.op.as_str(), "Sqrt" | "Reciprocal" | "Log" | "Pow")
                    || next.op == "Div" && next.operand == 1
            })
        };
        let readers = self.readers(name);
        let alive = readers.iter().all(|r| combines(&r.op) && !guards(r));
        alive && !readers.is_empty() && !is_generated(name)
    }
}

/// Whether a number may be trained as an operand of this operator.
fn combines(op: &str) -> bool {
    matches!(op, "Add" | "Expand" | "Mul" | "Reshape" | "Sub" | "Unsqueeze")
}

/// Whether an operator reads there what configures it. States that a recurrent layer starts from count where they are
/// zero, which is what a layer without any starts from.
fn configures(op: &str, operand: usize, tensor: &Tensor) -> bool {
    match op {
        "Clip" | "Dropout" | "Expand" | "Pad" | "Resize" | "Tile" | "Upsample" => operand > 0,
        "GRU" | "LSTM" | "RNN" => (4..7).contains(&operand) && tensor.to_f64().iter().all(|&x| x == 0.0),
        "ConstantOfShape"
        | "ConvInteger"
        | "DequantizeLinear"
        | "MatMulInteger"
        | "NonMaxSuppression"
        | "OneHot"
        | "QGemm"
        | "QLinearAdd"
        | "QLinearConv"
        | "QLinearGlobalAveragePool"
        | "QLinearMatMul"
        | "QLinearMul"
        | "QLinearSoftmax"
        | "QuantizeLinear"
        | "Range" => true,
        _ => false,
    }
}

/// Whether an operator reads a weight, a gain or a bias there, however small.
fn is_weight(op: &str, operand: usize) -> bool {
    match op {
        "Conv" | "ConvTranspose" | "Gemm" => (1..3).contains(&operand),
        "BatchNormalization" | "GRU" | "LSTM" | "RNN" => (1..5).contains(&operand),
        "GroupNormalization" | "InstanceNormalization" | "LayerNormalization" => (1..3).contains(&operand),
        "PRelu" => operand == 1,
        "Einsum" | "MatMul" => true,
        _ => false,
    }
}

/// More than a number: what can be a weight.
fn is_array(tensor: &Tensor) -> bool {
    !tensor.shape().is_empty() && tensor.len() > 1
}

/// Why a tensor is a mask and not a weight, if it is one: it says where to look, not how much.
fn mask(tensor: &Tensor, multiplies: bool) -> Option<&'static str> {
    let values = tensor.to_f64();
    let all = |allowed: fn(f64) -> bool| values.iter().all(|&x| allowed(x));
    if values.iter().any(|&x| x <= EXCLUDED) && all(|x| x == 0.0 || x <= EXCLUDED) {
        return Some("a mask: it adds 0, or so little that nothing is left");
    }
    let both = [0.0, 1.0].iter().all(|x| values.contains(x));
    (multiplies && both && all(|x| x == 0.0 || x == 1.0)).then_some("a mask: it multiplies by 0 or 1")
}

/// What exporters add to scores that softmax must not see, where they do not use -infinity.
const EXCLUDED: f64 = -1e4;

/// Whether a name is one that exporters make up for constants: `/encoder/Constant_output_0`, `val_12`, `onnx::Mul_7`,
/// `scalar_tensor_default`, `const_fold_opt__3`, `truediv/y:0`, `17`.
fn is_generated(name: &str) -> bool {
    let last = name.rsplit(['/', ':']).find(|part| !part.is_empty() && *part != "0").unwrap_or(name);
    let numbered = |prefix: &str| {
        last.strip_prefix(prefix).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '_'))
    };
    let lower = last.to_ascii_lowercase();
    name.starts_with('/')
        || name.contains("::")
        || name.contains("/x:")
        || name.contains("/y:")
        || ["", "val_", "_val_", "tmp_"].iter().any(|prefix| numbered(prefix))
        || ["const", "scalar", "lifted_tensor", "_to_copy", "epsilon", "eps"]
            .iter()
            .any(|p| lower.starts_with(p))
}

/// Makes parameters of float constants in weight positions: files may compute their weights from constants.
pub(super) fn promote(model: &mut Model) {
    let mut found: Vec<(ValueId, Role)> = vec![];
    for node in model.graph.nodes() {
        let statistics = match &node.op {
            Op::BatchNormalization(_) => 3..5,
            _ => 0..0,
        };
        let multiplies = matches!(node.op, Op::Binary(Binary { function: BinaryFunction::Mul }));
        for (index, input) in node.inputs.iter().enumerate() {
            let Some(id) = *input else { continue };
            let is_weight = |t: &Tensor| {
                t.dtype().is_float()
                    && is_array(t)
                    && takes_weight(&node.op, index)
                    && mask(t, multiplies).is_none()
            };
            if model.graph.constant_of(id).is_some_and(|t| is_weight(t)) {
                let role = if statistics.contains(&index) { Role::State } else { Role::Trainable };
                found.push((id, role));
            }
        }
    }
    for (id, role) in found {
        let Some(tensor) = model.graph.constant_of(id).cloned() else { continue };
        let mut name = model.graph.label(id);
        while model.parameters.get(&name).is_some() {
            name.push('_');
        }
        // What had been decided of a constant of this name holds no longer.
        model.facts.retain(|fact| !matches!(fact, Fact::Constant { tensor, .. } if *tensor == name));
        model.graph.make_parameter(id, Parameter { role, ..Parameter::trainable(name.clone()) });
        model.parameters.insert(name, tensor);
    }
}

/// Whether an operator may read a weight there that the file computes from constants.
fn takes_weight(op: &Op, index: usize) -> bool {
    match op {
        Op::BatchNormalization(_)
        | Op::Binary(_)
        | Op::Conv(_)
        | Op::ConvTranspose(_)
        | Op::Einsum(_)
        | Op::Gemm(_)
        | Op::MatMul(_) => true,
        Op::GroupNormalization(_) | Op::LayerNormalization(_) => index > 0,
        Op::Recurrent(_) => (1..4).contains(&index),
        Op::Expand(_) | Op::Gather(_) => index == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::NodeProto;
    use crate::operator::Example;

    fn uses(nodes: &[(&str, &[&str], &str)]) -> Uses {
        let text = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        let node = nodes.iter().map(|(op, input, output)| NodeProto {
            op_type: op.to_string(),
            input: text(input),
            output: text(&[output]),
            ..NodeProto::default()
        });
        Uses::of(&GraphProto { node: node.collect(), ..GraphProto::default() })
    }

    const TRAINED: Decision = Decision::Parameter(Role::Trainable);

    #[test]
    fn weights_behind_other_operators_and_small_biases_are_trained() {
        let uses = uses(&[
            ("Expand", &["cls", "shape"], "a"),
            ("Conv", &["x", "w", "b"], "y"),
            ("Mul", &["y", "temperature"], "z"),
            ("Reshape", &["v", "shape"], "r"),
            ("Transpose", &["t"], "tt"),
        ]);
        for name in ["cls", "w", "v", "t"] {
            assert_eq!(uses.decide(name, &Example::noise(&[1, 2], 1), true), TRAINED, "{name}");
        }
        assert_eq!(uses.decide("b", &Example::noise(&[1], 1), true), TRAINED);
        assert_eq!(uses.decide("temperature", &Tensor::scalar(1.0), true), TRAINED);
        assert_eq!(uses.decide("temperature", &Tensor::scalar(1.0), false), Decision::Constant(None));
    }

    #[test]
    fn numbers_that_guard_configure_or_have_made_up_names_stay() {
        let uses = uses(&[
            ("Add", &["variance", "tiny"], "sum"),
            ("Sqrt", &["sum"], "root"),
            ("Clip", &["x", "low"], "y"),
            ("Mul", &["x", "val_12"], "m"),
            ("Div", &["x", "width"], "d"),
        ]);
        for name in ["tiny", "low", "val_12", "width"] {
            let decision = uses.decide(name, &Tensor::scalar(1e-5), true);
            assert!(matches!(decision, Decision::Constant(_)), "{name}: {decision:?}");
        }
        for name in ["/layer/Constant_output_0", "onnx::Add_31", "truediv/y:0", "const_fold_opt__7", "42"] {
            assert!(is_generated(name), "{name}");
        }
        for name in ["t", "scale", "blocks.0.gamma", "logit_scale", "model/dense/bias:0"] {
            assert!(!is_generated(name), "{name}");
        }
    }

    #[test]
    fn what_normalises_an_input_stays() {
        let node = |op: &str, input: [&str; 2], output: &str| NodeProto {
            op_type: op.into(),
            input: input.map(String::from).into(),
            output: vec![output.into()],
            ..NodeProto::default()
        };
        let uses = Uses::of(&GraphProto {
            input: vec![crate::onnx::proto::ValueInfoProto { name: "x".into(), ..Default::default() }],
            node: vec![
                node("Sub", ["x", "mean"], "shifted"),
                node("Div", ["shifted", "std"], "y"),
                node("Sub", ["y", "shift"], "z"),
                node("Div", ["z", "scale"], "w"),
            ],
            ..GraphProto::default()
        });
        let tensor = Tensor::f32([3, 1, 1], vec![0.5, 0.25, 2.0]);
        for name in ["mean", "std"] {
            assert!(matches!(uses.decide(name, &tensor, true), Decision::Constant(Some(_))), "{name}");
        }
        for name in ["shift", "scale"] {
            assert_eq!(uses.decide(name, &tensor, true), TRAINED, "{name}");
        }
    }

    #[test]
    fn masks_stay_and_what_only_looks_like_one_does_not() {
        let uses = uses(&[
            ("Mul", &["w", "gate"], "wm"),
            ("Add", &["scores", "causal"], "s"),
            ("MatMul", &["x", "eye"], "y"),
            ("Mul", &["x", "gain"], "g"),
        ]);
        let zero_one = Tensor::f32([2, 2], vec![1.0, 0.0, 0.0, 1.0]);
        let causal = Tensor::f32([2, 2], vec![0.0, f32::NEG_INFINITY, 0.0, 0.0]);
        for (name, tensor) in [("gate", &zero_one), ("causal", &causal)] {
            assert!(matches!(uses.decide(name, tensor, true), Decision::Constant(Some(_))), "{name}");
        }
        assert_eq!(uses.decide("eye", &zero_one, true), TRAINED);
        assert_eq!(uses.decide("gain", &Tensor::f32([2], vec![1.0, 1.0]), true), TRAINED);
    }

    #[test]
    fn statistics_are_state_and_zero_states_of_recurrent_layers_stay() {
        let uses = uses(&[
            ("BatchNormalization", &["x", "g", "b", "mean", "var"], "y"),
            ("LSTM", &["x", "w", "r", "bias", "", "h0", "c0"], "z"),
        ]);
        let ones = Tensor::f32([2], vec![1.0; 2]);
        assert_eq!(uses.decide("var", &ones, true), Decision::Parameter(Role::State));
        let zeros = Tensor::f32([1, 1, 2], vec![0.0; 2]);
        assert_eq!(uses.decide("h0", &zeros, true), Decision::Constant(None));
        assert_eq!(uses.decide("c0", &Example::noise(&[1, 1, 2], 1), true), TRAINED);
    }
}
