//! Workloads from graphs: which nodes an accelerator takes, with the zeros of their weights, and which stay on
//! the host.

use std::collections::{BTreeMap, HashSet};

use wattle_graph::ops::If;
use wattle_graph::{Mask, Model, Node, Op, Parameters, Shapes, ValueId, costs};

use crate::error::AccelError;
use crate::layer::{Dim, Layer, Operand, Sparsity};
use crate::nests::{Nest, nests};
use crate::zeros::{self, Tally};

/// The layers of a network, in order, and what is left to the host.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Workload {
    /// Name of the network.
    pub name: String,
    /// Convolutions and matrix products.
    pub layers: Vec<Layer>,
    /// Everything else that does arithmetic.
    pub host: Vec<HostWork>,
}

/// A node that the accelerator does not run.
#[derive(Clone, Debug, PartialEq)]
pub struct HostWork {
    /// Name of the node.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Multiply-accumulates, if it has any.
    pub macs: u64,
    /// Other element operations.
    pub element_ops: u64,
    /// Why it is not a layer.
    pub reason: &'static str,
}

/// What is said of the zeros of one operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Density {
    /// A fraction of non-zero elements.
    Uniform(f64),
    /// One for each input channel, over all groups.
    PerChannel(Vec<f64>),
    /// Every element: activations `[N, G C, H, W]`, weights `[G M, C, R, S]`.
    Mask(Mask),
}

/// Densities of activations and weights by name of layer, each where given.
pub type Densities = BTreeMap<String, (Option<Density>, Option<Density>)>;

/// Gathers the nests and the host work of a graph and of the branches in it.
struct Gathering {
    names: HashSet<String>,
    nests: Vec<Nest>,
    host: Vec<HostWork>,
}

impl Gathering {
    /// Adds the nodes of a model that do arithmetic, in order. In a branch nothing can be watched from outside.
    fn add(&mut self, model: &Model, in_branch: bool) -> Result<(), AccelError> {
        let graph = &model.graph;
        for cost in costs(graph, &model.parameters)? {
            let (node, work) = (graph.node(cost.node), cost.work);
            // Moving data is free here; what nobody knows may not be.
            if work.macs == 0 && work.element_ops == 0 && !matches!(node.op, Op::Custom(_)) {
                continue;
            }
            if let Op::If(op) = &node.op
                && self.add_branch(model, node, op, work.macs)?
            {
                continue;
            }
            let label = if node.name.is_empty() { graph.label(node.outputs[0]) } else { node.name.clone() };
            let name = self.unique(&label);
            let mut found = nests(model, node, &name)?;
            // What a nest does is what the node is counted for, or it is not that nest.
            let counted: u64 = found.iter().map(Nest::macs).sum();
            if counted != work.macs || work.macs == 0 {
                found.clear();
                self.host.push(HostWork {
                    reason: reason(&node.op, work.macs),
                    name,
                    op: node.op.name().to_string(),
                    macs: work.macs,
                    element_ops: work.element_ops,
                });
            }
            for mut nest in found {
                if let Some(weight) = &nest.weight {
                    nest.layer.weight = zeros::of_weights(model, &nest.layer, weight);
                }
                if in_branch {
                    (nest.iact, nest.weight) = (None, None);
                }
                self.nests.push(nest);
            }
        }
        Ok(())
    }

    /// Adds the branch that the costs of an `If` are counted for; false if those costs would change.
    fn add_branch(&mut self, model: &Model, node: &Node, op: &If, macs: u64) -> Result<bool, AccelError> {
        let extents = |id: &Option<ValueId>| id.map(|id| model.graph.extents(id)).transpose();
        let inputs = node.inputs.iter().map(extents).collect::<Result<Vec<_>, _>>()?;
        let densities = vec![1.0; inputs.len()];
        let shapes = Shapes { inputs: &inputs, outputs: &[], densities: &densities };
        let (Some(graph), work) = op.counted(&shapes) else { return Ok(false) };
        if work.macs != macs {
            return Ok(false);
        }
        self.add(&Model::new(graph, Parameters::new()), true)?;
        Ok(true)
    }

    /// A name that no other node has.
    fn unique(&mut self, label: &str) -> String {
        let mut name = label.to_string();
        let mut number = 2;
        while !self.names.insert(name.clone()) {
            name = format!("{label}#{number}");
            number += 1;
        }
        name
    }
}

