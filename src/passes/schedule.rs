//! A memory-aware order of execution.
//!
//! Greedy list scheduling: of all nodes whose operands are ready, run the one that adds least to the live bytes (what it writes, less the
//! operands it is the last to read); ties go to the written order. The planner keeps the result only where the plan gets smaller.

use crate::graph::{Graph, NodeId, TensorId, TensorKind};
use crate::ops;
use crate::tensor::RowExtent;
use std::collections::BTreeSet;

/// Nodes in greedy order, or `None` when that is the written order. `bytes` sizes a tensor.
pub fn memory_aware(graph: &Graph, bytes: &dyn Fn(TensorId) -> u64) -> Option<Vec<NodeId>> {
    let size: Vec<i64> = graph.tensor_ids().map(|t| transient(graph, t, bytes)).collect();
    let mut readers: Vec<usize> = graph.readers().iter().map(Vec::len).collect();
    // Results stay alive to the end.
    graph.outputs.iter().for_each(|(_, t)| readers[t.index()] += 1);
    let order = topological(graph, |ready| {
        let key = |n: &NodeId| (graph.node(*n).section, growth(graph, &size, &readers, *n), *n);
        let next = ready.iter().copied().min_by_key(key)?;
        graph.node(next).operands.iter().for_each(|t| readers[t.index()] -= 1);
        Some(next)
    });
    let written = order.iter().enumerate().all(|(i, n)| n.index() == i);
    (!written).then_some(order)
}

/// An order in which every node comes after those it depends on: `pick` chooses one of the nodes that wait for none. Nodes that a cycle
/// keeps waiting are left out.
pub fn topological(graph: &Graph, mut pick: impl FnMut(&BTreeSet<NodeId>) -> Option<NodeId>) -> Vec<NodeId> {
    let mut waits = vec![0usize; graph.nodes.len()];
    let mut followers: Vec<Vec<NodeId>> = vec![Vec::new(); graph.nodes.len()];
    for (before, after) in dependencies(graph) {
        waits[after.index()] += 1;
        followers[before.index()].push(after);
    }
    let mut ready: BTreeSet<NodeId> = graph.node_ids().filter(|n| waits[n.index()] == 0).collect();
    let mut order = Vec::with_capacity(graph.nodes.len());
    while let Some(next) = pick(&ready) {
        ready.remove(&next);
        order.push(next);
        for &f in &followers[next.index()] {
            waits[f.index()] -= 1;
            if waits[f.index()] == 0 {
                ready.insert(f);
            }
        }
    }
    order
}

/// Bytes that a tensor takes only while it is in use.
fn transient(graph: &Graph, t: TensorId, bytes: &dyn Fn(TensorId) -> u64) -> i64 {
    let tensor = graph.tensor(t);
    let counts = matches!(tensor.kind, TensorKind::Value(_)) && tensor.ty.extent != RowExtent::Kept;
    if counts { bytes(t) as i64 } else { 0 }
}

/// What running `n` adds to the live bytes.
fn growth(graph: &Graph, size: &[i64], readers: &[usize], n: NodeId) -> i64 {
    let node = graph.node(n);
    let written: i64 = node.outputs.iter().map(|t| size[t.index()]).sum();
    let freed = |t: &TensorId| {
        let here = node.operands.iter().filter(|o| *o == t).count();
        readers[t.index()] == here
    };
    let mut operands: Vec<TensorId> = node.operands.clone();
    operands.sort_unstable();
    operands.dedup();
    let unread: i64 = node.outputs.iter().filter(|t| readers[t.index()] == 0).map(|t| size[t.index()]).sum();
    written - unread - operands.iter().filter(|t| freed(t)).map(|t| size[t.index()]).sum::<i64>()
}

/// Pairs of nodes whose order matters, the earlier one first, each pair once: a producer and its readers; around a write in place, readers of
/// the old value before it and readers of the new one after it, as in the written order.
fn dependencies(graph: &Graph) -> Vec<(NodeId, NodeId)> {
    let mut pairs = Vec::new();
    let readers = graph.readers();
    for n in graph.node_ids() {
        let node = graph.node(n);
        pairs.extend(node.operands.iter().filter_map(|&t| graph.producer(t)).map(|producer| (producer, n)));
        let Some(op) = ops::find(&node.op) else { continue };
        let sig = ops::build::signature(graph, node);
        let shared = (0..node.outputs.len()).filter_map(|o| op.must_alias(&sig, o));
        let written = (0..node.operands.len()).filter(|&i| op.mutates(&sig, i)).chain(shared);
        for t in written.filter_map(|i| node.operands.get(i)) {
            let others = readers[t.index()].iter().filter(|(reader, _)| *reader != n);
            pairs.extend(others.map(|&(reader, _)| (reader.min(n), reader.max(n))));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}
