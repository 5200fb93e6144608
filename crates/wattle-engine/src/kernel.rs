//! What a kernel is: a node bound to code that reads and writes spans of memory.
//!
//! While planning, a binder looks at a [`Site`] (a node, its operands, the machine) and answers with a [`Bound`]: the code and
//! the layouts and memory that it asks for. Each run, [`Kernel::run`] sees its operands and results through [`Io`]. The
//! kernels of this crate and of other crates are bound the same way; those of a custom operator are found in the
//! [`Registry`](crate::Registry) of the plan's options. A kernel must give the same bits for any number of threads, should
//! allocate nothing, and agrees with the operator's own definition; [`crate::suite`] checks that. Whatever needs `unsafe`
//! belongs into `wattle-kernels`.
//!
//! ```
//! use std::sync::Arc;
//! use wattle_engine::kernel::{Bound, Io, Kernel, Site};
//! use wattle_engine::{EngineError, Registry, suite::Conformance};
//! use wattle_graph::*;
//!
//! /// `y = x^3`.
//! #[derive(Debug)]
//! struct Cube;
//!
//! impl Operator for Cube {
//!     fn name(&self) -> &'static str {
//!         "acme.Cube"
//!     }
//!     fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
//!         inputs.expect_float(0, "x")?;
//!         Ok(vec![inputs.ty(0, "x")?.clone()])
//!     }
//!     fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
//!         let x = inputs.get(0)?;
//!         Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), x.to_f64().iter().map(|x| x.powi(3)).collect())])
//!     }
//!     fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
//!         Ok(Gradient::NotDifferentiable("this is an example of a kernel"))
//!     }
//!     fn work(&self, shapes: &Shapes<'_>) -> Work {
//!         Work::elementwise(2 * shapes.output_len(0))
//!     }
//! }
//!
//! impl CustomOperator for Cube {
//!     fn key(&self) -> String {
//!         "acme.Cube".into()
//!     }
//! }
//!
//! struct CubeF32;
//!
//! impl Kernel for CubeF32 {
//!     fn name(&self) -> String {
//!         "acme-cube-f32".into()
//!     }
//!     fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
//!         let x = io.input::<f32>(0)?;
//!         io.cpu.threads.for_each_piece(io.output::<f32>(0)?, 4096, |piece, y| {
//!             for (y, x) in y.iter_mut().zip(&x[piece * 4096..]) {
//!                 *y = x * x * x;
//!             }
//!         });
//!         Ok(())
//!     }
//! }
//!
//! fn bind(site: &Site<'_>, _: &Cube) -> Option<Bound> {
//!     site.all(DType::F32).then(|| Bound::row_major(site, CubeF32))
//! }
//!
//! let kernels = Registry::new().with("acme-cube-f32 1", bind);
//! let example = Example::new(Op::Custom(Arc::new(Cube)), vec![Example::noise(&[3, 5], 1)]);
//! let report = Conformance::new(kernels).check(&example)?;
//! assert_eq!(report.kernel, "acme-cube-f32");
//! # Ok::<(), String>(())
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use wattle_graph::{DType, Node, Tensor};
use wattle_kernels::Cpu;
use wattle_kernels::arena::{Span, Views};

use crate::choices::{PlanOptions, Sparse};
use crate::error::EngineError;
use crate::kept::Kept;
use crate::layout::Layout;
use crate::packing::{Ask, Packing};
use crate::plan::Plan;
use crate::sparse_cost::{Doubt, Form};

/// A node bound to code; holds whatever was computed at plan time (offset tables, packed weights).
pub trait Kernel: Send + Sync {
    /// Name in profiles: `{op}-{layout}-{dtypes}-{isa}` where that much is decided. `reference-` is kept for definitions
    /// that run as kernels.
    fn name(&self) -> String;

    /// Computes the outputs: the same bits from the same operands, for any number of threads.
    ///
    /// # Errors
    /// [`EngineError::failed`] when the values it meets make no sense; the plan adds which node it was.
    fn run(&self, io: &Io<'_>) -> Result<(), EngineError>;

    /// Plans that it runs inside: branches of an `If`, the body of a `Loop`.
    fn inside(&self) -> Vec<Inside<'_>> {
        vec![]
    }
}

/// A plan inside a step.
#[derive(Clone, Copy)]
pub struct Inside<'a> {
    /// `then`, `else` or `body`.
    pub name: &'static str,
    /// The plan.
    pub plan: &'a Plan,
    /// How often it has run so far, in all sessions.
    pub runs: u64,
}

