//! What the planner knows of a kernel, and what a kernel sees while it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use wattle_graph::{DType, Node, Tensor};
use wattle_kernels::Cpu;
use wattle_kernels::arena::{Span, Views};

use crate::choices::Sparse;
use crate::error::EngineError;
use crate::kept::Kept;
use crate::layout::Layout;
use crate::sparse_cost::{Doubt, Form};

/// A node bound to code; holds whatever was computed at plan time (offset tables, packed weights).
pub(crate) trait Kernel: Send + Sync {
    /// Name in profiles: `{op}-{layout}-{dtypes}-{isa}` where that much is decided.
    fn name(&self) -> String;

    /// Computes the outputs.
    fn run(&self, io: &Io<'_>) -> Result<(), EngineError>;
}

/// What a kernel changes while it runs. Steps that several threads run at once do not have any, so nobody waits.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An operand as a binder sees it.
#[derive(Clone, Debug)]
pub(crate) struct Operand<'a> {
    /// Logical extents.
    pub extents: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// Layout it already has in memory; constants take any layout for free.
    pub layout: Layout,
    /// Content, where known at plan time; always row-major.
    pub constant: Option<&'a Tensor>,
}

impl Operand<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.extents.iter().product()
    }
}

/// A node as a binder sees it.
pub(crate) struct Site<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its operands.
    pub inputs: Vec<Option<Operand<'a>>>,
    /// Extents and types of its results.
    pub outputs: Vec<(Vec<usize>, DType)>,
    /// Mask of the parameter behind each operand, one byte an element, where it has one.
    pub masks: Vec<Option<Vec<u8>>>,
    /// Pattern of each operand that is stored by its kept elements.
    pub kept: Vec<Option<Arc<Kept>>>,
    /// Pattern of each result that is wanted by its kept elements.
    pub kept_outputs: Vec<Option<Arc<Kept>>>,
    /// Instruction set and threads.
    pub cpu: &'a Cpu,
    /// Whether sparse kernels may be chosen.
    pub sparse: Sparse,
    /// The form of sparse layers to bind, instead of the one that the cost model would choose.
    pub form: Option<Form>,
}

impl Site<'_> {
    /// Operand `index`, which the operator requires.
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
pub(crate) struct Bound {
    /// The code; `None` when result 0 is operand 0 under another shape, in the same memory.
    pub kernel: Option<Box<dyn Kernel>>,
    /// Layout wanted for each operand.
    pub input_layouts: Vec<Layout>,
    /// Layout of each result.
    pub output_layouts: Vec<Layout>,
    /// Operands that the kernel has taken in at plan time and does not read at run time.
    pub taken: Vec<usize>,
    /// Pairs (operand, result) that may share memory when the operand is not needed afterwards.
    pub in_place: Vec<(usize, usize)>,
    /// Scratch memory in f32 elements.
    pub scratch: usize,
    /// Why this kernel, where there was a choice.
    pub why: Option<String>,
    /// Share of the node's products that the kernel computes, 1 for dense ones.
    pub density: f64,
    /// Forms that may be faster.
    pub doubt: Option<Doubt>,
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
    pub fn doubted(self, doubt: Option<Doubt>) -> Bound {
        Bound { doubt, ..self }
    }

    /// States which share of the node's products is computed.
    pub fn density(self, density: f64) -> Bound {
        Bound { density, ..self }
    }

    /// States that operand `index` is not read at run time.
    pub fn takes(mut self, index: usize) -> Bound {
        self.taken.push(index);
        self
    }
}

/// A step's operands and results in the arena while its kernel runs.
pub(crate) struct Io<'a> {
    pub views: Views<'a>,
    pub inputs: &'a [Option<Span>],
    pub outputs: &'a [Span],
    pub scratch: Span,
    pub cpu: &'a Cpu,
}

impl<'a> Io<'a> {
    /// Operand `index`.
    pub fn input<T: Pod>(&self, index: usize) -> Result<&'a [T], EngineError> {
        let span = self.inputs[index]
            .ok_or_else(|| EngineError::Defect(format!("operand {index} has no memory")))?;
        Ok(self.views.read(span)?)
    }

    /// Operand `index`, unless left out.
    pub fn optional<T: Pod>(&self, index: usize) -> Result<Option<&'a [T]>, EngineError> {
        match self.inputs.get(index).copied().flatten() {
            Some(span) => Ok(Some(self.views.read(span)?)),
            None => Ok(None),
        }
    }

    /// Result `index`; when it shares memory with an operand, it holds that operand's content.
    pub fn output<T: Pod>(&self, index: usize) -> Result<&'a mut [T], EngineError> {
        Ok(self.views.write(self.outputs[index])?)
    }

    /// Whether result `output` is in the memory of operand `input`, which must then not be asked for.
    pub fn shares(&self, input: usize, output: usize) -> bool {
        self.inputs[input] == Some(self.outputs[output]) && self.outputs[output].bytes > 0
    }

    /// Scratch memory.
    pub fn scratch(&self) -> Result<&'a mut [f32], EngineError> {
        Ok(self.views.write(self.scratch)?)
    }
}
