//! Scaled dot-product attention and its gradient, head by head.

use wattle_graph::{DType, ops};
use wattle_kernels::attention::{self, AttentionMask, AttentionSaved};

use super::recurrent::cut;
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};

/// The mask as the kernel reads it: an operand as it is, or spread and made causal in scratch memory.
struct Mask {
    /// For each element, that of the operand; empty where the operand is the mask already, or is absent.
    at: Vec<usize>,
    /// Elements from one head to the next.
    step: usize,
    elements: usize,
    queries: usize,
    keys: usize,
    causal: bool,
}

impl Mask {
    /// The mask for scores of these extents `[batch, heads, queries, keys]`.
    fn new(site: &Site<'_>, op: &ops::Attention, scores: &[usize; 4]) -> Mask {
        let extents: &[usize] = site.optional(3).map_or(&[], |m| &m.extents);
        let inner = &extents[extents.len().saturating_sub(2)..];
        // Every head shares a mask whose other extents are 1.
        let shared = extents[..extents.len() - inner.len()].iter().all(|&e| e == 1);
        let (whole, operand) = if shared { (&scores[2..], inner) } else { (&scores[..], extents) };
        let absent = site.optional(3).is_none();
        let at = if absent || operand == whole { vec![] } else { ops::broadcast_indices(operand, whole) };
        let [_, _, queries, keys] = *scores;
        let step = if shared { 0 } else { queries * keys };
        Mask { at, step, elements: whole.iter().product(), queries, keys, causal: op.causal }
    }

    /// Scratch elements.
    fn scratch(&self) -> usize {
        if self.causal || !self.at.is_empty() { self.elements } else { 0 }
    }

    fn view<'a>(&self, operand: Option<&'a [f32]>, scratch: &'a mut [f32]) -> Option<AttentionMask<'a>> {
        if scratch.is_empty() {
            return operand.map(|data| AttentionMask { data, step: self.step });
        }
        match operand {
            None => scratch.fill(0.0),
            Some(from) if self.at.is_empty() => scratch.copy_from_slice(from),
            Some(from) => scratch.iter_mut().zip(&self.at).for_each(|(to, &i)| *to = from[i]),
        }
        if self.causal {
            for (row, scores) in scratch.chunks_exact_mut(self.keys).enumerate() {
                let seen = self.keys.min(row % self.queries + 1);
                scores[seen..].fill(f32::NEG_INFINITY);
            }
        }
        Some(AttentionMask { data: scratch, step: self.step })
    }
}

struct Attention {
    shape: attention::Attention,
    mask: Mask,
    gradient: bool,
    isa: &'static str,
}

/// The operator itself, or its gradient, whose fifth operand is that of the result.
pub(super) fn bind(site: &Site<'_>, op: &ops::Attention, gradient: bool) -> Option<Bound> {
    let [[batch, heads, queries, width], [_, _, keys, value_width]] = [0, 2]
        .map(|i| <[usize; 4]>::try_from(&site.input(i).extents[..]).ok())
        .map(Option::unwrap_or_default);
    let heads = batch * heads;
    let shape = attention::Attention { heads, queries, keys, width, value_width, scale: op.scale };
    if !site.all(DType::F32) || heads * queries * keys * width * value_width == 0 {
        return None;
    }
    let mask = Mask::new(site, op, &[batch, heads / batch, queries, keys]);
    let kernel = Attention { shape, mask, gradient, isa: site.cpu.isa.name() };
    let scratch = kernel.parts(site.cpu).iter().sum();
    Some(Bound::row_major(site, kernel).scratch(scratch))
}

impl Attention {
    /// Scratch: the mask, the probabilities, the result again (gradient only), and what the kernel needs.
    fn parts(&self, cpu: &wattle_kernels::Cpu) -> [usize; 4] {
        let s = &self.shape;
        let again = if self.gradient { s.heads * s.queries * s.value_width } else { 0 };
        [self.mask.scratch(), s.probabilities_len(), again, s.scratch_len(cpu)]
    }
}

impl Kernel for Attention {
    fn name(&self) -> String {
        let kind = if self.gradient { "attention_gradient" } else { "attention" };
        format!("{kind}-f32-{}", self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (s, cpu) = (&self.shape, io.cpu);
        let (q, k, v) = (io.input::<f32>(0)?, io.input::<f32>(1)?, io.input::<f32>(2)?);
        let [mask, probabilities, again, scratch] = cut(io.scratch()?, self.parts(cpu));
        let mask = self.mask.view(io.optional(3)?, mask);
        if !self.gradient {
            attention::attention(cpu, s, q, k, v, mask, io.output(0)?, probabilities, scratch);
            return Ok(());
        }
        attention::attention(cpu, s, q, k, v, mask, again, probabilities, scratch);
        let saved = AttentionSaved { q, k, v, probabilities };
        let (dq, dk, dv) = (io.output(0)?, io.output(1)?, io.output(2)?);
        attention::attention_gradient(cpu, s, saved, io.input(4)?, dq, dk, dv, scratch);
        Ok(())
    }
}
