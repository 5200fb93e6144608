//! Workloads from graphs: which nodes an accelerator takes, with the zeros of their weights, and which stay on
//! the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use wattle_graph::ops::Conv;
use wattle_graph::{Mask, Model, Node, Op, Source, Tensor, ValueId, costs};

use crate::error::AccelError;
use crate::layer::{Kind, Layer, Sparsity};

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

impl Workload {
    /// The layers of a model whose shapes are all known. Weights are counted exactly, zero by zero; activations
    /// are dense until [`Workload::set_densities`] says otherwise.
    pub fn from_model(model: &Model) -> Result<Workload, AccelError> {
        let graph = &model.graph;
        let mut workload = Workload { name: graph.name.clone(), ..Workload::default() };
        for cost in costs(graph, &model.parameters)? {
            let node = graph.node(cost.node);
            let name = if node.name.is_empty() { graph.label(node.outputs[0]) } else { node.name.clone() };
            let layers = layers_of(model, node, &name)?;
            if layers.is_empty() {
                let work = &cost.work;
                if work.macs > 0 || work.element_ops > 0 {
                    let reason = match &node.op {
                        Op::Recurrent(_) | Op::RecurrentGradient(_) => "recurrent: each step waits for the last",
                        Op::Custom(_) => "custom operator",
                        _ if work.macs > 0 => "no loop nest of a convolution or matrix product",
                        _ => "no multiply-accumulates",
                    };
                    let (macs, element_ops) = (work.macs, work.element_ops);
                    workload.host.push(HostWork { name, op: node.op.name().to_string(), macs, element_ops, reason });
                }
            }
            workload.layers.extend(layers);
        }
        Ok(workload)
    }

    /// Replaces densities by name of layer: `(iact, weight)`, each where given. A name without a layer is an
    /// error, so that a misspelt one cannot pass for a measured density.
    pub fn set_densities(
        &mut self,
        densities: &BTreeMap<String, (Option<f64>, Option<f64>)>,
    ) -> Result<(), AccelError> {
        for (name, (iact, weight)) in densities {
            let Some(layer) = self.layers.iter_mut().find(|l| l.name == *name) else {
                let names: Vec<&str> = self.layers.iter().map(|l| l.name.as_str()).collect();
                let reason = format!("there is no such layer; the layers are: {}", names.join(", "));
                return Err(AccelError::invalid(format!("density of `{name}`"), reason));
            };
            for (given, of) in [(iact, &mut layer.iact), (weight, &mut layer.weight)] {
                if let Some(density) = *given {
                    if !(0.0..=1.0).contains(&density) {
                        let reason = format!("found {density}, expected a fraction from 0 to 1");
                        return Err(AccelError::invalid(format!("density of `{name}`"), reason));
                    }
                    *of = Sparsity::uniform(density);
                }
            }
        }
        Ok(())
    }

    /// Multiply-accumulates of all layers, zeros included.
    pub fn macs(&self) -> f64 {
        self.layers.iter().map(Layer::macs).sum()
    }
}

/// The nests of a node: none for what stays on the host, two for attention.
fn layers_of(model: &Model, node: &Node, name: &str) -> Result<Vec<Layer>, AccelError> {
    let graph = &model.graph;
    let extents = |index: usize| graph.extents(node.inputs[index].unwrap_or(node.outputs[0]));
    let output = || graph.extents(node.outputs[0]);
    let op = match &node.op {
        Op::Fused(fused) => &*fused.body,
        other => other,
    };
    let mut layers = vec![];
    match op {
        Op::Conv(conv) => layers.extend(convolution(conv, name, &extents(0)?, &extents(1)?, &output()?)),
        Op::ConvInteger(op) => layers.extend(convolution(&op.conv, name, &extents(0)?, &extents(1)?, &output()?)),
        Op::QLinearConv(op) => layers.extend(convolution(&op.conv, name, &extents(0)?, &extents(3)?, &output()?)),
        Op::Gemm(gemm) => {
            let (a, y) = (extents(0)?, output()?);
            layers.push(Layer::gemm(name, y[0], a[usize::from(!gemm.transpose_a)], y[1]));
        }
        Op::MatMul(matmul) => {
            let (a, b) = (extents(0)?, extents(1)?);
            layers.extend(product(name, &a, &b, &output()?, matmul.transpose_a, matmul.transpose_b));
        }
        Op::MatMulInteger(_) => layers.extend(product(name, &extents(0)?, &extents(1)?, &output()?, false, false)),
        Op::QLinearMatMul(_) => layers.extend(product(name, &extents(0)?, &extents(3)?, &output()?, false, false)),
        Op::Attention(_) => {
            let (q, k, v) = (extents(0)?, extents(1)?, extents(2)?);
            if let ([b, h, s, d], [_, _, t, _], [_, _, _, e]) = (q.as_slice(), k.as_slice(), v.as_slice()) {
                for (part, inner, columns) in [("scores", *d, *t), ("values", *t, *e)] {
                    let mut layer = Layer::gemm(&format!("{name}.{part}"), *s, inner, columns);
                    layer.bounds[1] = b * h;
                    layers.push(layer);
                }
            }
        }
        _ => {}
    }
    let weight = match op {
        Op::QLinearConv(_) | Op::QLinearMatMul(_) => 3,
        _ => 1,
    };
    for layer in &mut layers {
        if layer.macs() == 0.0 {
            return Ok(vec![]);
        }
        if let Some(id) = node.inputs.get(weight).copied().flatten()
            && let Some(tensor) = weights_of(model, id)
        {
            layer.weight = counted(op, layer, &tensor);
        }
    }
    Ok(layers)
}