/// What a kernel changes while it runs. Steps that several threads run at once do not have any, so nobody waits.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An operand as a binder sees it.
#[derive(Clone, Debug)]
pub struct Operand<'a> {
    /// Logical extents.
    pub extents: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// Layout it already has in memory; constants take any layout for free.
    pub layout: Layout,
    /// Content, where known at plan time; always row-major.
    pub constant: Option<&'a Tensor>,
    /// Whether it is all of a tensor in the store that the plan does not write, so that it is worth packing there.
    pub(crate) rests: bool,
}

impl Operand<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.extents.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A node as a binder sees it.
pub struct Site<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its operands.
    pub inputs: Vec<Option<Operand<'a>>>,
    /// Extents and types of its results.
    pub outputs: Vec<(Vec<usize>, DType)>,
    /// Mask of the parameter behind each operand, one byte an element, where it has one.
    pub(crate) masks: Vec<Option<Vec<u8>>>,
    /// Pattern of each operand that is stored by its kept elements.
    pub(crate) kept: Vec<Option<Arc<Kept>>>,
    /// Pattern of each result that is wanted by its kept elements.
    pub(crate) kept_outputs: Vec<Option<Arc<Kept>>>,
    /// Instruction set and threads.
    pub cpu: &'a Cpu,
    /// Whether sparse kernels may be chosen.
    pub(crate) sparse: Sparse,
    /// The form of sparse layers to bind, instead of the one that the cost model would choose.
    pub(crate) form: Option<Form>,
    /// What the plan is made for.
    pub(crate) options: &'a PlanOptions,
}

impl Site<'_> {
    /// Operand `index`, which the operator requires.
    ///
    /// # Panics
    /// When it is left out; binders ask only for operands that their operator requires.
    pub fn input(&self, index: usize) -> &Operand<'_> {
        self.inputs[index].as_ref().expect("shape inference has checked required operands")
    }

    /// Operand `index`, unless left out.
    pub fn optional(&self, index: usize) -> Option<&Operand<'_>> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// Extents of result `index`.
    pub fn output(&self, index: usize) -> &[usize] {
        &self.outputs[index].0
    }

    /// Whether every operand and result has this element type.
    pub fn all(&self, dtype: DType) -> bool {
        self.inputs.iter().flatten().all(|o| o.dtype == dtype) && self.outputs.iter().all(|o| o.1 == dtype)
    }
}

/// A node's code and what it asks of the planner.
pub struct Bound {
    /// The code; `None` when result 0 is operand 0 under another shape, in the same memory.
    pub(crate) kernel: Option<Box<dyn Kernel>>,
    /// Layout wanted for each operand.
    pub(crate) input_layouts: Vec<Layout>,
    /// Layout of each result.
    pub(crate) output_layouts: Vec<Layout>,
    /// Operands that the kernel has taken in at plan time and does not read at run time.
    pub(crate) taken: Vec<usize>,
    /// Operands that the store packs, and how.
    pub(crate) packed: Vec<(usize, Arc<Packing>)>,
    /// Pairs (operand, result) that may share memory when the operand is not needed afterwards.
    pub(crate) in_place: Vec<(usize, usize)>,
    /// Scratch memory in f32 elements.
    pub(crate) scratch: usize,
    /// Why this kernel, where there was a choice.
    pub(crate) why: Option<String>,
    /// Share of the node's products that the kernel computes, 1 for dense ones.
    pub(crate) density: f64,
    /// Forms that may be faster.
    pub(crate) doubt: Option<Doubt>,
}

impl Bound {
    /// A kernel whose operands and results are all row-major.
    pub fn row_major(site: &Site<'_>, kernel: impl Kernel + 'static) -> Bound {
        Bound::uniform(site, Layout::RowMajor, kernel)
    }

    /// A kernel whose operands and results all have one layout.
    pub fn uniform(site: &Site<'_>, layout: Layout, kernel: impl Kernel + 'static) -> Bound {
        Bound {
            kernel: Some(Box::new(kernel)),
            input_layouts: vec![layout; site.inputs.len()],
            output_layouts: vec![layout; site.outputs.len()],
            taken: vec![],
            packed: vec![],
            in_place: vec![],
            scratch: 0,
            why: None,
            density: 1.0,
            doubt: None,
        }
    }