fn reason(op: &Op, macs: u64) -> &'static str {
    match op {
        Op::Recurrent(_) | Op::RecurrentGradient(_) => "recurrent: each step waits for the last",
        Op::Custom(_) => "custom operator",
        Op::If(_) => "which branch runs is known only when it runs",
        Op::Loop(_) => "a loop, whose trips wait for each other",
        _ if macs > 0 => "no loop nest of a convolution or matrix product",
        _ => "no multiply-accumulates",
    }
}

impl Workload {
    /// The layers of a model whose shapes are all known. Weights are counted exactly, zero by zero; activations
    /// are dense until [`Workload::set_densities`] or a [`Tally`] says otherwise. Of an `If` that only a run can
    /// decide, the branch with more to do is taken, as costs are counted.
    ///
    /// The multiply-accumulates of the layers and of the host work are those that [`wattle_graph::costs`] counts.
    pub fn from_model(model: &Model) -> Result<Workload, AccelError> {
        Ok(Workload::with_tally(model)?.0)
    }

    /// The same, and what to count while the model runs.
    pub fn with_tally(model: &Model) -> Result<(Workload, Tally), AccelError> {
        let mut all = Gathering { names: HashSet::new(), nests: vec![], host: vec![] };
        all.add(model, false)?;
        let tally = Tally::new(model, &all.nests);
        let layers = all.nests.into_iter().map(|nest| nest.layer).collect();
        Ok((Workload { name: model.graph.name.clone(), layers, host: all.host }, tally))
    }

    /// Replaces densities by name of layer: `(iact, weight)`, each where given. A name without a layer is an
    /// error, so that a misspelt one cannot pass for a measured density; so are numbers that are no fractions and
    /// lists and masks of another size than the layer's.
    pub fn set_densities(&mut self, densities: &Densities) -> Result<(), AccelError> {
        for (name, (iact, weight)) in densities {
            let Some(layer) = self.layers.iter_mut().find(|l| l.name == *name) else {
                let reason = format!("there is no such layer; {}", named(name, &self.layers));
                return Err(AccelError::invalid(format!("density of `{name}`"), reason));
            };
            if let Some(density) = iact {
                layer.iact = sparsity(layer, Operand::Iact, density)?;
            }
            if let Some(density) = weight {
                layer.weight = sparsity(layer, Operand::Weight, density)?;
            }
        }
        Ok(())
    }

    /// Multiply-accumulates of all layers, zeros included.
    pub fn macs(&self) -> f64 {
        self.layers.iter().map(Layer::macs).sum()
    }
}

/// The layers there are, those like the name that was meant first.
fn named(wanted: &str, layers: &[Layer]) -> String {
    const SHOWN: usize = 12;
    let common = |l: &&Layer| {
        let same =
            |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(x, y)| x.eq_ignore_ascii_case(y)).count();
        let (a, b) = (wanted.as_bytes(), l.name.as_bytes());
        let reversed = |x: &[u8]| x.iter().rev().copied().collect::<Vec<u8>>();
        same(a, b) + same(&reversed(a), &reversed(b))
    };
    let mut list: Vec<&Layer> = layers.iter().collect();
    list.sort_by_key(|l| std::cmp::Reverse(common(l)));
    let names: Vec<&str> = list.iter().take(SHOWN).map(|l| l.name.as_str()).collect();
    let more = match layers.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("the layers are: {}{more}", names.join(", "))
}

