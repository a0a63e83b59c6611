//! gelu(linear(x)), gelu_table(linear(x)) and silu(linear(x)) become one linear.

use super::{Uses, plain_linear_before};
use crate::graph::{Attr, Graph};

pub(super) fn run(graph: &mut Graph) {
    let uses = Uses::of(graph);
    for n in graph.node_ids() {
        let node = graph.node(n);
        if !["gelu", "gelu_table", "silu"].contains(&node.op.as_str()) {
            continue;
        }
        let Some(linear) = plain_linear_before(graph, &uses, node.operands[0]) else { continue };
        let attrs = graph.node(linear).attrs.clone().with("activation", Attr::Str(node.op.clone()));
        let (operands, name) = (graph.node(linear).operands.clone(), graph.node(linear).name.clone());
        graph.rewrite(n, "linear", format!("{name}.{}", graph.node(n).op), operands, attrs);
    }
}
