//! Changes of layout, transpositions, and results that are their operand in the same memory.

use wattle_graph::{DType, ops};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// Copies elements into another order of axes.
struct Permute {
    name: String,
    bytes: usize,
    /// Extents of the result in memory order.
    extents: Vec<usize>,
    /// Stride of the operand along each of them, in elements.
    strides: Vec<usize>,
}

/// The step that brings a value from one layout into another.
pub(crate) fn reorder(extents: &[usize], dtype: DType, from: Layout, to: Layout) -> Box<dyn Kernel> {
    let strides = from.strides(extents);
    let strides = to.order(extents.len()).into_iter().map(|axis| strides[axis]).collect();
    let name = match to {
        Layout::RowMajor => "layout-row_major",
        Layout::ChannelsLast => "layout-channels_last",
    };
    Box::new(Permute { name: name.into(), bytes: dtype.size(), extents: to.physical(extents), strides })
}

/// A result with the operand's elements in the operand's order, both row-major.
pub(crate) fn view(site: &Site<'_>) -> Bound {
    Bound::view(site, Layout::RowMajor)
}

/// Transposition; where only axes of extent 1 move, the result is the operand in the same memory.
pub(crate) fn transpose(site: &Site<'_>, op: &ops::Transpose) -> Option<Bound> {
    let x = site.input(0);
    let order = op.order(x.extents.len()).ok()?;
    let moved: Vec<usize> = order.iter().copied().filter(|&axis| x.extents[axis] != 1).collect();
    if moved.is_sorted() {
        return Some(view(site));
    }
    // The operand is read in the layout it has: a transposition is a change of strides anyway.
    let strides = x.layout.strides(&x.extents);
    let strides = order.iter().map(|&axis| strides[axis]).collect();
    let name = "transpose".into();
    let kernel = Permute { name, bytes: x.dtype.size(), extents: site.output(0).to_vec(), strides };
    Some(Bound { input_layouts: vec![x.layout], ..Bound::row_major(site, kernel) })
}

impl Kernel for Permute {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&mut self, io: &Io<'_>) -> Result<(), EngineError> {
        let (extents, strides) = (&self.extents, &self.strides);
        match self.bytes {
            1 => permute(io.input::<u8>(0)?, io.output::<u8>(0)?, extents, strides),
            2 => permute(io.input::<u16>(0)?, io.output::<u16>(0)?, extents, strides),
            4 => permute(io.input::<u32>(0)?, io.output::<u32>(0)?, extents, strides),
            _ => permute(io.input::<u64>(0)?, io.output::<u64>(0)?, extents, strides),
        }
        Ok(())
    }
}

/// `y` in row-major order of `extents`, reading `x` with `strides`.
fn permute<T: Copy>(x: &[T], y: &mut [T], extents: &[usize], strides: &[usize]) {
    let Some((&inner, outer)) = extents.split_last() else {
        y.copy_from_slice(&x[..1]);
        return;
    };
    let step = strides[outer.len()];
    let mut rows = y.chunks_exact_mut(inner.max(1));
    wattle_graph::each_index(outer, |index| {
        let start: usize = index.iter().zip(strides).map(|(i, s)| i * s).sum();
        if let Some(row) = rows.next() {
            if step == 1 {
                row.copy_from_slice(&x[start..start + inner]);
            } else {
                row.iter_mut().enumerate().for_each(|(i, to)| *to = x[start + i * step]);
            }
        }
    });
}
