//! Products of one input side by side: linear(x, q), linear(x, k), linear(x, v) become one linear with several weights and outputs.

use super::is_plain_linear;
use crate::graph::{Attr, Graph, NodeId, TensorId, TensorKind};

/// Most weights of one node.
const MOST: usize = 8;

pub(super) fn run(graph: &mut Graph) {
    let mut done = vec![false; graph.nodes.len()];
    for first in graph.node_ids() {
        if done[first.index()] || !is_plain_linear(graph.node(first)) || graph.node(first).attrs.get("split").is_some()
        {
            continue;
        }
        let mut group = vec![first];
        let head = graph.node(first);
        for n in graph.node_ids().skip(first.index() + 1) {
            let node = graph.node(n);
            let same = |name: &str| node.attrs.get(name) == head.attrs.get(name);
            let joins = is_plain_linear(node)
                && node.operands[0] == head.operands[0]
                && node.operands.len() == head.operands.len()
                && node.attrs.get("split").is_none()
                && ["layout", "bias"].iter().all(|a| same(a));
            if joins && group.len() < MOST {
                group.push(n);
            }
        }
        if group.len() > 1 {
            group.iter().for_each(|n| done[n.index()] = true);
            join(graph, &group);
        }
    }
}

/// The first node of the group computes everything; the others lose their outputs to it and die.
fn join(graph: &mut Graph, group: &[NodeId]) {
    let first = graph.node(group[0]);
    let width = |t: TensorId| graph.ty(t).shape.elements() as i64;
    let outputs: Vec<TensorId> = group.iter().map(|&n| graph.node(n).outputs[0]).collect();
    let split: Vec<i64> = outputs.iter().map(|&t| width(t)).collect();
    let mut operands = vec![first.operands[0]];
    (1..first.operands.len()).for_each(|i| operands.extend(group.iter().map(|&n| graph.node(n).operands[i])));
    let mut attrs = first.attrs.clone().with("weights", Attr::Int(group.len() as i64)).with("split", Attr::Ints(split));
    attrs.0.remove("out");
    let node = &mut graph.nodes[group[0].index()];
    node.operands = operands;
    node.attrs = attrs;
    node.outputs.clone_from(&outputs);
    for t in outputs {
        graph.tensors[t.index()].kind = TensorKind::Value(group[0]);
    }
    for n in &group[1..] {
        graph.nodes[n.index()].outputs.clear();
    }
}
