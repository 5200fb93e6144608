//! What every operator answers: shapes, meaning, gradient, cost and ONNX form.

use std::fmt;
use std::sync::Arc;

use crate::error::{GraphError, OpError};
use crate::graph::{Graph, Node, TensorType, ValueId};
use crate::onnx::{ExportNode, ForeignNode, ImportError};
use crate::ops::Op;
use crate::parameter::Role;
use crate::shape::{Dim, normalize_axis};
use crate::tensor::{DType, Tensor};

/// An operator: one file in `ops/`, one attribute struct implementing this trait and [`Described`].
///
/// `infer` and `evaluate` are the definition; fast kernels must agree with `evaluate` to the declared class.
pub trait Operator: fmt::Debug {
    /// Its name in listings, which is its ONNX name where it has one.
    fn name(&self) -> &'static str;

    /// Attributes under their ONNX names, those at their ONNX default left out.
    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        Vec::new()
    }

    /// Types of all results, from the types (and constants) of the operands.
    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError>;

    /// The results themselves, slowly and plainly; floats are computed in f64 and rounded once at the end.
    /// Called only with operands whose types, every extent known, `infer` accepted; [`Op::evaluate_checked`] is
    /// for others.
    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError>;

    /// Emits the nodes that compute the gradients of the inputs from those of the outputs.
    fn gradient(&self, backward: &mut Backward<'_>) -> Result<Gradient, GraphError>;

    /// Arithmetic done by one application; all shapes are known when this is called.
    fn work(&self, shapes: &Shapes<'_>) -> Work;

    /// Writes the node as ONNX. The default is one node of the same name, operands and attributes.
    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        node.same(self.name(), self.attributes());
        Ok(())
    }

    /// How exactly a kernel must agree with `evaluate` in f32.
    fn agreement(&self) -> Agreement {
        Agreement::Relative(1e-5)
    }
}

/// The parts of an operator that need no instance: how it is read from ONNX, and examples to test it by.
pub trait Described: Sized {
    /// ONNX operator names (default domain, or `domain:Name`) that [`Described::import`] understands.
    const ONNX: &'static [&'static str];

    /// Reads an ONNX node: takes its attributes, adds nodes to the graph, returns the node's outputs in order.
    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError>;

    /// Small concrete cases; the generated suite runs each through shapes, gradients, ONNX and kernels.
    fn examples() -> Vec<Example>;
}

/// How exactly two implementations of an operator must agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Agreement {
    /// Bit for bit: the operator moves data or computes with integers.
    Exact,
    /// Absolute error at most this fraction of the largest absolute value of the output.
    Relative(f64),
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are ONNX attribute types")]
pub enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Floats(Vec<f32>),
    Text(String),
    Texts(Vec<String>),
    Tensor(Arc<Tensor>),
    Graph(Box<Graph>),
    /// A graph whose first inputs, as many as stated, are its own; the rest are read from the enclosing graph by name.
    Body(Box<Graph>, usize),
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attribute::Int(x) => write!(f, "{x}"),
            Attribute::Ints(x) => write!(f, "{x:?}"),
            Attribute::Float(x) => write!(f, "{x}"),
            Attribute::Floats(x) => write!(f, "{x:?}"),
            Attribute::Text(x) => f.write_str(x),
            Attribute::Texts(x) => write!(f, "{x:?}"),
            Attribute::Tensor(x) => write!(f, "{}{:?}", x.dtype(), x.shape()),
            Attribute::Graph(x) | Attribute::Body(x, _) => {
                write!(f, "{}", x.to_string().replace('\n', "\n  "))
            }
        }
    }
}

/// An operand as an operator sees it while shapes are inferred.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Type of the operand.
    pub ty: &'a TensorType,
    /// Its content, where that is known before any run.
    pub constant: Option<&'a Tensor>,
}

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ty.fmt(f)
    }
}

/// The operands of one application while shapes are inferred.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a>(&'a [Option<Operand<'a>>]);

