//! Operators that only move elements: where each element comes from is worked out once, at plan time.

use bytemuck::Pod;
use wattle_graph::{DType, Op, ops};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// Copies runs of elements from the operand to the result.
struct Runs {
    name: &'static str,
    bytes: usize,
    /// (from, to, length) in elements; what no run covers is zero.
    runs: Vec<(u32, u32, u32)>,
    covered: bool,
}

/// Any operator that moves the elements of operand 0 and whose other operands are constant.
pub(super) fn moved(site: &Site<'_>, op: &Op) -> Option<Bound> {
    let x = site.input(0);
    let others: Option<Vec<_>> =
        site.inputs[1..].iter().map(|o| o.as_ref().map_or(Some(None), |o| o.constant.map(Some))).collect();
    let fill = matches!(op, Op::Pad(_)).then(|| site.optional(2)).flatten();
    if fill.is_some_and(|f| f.constant.is_none_or(|t| t.to_f64().first() != Some(&0.0))) {
        return None;
    }
    if x.len() > u32::MAX as usize || site.output(0).iter().product::<usize>() > u32::MAX as usize {
        return None;
    }
    let sources = ops::sources(op, &x.extents, &others?).ok()?;
    let kernel = Runs::new(op.name(), x.dtype, &sources);
    let bound = Bound::row_major(site, kernel);
    Some((1..site.inputs.len()).fold(bound, Bound::takes))
}

impl Runs {
    fn new(name: &'static str, dtype: DType, sources: &[Option<usize>]) -> Runs {
        let mut runs: Vec<(u32, u32, u32)> = vec![];
        for (to, from) in sources.iter().enumerate() {
            let Some(from) = *from else { continue };
            match runs.last_mut() {
                Some((f, t, n)) if (*f + *n) as usize == from && (*t + *n) as usize == to => *n += 1,
                _ => runs.push((from as u32, to as u32, 1)),
            }
        }
        let covered = sources.iter().all(Option::is_some);
        Runs { name, bytes: dtype.size(), runs, covered }
    }

    fn copy<T: Pod>(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, y) = (io.input::<T>(0)?, io.output::<T>(0)?);
        if !self.covered {
            y.fill(T::zeroed());
        }
        for &(from, to, length) in &self.runs {
            let (from, to, length) = (from as usize, to as usize, length as usize);
            y[to..to + length].copy_from_slice(&x[from..from + length]);
        }
        Ok(())
    }
}

