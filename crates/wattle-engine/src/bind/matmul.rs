//! Matrix products: one product, or a batch of them, with bias, residual and activation in the epilogue.

use wattle_graph::{DType, ops};
use wattle_kernels::Isa;
use wattle_kernels::gemm::{self, Gemm};
use wattle_kernels::pack::{Packed, PackedShape};

use super::{Epilogue, kept, sparse};
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Operand, Site};
use crate::packing::{Ask, PackedOperand, Weights};

struct MatMul {
    gemm: Gemm,
    /// First elements of the operands of each product; results follow each other.
    batch: Vec<[usize; 2]>,
    /// B, where it is packed before the run.
    packed: Option<PackedOperand>,
    epilogue: Epilogue,
    isa: Isa,
}

pub(super) fn bind(site: &Site<'_>, op: &ops::MatMul, epilogue: &Epilogue) -> Option<Bound> {
    if !site.all(DType::F32) {
        return None;
    }
    let (a, b) = (site.input(0), site.input(1));
    let (mut shape, batch) = products(op, &a.extents, &b.extents)?;
    let mut batch = batch;
    // Rows of a whole batch against one matrix are one taller product.
    if b.extents.len() <= 2 && !op.transpose_a && batch.len() > 1 {
        shape.m *= batch.len();
        batch.truncate(1);
    }
    let constant = b.constant.and_then(|w| w.as_f32()).filter(|_| b.extents.len() <= 2 && !op.transpose_a);
    let present = |index: Option<usize>| index.filter(|&i| site.optional(i).is_some());
    let epilogue = Epilogue { bias: present(epilogue.bias), residual: epilogue.residual, ..*epilogue };
    if epilogue.residual.is_some_and(|i| site.input(i).extents != site.output(0)) {
        return None;
    }
    if let Some(bound) = kept::matmul(site, &shape, batch.len(), &epilogue) {
        return Some(bound);
    }
    let refusal = match constant.map(|w| sparse::matmul(site, &shape, w, &epilogue)) {
        Some(Ok(bound)) => return Some(bound),
        Some(Err(refusal)) => refusal,
        None => sparse::Refusal::default(),
    };
    let rests = b.rests && b.extents.len() <= 2 && !op.transpose_a && shape.packs();
    let packed = (constant.is_some() || rests).then(|| {
        let Gemm { k, n, transpose_b: transposed, .. } = shape;
        PackedOperand::new(site, 1, Weights::Matrices { count: 1, k, n, transposed })
    });
    let scratch =
        if packed.is_some() { 0 } else { gemm::gemm_batched_scratch_len(site.cpu, &shape, batch.len()) };
    let ask = packed.as_ref().map_or(Ask::AsItLies, PackedOperand::ask);
    let kernel = MatMul { gemm: shape, batch, packed, epilogue, isa: site.cpu.isa };
    Some(refusal.explain(Bound::row_major(site, kernel).scratch(scratch).asks(ask)))
}

/// The size of each product and where its operands start, in elements.
fn products(op: &ops::MatMul, a: &[usize], b: &[usize]) -> Option<(Gemm, Vec<[usize; 2]>)> {
    let split = |e: &[usize], left: bool| match *e {
        [k] if left => (vec![], 1, k),
        [k] => (vec![], k, 1),
        [ref batch @ .., rows, columns] => (batch.to_vec(), rows, columns),
        [] => (vec![], 1, 1),
    };
    let (a_batch, a_rows, a_columns) = split(a, true);
    let (b_batch, b_rows, b_columns) = split(b, false);
    let (m, k) = if op.transpose_a { (a_columns, a_rows) } else { (a_rows, a_columns) };
    let n = if op.transpose_b { b_rows } else { b_columns };
    let batch = ops::broadcast_extents(&a_batch, &b_batch).ok()?;
    let starts = ops::broadcast_indices(&a_batch, &batch)
        .into_iter()
        .zip(ops::broadcast_indices(&b_batch, &batch))
        .map(|(x, y)| [x * m * k, y * k * n])
        .collect();
    Some((Gemm { m, n, k, transpose_a: op.transpose_a, transpose_b: op.transpose_b }, starts))
}

impl Kernel for MatMul {
    fn name(&self) -> String {
        let layout = match (self.gemm.transpose_a, self.gemm.transpose_b) {
            (false, false) => "nn",
            (false, true) => "nt",
            (true, false) => "tn",
            (true, true) => "tt",
        };
        format!("gemm-{layout}-f32-{}", self.isa.name())
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (a, c) = (io.input::<f32>(0)?, io.output::<f32>(0)?);
        let bias = self.epilogue.bias.map(|i| io.input(i)).transpose()?;
        let residual: Option<&[f32]> = self.epilogue.residual.map(|i| io.input(i)).transpose()?;
        let activation = self.epilogue.activation;
        let epilogue = gemm::Epilogue { bias, residual, activation, ..Default::default() };
        if let Some(packed) = &self.packed {
            let (packed, _) = packed.read(io, &mut [])?;
            let packed = Packed::new(PackedShape::new(self.isa, 1, self.gemm.k, self.gemm.n), packed);
            gemm::gemm_packed(io.cpu, self.gemm.m, a, packed, epilogue, c);
            return Ok(());
        }
        let (b, scratch) = (io.input::<f32>(1)?, io.scratch()?);
        gemm::gemm_batched(io.cpu, &self.gemm, &self.batch, a, b, epilogue, c, scratch);
        Ok(())
    }
}

/// Gemm whose factors are 1 and whose addend is a row is a matrix product with a bias. `operands` are those of the Gemm
/// itself: what follows them is the epilogue's.
pub(super) fn gemm_bind(
    site: &Site<'_>,
    op: &ops::Gemm,
    operands: usize,
    epilogue: &Epilogue,
) -> Option<Bound> {
    let addend = site.optional(2).filter(|_| operands > 2);
    // A column of a square product has as many elements as a row.
    let lies = |c: &&Operand<'_>| c.extents.last().is_none_or(|n| *n == c.len());
    let row = addend.as_ref().is_none_or(|c| c.len() == site.output(0)[1] && lies(c));
    if op.alpha != 1.0 || !row || op.beta != 1.0 && addend.is_some() {
        return None;
    }
    let product = ops::MatMul { transpose_a: op.transpose_a, transpose_b: op.transpose_b };
    bind(site, &product, epilogue)
}
