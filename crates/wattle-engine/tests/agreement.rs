//! Every operator's examples, planned and run, agree with the operator's own definition: on every instruction
//! set of this machine, with operands fed and with operands constant, and bit for bit on any number of threads.

use std::sync::Arc;

use wattle_engine::{Cpu, EngineError, Isa, Plan, PlanOptions, Session, Sparse, Store};
use wattle_graph::{Agreement, Example, Graph, Shape, Tensor, Tensors, ops};

/// Runs a one-node graph of the example; all operands are constants when `constant`, except the first.
fn run(example: &Example, cpu: Cpu, constant: bool) -> Result<Vec<Tensor>, EngineError> {
    run_with(example, cpu, constant, Sparse::Auto)
}

fn run_with(example: &Example, cpu: Cpu, constant: bool, sparse: Sparse) -> Result<Vec<Tensor>, EngineError> {
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
    let options = PlanOptions { rewrite: false, sparse, ..PlanOptions::new(Arc::new(cpu)) };
    let store = Store::default();
    let mut session = Session::new(Plan::compile(&graph, &store, &options)?, &store)?;
    for (name, tensor) in &feeds {
        session.set_input(name, tensor)?;
    }
    session.run()?;
    session.run()?;
    Ok(session.outputs()?.into_iter().map(|(_, tensor)| tensor).collect())
}

fn compare(example: &Example, got: &[Tensor]) -> Result<(), String> {
    let operands: Vec<_> = example.inputs.iter().map(Option::as_ref).collect();
    let expected = example.op.evaluate(Tensors::new(&operands)).map_err(|e| e.to_string())?;
    for (index, (e, g)) in expected.iter().zip(got).enumerate() {
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

fn each_example(mut check: impl FnMut(&Example) -> Result<(), String>) {
    let mut failures = vec![];
    for operator in ops::ALL {
        for (index, example) in (operator.examples)().iter().enumerate() {
            if let Err(reason) = check(example) {
                failures.push(format!("{} example {index} {:?}: {reason}", operator.name, example.op));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Whether the operator's shapes depend on data, so that it cannot be planned.
fn cannot_be_planned(error: &EngineError) -> bool {
    matches!(error, EngineError::UnknownShape { .. })
}

#[test]
fn every_operator_agrees_with_its_definition_on_every_instruction_set() {
    each_example(|example| {
        for isa in Isa::available() {
            for constant in [false, true] {
                let cpu = Cpu::with_isa(isa, 1).map_err(|e| e.to_string())?;
                match run(example, cpu, constant) {
                    Err(error) if cannot_be_planned(&error) => {}
                    Err(error) => return Err(error.to_string()),
                    Ok(got) => compare(example, &got).map_err(|e| format!("{}: {e}", isa.name()))?,
                }
            }
        }
        Ok(())
    });
}

#[test]
fn sparse_kernels_agree_with_the_definition_however_dense_the_weights() {
    each_example(|example| {
        for isa in Isa::available() {
            for threads in [1, 2] {
                let cpu = Cpu::with_isa(isa, threads).map_err(|e| e.to_string())?;
                match run_with(example, cpu, true, Sparse::Always) {
                    Err(error) if cannot_be_planned(&error) => {}
                    Err(error) => return Err(error.to_string()),
                    Ok(got) => compare(example, &got).map_err(|e| format!("{}: {e}", isa.name()))?,
                }
            }
        }
        Ok(())
    });
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    each_example(|example| {
        let mut first: Option<Vec<Tensor>> = None;
        for threads in [1, 2, 7] {
            let cpu = Cpu::new(threads).map_err(|e| e.to_string())?;
            let Ok(got) = run(example, cpu, false) else { return Ok(()) };
            let same = |a: &Tensor, b: &Tensor| {
                let bits = |t: &Tensor| t.to_f64().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                bits(a) == bits(b)
            };
            match &first {
                Some(f) if !f.iter().zip(&got).all(|(a, b)| same(a, b)) => {
                    return Err(format!("{threads} threads give other bits than one"));
                }
                Some(_) => {}
                None => first = Some(got),
            }
        }
        Ok(())
    });
}