    /// Result 0 is operand 0 in the same memory and layout.
    pub fn view(site: &Site<'_>, layout: Layout) -> Bound {
        Bound {
            kernel: None,
            input_layouts: vec![layout; site.inputs.len()],
            output_layouts: vec![layout],
            taken: (1..site.inputs.len()).collect(),
            packed: vec![],
            in_place: vec![],
            scratch: 0,
            why: None,
            density: 1.0,
            doubt: None,
        }
    }

    /// States that result `output` may take the memory of operand `input`.
    pub fn in_place(mut self, input: usize, output: usize) -> Bound {
        self.in_place.push((input, output));
        self
    }

    /// States the scratch memory needed, in f32 elements.
    pub fn scratch(self, elements: usize) -> Bound {
        Bound { scratch: elements, ..self }
    }

    /// States why this kernel was chosen.
    pub fn because(self, why: impl Into<Option<String>>) -> Bound {
        Bound { why: why.into(), ..self }
    }

    /// States which other forms may be faster.
    pub(crate) fn doubted(self, doubt: Option<Doubt>) -> Bound {
        Bound { doubt, ..self }
    }

    /// States which share of the node's products is computed, 0 to 1.
    pub fn density(self, density: f64) -> Bound {
        Bound { density, ..self }
    }

    /// States layouts of the operands and results, one each.
    ///
    /// # Panics
    /// When there are more or fewer than the node has.
    pub fn layouts(self, inputs: Vec<Layout>, outputs: Vec<Layout>) -> Bound {
        assert_eq!(
            (inputs.len(), outputs.len()),
            (self.input_layouts.len(), self.output_layouts.len()),
            "one layout for each operand and result"
        );
        Bound { input_layouts: inputs, output_layouts: outputs, ..self }
    }

    /// States in which form an operand is read.
    pub(crate) fn asks(mut self, ask: Ask) -> Bound {
        match ask {
            Ask::Nothing(index) => self.taken.push(index),
            Ask::Packed(index, packing) => self.packed.push((index, packing)),
            Ask::AsItLies => {}
        }
        self
    }

    /// States that operand `index` is not read at run time.
    pub fn takes(mut self, index: usize) -> Bound {
        self.taken.push(index);
        self
    }
}

/// A step's operands and results in the arena while its kernel runs.
pub struct Io<'a> {
    pub(crate) views: Views<'a>,
    pub(crate) inputs: &'a [Option<Span>],
    pub(crate) outputs: &'a [Span],
    pub(crate) scratch: Span,
    /// Instruction set and threads.
    pub cpu: &'a Cpu,
}

impl<'a> Io<'a> {
    /// The elements of operand `index`, in the layout that was bound.
    ///
    /// # Errors
    /// When it is left out or taken, `T` does not fit its bytes, or its memory is already out as a result. Every slice stays
    /// out until the run ends.
    pub fn input<T: Pod>(&self, index: usize) -> Result<&'a [T], EngineError> {
        let span = self.inputs[index]
            .ok_or_else(|| EngineError::Defect(format!("operand {index} has no memory")))?;
        Ok(self.views.read(span)?)
    }

    /// The elements of operand `index`, unless it is left out or taken.
    ///
    /// # Errors
    /// As [`Io::input`].
    pub fn optional<T: Pod>(&self, index: usize) -> Result<Option<&'a [T]>, EngineError> {
        match self.inputs.get(index).copied().flatten() {
            Some(span) => Ok(Some(self.views.read(span)?)),
            None => Ok(None),
        }
    }

    /// The elements of result `index`, to be written; when it shares memory with an operand, they hold that operand's content.
    ///
    /// # Errors
    /// When its memory is already out, or `T` does not fit its bytes.
    pub fn output<T: Pod>(&self, index: usize) -> Result<&'a mut [T], EngineError> {
        Ok(self.views.write(self.outputs[index])?)
    }

    /// Whether result `output` is in the memory of operand `input`, which must then not be asked for.
    pub fn shares(&self, input: usize, output: usize) -> bool {
        self.inputs[input] == Some(self.outputs[output]) && self.outputs[output].bytes > 0
    }

    /// Scratch memory, as many elements as were asked for; holds anything at first.
    ///
    /// # Errors
    /// When it is already out.
    pub fn scratch(&self) -> Result<&'a mut [f32], EngineError> {
        Ok(self.views.write(self.scratch)?)
    }
}
