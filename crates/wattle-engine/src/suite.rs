//! Conformance: what an operator and its kernel owe, checked on small examples. For operators of this house and of others.

use std::sync::Arc;

use wattle_graph::{Agreement, Example, Graph, OnnxForm, Op, Shape, Tensor, Tensors, suite as definition};
use wattle_kernels::{Cpu, Isa};

use crate::choices::PlanOptions;
use crate::error::EngineError;
use crate::plan::Plan;
use crate::registry::Registry;
use crate::session::Session;
use crate::store::Store;

/// The duties of a custom operator and of its kernels.
///
/// [`Conformance::check`] takes one example through shape inference and evaluation, the gradient against central differences
/// in f64, the ONNX form where standard nodes are emitted, the kernel against the definition on every instruction set of this
/// machine with operands fed and constant, and bits for 1 to as many threads as asked for; on request it counts allocations.
pub struct Conformance {
    kernels: Registry,
    threads: usize,
    allocations: Option<fn() -> usize>,
}

/// What was found of one example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conformed {
    /// Name of the kernel that ran with operands fed; begins with `reference-` where the definition ran.
    pub kernel: String,
    /// How many operands had their gradient checked; 0 where the operator declares that it has none.
    pub gradients: usize,
    /// Whether its ONNX form was read back as the same function.
    pub onnx: bool,
}

impl Conformance {
    /// Checks with these kernels and 1, 2 and 3 threads.
    pub fn new(kernels: Registry) -> Conformance {
        Conformance { kernels, threads: 3, allocations: None }
    }

    /// Asks for the same bits from 1 to `count` threads.
    pub fn threads(self, count: usize) -> Conformance {
        Conformance { threads: count, ..self }
    }

    /// Asks that a run allocates nothing. `counter` tells how often the program has allocated so far, which its own global
    /// allocator counts.
    pub fn allocations(self, counter: fn() -> usize) -> Conformance {
        Conformance { allocations: Some(counter), ..self }
    }

    /// Checks one example.
    ///
    /// # Errors
    /// The first duty that is not met, in words.
    pub fn check(&self, example: &Example) -> Result<Conformed, String> {
        let said = |what: &str, reason: String| format!("{what} of {:?}: {reason}", example.op);
        definition::check_shapes(example).map_err(|e| said("shapes", e))?;
        let gradients = definition::check_gradient(example).map_err(|e| said("gradient", e))?;
        let decomposed = match &example.op {
            Op::Custom(op) => {
                if op.key() != op.key() {
                    return Err(said("key", "it is another every time that it is asked for".into()));
                }
                op.onnx() == OnnxForm::Decomposed
            }
            _ => true,
        };
        let onnx =
            decomposed && definition::check_onnx_round_trip(example).map_err(|e| said("ONNX form", e))?;
        let mut kernel = String::new();
        for isa in Isa::available() {
            for constant in [true, false] {
                let options = self.options(Cpu::with_isa(isa, 1).map_err(|e| e.to_string())?);
                let mut session =
                    planned(example, constant, &options).map_err(|e| said("plan", e.to_string()))?;
                kernel = session.plan().steps().last().map_or(String::new(), |step| step.kernel.clone());
                let results = twice(&mut session).map_err(|e| said("run", e.to_string()))?;
                agree(example, &results)
                    .map_err(|e| said(&format!("kernel {kernel} on {}", isa.name()), e))?;
                self.count(&mut session).map_err(|e| said(&format!("kernel {kernel}"), e))?;
            }
        }
        self.same_bits(example).map_err(|e| said("kernel", e))?;
        Ok(Conformed { kernel, gradients, onnx })
    }

    fn options(&self, cpu: Cpu) -> PlanOptions {
        PlanOptions { rewrite: false, kernels: self.kernels.clone(), ..PlanOptions::new(Arc::new(cpu)) }
    }