impl<'a> Operands<'a> {
    /// Wraps a list of operands.
    pub fn new(list: &'a [Option<Operand<'a>>]) -> Operands<'a> {
        Operands(list)
    }

    /// Number of operands, counting those left out in the middle.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first `count` operands.
    pub fn first(&self, count: usize) -> Operands<'a> {
        Operands(&self.0[..count.min(self.0.len())])
    }

    /// Operand `index`, unless left out.
    pub fn optional(&self, index: usize) -> Option<Operand<'a>> {
        self.0.get(index).copied().flatten()
    }

    /// Operand `index`, which must be there.
    pub fn get(&self, index: usize, name: &'static str) -> Result<Operand<'a>, OpError> {
        self.optional(index).ok_or(OpError::MissingOperand { index, name })
    }

    /// Type of operand `index`.
    pub fn ty(&self, index: usize, name: &'static str) -> Result<&'a TensorType, OpError> {
        Ok(self.get(index, name)?.ty)
    }

    /// Axes of operand `index`; `None` while its rank is unknown.
    pub fn dims(&self, index: usize, name: &'static str) -> Result<Option<&'a [Dim]>, OpError> {
        Ok(self.ty(index, name)?.shape.dims())
    }

    /// Content of operand `index` as integers; `None` when it is left out or not known yet.
    pub fn ints(&self, index: usize) -> Option<Vec<i64>> {
        Some(self.optional(index)?.constant?.to_i64().into_owned())
    }

    /// Requires operand `index`, if its rank is known, to have `rank` axes.
    pub fn expect_rank(&self, index: usize, name: &'static str, rank: usize) -> Result<(), OpError> {
        match self.dims(index, name)? {
            Some(dims) if dims.len() != rank => {
                let found = format!("{} of {} axes", self.ty(index, name)?, dims.len());
                Err(OpError::mismatch(name, found, format!("{rank} axes")))
            }
            _ => Ok(()),
        }
    }

    /// Requires operand `index` to have one of the element types in `allowed`; returns it.
    pub fn expect_dtype(
        &self,
        index: usize,
        name: &'static str,
        allowed: &[DType],
    ) -> Result<DType, OpError> {
        let dtype = self.ty(index, name)?.dtype;
        if allowed.contains(&dtype) {
            return Ok(dtype);
        }
        let texts: Vec<String> = allowed.iter().map(DType::to_string).collect();
        Err(OpError::mismatch(name, dtype, texts.join(" or ")))
    }

    /// Requires operand `index` to be f32 or f64; returns which.
    pub fn expect_float(&self, index: usize, name: &'static str) -> Result<DType, OpError> {
        self.expect_dtype(index, name, &[DType::F32, DType::F64])
    }
}

/// `axis` counted from the front of `rank` axes, or an error that says so.
pub fn axis_of(axis: i64, rank: usize) -> Result<usize, OpError> {
    normalize_axis(axis, rank).ok_or_else(|| {
        OpError::mismatch("axis", axis, format!("-{rank}..={} for {rank} axes", rank as i64 - 1))
    })
}

/// The operands of one application when it is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Tensors<'a>(&'a [Option<&'a Tensor>]);

impl<'a> Tensors<'a> {
    /// Wraps a list of operands.
    pub fn new(list: &'a [Option<&'a Tensor>]) -> Tensors<'a> {
        Tensors(list)
    }

    /// Number of operands, counting those left out in the middle.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first `count` operands.
    pub fn first(&self, count: usize) -> Tensors<'a> {
        Tensors(&self.0[..count.min(self.0.len())])
    }

    /// Operand `index`, unless left out.
    pub fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.0.get(index).copied().flatten()
    }

    /// Operand `index`.
    pub fn get(&self, index: usize) -> Result<&'a Tensor, OpError> {
        self.optional(index).ok_or(OpError::MissingOperand { index, name: "operand" })
    }
}

/// Known shapes and densities of one application, for counting its work.
#[derive(Clone, Copy, Debug)]
pub struct Shapes<'a> {
    /// Extents of each operand; `None` where left out.
    pub inputs: &'a [Option<Vec<usize>>],
    /// Extents of each result.
    pub outputs: &'a [Vec<usize>],
    /// Fraction of non-zero elements of each operand, 1 where unknown.
    pub densities: &'a [f64],
}

