//! Element-wise operators: functions of one operand, arithmetic of two.

use wattle_graph::DType;
use wattle_graph::ops::{BinaryFunction, Function};
use wattle_kernels::elementwise::{self, Unary as Curve};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};

/// The kernel's name for a function of the graph, where it has one.
pub(super) fn curve(function: Function) -> Option<Curve> {
    Some(match function {
        Function::Abs => Curve::Abs,
        Function::Ceil => Curve::Ceil,
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
        Function::Neg => Curve::Neg,
        Function::Reciprocal => Curve::Reciprocal,
        Function::Relu => Curve::Relu,
        Function::Round => Curve::Round,
        Function::Sigmoid => Curve::Sigmoid,
        Function::Sign => Curve::Sign,
        Function::Silu => Curve::Silu,
        Function::Softplus => Curve::Softplus,
        Function::Sqrt => Curve::Sqrt,
        Function::Tanh => Curve::Tanh,
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

    fn run(&mut self, io: &Io<'_>) -> Result<(), EngineError> {
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
}

pub(super) fn unary_gradient(site: &Site<'_>, function: Function) -> Option<Bound> {
    let curve = curve(function)?;
    let slope = usize::from(curve.gradient_takes_output());
    let layout = site.input(slope).layout;
    let kernel = UnaryGradient { curve, slope };
    site.all(DType::F32).then(|| Bound::uniform(site, layout, kernel).in_place(2, 0).takes(1 - slope))
}

impl Kernel for UnaryGradient {
    fn name(&self) -> String {
        format!("unary_gradient-{:?}-f32", self.curve)
    }

    fn run(&mut self, io: &Io<'_>) -> Result<(), EngineError> {
        let (slope, dx) = (io.input(self.slope)?, io.output(0)?);
        if io.shares(2, 0) {
            elementwise::unary_gradient_in_place(io.cpu, self.curve, slope, dx);
        } else {
            elementwise::unary_gradient(io.cpu, self.curve, slope, io.input(2)?, dx);
        }
        Ok(())
    }
}

pub(super) fn binary(_site: &Site<'_>, _function: BinaryFunction) -> Option<Bound> {
    None
}
