//! `docs/reference/operators.md` says what the code says: it is made from the list of operators and their examples.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use wattle_engine::{Cpu, EngineError, Isa, Plan, PlanOptions, Store};
use wattle_graph::onnx::SPELLED_OUT;
use wattle_graph::ops::{self, Registration, SumTo};
use wattle_graph::{Example, Graph, GraphError, Shape, ValueId, differentiate};

const HEAD: &str = "# Operators

This page is written by a test, from the list in `crates/wattle-graph/src/ops/mod.rs` and the examples beside each
operator. To write it again: `WATTLE_WRITE_PAGES=1 cargo test -p wattle-engine --test operators_page`.

- **ONNX** are the names it is imported from; without one, it appears only in graphs made here (gradients, updates of
  optimisers, fused nodes). A node under any other name makes the import fail with a list of all such nodes.
- **gradient**: *yes*, checked against finite differences; *zero* where it is defined; *none*: differentiating
  through it is an error.
- **runs**: by a *kernel*; by the *reference*, its definition in f64, correct and slow; *both*, depending on
  attributes, types or constant operands; *interpreted*: the shape of the result depends on the data, so `wattle run`
  interprets a model that has it.
";

/// The example as a graph of one node, with its results; operands are inputs, except those that must be constants.
fn graph_of(example: &Example, constant: bool) -> Result<(Graph, Vec<ValueId>), GraphError> {
    let mut graph = Graph::new("example");
    let mut operands = vec![];
    for (index, input) in example.inputs.iter().enumerate() {
        operands.push(input.as_ref().map(|tensor| {
            if example.constant.contains(&index) || (constant && index > 0) {
                return graph.constant(tensor.clone());
            }
            graph.input(format!("x{index}"), tensor.dtype(), Shape::known(tensor.shape()))
        }));
    }
    let outputs = graph.apply_all(example.op.clone(), &operands, "")?;
    graph.set_outputs(outputs.clone());
    Ok((graph, outputs))
}

/// `yes`, `zero` or `none`.
fn gradient(operator: &Registration) -> &'static str {
    let mut best = "none";
    for example in (operator.examples)() {
        let Ok((mut graph, outputs)) = graph_of(&example, false) else { continue };
        let float = |graph: &Graph, id: ValueId| graph.value(id).ty.dtype.is_float();
        let wrt: Vec<_> = graph.inputs().iter().copied().filter(|&i| float(&graph, i)).collect();
        for output in outputs {
            if !float(&graph, output) || wrt.is_empty() {
                continue;
            }
            let loss =
                graph.apply(SumTo { shape: vec![] }, &[output]).expect("any float tensor can be summed");
            match differentiate(&graph, loss, &wrt) {
                Ok(d) if d.gradients.iter().any(Option::is_some) => return "yes",
                Ok(_) => best = "zero",
                Err(_) => {}
            }
        }
    }
    best
}

/// `kernel`, `reference`, `both` or `interpreted`.
fn execution(operator: &Registration) -> &'static str {
    let cpu = Arc::new(Cpu::with_isa(Isa::scalar(), 1).expect("every processor runs scalar code"));
    let (mut fast, mut slow) = (false, false);
    for example in (operator.examples)() {
        for constant in [false, true] {
            let (graph, _) = graph_of(&example, constant).expect("an example is a valid application");
            let options = PlanOptions { rewrite: false, ..PlanOptions::new(cpu.clone()) };
            match Plan::compile(&graph, &Store::default(), &options) {
                Ok(plan) if plan.interpreted().is_empty() => fast = true,
                Ok(_) => slow = true,
                Err(EngineError::UnknownShape { .. }) => {}
                Err(other) => panic!("{}: {other}", operator.name),
            }
        }
    }
    match (fast, slow) {
        (true, true) => "both",
        (true, false) => "kernel",
        (false, true) => "reference",
        (false, false) => "interpreted",
    }
}

fn page() -> String {
    let mut rows = BTreeMap::new();
    let mut names: Vec<&str> = vec![];
    for operator in ops::ALL {
        names.extend(operator.onnx);
        let mut onnx: Vec<String> = operator.onnx.iter().map(|name| format!("`{name}`")).collect();
        onnx.sort();
        rows.insert(operator.name, [onnx.join(" "), gradient(operator).into(), execution(operator).into()]);
    }
    names.extend(SPELLED_OUT.iter().map(|(name, ..)| *name));
    names.sort_unstable();
    names.dedup();
    let mut page = HEAD.to_string();
    let _ = writeln!(page, "\n{} operators, read from {} ONNX operators.\n", rows.len(), names.len());
    page += "| operator | ONNX | gradient | runs |\n|---|---|---|---|\n";
    for (name, [onnx, gradient, runs]) in rows {
        let _ = writeln!(page, "| {name} | {onnx} | {gradient} | {runs} |");
    }
    page += "\nRead as several operators:\n\n| ONNX | becomes |\n|---|---|\n";
    for (name, nodes, _) in SPELLED_OUT {
        let _ = writeln!(page, "| `{name}` | {nodes} |");
    }
    page
}

#[test]
fn the_page_of_operators_says_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/operators.md");
    let page = page();
    if std::env::var_os("WATTLE_WRITE_PAGES").is_some() {
        std::fs::write(&path, &page).expect("the documentation can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let stale = page.lines().zip(committed.lines()).find(|(made, found)| made != found);
    assert!(
        page == committed,
        "docs/reference/operators.md is stale (first difference: {stale:?}); write it again with \
         WATTLE_WRITE_PAGES=1 cargo test -p wattle-engine --test operators_page"
    );
}
