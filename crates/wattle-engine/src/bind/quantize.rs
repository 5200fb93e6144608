//! QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear of 8-bit integers.

use wattle_graph::{DType, ops};
use wattle_kernels::quantize::{self, Grid, Term, value};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

#[derive(Clone, Copy)]
enum Way {
    To,
    From,
}

struct Linear {
    way: Way,
    /// Extents before the axis of the scales, of it, and behind it, in memory.
    sizes: [usize; 3],
    signed: bool,
}

/// Whether a type is one of the 8-bit integers, and then whether it is signed.
pub(super) fn byte(dtype: DType) -> Option<bool> {
    match dtype {
        DType::U8 => Some(false),
        DType::I8 => Some(true),
        _ => None,
    }
}

pub(super) fn linear(site: &Site<'_>, quantization: &ops::Quantization) -> Option<Bound> {
    let (x, scale, to) = (site.input(0), site.input(1), site.outputs[0].1);
    let (way, signed) = match (x.dtype, to) {
        (DType::F32, to) => (Way::To, byte(to)?),
        (from, DType::F32) => (Way::From, byte(from)?),
        _ => return None,
    };
    if scale.dtype != DType::F32 || quantization.block != 0 {
        return None;
    }
    let (layout, sizes) = if scale.len() == 1 {
        (x.layout, [1, 1, x.len()])
    } else {
        let rank = x.extents.len();
        let axis = wattle_graph::normalize_axis(quantization.axis, rank)?;
        if scale.extents != [x.extents[axis]] {
            return None;
        }
        let (before, rest) = x.extents.split_at(axis);
        (Layout::RowMajor, [before.iter().product(), rest[0], rest[1..].iter().product()])
    };
    let mut bound = Bound::uniform(site, layout, Linear { way, sizes, signed });
    bound.input_layouts[1..].fill(Layout::RowMajor);
    Some(bound)
}

impl Kernel for Linear {
    fn name(&self) -> String {
        match self.way {
            Way::To => "quantize-f32".into(),
            Way::From => "dequantize-f32".into(),
        }
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let grid = Grid { scales: io.input(1)?, zeros: io.optional(2)?, signed: self.signed };
        match self.way {
            Way::To => quantize::quantize(io.cpu, self.sizes, grid, io.input(0)?, io.output(0)?),
            Way::From => quantize::dequantize(io.cpu, self.sizes, grid, io.input(0)?, io.output(0)?),
        }
        Ok(())
    }
}

/// The sum of two tensors of bytes.
struct Add {
    /// Whether a, b and y are i8.
    signed: [bool; 3],
    /// Whether the second operand is as long as the first; the other way round, operands change places.
    swapped: bool,
}

pub(super) fn add(site: &Site<'_>) -> Option<Bound> {
    let (a, b, y) = (site.input(0), site.input(3), site.output(0));
    let scales = [1, 4, 6].iter().all(|&i| site.input(i).dtype == DType::F32);
    let single = [1, 2, 4, 5, 6, 7].iter().all(|&i| site.input(i).len() == 1);
    let signed = [byte(a.dtype)?, byte(b.dtype)?, byte(site.outputs[0].1)?];
    let swapped = a.extents != y;
    let (long, short) = if swapped { (b, a) } else { (a, b) };
    // What is repeated are whole rows of the other operand.
    let same = short.extents == y;
    let fits = long.extents == y && (same || y.ends_with(&short.extents));
    let layout = if same { a.layout } else { Layout::RowMajor };
    let mut bound = Bound::uniform(site, layout, Add { signed, swapped });
    for (i, layout) in bound.input_layouts.iter_mut().enumerate() {
        if i != 0 && i != 3 {
            *layout = Layout::RowMajor;
        }
    }
    (scales && single && fits).then_some(bound)
}

impl Kernel for Add {
    fn name(&self) -> String {
        "add-8bit".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let term = |first: usize, signed: bool| -> Result<Term<'_>, EngineError> {
            let (scale, zero) = (io.input::<f32>(first + 1)?[0], io.input::<u8>(first + 2)?[0]);
            Ok(Term { data: io.input(first)?, scale, zero: value(zero, signed), signed })
        };
        let [a_signed, b_signed, y_signed] = self.signed;
        let (a, b) = (term(0, a_signed)?, term(3, b_signed)?);
        let (a, b) = if self.swapped { (b, a) } else { (a, b) };
        let to = (io.input::<f32>(6)?[0], value(io.input::<u8>(7)?[0], y_signed), y_signed);
        quantize::add(io.cpu, a, b, to, io.output(0)?);
        Ok(())
    }
}

struct Dynamic;

pub(super) fn dynamic(site: &Site<'_>) -> Option<Bound> {
    let x = site.input(0);
    let mut bound = Bound::uniform(site, Layout::RowMajor, Dynamic);
    bound.input_layouts[0] = x.layout;
    bound.output_layouts[0] = x.layout;
    (x.dtype == DType::F32 && !x.is_empty()).then_some(bound)
}

impl Kernel for Dynamic {
    fn name(&self) -> String {
        "dynamic_quantize-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let x = io.input::<f32>(0)?;
        let (low, high) = quantize::range(io.cpu, x);
        let range = high - low;
        // A tensor of zeros is described by any scale.
        let scale = if range == 0.0 { 1.0 } else { range / 255.0 };
        let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8;
        let grid = Grid { scales: &[scale], zeros: Some(&[zero]), signed: false };
        quantize::quantize(io.cpu, [1, 1, x.len()], grid, x, io.output(0)?);
        io.output::<f32>(1)?[0] = scale;
        io.output::<u8>(2)?[0] = zero;
        Ok(())
    }
}
