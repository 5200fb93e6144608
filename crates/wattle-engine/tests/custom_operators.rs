//! Operators of other crates run on kernels of other crates, and the suite sees what they owe.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wattle_engine::kernel::{Bound, Io, Kernel, Site};
use wattle_engine::suite::Conformance;
use wattle_engine::{Cpu, EngineError, Plan, PlanOptions, Registry, Session, Store};
use wattle_graph::ops::{Binary, BinaryFunction};
use wattle_graph::*;

/// What a counting allocator would count: only crates that may use `unsafe` can have one, so the faulty kernel counts itself.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// `y = x^power`, by repeated products; the gradient is the same operator.
#[derive(Debug)]
struct Power(u32);

impl Operator for Power {
    fn name(&self) -> &'static str {
        "test.Power"
    }
    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("power", Attribute::Int(i64::from(self.0)))]
    }
    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_float(0, "x")?;
        Ok(vec![inputs.ty(0, "x")?.clone()])
    }
    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let y = x.to_f64().iter().map(|x| x.powi(self.0 as i32)).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }
    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (dy, x) = (g.gradient(), g.input(0));
        let below = g.apply(Op::Custom(Arc::new(Power(self.0 - 1))), &[x])?;
        let factor = g.constant(Tensor::from_f64(g.dtype(x), [], vec![f64::from(self.0)]));
        let mul = Binary { function: BinaryFunction::Mul };
        let slope = g.apply(mul.clone(), &[below, factor])?;
        Ok(Gradient::Inputs(vec![Some(g.apply(mul, &[dy, slope])?)]))
    }
    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(u64::from(self.0) * shapes.output_len(0))
    }
}

impl CustomOperator for Power {
    fn key(&self) -> String {
        format!("test.Power power={}", self.0)
    }
}

/// A kernel with a fault for the suite to find.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Wrong,
    Threads,
    Allocates,
}

struct PowerF32(u32, Fault);

impl Kernel for PowerF32 {
    fn name(&self) -> String {
        "test-power-f32".into()
    }
    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, y) = (io.input::<f32>(0)?, io.output::<f32>(0)?);
        ALLOCATED.fetch_add(usize::from(self.1 == Fault::Allocates), Ordering::Relaxed);
        let own = if self.1 == Fault::Threads { io.cpu.threads.count() as f32 * 1e-7 } else { 0.0 };
        io.cpu.threads.for_each_piece(y, 16, |piece, y| {
            for (y, x) in y.iter_mut().zip(&x[16 * piece..]) {
                *y = (0..self.0).fold(1.0 + own, |product, _| product * x);
            }
        });
        if self.1 == Fault::Wrong {
            y[0] += 1.0;
        }
        Ok(())
    }
}

fn kernels(fault: Fault) -> Registry {
    Registry::new().with("test-power-f32 1", move |site: &Site<'_>, op: &Power| {
        site.all(DType::F32).then(|| Bound::row_major(site, PowerF32(op.0, fault)))
    })
}

fn example(power: u32) -> Example {
    Example::new(Op::Custom(Arc::new(Power(power))), vec![Example::noise(&[7, 9], 1)])
}

fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

#[test]
fn the_suite_passes_a_good_kernel_and_names_what_a_faulty_one_does_wrong() {
    let suite = |fault| Conformance::new(kernels(fault)).threads(4).allocations(allocated);
    let found = suite(Fault::None).check(&example(3)).unwrap();
    assert_eq!((found.kernel.as_str(), found.gradients), ("test-power-f32", 1));
    for (fault, said) in [
        (Fault::Wrong, "result 0[0] is"),
        (Fault::Threads, "2 threads give other bits than one"),
        (Fault::Allocates, "allocates"),
    ] {
        let error = suite(fault).check(&example(3)).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    // Without a kernel the definition runs.
    let found = Conformance::new(Registry::new()).check(&example(2)).unwrap();
    assert_eq!(found.kernel, "reference-test.Power");
}

#[test]
fn equal_operators_of_another_crate_are_merged_and_run_on_their_kernel() {
    let mut graph = Graph::new("sum");
    let x = graph.input("x", DType::F32, Shape::known(&[3]));
    let of = |graph: &mut Graph, power| graph.apply(Op::Custom(Arc::new(Power(power))), &[x]).unwrap();
    let (a, b, c) = (of(&mut graph, 2), of(&mut graph, 2), of(&mut graph, 3));
    let add =
        |graph: &mut Graph, a, b| graph.apply(Binary { function: BinaryFunction::Add }, &[a, b]).unwrap();
    let sum = add(&mut graph, a, b);
    let sum = add(&mut graph, sum, c);
    graph.output(sum);
    let options =
        PlanOptions { kernels: kernels(Fault::None), ..PlanOptions::new(Arc::new(Cpu::new(1).unwrap())) };
    let store = Store::default();
    let plan = Plan::compile(&graph, &store, &options).unwrap();
    assert_eq!(plan.steps().filter(|s| s.kernel == "test-power-f32").count(), 2);
    assert!(plan.interpreted().is_empty());
    let mut session = Session::new(plan, &store).unwrap();
    session.set_input("x", &Tensor::f32([3], vec![1.0, 2.0, 3.0])).unwrap();
    session.run().unwrap();
    assert_eq!(session.output::<f32>(0).unwrap(), [3.0, 16.0, 45.0]);
}
