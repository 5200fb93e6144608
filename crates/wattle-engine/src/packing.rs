//! Packed weights: what kernels make of a weight before they multiply with it. Of a constant once, when planning; of a tensor
//! in the store once for each of its versions; of anything else in every run.

use std::sync::Arc;

use wattle_kernels::conv::{self, ConvPlan};
use wattle_kernels::pack::{PackedShape, pack_matrix};
use wattle_kernels::pages::HugeVec;
use wattle_kernels::{Cpu, Isa};

use crate::error::EngineError;
use crate::kernel::{Io, Site};

/// How a weight is packed for one instruction set.
pub(crate) struct Packing {
    isa: Isa,
    weights: Weights,
}

/// What kind of weight it is.
pub(crate) enum Weights {
    /// So many matrices, each `[n, k]` if transposed, else `[k, n]`.
    Matrices { count: usize, k: usize, n: usize, transposed: bool },
    /// For a convolution.
    Forward(Arc<ConvPlan>),
    /// For a convolution's input gradient, which a transposed convolution is.
    InputGradient(Arc<ConvPlan>),
    /// For a depthwise convolution and its input gradient.
    Depthwise(Arc<ConvPlan>),
}

impl Packing {
    /// The packing of these weights for an instruction set.
    pub fn new(isa: Isa, weights: Weights) -> Packing {
        Packing { isa, weights }
    }

    /// Elements of the packed weight.
    pub fn len(&self) -> usize {
        match &self.weights {
            Weights::Matrices { count, k, n, .. } => count * PackedShape::new(self.isa, 1, *k, *n).len(),
            Weights::Forward(plan) => plan.forward_weights_len(self.isa),
            Weights::InputGradient(plan) => plan.input_gradient_weights_len(self.isa),
            Weights::Depthwise(plan) => plan.shape().weights_len(),
        }
    }

    /// Packs `weight`, row-major, into `packed`, which is as long as [`Packing::len`] says.
    pub fn pack(&self, cpu: &Cpu, weight: &[f32], packed: &mut [f32]) {
        match &self.weights {
            Weights::Matrices { k, n, transposed, .. } => {
                let len = PackedShape::new(self.isa, 1, *k, *n).len();
                if len > 0 {
                    for (matrix, packed) in weight.chunks_exact(k * n).zip(packed.chunks_exact_mut(len)) {
                        pack_matrix(cpu, *k, *n, *transposed, matrix, packed);
                    }
                }
            }
            Weights::Forward(plan) => plan.pack_forward(cpu, weight, packed),
            Weights::InputGradient(plan) => plan.pack_input_gradient(cpu, weight, packed),
            Weights::Depthwise(plan) => conv::pack_depthwise(plan.shape(), weight, packed),
        }
    }

    /// Whether both make the same bytes of a weight.
    pub fn alike(&self, other: &Packing) -> bool {
        use Weights::{Depthwise, Forward, InputGradient, Matrices};
        let same_plan = |a: &ConvPlan, b: &ConvPlan| {
            a.shape() == b.shape()
                && a.is_transformed() == b.is_transformed()
                && a.reads_planes() == b.reads_planes()
        };
        let same = match (&self.weights, &other.weights) {
            (
                Matrices { count, k, n, transposed },
                Matrices { count: count2, k: k2, n: n2, transposed: transposed2 },
            ) => (count, k, n, transposed) == (count2, k2, n2, transposed2),
            (Forward(a), Forward(b))
            | (InputGradient(a), InputGradient(b))
            | (Depthwise(a), Depthwise(b)) => same_plan(a, b),
            _ => false,
        };
        same && self.isa == other.isa
    }
}

/// An operand that a kernel wants packed.
pub(crate) struct PackedOperand {
    index: usize,
    packing: Arc<Packing>,
    origin: Origin,
}

/// What a kernel asks of the planner for an operand.
pub(crate) enum Ask {
    /// Not to be given it.
    Nothing(usize),
    /// The form that the store packs.
    Packed(usize, Arc<Packing>),
    /// Its elements.
    AsItLies,
}

/// Who packs it.
enum Origin {
    /// The plan.
    Constant(HugeVec<f32>),
    /// The store.
    Stored,
    /// The kernel, in every run.
    Computed,
}

impl PackedOperand {
    /// Operand `index` of a site, packed now if it is constant.
    pub fn new(site: &Site<'_>, index: usize, weights: Weights) -> PackedOperand {
        let operand = site.input(index);
        let packing = Packing::new(site.cpu.isa, weights);
        let origin = match operand.constant.and_then(|w| w.as_f32()) {
            Some(weight) => {
                let mut packed = HugeVec::zeroed(packing.len());
                packing.pack(site.cpu, weight, &mut packed);
                Origin::Constant(packed)
            }
            None if operand.rests => Origin::Stored,
            None => Origin::Computed,
        };
        PackedOperand { index, packing: Arc::new(packing), origin }
    }

    /// Scratch elements that [`PackedOperand::read`] needs.
    pub fn scratch(&self) -> usize {
        // A multiple of a cache line, for what follows.
        if matches!(self.origin, Origin::Computed) { self.packing.len().next_multiple_of(16) } else { 0 }
    }

    /// What its kernel asks of the planner.
    pub fn ask(&self) -> Ask {
        match self.origin {
            Origin::Constant(_) => Ask::Nothing(self.index),
            Origin::Stored => Ask::Packed(self.index, self.packing.clone()),
            Origin::Computed => Ask::AsItLies,
        }
    }

    /// The packed operand, and what is left of the scratch memory.
    pub fn read<'s, 'a: 's>(
        &'s self,
        io: &Io<'a>,
        scratch: &'s mut [f32],
    ) -> Result<(&'s [f32], &'s mut [f32]), EngineError> {
        Ok(match &self.origin {
            Origin::Constant(packed) => (packed, scratch),
            Origin::Stored => (io.input(self.index)?, scratch),
            Origin::Computed => {
                let (packed, rest) = scratch.split_at_mut(self.scratch());
                let packed = &mut packed[..self.packing.len()];
                self.packing.pack(io.cpu, io.input(self.index)?, packed);
                (packed, rest)
            }
        })
    }
}