impl Kernel for Runs {
    fn name(&self) -> String {
        format!("move-{}", self.name)
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

/// Sums back what a movement operator spread.
struct Scatter {
    name: &'static str,
    sources: Vec<u32>,
}

/// Marks an element that came from nowhere.
const NOWHERE: u32 = u32::MAX;

pub(super) fn scattered(site: &Site<'_>, op: &ops::MovementGradient) -> Option<Bound> {
    let others: Option<Vec<_>> =
        site.inputs[1..].iter().map(|o| o.as_ref().map_or(Some(None), |o| o.constant.map(Some))).collect();
    if !(site.input(0).dtype == DType::F32 && site.input(0).len() < NOWHERE as usize) {
        return None;
    }
    let sources = op.sources(&others?).ok()?.into_iter().map(|s| s.map_or(NOWHERE, |s| s as u32)).collect();
    let bound = Bound::row_major(site, Scatter { name: op.forward.name(), sources });
    Some((1..site.inputs.len()).fold(bound, Bound::takes))
}

impl Kernel for Scatter {
    fn name(&self) -> String {
        format!("scatter-{}", self.name)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (dy, dx) = (io.input::<f32>(0)?, io.output::<f32>(0)?);
        dx.fill(0.0);
        for (value, &source) in dy.iter().zip(&self.sources) {
            if source != NOWHERE {
                dx[source as usize] += value;
            }
        }
        Ok(())
    }
}

/// Lays operands end to end along an axis, in whatever layout the first has.
struct Concat {
    bytes: usize,
    outer: usize,
    /// Elements of one run of each operand.
    runs: Vec<usize>,
}

/// Elements of one run along `axis`, in memory order, and how many runs there are.
fn run_along(extents: &[usize], axis: usize, layout: Layout) -> (usize, usize) {
    let physical = layout.physical(extents);
    let at = layout.position(axis, extents.len());
    (physical[at..].iter().product(), physical[..at].iter().product())
}

pub(super) fn concat(site: &Site<'_>, axis: i64) -> Option<Bound> {
    let rank = site.output(0).len();
    let axis = wattle_graph::normalize_axis(axis, rank)?;
    let last = site.inputs.iter().flatten().any(|o| o.constant.is_none() && o.layout == Layout::ChannelsLast);
    let layout = if last { Layout::ChannelsLast } else { Layout::RowMajor };
    let runs = site.inputs.iter().flatten().map(|o| run_along(&o.extents, axis, layout).0).collect();
    let (_, outer) = run_along(site.output(0), axis, layout);
    Some(Bound::uniform(site, layout, Concat { bytes: site.input(0).dtype.size(), outer, runs }))
}

impl Concat {
    fn copy<T: Pod>(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let y = io.output::<T>(0)?;
        let row: usize = self.runs.iter().sum();
        let mut start = 0;
        for (index, &run) in self.runs.iter().enumerate() {
            let x = io.input::<T>(index)?;
            for outer in 0..self.outer {
                let to = outer * row + start;
                y[to..to + run].copy_from_slice(&x[outer * run..(outer + 1) * run]);
            }
            start += run;
        }
        Ok(())
    }
}

impl Kernel for Concat {
    fn name(&self) -> String {
        "concat".into()
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

/// Takes an operand apart along an axis, in whatever layout it has.
struct Split {
    bytes: usize,
    outer: usize,
    runs: Vec<usize>,
}

pub(super) fn split(site: &Site<'_>, op: &ops::Split) -> Option<Bound> {
    let x = site.input(0);
    let axis = wattle_graph::normalize_axis(op.axis, x.extents.len())?;
    let layout = x.layout;
    let runs = (0..site.outputs.len()).map(|i| run_along(site.output(i), axis, layout).0).collect();
    let (_, outer) = run_along(&x.extents, axis, layout);
    Some(Bound::uniform(site, layout, Split { bytes: x.dtype.size(), outer, runs }))
}

impl Split {
    fn copy<T: Pod>(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let x = io.input::<T>(0)?;
        let row: usize = self.runs.iter().sum();
        let mut start = 0;
        for (index, &run) in self.runs.iter().enumerate() {
            let y = io.output::<T>(index)?;
            for outer in 0..self.outer {
                let from = outer * row + start;
                y[outer * run..(outer + 1) * run].copy_from_slice(&x[from..from + run]);
            }
            start += run;
        }
        Ok(())
    }
}

impl Kernel for Split {
    fn name(&self) -> String {
        "split".into()
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

/// Nearest-neighbour resizing of images: whole pixels are copied, channels last.
struct NearestPixels {
    channels: usize,
    /// For each pixel of the result, the pixel of the operand.
    pixels: Vec<u32>,
    batch: usize,
    from: usize,
}

pub(super) fn nearest(site: &Site<'_>, op: &Op) -> Option<Bound> {
    let Op::Resize(resize) = op else { return None };
    let interpolates =
        matches!(resize.interpolation, ops::Interpolation::Linear | ops::Interpolation::Cubic { .. });
    if interpolates || matches!(resize.coordinates, ops::Coordinates::TfCropAndResize { .. }) {
        return None;
    }
    let (x, y) = (site.input(0), site.output(0));
    let others: Option<Vec<_>> =
        site.inputs[1..].iter().map(|o| o.as_ref().map_or(Some(None), |o| o.constant.map(Some))).collect();
    if x.dtype != DType::F32 || x.extents.len() != 4 || x.extents[..2] != y[..2] {
        return None;
    }
    // One channel of one image stands for all.
    let one = [1, 1, x.extents[2], x.extents[3]];
    let others = others?;
    let sizes: Option<Vec<i64>> = others.get(2).copied().flatten().map(|t| t.to_i64().into_owned());
    let replaced = sizes.filter(|s| s.len() == 4).map(|s| wattle_graph::Tensor::ints(&[1, 1, s[2], s[3]]));
    let others: Vec<_> = others
        .iter()
        .enumerate()
        .map(|(i, o)| if i == 2 && o.is_some() { replaced.as_ref() } else { *o })
        .collect();
    let pixels: Option<Vec<u32>> =
        ops::sources(op, &one, &others).ok()?.into_iter().map(|s| s.map(|s| s as u32)).collect();
    let kernel = NearestPixels {
        channels: x.extents[1],
        pixels: pixels?,
        batch: x.extents[0],
        from: x.extents[2] * x.extents[3],
    };
    if kernel.pixels.len() != y[2] * y[3] {
        return None;
    }
    let bound = Bound::uniform(site, Layout::ChannelsLast, kernel);
    Some((1..site.inputs.len()).fold(bound, Bound::takes))
}

impl Kernel for NearestPixels {
    fn name(&self) -> String {
        "resize_nearest-nhwc-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, y) = (io.input::<f32>(0)?, io.output::<f32>(0)?);
        let channels = self.channels.max(1);
        let image = self.from * channels;
        for (n, y) in y.chunks_exact_mut((self.pixels.len() * channels).max(1)).enumerate().take(self.batch) {
            let x = &x[n * image..(n + 1) * image];
            for (to, &from) in y.chunks_exact_mut(channels).zip(&self.pixels) {
                let from = from as usize * channels;
                to.copy_from_slice(&x[from..from + channels]);
            }
        }
        Ok(())
    }
}
