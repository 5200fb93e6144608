//! Zeros of a network's tensors: counted in the weights, and in activations that somebody has run.

use std::sync::Arc;

use wattle_graph::{Mask, Model, Source, Tensor, Tensors, ValueId};

use crate::layer::{Layer, Operand, Sparsity};
use crate::nests::{Factor, Layout, Nest, is_constant};
use crate::workload::Workload;

/// A weight tensor or zero point that does not depend on the inputs, computed where the graph computes it
/// (dequantised, transposed, rebuilt).
pub(crate) fn constant(model: &Model, id: ValueId) -> Option<Arc<Tensor>> {
    match &model.graph.value(id).source {
        Source::Parameter(p) => model.parameters.view(p),
        Source::Constant(t) => Some(t.clone()),
        Source::Input => None,
        Source::Node { node, .. } if is_constant(model, id) => {
            let node = model.graph.node(*node);
            let mut operands = vec![];
            for input in &node.inputs {
                operands.push(match input {
                    Some(input) => Some(constant(model, *input)?),
                    None => None,
                });
            }
            let borrowed: Vec<Option<&Tensor>> = operands.iter().map(|o| o.as_deref()).collect();
            let results = node.op.evaluate(Tensors::new(&borrowed)).ok()?;
            let at = node.outputs.iter().position(|&o| o == id)?;
            results.into_iter().nth(at).map(Arc::new)
        }
        Source::Node { .. } => None,
    }
}

/// Zeros of a constant operand; dense when it is not constant, or when its size is not the nest's.
pub(crate) fn of_weights(model: &Model, layer: &Layer, factor: &Factor) -> Sparsity {
    let Some(tensor) = constant(model, factor.value) else { return Sparsity::dense() };
    let zeros = factor.zero.and_then(|z| constant(model, z));
    let zeros = zeros.map_or(vec![0.0], |z| z.to_f64().into_owned());
    let values = tensor.to_f64();
    let [_, g, m, c, _, _, r, s] = layer.bounds;
    if values.len() != g * m * c * r * s || zeros.is_empty() {
        return Sparsity::dense();
    }
    // The mask is `[G M, C, R, S]`; a matrix `[k, n]` is turned, one `[n, k]` lies right.
    let filters = g * m;
    let (inner, of_product) = match &factor.layout {
        Layout::Matrices { inner: 1, groups } => (1, filters / groups.len().max(1)),
        _ => (0, filters),
    };
    let of_filter = c * r * s;
    let alive = |index: usize| {
        let (filter, rest) = (index / of_filter, index % of_filter);
        let at = if inner == 1 {
            filter / of_product * of_product * of_filter + rest * of_product + filter % of_product
        } else {
            index
        };
        // One zero point for all, or one a filter.
        values[at] != zeros[if zeros.len() == filters { filter } else { 0 }]
    };
    Sparsity::of_mask(layer, Operand::Weight, Mask::from_bools((0..values.len()).map(alive)))
}

/// Counts of non-zero activations, filled in by whoever runs the graph.
///
/// It comes with a workload ([`Workload::with_tally`]). Every run of the model adds to the counts, and
/// [`Tally::apply`] turns them into densities of channels.
#[derive(Clone, Debug)]
pub struct Tally {
    probes: Vec<Probe>,
}

/// An operand of a layer that differs from run to run.
#[derive(Clone, Debug)]
struct Probe {
    /// Position of the layer in the workload.
    layer: usize,
    operand: Operand,
    factor: Factor,
    /// Non-zero elements and all elements of each input channel, over all groups.
    alive: Vec<u64>,
    seen: Vec<u64>,
    channels: usize,
}

