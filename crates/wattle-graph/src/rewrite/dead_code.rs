//! Dead code: whatever no output or assignment depends on. Inputs stay, used or not.

use crate::error::GraphError;
use crate::graph::{Graph, Source};

/// The graph without nodes, parameters and constants that nothing reads.
pub fn remove_dead_code(graph: &Graph) -> Result<Graph, GraphError> {
    let mut alive = vec![false; graph.values().len()];
    for id in graph.outputs().iter().chain(graph.assignments().iter().flat_map(|a| [&a.target, &a.value])) {
        alive[id.index()] = true;
    }
    let is_alive = |node: &crate::graph::Node, alive: &[bool]| node.outputs.iter().any(|o| alive[o.index()]);
    for node in graph.nodes().iter().rev() {
        if is_alive(node, &alive) {
            node.inputs.iter().flatten().for_each(|i| alive[i.index()] = true);
        }
    }
    let mut to = Graph::new(graph.name.clone());
    let mut map = vec![None; graph.values().len()];
    for &id in graph.inputs() {
        let value = graph.value(id);
        map[id.index()] = Some(to.input(value.name.clone(), value.ty.dtype, value.ty.shape.clone()));
    }
    for id in graph.value_ids().filter(|id| alive[id.index()]) {
        let value = graph.value(id);
        match &value.source {
            Source::Parameter(p) => {
                map[id.index()] = Some(to.parameter_view(&value.name, p.clone(), value.ty.clone()));
            }
            Source::Constant(t) => {
                map[id.index()] = Some(to.named_constant(value.name.clone(), t.clone()));
            }
            Source::Input | Source::Node { .. } => {}
        }
    }
    for node in graph.nodes().iter().filter(|n| is_alive(n, &alive)) {
        let operands: Vec<_> = node.inputs.iter().map(|i| i.and_then(|i| map[i.index()])).collect();
        let outputs = to.apply_all(node.op.clone(), &operands, &node.name)?;
        for (&old, new) in node.outputs.iter().zip(outputs) {
            to.rename(new, graph.value(old).name.clone());
            map[old.index()] = Some(new);
        }
    }
    let mapped = |id: crate::graph::ValueId| map[id.index()].expect("outputs and assignments are alive");
    for a in graph.assignments() {
        to.assign_copied(mapped(a.target), mapped(a.value))?;
    }
    to.set_outputs(graph.outputs().iter().map(|&id| mapped(id)).collect());
    Ok(to)
}
