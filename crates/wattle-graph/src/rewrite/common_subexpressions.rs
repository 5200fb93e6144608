//! Common subexpressions: two nodes of the same pure operator on the same operands become one.

use super::{Outcome, Pass, Rebuild};
use crate::error::GraphError;
use crate::graph::Node;

/// Lets the later of two equal nodes be the earlier one.
pub const COMMON_SUBEXPRESSIONS: Pass = Pass { name: "common-subexpressions", rule };

/// How far back to look: equal nodes are near each other, and a full search would be quadratic.
const WINDOW: usize = 256;

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    if !node.op.is_pure() {
        return Ok(Outcome::NoEffect);
    }
    let operands = rebuild.operands(node);
    let earlier =
        rebuild.to.nodes().iter().rev().take(WINDOW).find(|n| n.inputs == operands && n.op == node.op);
    let Some(earlier) = earlier.map(|n| n.outputs.clone()) else { return Ok(Outcome::NoEffect) };
    if node.outputs.iter().any(|o| rebuild.from.outputs().contains(o)) {
        return Ok(Outcome::Refused("its result is an output of the graph and keeps its own name"));
    }
    for (&old, new) in node.outputs.iter().zip(earlier) {
        rebuild.replace(old, new);
    }
    Ok(Outcome::Applied)
}
