//! Slices put in their places, found at run time; in the memory of the tensor they are put into where that is free.

use bytemuck::Pod;
use wattle_graph::{DType, ops, strides};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};

/// ScatterND that replaces.
struct Slices {
    /// Extent and stride of each axis that an index vector names.
    axes: Vec<(usize, usize)>,
    /// Elements of a slice.
    slice: usize,
    /// Bytes of an element.
    size: usize,
}

pub(super) fn slices(site: &Site<'_>, op: &ops::ScatterNd) -> Option<Bound> {
    let (x, indices) = (site.input(0), site.input(1));
    let depth = *indices.extents.last()?;
    if op.reduction != ops::ScatterReduction::Replace || indices.dtype != DType::I64 || depth == 0 {
        return None;
    }
    let axes = x.extents.iter().copied().zip(strides(&x.extents)).take(depth).collect();
    let kernel = Slices { axes, slice: x.extents[depth..].iter().product(), size: x.dtype.size() };
    Some(Bound::row_major(site, kernel).in_place(0, 0))
}

impl Slices {
    /// Where the slice that an index vector names begins.
    fn start(&self, indices: &[i64]) -> Result<usize, EngineError> {
        let mut start = 0;
        for (&index, &(extent, stride)) in indices.iter().zip(&self.axes) {
            let at = wattle_graph::normalize_axis(index, extent).ok_or_else(|| EngineError::Node {
                node: String::new(),
                op: String::new(),
                reason: format!("index {index} is not within -{extent}..{extent}"),
            })?;
            start += at * stride;
        }
        Ok(start)
    }

    fn put<T: Pod>(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (indices, updates) = (io.input::<i64>(1)?, io.input::<T>(2)?);
        let vectors = || indices.chunks_exact(self.axes.len());
        for vector in vectors() {
            self.start(vector)?;
        }
        let y = io.output::<T>(0)?;
        if !io.shares(0, 0) {
            y.copy_from_slice(io.input(0)?);
        }
        for (vector, update) in vectors().zip(updates.chunks_exact(self.slice.max(1))) {
            let start = self.start(vector)?;
            y[start..start + self.slice].copy_from_slice(update);
        }
        Ok(())
    }
}

impl Kernel for Slices {
    fn name(&self) -> String {
        "scatter_slices".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        match self.size {
            1 => self.put::<u8>(io),
            2 => self.put::<u16>(io),
            4 => self.put::<u32>(io),
            _ => self.put::<u64>(io),
        }
    }
}