impl Tally {
    /// What to watch of the nests of a model.
    pub(crate) fn new(model: &Model, nests: &[Nest]) -> Tally {
        let mut probes = vec![];
        for (layer, nest) in nests.iter().enumerate() {
            let [_, g, _, c, ..] = nest.layer.bounds;
            for (operand, factor) in [(Operand::Iact, &nest.iact), (Operand::Weight, &nest.weight)] {
                if let Some(factor) = factor.clone().filter(|f| !is_constant(model, f.value)) {
                    let [alive, seen] = [vec![0; g * c], vec![0; g * c]];
                    probes.push(Probe { layer, operand, factor, alive, seen, channels: c });
                }
            }
        }
        Tally { probes }
    }

    /// The values to watch: operands, and zero points that are computed. Each is named once.
    pub fn values(&self) -> Vec<ValueId> {
        let mut values: Vec<ValueId> =
            self.probes.iter().flat_map(|p| [Some(p.factor.value), p.factor.zero]).flatten().collect();
        values.sort_unstable_by_key(|v| v.index());
        values.dedup();
        values
    }

    /// Adds a run: `of` gives the tensor of a value, `None` for what was not watched because it is constant.
    pub fn count<'a>(&mut self, model: &Model, of: impl Fn(ValueId) -> Option<&'a Tensor>) {
        for probe in &mut self.probes {
            let Some(tensor) = of(probe.factor.value) else { continue };
            let zero = probe.factor.zero.and_then(|z| {
                let first = |t: &Tensor| t.to_f64().first().copied();
                of(z).map_or_else(|| constant(model, z).and_then(|t| first(&t)), first)
            });
            probe.count(tensor, zero.unwrap_or(0.0));
        }
    }

    /// Sets the densities of a workload of the same model.
    pub fn apply(&self, workload: &mut Workload) {
        for probe in &self.probes {
            let Some(layer) = workload.layers.get_mut(probe.layer) else { continue };
            let (alive, seen): (u64, u64) = (probe.alive.iter().sum(), probe.seen.iter().sum());
            if seen == 0 {
                continue;
            }
            let of = |(&alive, &seen): (&u64, &u64)| alive as f64 / seen.max(1) as f64;
            let found = Sparsity {
                density: alive as f64 / seen as f64,
                per_channel: Some(probe.alive.iter().zip(&probe.seen).map(of).collect()),
                mask: None,
            };
            match probe.operand {
                Operand::Iact => layer.iact = found,
                _ => layer.weight = found,
            }
        }
    }
}

impl Probe {
    fn count(&mut self, tensor: &Tensor, zero: f64) {
        let values = tensor.to_f64();
        let (shape, channels) = (tensor.shape(), self.channels);
        let Probe { factor, alive: counts, seen, .. } = self;
        let mut add = |channel: usize, alive: usize, of: usize| {
            if let (Some(a), Some(s)) = (counts.get_mut(channel), seen.get_mut(channel)) {
                *a += alive as u64;
                *s += of as u64;
            }
        };
        match &factor.layout {
            Layout::Maps { repeat } => {
                let Some(&maps) = shape.get(1) else { return };
                let plane: usize = shape[2..].iter().product();
                for (index, map) in values.chunks_exact(plane.max(1)).enumerate() {
                    let alive = map.iter().filter(|&&x| x != zero).count();
                    let first = index % maps.max(1) * repeat;
                    (first..first + repeat).for_each(|channel| add(channel, alive, plane));
                }
            }
            Layout::Matrices { inner, groups } => {
                // A vector is a matrix of one row.
                let columns = shape.last().copied().unwrap_or(1);
                let rows = if shape.len() > 1 { shape[shape.len() - 2] } else { 1 };
                let (extent, others) = if *inner == 0 { (columns, rows) } else { (rows, columns) };
                for (matrix, readers) in values.chunks_exact((rows * columns).max(1)).zip(groups) {
                    for channel in 0..extent.min(channels) {
                        let at = |other: usize| {
                            if *inner == 0 { other * columns + channel } else { channel * columns + other }
                        };
                        let alive = (0..others).filter(|&o| matrix[at(o)] != zero).count();
                        readers.iter().for_each(|group| add(group * channels + channel, alive, others));
                    }
                }
            }
            Layout::Filters => {}
        }
    }
}
