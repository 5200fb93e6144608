//! Element-wise operators: functions of one operand, arithmetic of two.

use wattle_graph::DType;
use wattle_graph::ops::{BinaryFunction, Function};
use wattle_kernels::binary::{self, Broadcast};
use wattle_kernels::elementwise::{self, Unary as Curve};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Operand, Site};
use crate::layout::Layout;

/// The kernel's name for a function of the graph, where it has one.
pub(super) fn curve(function: Function) -> Option<Curve> {
    Some(match function {
        Function::Abs => Curve::Abs,
        Function::Ceil => Curve::Ceil,
        Function::Celu { alpha } => Curve::Celu { alpha },
        Function::Elu { alpha } => Curve::Elu { alpha },
        Function::Erf => Curve::Erf,
        Function::Exp => Curve::Exp,
        Function::Floor => Curve::Floor,
        Function::Gelu => Curve::Gelu,
        Function::GeluTanh => Curve::GeluTanh,
        Function::HardSigmoid { alpha, beta } => Curve::HardSigmoid { alpha, beta },
        Function::HardSwish => Curve::HardSwish,
        Function::LeakyRelu { alpha } => Curve::LeakyRelu { alpha },
        Function::Log => Curve::Log,
        Function::Mish => Curve::Mish,
        Function::Neg => Curve::Neg,
        Function::Reciprocal => Curve::Reciprocal,
        Function::Relu => Curve::Relu,
        Function::Round => Curve::Round,
        Function::Selu { alpha, gamma } => Curve::Selu { alpha, gamma },
        Function::Sigmoid => Curve::Sigmoid,
        Function::Sign => Curve::Sign,
        Function::Silu => Curve::Silu,
        Function::Softplus => Curve::Softplus,
        Function::Softsign => Curve::Softsign,
        Function::Sqrt => Curve::Sqrt,
        Function::Tanh => Curve::Tanh,
        Function::ThresholdedRelu { alpha } => Curve::ThresholdedRelu { alpha },
        _ => return None,
    })
}

/// The result is the operand, in its memory and layout.
pub(super) fn same(site: &Site<'_>) -> Bound {
    Bound::view(site, site.input(0).layout)
}

struct Unary(Curve);

pub(super) fn unary(site: &Site<'_>, function: Function) -> Option<Bound> {
    let kernel = Unary(curve(function)?);
    let layout = site.input(0).layout;
    site.all(DType::F32).then(|| Bound::uniform(site, layout, kernel).in_place(0, 0))
}

impl Kernel for Unary {
    fn name(&self) -> String {
        format!("unary-{:?}-f32", self.0)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let y = io.output(0)?;
        if io.shares(0, 0) {
            elementwise::unary_in_place(io.cpu, self.0, y);
        } else {
            elementwise::unary(io.cpu, self.0, io.input(0)?, y);
        }
        Ok(())
    }
}

struct UnaryGradient {
    curve: Curve,
    /// The operand that decides the slope: 0 for x, 1 for y.
    slope: usize,
    /// The operand that is the gradient of the result.
    gradient: usize,
}

pub(super) fn unary_gradient(site: &Site<'_>, function: Function) -> Option<Bound> {
    let curve = curve(function)?;
    let slope = usize::from(curve.gradient_takes_output());
    let layout = site.input(slope).layout;
    let kernel = UnaryGradient { curve, slope, gradient: 2 };
    site.all(DType::F32).then(|| Bound::uniform(site, layout, kernel).in_place(2, 0).takes(1 - slope))
}

impl Kernel for UnaryGradient {
    fn name(&self) -> String {
        format!("unary_gradient-{:?}-f32", self.curve)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (slope, dx) = (io.input(self.slope)?, io.output(0)?);
        if io.shares(self.gradient, 0) {
            elementwise::unary_gradient_in_place(io.cpu, self.curve, slope, dx);
        } else {
            elementwise::unary_gradient(io.cpu, self.curve, slope, io.input(self.gradient)?, dx);
        }
        Ok(())
    }
}