fn weights_of(model: &Model, id: ValueId) -> Option<Arc<Tensor>> {
    match &model.graph.value(id).source {
        Source::Parameter(p) => model.parameters.view(p),
        Source::Constant(t) => Some(t.clone()),
        _ => None,
    }
}

/// A convolution over one or two axes; others have no nest here.
fn convolution(conv: &Conv, name: &str, x: &[usize], w: &[usize], y: &[usize]) -> Option<Layer> {
    let axes = x.len().checked_sub(2).filter(|&a| a == 1 || a == 2)?;
    let (groups, first) = (conv.groups, 2 - axes);
    let mut layer = Layer::conv(name, groups, x[1], y[1], 1, 1, 1);
    layer.bounds[0] = x[0];
    for axis in 0..axes {
        let to = first + axis;
        layer.bounds[4 + to] = y[2 + axis];
        layer.bounds[6 + to] = w[2 + axis];
        layer.stride[to] = conv.sliding.strides[axis];
        layer.dilation[to] = conv.sliding.dilations[axis];
        layer.pad[to] = conv.sliding.pads(axis, x[2 + axis], w[2 + axis]).0;
        layer.input[to] = x[2 + axis];
    }
    Some(layer)
}

/// A matrix product: batches of activations times one matrix become rows, batches of both become groups.
fn product(
    name: &str,
    a: &[usize],
    b: &[usize],
    y: &[usize],
    transpose_a: bool,
    transpose_b: bool,
) -> Option<Layer> {
    let inner = if transpose_a { *a.get(a.len().checked_sub(2)?)? } else { *a.last()? };
    let columns = match b.len() {
        0 => return None,
        1 => 1,
        n => b[if transpose_b { n - 2 } else { n - 1 }],
    };
    let results: usize = y.iter().product();
    let groups: usize = if b.len() > 2 { b[..b.len() - 2].iter().product() } else { 1 };
    if groups == 0 || columns == 0 {
        return None;
    }
    let mut layer = Layer::gemm(name, results / columns / groups, inner, columns);
    layer.bounds[1] = groups;
    Some(layer)
}

/// Zeros of a weight tensor; the mask is kept in the layout of [`Sparsity::mask`] where the tensor has it.
fn counted(op: &Op, layer: &Layer, tensor: &Tensor) -> Sparsity {
    let values = tensor.to_f64();
    let [_, g, m, c, _, _, r, s] = layer.bounds;
    if values.len() != g * m * c * r * s {
        return Sparsity::uniform(tensor.density());
    }
    // Matrix products read `[k, n]` unless transposed; the mask is `[n, k]`.
    let transposed = match op {
        Op::Gemm(op) => op.transpose_b,
        Op::MatMul(op) => op.transpose_b,
        _ => layer.kind != Kind::Gemm,
    };
    let at = |index: usize| {
        if transposed {
            return index;
        }
        let (product, m_, c_) = (index / (m * c), index / c % m, index % c);
        product * m * c + c_ * m + m_
    };
    let mask = Mask::from_bools((0..values.len()).map(|i| values[at(i)] != 0.0));
    let mut per_channel = vec![0usize; g * c];
    for index in 0..mask.len() {
        if mask.get(index) {
            let (filter, channel) = (index / (c * r * s), index / (r * s) % c);
            per_channel[filter / m * c + channel] += 1;
        }
    }
    let of = (m * r * s) as f64;
    let density = mask.count() as f64 / mask.len().max(1) as f64;
    let per_channel = Some(per_channel.into_iter().map(|n| n as f64 / of).collect());
    Sparsity { density, per_channel, mask: Some(Arc::new(mask)) }
}

#[cfg(test)]
mod tests {
    use wattle_graph::ops::{Gemm, MatMul, Sliding};
    use wattle_graph::{DType, Graph, Parameter, Parameters, Shape};

    use super::*;
    use crate::layer::Dim;

    fn model(graph: Graph, weight: Tensor) -> Model {
        let mut parameters = Parameters::new();
        parameters.insert("w", weight);
        Model { graph, parameters }
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
            let values = if transpose_b { vec![1., 0., 1., 1., 0., 1.] } else { vec![1., 1., 0., 0., 1., 1.] };
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
        let y = graph.apply_all(Gemm { transpose_b: true, ..Gemm::default() }, &[Some(x), Some(w)], "fc").unwrap();
        graph.output(y[0]);
        let mut workload = Workload::from_model(&model(graph, Tensor::f32([2, 3], vec![1.0; 6]))).unwrap();
        let densities = |name: &str, d| BTreeMap::from([(name.to_string(), (Some(d), None))]);
        workload.set_densities(&densities("fc", 0.25)).unwrap();
        assert_eq!(workload.layers[0].iact.density, 0.25);
        assert!(workload.set_densities(&densities("cf", 0.25)).unwrap_err().to_string().contains("fc"));
        assert!(workload.set_densities(&densities("fc", 1.5)).is_err());
    }
}
