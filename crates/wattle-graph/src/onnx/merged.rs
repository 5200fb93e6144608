//! Tensors that an exporter merged because they were equal when it wrote the file: decision 48.
//!
//! Gains that are still 1 and biases that are still 0 are equal, and exporters write one tensor for all of them,
//! sometimes behind Identity nodes. Trained as one they would ruin each other, so each use gets its own.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::import::read_names;
use super::proto::{GraphProto, TensorProto};
use crate::fact::Fact;
use crate::tensor::Tensor;

/// A place where a node reads a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    node: usize,
    operand: usize,
}

/// What a place makes of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slot {
    /// Running statistics, which the forward pass writes.
    Statistic,
    /// A gain or bias along one axis.
    Vector,
    /// Slopes and biases of recurrent layers, which have more axes.
    Any,
    /// A weight, a table or whatever else: sharing it is meant.
    Other,
}

impl Slot {
    /// Whether a tensor of these extents fills the slot alone.
    fn takes(self, extents: &[i64]) -> bool {
        match self {
            Slot::Statistic | Slot::Any => true,
            Slot::Vector => matches!(extents, [n] if *n > 1),
            Slot::Other => false,
        }
    }
}

fn slot(op: &str, operand: usize) -> Slot {
    match (op, operand) {
        ("BatchNormalization", 3 | 4) => Slot::Statistic,
        (
            "BatchNormalization" | "GroupNormalization" | "InstanceNormalization" | "LayerNormalization",
            1 | 2,
        ) => Slot::Vector,
        ("Conv" | "ConvTranspose" | "Gemm", 2) | ("Add" | "Mul" | "Sub", _) => Slot::Vector,
        ("PRelu", 1) | ("GRU" | "LSTM" | "RNN", 3) => Slot::Any,
        _ => Slot::Other,
    }
}

/// Gives every gain, bias and statistic of the graph a tensor of its own, where the file shares one that has one value
/// throughout; and reads through Identity nodes between a tensor and its readers.
///
/// A file that holds two equal tensors was written by an exporter that does not merge: what it shares is meant. Tensors
/// of other values, and weights and tables of any value, stay shared. `decode` reads a tensor of the file.
pub(super) fn separate(graph: &mut GraphProto, decode: impl Fn(&TensorProto) -> Option<Tensor>) -> Vec<Fact> {
    let aliases = without_aliases(graph);
    let roots: HashMap<String, usize> =
        graph.initializer.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
    let mut places: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
    for (node, proto) in graph.node.iter().enumerate() {
        for (operand, name) in proto.input.iter().enumerate() {
            if let Some(&root) = roots.get(name) {
                places.entry(root).or_default().push(Place { node, operand });
            }
        }
    }
    let small = |t: &TensorProto| {
        let count = t.dims.iter().try_fold(1i64, |n, &d| n.checked_mul(d));
        !t.dims.is_empty() && count.is_some_and(|n| (1..=MAX_ELEMENTS).contains(&n))
    };
    // Only what has one value can have been merged, and be the twin of what has.
    let level: HashMap<usize, Tensor> = graph
        .initializer
        .iter()
        .enumerate()
        .filter(|(_, t)| small(t))
        .filter_map(|(i, t)| Some((i, decode(t)?)))
        .filter(|(_, t)| t.dtype().is_float() && t.to_f64().iter().all(|x| *x == t.to_f64()[0]))
        .collect();
    let mut taken: HashSet<String> = roots.keys().cloned().collect();
    taken.extend(graph.input.iter().map(|i| i.name.clone()));
    taken.extend(graph.node.iter().flat_map(|n| n.output.iter().cloned()));
    let mut facts = vec![];
    for (root, list) in places {
        let slots: Vec<Slot> = list.iter().map(|p| slot(&graph.node[p.node].op_type, p.operand)).collect();
        let merged =
            level.get(&root).is_some_and(|t| level.iter().all(|(i, other)| *i == root || other != t));
        let parts: Vec<bool> =
            slots.iter().map(|s| merged && s.takes(&graph.initializer[root].dims)).collect();
        let statistic = |s: &Slot| *s == Slot::Statistic;
        let mixed = slots.iter().any(statistic) && !slots.iter().all(statistic);
        let parts: Vec<bool> =
            parts.iter().zip(&slots).map(|(part, s)| *part || mixed && statistic(s)).collect();
        // One use keeps the tensor: those that share it in any case, or the first that reads it under its own name.
        let by_its_name = || list.iter().position(|place| !aliases.contains_key(place)).unwrap_or(0);
        let keeper = if parts.contains(&false) { None } else { Some(by_its_name()) };
        let name = graph.initializer[root].name.clone();
        let mut into = vec![];
        let chosen = (0..list.len()).filter(|i| parts[*i] && Some(*i) != keeper);
        for place in chosen.map(|i| &list[i]) {
            let mut fresh = aliases.get(place).unwrap_or(&name).clone();
            let mut count = 1;
            while !taken.insert(fresh.clone()) {
                count += 1;
                fresh = format!("{name}.{count}");
            }
            let copy = TensorProto { name: fresh.clone(), ..graph.initializer[root].clone() };
            graph.initializer.push(copy);
            graph.node[place.node].input[place.operand].clone_from(&fresh);
            into.push(fresh);
        }
        if !into.is_empty() {
            facts.push(Fact::Separated { tensor: name, into });
        }
    }
    facts
}