    fn same_bits(&self, example: &Example) -> Result<(), String> {
        let mut first: Option<Vec<Tensor>> = None;
        for threads in 1..=self.threads {
            let options = self.options(Cpu::new(threads).map_err(|e| e.to_string())?);
            let mut session = planned(example, false, &options).map_err(|e| e.to_string())?;
            let results = twice(&mut session).map_err(|e| e.to_string())?;
            let first = first.get_or_insert_with(|| results.clone());
            if !first.iter().zip(&results).all(|(a, b)| bits(a) == bits(b)) {
                return Err(format!("{threads} threads give other bits than one"));
            }
        }
        Ok(())
    }

    fn count(&self, session: &mut Session) -> Result<(), String> {
        let Some(counter) = self.allocations else { return Ok(()) };
        let before = counter();
        session.run().map_err(|e| e.to_string())?;
        match counter() - before {
            0 => Ok(()),
            n => Err(format!("a run allocates {n} times; expected none")),
        }
    }
}

/// A session of the one-node graph of an example, its inputs written: operands are inputs, or constants where the example asks
/// for it; with `constant`, all are but the first.
///
/// # Errors
/// When the operator refuses its operands, or the graph cannot be planned.
pub fn planned(example: &Example, constant: bool, options: &PlanOptions) -> Result<Session, EngineError> {
    let mut graph = Graph::new("example");
    let mut feeds = vec![];
    let mut operands = vec![];
    for (index, input) in example.inputs.iter().enumerate() {
        operands.push(input.as_ref().map(|tensor| {
            if example.constant.contains(&index) || (constant && index > 0) {
                return graph.constant(tensor.clone());
            }
            let name = format!("x{index}");
            feeds.push((name.clone(), tensor.clone()));
            graph.input(name, tensor.dtype(), Shape::known(tensor.shape()))
        }));
    }
    let outputs = graph.apply_all(example.op.clone(), &operands, "")?;
    graph.set_outputs(outputs);
    let store = Store::default();
    let mut plan = Plan::compile(&graph, &store, options)?;
    // Small as examples are, all threads are to be seen at work.
    plan.steps.iter_mut().for_each(|step| step.alone = false);
    let mut session = Session::new(plan, &store)?;
    for (name, tensor) in &feeds {
        session.set_input(name, tensor)?;
    }
    Ok(session)
}

/// The results of the second of two runs: what a run leaves behind must not matter.
///
/// # Errors
/// Those of the run.
pub fn twice(session: &mut Session) -> Result<Vec<Tensor>, EngineError> {
    session.run()?;
    session.run()?;
    Ok(session.outputs()?.into_iter().map(|(_, tensor)| tensor).collect())
}

/// Whether results are those of the operator's definition, as exactly as it asks for.
///
/// # Errors
/// The first result that is not, in words.
pub fn agree(example: &Example, results: &[Tensor]) -> Result<(), String> {
    let operands: Vec<_> = example.inputs.iter().map(Option::as_ref).collect();
    let expected = example.op.evaluate(Tensors::new(&operands)).map_err(|e| e.to_string())?;
    for (index, (e, g)) in expected.iter().zip(results).enumerate() {
        if e.shape() != g.shape() || e.dtype() != g.dtype() {
            return Err(format!("result {index} is {:?}, expected {:?}", g.shape(), e.shape()));
        }
        let (e, g) = (e.to_f64(), g.to_f64());
        let tolerance = match example.op.agreement() {
            Agreement::Exact => 0.0,
            Agreement::Relative(r) => r * e.iter().fold(0.0f64, |m, x| m.max(x.abs())),
        };
        for (i, (x, y)) in e.iter().zip(g.iter()).enumerate() {
            let same = x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= tolerance;
            if !same {
                return Err(format!("result {index}[{i}] is {y}, expected {x}"));
            }
        }
    }
    Ok(())
}

/// The bits of all elements.
fn bits(tensor: &Tensor) -> Vec<u64> {
    tensor.to_f64().iter().map(|x| x.to_bits()).collect()
}
