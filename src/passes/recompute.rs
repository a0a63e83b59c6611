//! Recomputation (Chen et al., 2016): backward computes some forward results again instead of keeping them.
//!
//! Recomputed nodes are clones in the same graph, inserted just before the first backward node that needs them, so lifespans follow from
//! use and definition. A clone computes the same bits as its original: loss and gradients do not change.

use crate::graph::{Graph, Node, NodeId, Section, TensorId};
use std::collections::HashMap;

/// Ops whose results are cheap to compute again: no matrix product, no attention.
pub const CHEAP: [&str; 8] = ["layer_norm", "rms_norm", "gelu", "silu", "mul", "silu_mul", "rope", "dropout"];

/// Forward nodes whose op is cheap and whose clones save memory: what is kept only for a clone takes less than its results would. A rotation,
/// for one, gives as much as it takes, and backward has no other use for what it takes.
pub fn cheap_nodes(graph: &Graph) -> Vec<NodeId> {
    let values = |t: TensorId| graph.ty(t).shape.elements();
    // What is kept in any case: what backward reads, and what no node computes.
    let mut kept: Vec<bool> = graph.tensor_ids().map(|t| graph.producer(t).is_none()).collect();
    let backward = graph.nodes.iter().filter(|n| n.section == Section::Backward);
    backward.flat_map(|n| &n.operands).for_each(|t| kept[t.index()] = true);
    // Values of a row that must be kept to have a tensor in backward.
    let mut needs: Vec<usize> = graph.tensor_ids().map(|t| if kept[t.index()] { 0 } else { values(t) }).collect();
    let mut chosen = Vec::new();
    for n in graph.node_ids().filter(|&n| is_forward(graph, n) && CHEAP.contains(&graph.node(n).op.as_str())) {
        let node = graph.node(n);
        let needed = node.operands.iter().map(|t| needs[t.index()]).sum::<usize>();
        if needed < node.outputs.iter().map(|&t| values(t)).sum() {
            node.outputs.iter().for_each(|t| needs[t.index()] = needed);
            chosen.push(n);
        }
    }
    chosen
}

fn is_forward(graph: &Graph, n: NodeId) -> bool {
    graph.node(n).section == Section::Forward
}

/// Forward nodes of each block between two checkpoints. A checkpoint is a forward value that every path passes (the residual stream between
/// two layers of additions); it is kept, so its own node is in no block. Each block holds the nodes of `stride` such stretches; the
/// first and the last stretch (embedding, head) are left out.
pub fn blocks(graph: &Graph, stride: usize) -> Vec<Vec<NodeId>> {
    let forward: Vec<NodeId> = graph.node_ids().filter(|&n| is_forward(graph, n)).collect();
    // Last forward reader of each value, as a position in `forward`.
    let mut last = vec![0usize; graph.tensors.len()];
    for (i, &n) in forward.iter().enumerate() {
        graph.node(n).operands.iter().filter(|t| graph.producer(**t).is_some()).for_each(|t| last[t.index()] = i);
    }
    // A cut after position i: exactly one value produced at or before i is read after i.
    let mut cuts = Vec::new();
    let mut open: Vec<TensorId> = Vec::new();
    for (i, &n) in forward.iter().enumerate() {
        open.extend(&graph.node(n).outputs);
        open.retain(|t| last[t.index()] > i);
        if open.len() == 1 && graph.node(n).outputs.contains(&open[0]) {
            cuts.push(i);
        }
    }
    let ends: Vec<usize> = cuts.iter().copied().step_by(stride.max(1)).collect();
    let readers = graph.readers();
    let saved = |n: &NodeId| {
        let mut readers = graph.node(*n).outputs.iter().flat_map(|t| &readers[t.index()]);
        readers.any(|&(r, _)| graph.node(r).section == Section::Backward)
    };
    let stretches = ends.windows(2).map(|w| forward[w[0] + 1..w[1]].to_vec());
    stretches.filter(|block| block.iter().any(saved)).collect()
}

/// The graph in which backward recomputes the results of `nodes` (forward nodes) that it reads.
pub fn recompute(graph: &Graph, nodes: &[NodeId]) -> Graph {
    let mut chosen = vec![false; graph.nodes.len()];
    nodes.iter().for_each(|n| chosen[n.index()] = true);
    let mut out = graph.clone();
    let mut order: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    // What stands for a forward result in backward, once it is recomputed.
    let mut again: HashMap<TensorId, TensorId> = HashMap::new();
    for n in graph.node_ids() {
        if graph.node(n).section == Section::Backward {
            let operands = graph.node(n).operands.clone();
            let replaced =
                operands.iter().map(|&t| fresh(&mut out, graph, &chosen, &mut again, &mut order, t)).collect();
            out.nodes[n.index()].operands = replaced;
        }
        order.push(n);
    }
    out.reordered(&order)
}

/// The tensor that backward reads instead of `t`: a clone's output when its producer is chosen, else `t` itself.
fn fresh(
    out: &mut Graph,
    graph: &Graph,
    chosen: &[bool],
    again: &mut HashMap<TensorId, TensorId>,
    order: &mut Vec<NodeId>,
    t: TensorId,
) -> TensorId {
    if let Some(&clone) = again.get(&t) {
        return clone;
    }
    let Some(producer) = graph.producer(t).filter(|n| chosen.get(n.index()) == Some(&true)) else { return t };
    let original = graph.node(producer);
    let operands = original.operands.iter().map(|&o| fresh(out, graph, chosen, again, order, o)).collect();
    let clone = Node {
        name: format!("{}.again", original.name),
        operands,
        outputs: Vec::new(),
        section: Section::Backward,
        recomputed: true,
        ..original.clone()
    };
    order.push(NodeId(out.nodes.len() as u32));
    let types = original.outputs.iter().map(|&o| graph.ty(o).clone()).collect();
    let outputs = out.add_node(clone, types);
    for (&o, &c) in original.outputs.iter().zip(&outputs) {
        out.tensors[c.index()].name = format!("{}.again", graph.tensor(o).name);
        again.insert(o, c);
    }
    again[&t]
}
