//! Snake: an activation that can count days, its gradient, and a kernel for each.

use std::sync::Arc;

use wattle_engine::kernel::{Bound, Io, Kernel, Site};
use wattle_engine::{EngineError, Registry};
use wattle_graph::onnx::ExportNode;
use wattle_graph::{
    Attribute, Backward, CustomOperator, DType, Gradient, GraphError, OnnxForm, Op, OpError, Operands,
    Operator, Shapes, Tensor, TensorType, Tensors, Work,
};

/// `y = x + sin(a x)^2 / a` (Ziyin, Hartwig & Ueda 2020, "Neural networks fail to learn periodic functions and how to fix
/// it", equation 3).
#[derive(Clone, Debug)]
pub struct Snake {
    /// a, above 0: how fast it turns.
    pub frequency: f32,
}

impl Operator for Snake {
    fn name(&self) -> &'static str {
        "tutorial.Snake"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("frequency", Attribute::Float(self.frequency))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_float(0, "x")?;
        Ok(vec![inputs.ty(0, "x")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, a) = (inputs.get(0)?, f64::from(self.frequency));
        let y = x.to_f64().iter().map(|x| x + (a * x).sin().powi(2) / a).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, backward: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let op = Op::Custom(Arc::new(SnakeGradient { frequency: self.frequency }));
        let dx = backward.apply(op, &[backward.gradient(), backward.input(0)])?;
        Ok(Gradient::Inputs(vec![Some(dx)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(5 * shapes.output_len(0))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let a = node.constant(Tensor::scalar(self.frequency));
        let ax = node.emit("Mul", &[node.input(0), a.clone()], vec![]);
        let sine = node.emit("Sin", &[ax], vec![]);
        let square = node.emit("Mul", &[sine.clone(), sine], vec![]);
        let wave = node.emit("Div", &[square, a], vec![]);
        node.emit_final("Add", &[node.input(0), wave], vec![]);
        Ok(())
    }
}

impl CustomOperator for Snake {
    fn key(&self) -> String {
        format!("tutorial.Snake frequency={}", self.frequency)
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::Decomposed
    }
}

/// `(dy, x) -> dx = dy (1 + sin(2 a x))`.
#[derive(Clone, Debug)]
pub struct SnakeGradient {
    /// a, as in [`Snake`].
    pub frequency: f32,
}

impl Operator for SnakeGradient {
    fn name(&self) -> &'static str {
        "tutorial.SnakeGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("frequency", Attribute::Float(self.frequency))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let (dy, x) = (inputs.ty(0, "dy")?, inputs.ty(1, "x")?);
        if dy != x {
            return Err(OpError::mismatch("dy", dy, x));
        }
        inputs.expect_float(1, "x")?;
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (dy, x, a) = (inputs.get(0)?, inputs.get(1)?, f64::from(self.frequency));
        let pairs = dy.to_f64().into_owned().into_iter().zip(x.to_f64().into_owned());
        let dx = pairs.map(|(dy, x)| dy * (1.0 + (2.0 * a * x).sin())).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), dx)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("nobody has asked for second derivatives"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(5 * shapes.output_len(0))
    }
}

impl CustomOperator for SnakeGradient {
    fn key(&self) -> String {
        format!("tutorial.SnakeGradient frequency={}", self.frequency)
    }
}

/// Elements that one thread takes at a time.
const PIECE: usize = 4096;

struct SnakeF32(f32);

impl Kernel for SnakeF32 {
    fn name(&self) -> String {
        "tutorial-snake-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (a, x) = (self.0, io.input::<f32>(0)?);
        io.cpu.threads.for_each_piece(io.output::<f32>(0)?, PIECE, |piece, y| {
            for (y, &x) in y.iter_mut().zip(&x[piece * PIECE..]) {
                let sine = (a * x).sin();
                *y = x + sine * sine / a;
            }
        });
        Ok(())
    }
}

struct SnakeGradientF32(f32);

impl Kernel for SnakeGradientF32 {
    fn name(&self) -> String {
        "tutorial-snake-gradient-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (a, dy, x) = (self.0, io.input::<f32>(0)?, io.input::<f32>(1)?);
        io.cpu.threads.for_each_piece(io.output::<f32>(0)?, PIECE, |piece, dx| {
            let at = piece * PIECE;
            for ((dx, &dy), &x) in dx.iter_mut().zip(&dy[at..]).zip(&x[at..]) {
                *dx = dy * (1.0 + (2.0 * a * x).sin());
            }
        });
        Ok(())
    }
}

/// The kernels of this crate, for the options of a plan.
pub fn kernels() -> Registry {
    Registry::new()
        .with("tutorial-snake-f32 1", |site: &Site<'_>, op: &Snake| {
            site.all(DType::F32).then(|| Bound::row_major(site, SnakeF32(op.frequency)))
        })
        .with("tutorial-snake-gradient-f32 1", |site: &Site<'_>, op: &SnakeGradient| {
            site.all(DType::F32).then(|| Bound::row_major(site, SnakeGradientF32(op.frequency)))
        })
}