/// Arithmetic of two operands, broadcast; see [`crate::layout`] for how layouts are reconciled.
struct Binary {
    function: binary::Binary,
    broadcast: Broadcast,
}

pub(super) fn binary(site: &Site<'_>, function: BinaryFunction) -> Option<Bound> {
    let function = match function {
        BinaryFunction::Add => binary::Binary::Add,
        BinaryFunction::Div => binary::Binary::Div,
        BinaryFunction::Max => binary::Binary::Max,
        BinaryFunction::Min => binary::Binary::Min,
        BinaryFunction::Mul => binary::Binary::Mul,
        BinaryFunction::Pow => binary::Binary::Pow,
        BinaryFunction::Sub => binary::Binary::Sub,
        BinaryFunction::PRelu => binary::Binary::PRelu,
        BinaryFunction::Mod { .. } => return None,
    };
    if !site.all(DType::F32) {
        return None;
    }
    let result = site.output(0).to_vec();
    let layout = common_layout(site, &result);
    let physical = |index: usize| layout.physical(&padded(&site.input(index).extents, result.len()));
    let (a, b) = (physical(0), physical(1));
    let whole = layout.physical(&result);
    let kernel = Binary { function, broadcast: Broadcast::new(&a, &b)? };
    let mut bound = Bound::uniform(site, layout, kernel);
    for index in 0..2 {
        if site.input(index).extents.len() != result.len() {
            bound.input_layouts[index] = Layout::RowMajor;
        }
    }
    Some(if a == whole { bound.in_place(0, 0) } else { bound })
}

/// Leading axes of extent 1 added up to `rank`, as broadcasting does.
fn padded(extents: &[usize], rank: usize) -> Vec<usize> {
    [vec![1; rank - extents.len()], extents.to_vec()].concat()
}

/// The layout to compute in: channels last if an operand of the result's size is, and the others can follow
/// without moving: those of lower rank must have the same bytes either way.
fn common_layout(site: &Site<'_>, result: &[usize]) -> Layout {
    let operands = || site.inputs.iter().flatten();
    let asked =
        operands().any(|o| o.extents == result && o.constant.is_none() && o.layout == Layout::ChannelsLast);
    let follows = |o: &Operand<'_>| {
        o.extents.len() == result.len()
            || Layout::RowMajor.same_bytes(Layout::ChannelsLast, &padded(&o.extents, result.len()))
    };
    if asked && operands().all(follows) { Layout::ChannelsLast } else { Layout::RowMajor }
}

impl Kernel for Binary {
    fn name(&self) -> String {
        format!("binary-{:?}-f32", self.function)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (b, y) = (io.input(1)?, io.output(0)?);
        if io.shares(0, 0) {
            binary::binary_in_place(io.cpu, self.function, &self.broadcast, y, b);
        } else {
            binary::binary(io.cpu, self.function, &self.broadcast, io.input(0)?, b, y);
        }
        Ok(())
    }
}

/// Limits with constant bounds are a function of one operand.
pub(super) fn clip(site: &Site<'_>) -> Option<Bound> {
    let kernel = Unary(limits(site)?);
    let layout = site.input(0).layout;
    let mut bound = Bound::uniform(site, layout, kernel).in_place(0, 0);
    for index in 1..site.inputs.len() {
        bound = bound.takes(index);
    }
    Some(bound)
}

/// The gradient of limits with constant bounds.
pub(super) fn clip_gradient(site: &Site<'_>) -> Option<Bound> {
    let kernel = UnaryGradient { curve: limits(site)?, slope: 0, gradient: 3 };
    let layout = site.input(0).layout;
    Some(Bound::uniform(site, layout, kernel).in_place(3, 0).takes(1).takes(2))
}

fn limits(site: &Site<'_>) -> Option<Curve> {
    let bound = |index: usize, default: f32| match site.optional(index) {
        None => Some(default),
        Some(operand) => operand.constant?.as_f32()?.first().copied(),
    };
    let float = site.input(0).dtype == DType::F32;
    let (low, high) = (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
    float.then_some(Curve::Clip { low, high })
}
