//! Which share of what limits it each node of a session reaches (Williams, Waterman and Patterson 2009, "Roofline").

use std::collections::BTreeMap;

use serde::Serialize;
use wattle_engine::Session;
use wattle_graph::{Graph, NodeId, Parameters, Source, costs};
use wattle_report::{Align, Table, number};

use super::machine::Machine;
use crate::error::Result;
use crate::node_times;

/// Timed runs of which the median counts.
const RUNS: usize = 9;
/// Bytes of a stored non-zero: its value and a 16-bit index.
const STORED: f64 = 6.0;

/// A node's time beside the least it could be.
#[derive(Clone, Debug, Serialize)]
pub struct NodeShare {
    /// The node's name.
    pub name: String,
    /// Its operator.
    pub op: &'static str,
    /// What computes it.
    pub kernel: String,
    /// Median, changes of layout for this node included.
    pub ms: f64,
    /// Operations with weights that are not zero, two for a multiply-add.
    pub flops: f64,
    /// Operands and results, each touched once; sparse weights as they are stored.
    pub bytes: f64,
    /// `arithmetic` or `traffic`.
    pub limit: &'static str,
    /// The least time over the measured time, 0 to 1; more than 1 where operands stayed in an inner cache.
    pub share: f64,
}

/// Times the nodes of a session whose inputs are set, and compares them with the machine's peaks.
pub fn shares(session: &mut Session, machine: &Machine) -> Result<Vec<NodeShare>> {
    let steps = node_times::measure(session, RUNS)?;
    let graph = session.plan().graph();
    let costs: BTreeMap<NodeId, _> =
        costs(graph, &Parameters::new())?.into_iter().map(|c| (c.node, c)).collect();
    let mut shares = vec![];
    // Changes of layout come before the step that they are for.
    let mut before = 0.0;
    for step in &steps {
        before += step.seconds;
        let Some((node, cost)) = step.node.and_then(|n| Some((n, costs.get(&n)?))) else { continue };
        let time = std::mem::take(&mut before);
        let flops = 2.0 * cost.work.effective_macs as f64 + cost.work.element_ops as f64;
        let bytes = (cost.bytes_read + cost.bytes_written) as f64 - unstored(graph, node);
        let (least, arithmetic) = machine.least_seconds(flops, bytes);
        shares.push(NodeShare {
            name: step.name.clone(),
            op: graph.node(node).op.name(),
            kernel: step.kernel.clone(),
            ms: time * 1e3,
            flops,
            bytes,
            limit: if arithmetic { "arithmetic" } else { "traffic" },
            share: least / time.max(1e-9),
        });
    }
    Ok(shares)
}

/// Bytes of a node's sparse weights that need not be read because they are zero.
fn unstored(graph: &Graph, node: NodeId) -> f64 {
    let constants =
        graph.node(node).inputs.iter().flatten().filter_map(|&input| match &graph.value(input).source {
            Source::Constant(tensor) if tensor.len() > 1 && tensor.dtype().size() == 4 => Some(tensor),
            _ => None,
        });
    constants.map(|t| t.len() as f64 * (4.0 - (STORED * t.density()).min(4.0))).sum()
}

/// The nodes that take most of the time, and the whole.
pub fn table(nodes: &[NodeShare]) -> Table {
    let left = ["node", "op", "kernel"].map(|name| (name, Align::Left));
    let right = ["ms", "GFLOP/s", "GB/s", "limit", "of it"].map(|name| (name, Align::Right));
    let mut table = Table::new(left.into_iter().chain(right));
    for node in nodes {
        table.row([
            node.name.clone(),
            node.op.to_string(),
            node.kernel.clone(),
            format!("{:.4}", node.ms),
            format!("{:.1}", node.flops / node.ms / 1e6),
            format!("{:.1}", node.bytes / node.ms / 1e6),
            node.limit.to_string(),
            number::percent(node.share),
        ]);
    }
    table
}
