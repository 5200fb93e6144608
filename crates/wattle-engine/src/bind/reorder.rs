//! Changes of layout, transpositions, and results that are their operand in the same memory.

use bytemuck::Pod;
use wattle_graph::{DType, ops};
use wattle_kernels::transpose::{self, Permutation};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// Copies elements into another order of axes.
struct Permute {
    name: &'static str,
    bytes: usize,
    permutation: Permutation,
}

/// The step that brings a value from one layout into another.
pub(crate) fn reorder(extents: &[usize], dtype: DType, from: Layout, to: Layout) -> Box<dyn Kernel> {
    let rank = extents.len();
    let order: Vec<usize> = to.order(rank).into_iter().map(|axis| from.position(axis, rank)).collect();
    let permutation = Permutation::new(&from.physical(extents), &order);
    let permutation = permutation.expect("a change of layout moves one axis past a run of others");
    let name = match to {
        Layout::RowMajor => "layout-row_major",
        Layout::ChannelsLast => "layout-channels_last",
        Layout::Kept => "layout-kept",
    };
    Box::new(Permute { name, bytes: dtype.size(), permutation })
}

/// A result with the operand's elements in the operand's order, both row-major.
pub(crate) fn view(site: &Site<'_>) -> Bound {
    Bound::view(site, Layout::RowMajor)
}

/// Transposition; where only axes of extent 1 move, the result is the operand in the same memory.
pub(crate) fn transpose(site: &Site<'_>, op: &ops::Transpose) -> Option<Bound> {
    let x = site.input(0);
    let rank = x.extents.len();
    let order = op.order(rank).ok()?;
    let moved: Vec<usize> = order.iter().copied().filter(|&axis| x.extents[axis] != 1).collect();
    if moved.is_sorted() {
        return Some(view(site));
    }
    // The operand is read in the layout it has: a transposition reads in another order anyway.
    let order: Vec<usize> = order.iter().map(|&axis| x.layout.position(axis, rank)).collect();
    let permutation = Permutation::new(&x.layout.physical(&x.extents), &order)?;
    let kernel = Permute { name: "transpose", bytes: x.dtype.size(), permutation };
    Some(Bound { input_layouts: vec![x.layout], ..Bound::row_major(site, kernel) })
}

impl Permute {
    fn copy<T: Pod + Send + Sync>(&self, io: &Io<'_>) -> Result<(), EngineError> {
        transpose::permute::<T>(io.cpu, &self.permutation, io.input(0)?, io.output(0)?);
        Ok(())
    }
}

impl Kernel for Permute {
    fn name(&self) -> String {
        self.name.into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        match self.bytes {
            1 => self.copy::<u8>(io),
            2 => self.copy::<u16>(io),
            4 => self.copy::<u32>(io),
            _ => self.copy::<u64>(io),
        }
    }
}
