//! Reductions whose axes are neighbours in memory.

use wattle_graph::{DType, ops, ops::Reduction};
use wattle_kernels::reduce::{self, Reduce};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

struct Neighbours {
    function: Reduce,
    /// Elements before, along and after the reduced axes.
    sizes: [usize; 3],
}

pub(super) fn reduce(site: &Site<'_>, op: &ops::Reduce) -> Option<Bound> {
    let function = match op.kind {
        Reduction::Max => Reduce::Max,
        Reduction::Mean => Reduce::Mean,
        Reduction::Min => Reduce::Min,
        Reduction::Prod => Reduce::Product,
        Reduction::Sum => Reduce::Sum,
        Reduction::SumSquare => Reduce::SumSquare,
        _ => return None,
    };
    let reduced = op.reduced(site.input(0).extents.len()).ok()?;
    bind(site, function, &reduced)
}

pub(super) fn sum_to(site: &Site<'_>, op: &ops::SumTo) -> Option<Bound> {
    let extents = &site.input(0).extents;
    let lead = extents.len() - op.shape.len();
    let reduced: Vec<bool> =
        (0..extents.len()).map(|a| a < lead || op.shape[a - lead] == 1 && extents[a] != 1).collect();
    bind(site, Reduce::Sum, &reduced)
}

fn bind(site: &Site<'_>, function: Reduce, reduced: &[bool]) -> Option<Bound> {
    let x = site.input(0);
    if !site.all(DType::F32) || x.is_empty() {
        return None;
    }
    // Reducing all axes but the channels, or all spatial ones, is a run of neighbours in either layout; what is
    // left must not depend on the layout. Where neither does, moving the channels costs less than no kernel.
    for layout in [x.layout, Layout::RowMajor, Layout::ChannelsLast] {
        let order = layout.order(x.extents.len());
        let flags: Vec<bool> = order.iter().map(|&a| reduced[a] || x.extents[a] == 1).collect();
        let kept: Vec<usize> = order.iter().copied().filter(|&a| !reduced[a] && x.extents[a] != 1).collect();
        let extents = layout.physical(&x.extents);
        let is_reduced = |position: usize| reduced[order[position]];
        let first = (0..extents.len()).find(|&p| is_reduced(p) && extents[p] != 1);
        let last = (0..extents.len()).rev().find(|&p| is_reduced(p) && extents[p] != 1);
        let (first, end) = match first.zip(last) {
            Some((first, last)) => (first, last + 1),
            // All reduced axes have one element.
            None if reduced.contains(&true) => (extents.len(), extents.len()),
            None => return None,
        };
        if kept.is_sorted() && flags[first..end].iter().all(|&r| r) {
            let product = |part: &[usize]| part.iter().product::<usize>();
            let sizes = [product(&extents[..first]), product(&extents[first..end]), product(&extents[end..])];
            let scratch = reduce::reduce_scratch_len(sizes[0], sizes[1], sizes[2]);
            let bound = Bound::row_major(site, Neighbours { function, sizes }).scratch(scratch);
            let mut input_layouts = vec![Layout::RowMajor; site.inputs.len()];
            input_layouts[0] = layout;
            return Some(Bound { input_layouts, ..bound });
        }
    }
    None
}

impl Kernel for Neighbours {
    fn name(&self) -> String {
        format!("reduce-{:?}-f32", self.function)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        reduce::reduce(io.cpu, self.function, self.sizes, io.input(0)?, io.output(0)?, io.scratch()?);
        Ok(())
    }
}
