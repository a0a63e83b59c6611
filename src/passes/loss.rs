//! From a graph that gives logits to one that gives the loss of each row: the head becomes `cross_entropy_head`.

use crate::error::{Error, Result};
use crate::graph::{Attr, Attrs, Graph, Node, NodeId, Section};
use crate::ops::{self, hyper};
use crate::tensor::{DType, RowExtent, Shape};

/// Result of a graph with a loss: cross-entropy of each row, in nats.
pub const LOSSES: &str = "losses";
/// Input of a graph with a loss: the token that follows each row, −100 for none.
pub const TARGETS: &str = "targets";

/// Replaces the head and gives dropout its run-time inputs.
///
/// # Errors
/// When the graph has no result `logits`, or something else than a plain `linear` without bias makes it.
pub fn attach(graph: &Graph) -> Result<Graph> {
    let refuse = |message: &str| Error::Plan(format!("cannot train this graph: {message}"));
    let logits = graph.output("logits").ok_or_else(|| refuse("it has no result 'logits'"))?;
    let head = graph.producer(logits).ok_or_else(|| refuse("its logits are not computed"))?;
    let node = graph.node(head);
    let plain = node.op == "linear" && node.operands.len() == 2 && node.outputs.len() == 1;
    if !plain {
        return Err(refuse("its logits must come from a linear op without bias"));
    }
    if graph.nodes.iter().any(|n| n.operands.contains(&logits)) {
        return Err(refuse("its logits are used by another op"));
    }
    let order: Vec<NodeId> = graph.node_ids().filter(|&n| n != head).collect();
    let (x, weight, attrs, name) = (node.operands[0], node.operands[1], node.attrs.clone(), node.name.clone());
    // Tensors keep their keys while the head is taken out of the list of nodes: it is replaced where it stands.
    let mut out = graph.clone();
    let (hyper_input, counters) = (hyper::hyper(&mut out), hyper::counters(&mut out));
    let targets = out.add_input(TARGETS, DType::I32, RowExtent::Step, Shape::new([1]));
    for (number, &n) in order.iter().filter(|&&n| graph.node(n).op == "dropout").enumerate() {
        let node = &mut out.nodes[n.index()];
        node.operands.truncate(1);
        node.operands.extend([hyper_input, counters]);
        node.attrs.set("node", Attr::Int(number as i64));
    }
    let mut of_head = Attrs::new();
    for name in ["layout", "precision"] {
        if let Some(value) = attrs.get(name) {
            of_head.set(name, value.clone());
        }
    }
    let op = ops::find("cross_entropy_head").expect("the op is in the registry");
    let losses =
        ops::build::add(&mut out, op, name + ".loss", vec![x, weight, targets, hyper_input], of_head, Section::Forward);
    let losses = losses.map_err(|e| refuse(&e))?[0];
    out.outputs = vec![(LOSSES.to_string(), losses)];
    let all: Vec<NodeId> = out.node_ids().filter(|&n| n != head).collect();
    Ok(out.reordered(&all))
}

/// Whether a node is differentiated from: its op is a loss.
pub fn is_loss(node: &Node) -> bool {
    ops::find(&node.op).is_some_and(|op| op.is_loss())
}