impl Shapes<'_> {
    /// Extents of operand `index`; empty when it is left out.
    pub fn input(&self, index: usize) -> &[usize] {
        self.inputs.get(index).and_then(|x| x.as_deref()).unwrap_or(&[])
    }

    /// Number of elements of operand `index`; 0 when it is left out.
    pub fn input_len(&self, index: usize) -> u64 {
        let extents = self.inputs.get(index).and_then(|x| x.as_ref());
        extents.map_or(0, |e| e.iter().map(|&n| n as u64).product())
    }

    /// Number of elements of result `index`.
    pub fn output_len(&self, index: usize) -> u64 {
        self.outputs.get(index).map_or(0, |e| e.iter().map(|&n| n as u64).product())
    }

    /// Fraction of non-zero elements of operand `index`.
    pub fn density(&self, index: usize) -> f64 {
        self.densities.get(index).copied().unwrap_or(1.0)
    }
}

/// Which sum a multiply-accumulate belongs to: published model sizes count only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MacKind {
    /// Conv, MatMul, Gemm and their quantised forms.
    Standard,
    /// Transposed convolution.
    TransposedConv,
    /// LSTM, GRU, RNN.
    Recurrent,
    /// Gradients of any of these.
    Gradient,
}

/// Arithmetic of one application.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Multiply-accumulates, counting every weight.
    pub macs: u64,
    /// Multiply-accumulates with a non-zero weight.
    pub effective_macs: u64,
    /// Which sum they belong to.
    pub kind: MacKind,
    /// All other element operations (additions, comparisons, function evaluations).
    pub element_ops: u64,
    /// Whether the operands and results are touched at all; false for pure renamings such as Reshape.
    pub moves_data: bool,
}

impl Work {
    /// Only element operations.
    pub fn elementwise(element_ops: u64) -> Work {
        Work { macs: 0, effective_macs: 0, kind: MacKind::Standard, element_ops, moves_data: true }
    }

    /// Data movement without arithmetic.
    pub fn movement() -> Work {
        Work::elementwise(0)
    }

    /// Nothing at all: the result is the operand under another shape, or known before any run.
    pub fn renaming() -> Work {
        Work { moves_data: false, ..Work::elementwise(0) }
    }

    /// Multiply-accumulates with a weight operand of the given density.
    pub fn macs(kind: MacKind, macs: u64, density: f64) -> Work {
        let effective_macs = (macs as f64 * density).round() as u64;
        Work { macs, effective_macs, kind, element_ops: 0, moves_data: true }
    }
}

/// What an operator says of its gradient.
#[derive(Clone, Debug, PartialEq)]
pub enum Gradient {
    /// One gradient for each input, `None` where it is zero or not wanted.
    Inputs(Vec<Option<ValueId>>),
    /// Zero everywhere it is defined, for the stated reason.
    Zero(&'static str),
    /// There is none, for the stated reason.
    NotDifferentiable(&'static str),
}

/// What a gradient rule sees and builds with: the node, the gradients of its outputs, and the growing graph.
///
/// A rule may also declare what states become after a run that computes gradients; see [`Backward::update`].
#[derive(Debug)]
pub struct Backward<'a> {
    /// The graph being extended.
    pub graph: &'a mut Graph,
    pub(crate) node: &'a Node,
    pub(crate) output_gradients: &'a [Option<ValueId>],
    pub(crate) wanted: &'a [bool],
}

impl Backward<'_> {
    /// Input `index` of the node.
    ///
    /// # Panics
    /// When the input is left out; rules ask only for inputs their operator requires.
    pub fn input(&self, index: usize) -> ValueId {
        self.node.inputs[index].expect("gradient rules ask only for required inputs")
    }

    /// Input `index` of the node, unless left out.
    pub fn optional_input(&self, index: usize) -> Option<ValueId> {
        self.node.inputs.get(index).copied().flatten()
    }

    /// Number of inputs, counting those left out in the middle.
    pub fn input_count(&self) -> usize {
        self.node.inputs.len()
    }

    /// Output `index` of the node.
    pub fn output(&self, index: usize) -> ValueId {
        self.node.outputs[index]
    }

    /// Gradient of the loss by output `index`; `None` when the loss does not depend on it.
    pub fn output_gradient(&self, index: usize) -> Option<ValueId> {
        self.output_gradients[index]
    }

    /// Gradient by the first output.
    ///
    /// # Panics
    /// Never for operators with one output: a rule runs only when some output has a gradient.
    pub fn gradient(&self) -> ValueId {
        self.output_gradients[0].expect("the rule runs because the only output has a gradient")
    }

    /// Whether anybody needs the gradient of input `index`.
    pub fn wants(&self, index: usize) -> bool {
        self.wanted.get(index).copied().unwrap_or(false)
    }

