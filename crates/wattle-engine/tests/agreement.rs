//! Every operator's examples, planned and run, agree with the operator's own definition: on every instruction
//! set of this machine, with operands fed and with operands constant, and bit for bit on any number of threads.

use std::sync::Arc;

use wattle_engine::{Cpu, EngineError, Isa, PlanOptions, Sparse, suite};
use wattle_graph::{Example, Tensor, ops};

/// Runs a one-node graph of the example; all operands are constants when `constant`, except the first.
fn run(example: &Example, cpu: Cpu, constant: bool) -> Result<Vec<Tensor>, EngineError> {
    run_with(example, cpu, constant, Sparse::Auto)
}

fn run_with(example: &Example, cpu: Cpu, constant: bool, sparse: Sparse) -> Result<Vec<Tensor>, EngineError> {
    let options = PlanOptions { rewrite: false, sparse, ..PlanOptions::new(Arc::new(cpu)) };
    suite::twice(&mut suite::planned(example, constant, &options)?)
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
                    Ok(got) => suite::agree(example, &got).map_err(|e| format!("{}: {e}", isa.name()))?,
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
                    Ok(got) => suite::agree(example, &got).map_err(|e| format!("{}: {e}", isa.name()))?,
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
