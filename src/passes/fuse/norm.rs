//! linear(norm(x)) becomes one linear that normalises its rows first, where nothing else reads the norm.

use super::Uses;
use crate::graph::{Attr, Graph};

pub(super) fn run(graph: &mut Graph) {
    let uses = Uses::of(graph);
    for n in graph.node_ids() {
        let node = graph.node(n);
        if node.op != "linear" || node.attrs.get("norm").is_some() {
            continue;
        }
        let x = node.operands[0];
        let Some(producer) = graph.producer(x) else { continue };
        let norm = graph.node(producer);
        let kind = match norm.op.as_str() {
            "layer_norm" => "layer",
            "rms_norm" => "rms",
            _ => continue,
        };
        if uses.single(x).is_none() || norm.outputs.len() != 1 {
            continue;
        }
        let Some(eps) = norm.attrs.get("eps").cloned() else { continue };
        let mut operands = norm.operands.clone();
        operands.extend_from_slice(&node.operands[1..]);
        let attrs = node.attrs.clone().with("norm", Attr::Str(kind.into())).with("eps", eps);
        let node = &mut graph.nodes[n.index()];
        node.operands = operands;
        node.attrs = attrs;
    }
}