    /// Adds a node; see [`Graph::apply`].
    pub fn apply(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        Ok(self.apply_all(op, &inputs)?[0])
    }

    /// Adds a node with several outputs or optional inputs; it is named after the node it differentiates.
    pub fn apply_all(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<ValueId>, GraphError> {
        let name = if self.node.name.is_empty() { String::new() } else { format!("{}/grad", self.node.name) };
        self.graph.apply_all(op, inputs, &name)
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.constant(tensor)
    }

    /// Known extents of a value.
    pub fn extents(&self, value: ValueId) -> Result<Vec<usize>, GraphError> {
        self.graph.extents(value)
    }

    /// Element type of a value.
    pub fn dtype(&self, value: ValueId) -> DType {
        self.graph.value(value).ty.dtype
    }

    /// Declares that after a run the state that is input `index` of the node takes the value `value`, of the same type.
    /// It is an assignment of the graph like any other: simultaneous with all others.
    ///
    /// # Errors
    /// When that input is no parameter of [`Role::State`]: what is trained is the optimiser's to change.
    pub fn update(&mut self, index: usize, value: ValueId) -> Result<(), GraphError> {
        let target = self.input(index);
        let role = self.graph.parameter_of(target).map(|p| p.role);
        if role != Some(Role::State) {
            return Err(GraphError::Invalid(format!(
                "node `{}` ({}) updates its input `{}`, which is no state; only parameters with the role of a state \
                 are updated by a gradient rule",
                self.node.name,
                self.node.op.name(),
                self.graph.label(target)
            )));
        }
        self.graph.assign(target, value)
    }

    /// Undoes broadcasting: sums `gradient` over the axes along which `operand` was repeated.
    pub fn sum_to(&mut self, gradient: ValueId, operand: ValueId) -> Result<ValueId, GraphError> {
        let (from, to) = (self.extents(gradient)?, self.extents(operand)?);
        if from == to {
            return Ok(gradient);
        }
        self.apply(crate::ops::SumTo { shape: to }, &[gradient])
    }

    /// `gradient` under the shape of `operand`, which has as many elements.
    pub fn reshape_to(&mut self, gradient: ValueId, operand: ValueId) -> Result<ValueId, GraphError> {
        let shape: Vec<i64> = self.extents(operand)?.into_iter().map(|n| n as i64).collect();
        let shape = self.constant(Tensor::ints(&shape));
        self.apply(crate::ops::Reshape { allow_zero: true }, &[gradient, shape])
    }
}

/// A small concrete application of an operator, for tests and documentation.
#[derive(Clone, Debug)]
pub struct Example {
    /// What is applied.
    pub op: Op,
    /// To what; `None` where an optional operand is left out.
    pub inputs: Vec<Option<Tensor>>,
    /// Multiply-accumulates counted by hand, where the operator does any.
    pub macs: Option<u64>,
    /// Operands that must be constants for shapes to be inferred.
    pub constant: Vec<usize>,
}

impl Example {
    /// An application with all operands present.
    pub fn new(op: impl Into<Op>, inputs: Vec<Tensor>) -> Example {
        Example::optional(op, inputs.into_iter().map(Some).collect())
    }

    /// An application with some operands left out.
    pub fn optional(op: impl Into<Op>, inputs: Vec<Option<Tensor>>) -> Example {
        Example { op: op.into(), inputs, macs: None, constant: Vec::new() }
    }

    /// States the number of multiply-accumulates, counted by hand.
    pub fn macs(self, macs: u64) -> Example {
        Example { macs: Some(macs), ..self }
    }

    /// States which operands are constants (shapes, axes, indices that decide the result's shape).
    pub fn constants(self, constant: &[usize]) -> Example {
        Example { constant: constant.to_vec(), ..self }
    }

    /// Reproducible f32 values, irregular, in -1..1 and none near zero, for operands whose values do not
    /// matter.
    pub fn noise(shape: &[usize], seed: u32) -> Tensor {
        let n: usize = shape.iter().product();
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            // xorshift32 (Marsaglia 2003, section 3, triple 13/17/5).
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let magnitude = 0.05 + 0.9 * (state >> 8) as f32 / (1u32 << 24) as f32;
            if state & 1 == 0 { magnitude } else { -magnitude }
        };
        Tensor::f32(shape, (0..n).map(|_| next()).collect())
    }
}
