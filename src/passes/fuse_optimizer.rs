//! Moves each parameter's update into backward: as soon as its gradient is complete and nothing reads the old value any more, so that
//! the gradient's memory is free at once. Needs an optimiser without clipping, whose norm needs all gradients at the same time.

use super::optimizer::is_norm;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Section};

/// The graph without gradient norm, with updates at their earliest places.
///
/// # Errors
/// When gradients accumulate over micro-batches, which need them to stay.
pub fn run(mut graph: Graph) -> Result<Graph> {
    let norms: Vec<NodeId> = graph.node_ids().filter(|&n| is_norm(graph.node(n))).collect();
    for node in graph.nodes.iter_mut().filter(|n| n.op == "adamw") {
        if node.attrs.bool_or("clear", false) == Ok(true) {
            return Err(Error::Usage(
                "--fuse-optimizer frees gradients at once, which accumulation needs to keep; use one of them".into(),
            ));
        }
        node.operands.truncate(6);
    }
    let norm_outputs: Vec<_> = norms.iter().flat_map(|&n| graph.node(n).outputs.clone()).collect();
    graph.outputs.retain(|(_, t)| !norm_outputs.contains(t));
    // The step after which each update may run: its operands exist, and everything else that reads its parameter is done.
    let readers = graph.readers();
    let updates: Vec<NodeId> = graph.node_ids().filter(|&n| graph.node(n).op == "adamw").collect();
    let mut moves = Vec::with_capacity(updates.len());
    for &n in &updates {
        let node = graph.node(n);
        let others = node.operands[..2].iter().flat_map(|t| &readers[t.index()]).map(|&(r, _)| r);
        let uses = others.filter(|&r| graph.node(r).op != "adamw" && !norms.contains(&r));
        let produced = node.operands.iter().filter_map(|&t| graph.producer(t));
        let last = uses.chain(produced).max().expect("a gradient of backward has a producer");
        moves.push((n, last));
    }
    updates.iter().for_each(|n| graph.nodes[n.index()].section = Section::Backward);
    Ok(graph.with_moved(&moves, &norms))
}