/// The zeros of an operand as said; refuses what cannot be true of the layer.
fn sparsity(layer: &Layer, operand: Operand, density: &Density) -> Result<Sparsity, AccelError> {
    let (list, channels) = match density {
        Density::Uniform(density) => (std::slice::from_ref(density), 1),
        Density::PerChannel(list) => (list.as_slice(), layer.bound(Dim::G) * layer.bound(Dim::C)),
        Density::Mask(mask) => {
            let (found, expected) = (mask.len(), layer.elements(operand) as usize);
            if found != expected {
                let what = if operand == Operand::Iact { "the activation mask" } else { "the weight mask" };
                return Err(AccelError::Size { layer: layer.name.clone(), what, found, expected });
            }
            return Ok(Sparsity::of_mask(layer, operand, mask.clone()));
        }
    };
    let place = || format!("density of `{}` ({})", layer.name, operand.name());
    if list.len() != channels {
        let reason = format!("found {} numbers, expected one for each of {channels} channels", list.len());
        return Err(AccelError::invalid(place(), reason));
    }
    if let Some(found) = list.iter().find(|d| !(0.0..=1.0).contains(*d)) {
        return Err(AccelError::invalid(place(), format!("found {found}, expected a fraction from 0 to 1")));
    }
    Ok(match density {
        Density::Uniform(density) => Sparsity::uniform(*density),
        _ => Sparsity::per_channel(list.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use wattle_graph::ops::{Conv, Gemm, MatMul, Sliding};
    use wattle_graph::{DType, Graph, Parameter, Parameters, Shape, Tensor};

    use super::*;

    fn model(graph: Graph, weight: Tensor) -> Model {
        let mut parameters = Parameters::new();
        parameters.insert("w", weight);
        Model::new(graph, parameters)
    }

    #[test]
    fn a_padded_strided_convolution_keeps_its_window_and_counts_its_zeros() {
        let mut graph = Graph::new("g");
        let x = graph.input("x", DType::F32, Shape::known(&[1, 2, 7, 9]));
        let w = graph.parameter(Parameter::trainable("w"), DType::F32, &[2, 2, 3, 3]);
        let y = graph.apply(Conv { sliding: Sliding::strided(2, 1, 2), groups: 1 }, &[x, w]).unwrap();
        graph.output(y);
        let mut values = vec![1.0; 36];
        values[..9].fill(0.0);
        let workload = Workload::from_model(&model(graph, Tensor::f32([2, 2, 3, 3], values))).unwrap();
        let layer = &workload.layers[0];
        assert_eq!(layer.bounds, [1, 1, 2, 2, 4, 5, 3, 3]);
        assert_eq!((layer.stride, layer.pad, layer.input), ([2; 2], [1; 2], [7, 9]));
        assert_eq!(layer.weight.per_channel, Some(vec![0.5, 1.0]));
    }

    #[test]
    fn products_of_matrices_become_gemms_whatever_their_layout() {
        for (transpose_b, shape) in [(false, [3, 2]), (true, [2, 3])] {
            let mut graph = Graph::new("g");
            let x = graph.input("x", DType::F32, Shape::known(&[4, 5, 3]));
            let w = graph.parameter(Parameter::trainable("w"), DType::F32, &shape);
            let op = MatMul { transpose_a: false, transpose_b };
            let y = graph.apply(op, &[x, w]).unwrap();
            graph.output(y);
            // Inner index 1 is zero for both columns.
            let values =
                if transpose_b { vec![1., 0., 1., 1., 0., 1.] } else { vec![1., 1., 0., 0., 1., 1.] };
            let workload = Workload::from_model(&model(graph, Tensor::f32(shape, values))).unwrap();
            let layer = &workload.layers[0];
            assert_eq!((layer.bound(Dim::Q), layer.bound(Dim::C), layer.bound(Dim::M)), (20, 3, 2));
            assert_eq!(layer.weight.per_channel, Some(vec![1.0, 0.0, 1.0]));
        }
    }

    #[test]
    fn a_density_for_a_layer_that_is_not_there_is_an_error() {
        let mut graph = Graph::new("g");
        let x = graph.input("x", DType::F32, Shape::known(&[1, 3]));
        let w = graph.parameter(Parameter::trainable("w"), DType::F32, &[2, 3]);
        let y = graph
            .apply_all(Gemm { transpose_b: true, ..Gemm::default() }, &[Some(x), Some(w)], "fc")
            .unwrap();
        graph.output(y[0]);
        let mut workload = Workload::from_model(&model(graph, Tensor::f32([2, 3], vec![1.0; 6]))).unwrap();
        let densities =
            |name: &str, d| BTreeMap::from([(name.to_string(), (Some(Density::Uniform(d)), None))]);
        workload.set_densities(&densities("fc", 0.25)).unwrap();
        assert_eq!(workload.layers[0].iact.density, 0.25);
        assert!(workload.set_densities(&densities("cf", 0.25)).unwrap_err().to_string().contains("fc"));
        assert!(workload.set_densities(&densities("fc", 1.5)).is_err());
    }
}