/// Largest tensor that is looked at: gains and biases are small.
const MAX_ELEMENTS: i64 = 1 << 20;

/// Lets every reader of an Identity of an initialiser read the initialiser itself, and removes the Identity. Returns the
/// names under which the places read before.
fn without_aliases(graph: &mut GraphProto) -> HashMap<Place, String> {
    let mut roots: HashMap<String, String> =
        graph.initializer.iter().map(|t| (t.name.clone(), t.name.clone())).collect();
    let mut needed: HashSet<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    for nested in graph.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.g.as_ref()) {
        nested.node.iter().for_each(|n| read_names(n, &mut needed));
        needed.extend(nested.output.iter().map(|o| o.name.as_str()));
    }
    // Nodes may come in any order, and one Identity may read another.
    let mut found = true;
    while found {
        found = false;
        for node in graph.node.iter().filter(|n| n.op_type == "Identity") {
            if let ([from], [to]) = (&node.input[..], &node.output[..])
                && !needed.contains(to.as_str())
                && !roots.contains_key(to)
                && let Some(root) = roots.get(from).cloned()
            {
                roots.insert(to.clone(), root);
                found = true;
            }
        }
    }
    let is_alias = |name: &String| roots.get(name).is_some_and(|root| root != name);
    graph.node.retain(|n| n.op_type != "Identity" || !n.output.first().is_some_and(is_alias));
    let mut aliases = HashMap::new();
    for (node, proto) in graph.node.iter_mut().enumerate() {
        for (operand, name) in proto.input.iter_mut().enumerate() {
            if let Some(root) = roots.get(name).filter(|root| *root != name) {
                aliases.insert(Place { node, operand }, std::mem::replace(name, root.clone()));
            }
        }
    }
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{NodeProto, ValueInfoProto};
    use crate::onnx::{Limits, tensor_proto};

    fn graph(tensors: &[(&str, &[f32])], nodes: &[(&str, &[&str], &str)]) -> GraphProto {
        let text = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        GraphProto {
            initializer: tensors
                .iter()
                .map(|(name, values)| {
                    tensor_proto::encode(name, &Tensor::f32([values.len()], values.to_vec()))
                })
                .collect(),
            node: nodes
                .iter()
                .map(|(op, input, output)| NodeProto {
                    op_type: op.to_string(),
                    input: text(input),
                    output: text(&[output]),
                    ..NodeProto::default()
                })
                .collect(),
            output: vec![ValueInfoProto { name: "y".into(), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        }
    }

    fn separated(graph: &mut GraphProto) -> Vec<Fact> {
        separate(graph, |t| tensor_proto::decode(t, None, &Limits::default()).ok())
    }

    #[test]
    fn merged_gains_biases_and_statistics_become_tensors_of_their_own() {
        let mut graph = graph(
            &[("w", &[1.0, 1.0]), ("b", &[0.0, 0.0])],
            &[
                ("Identity", &["w"], "var"),
                ("Identity", &["b"], "mean"),
                ("BatchNormalization", &["x", "w", "b", "mean", "var"], "h"),
                ("BatchNormalization", &["h", "w", "b", "mean", "var"], "y"),
            ],
        );
        let facts = separated(&mut graph);
        assert_eq!(graph.node.len(), 2, "the Identity nodes are gone");
        assert_eq!(graph.node[0].input, ["x", "w", "b", "mean", "var"]);
        let mut names: Vec<&str> =
            graph.node.iter().flat_map(|n| &n.input[1..]).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), graph.initializer.len(), facts.len()), (8, 8, 2), "{names:?} {facts:?}");
    }

    #[test]
    fn what_is_shared_on_purpose_stays_shared() {
        // Values that differ: a tensor that was trained as one.
        let trained: &[(&str, &[f32])] = &[("w", &[1.0, 2.0]), ("b", &[0.0, 0.5])];
        // Two equal tensors: the exporter does not merge.
        let unmerged: &[(&str, &[f32])] = &[("w", &[1.0, 1.0]), ("b", &[1.0, 1.0])];
        for tensors in [trained, unmerged] {
            let mut graph = graph(
                tensors,
                &[
                    ("LayerNormalization", &["x", "w", "b"], "h"),
                    ("LayerNormalization", &["h", "w", "b"], "y"),
                ],
            );
            let before = graph.clone();
            assert_eq!((separated(&mut graph), graph), (vec![], before));
        }
        // A table read twice, even while it is all zeros.
        let mut graph =
            graph(&[("t", &[0.0, 0.0])], &[("Gather", &["t", "x"], "h"), ("MatMul", &["h", "t"], "y")]);
        assert_eq!(separated(&mut graph), vec![]);
    }

    #[test]
    fn statistics_never_share_with_what_is_trained() {
        let mut graph = graph(
            &[("w", &[1.0, 2.0]), ("b", &[0.5, 0.0]), ("m", &[0.1, 0.2])],
            &[("BatchNormalization", &["x", "w", "b", "m", "w"], "y")],
        );
        separated(&mut graph);
        assert_eq!(graph.node[0].input, ["x", "w", "b", "m", "w.2"]);
    }
}
