//! x + linear(y) becomes one linear that adds x last.

use super::{Uses, plain_linear_before};
use crate::graph::{Attr, Graph, TensorId};

pub(super) fn run(graph: &mut Graph) {
    let uses = Uses::of(graph);
    for n in graph.node_ids() {
        let node = graph.node(n);
        let &[a, b] = node.operands.as_slice() else { continue };
        if node.op != "add" || a == b {
            continue;
        }
        let side =
            |sum: TensorId, other: TensorId| plain_linear_before(graph, &uses, sum).map(|linear| (linear, other));
        let Some((linear, residual)) = side(b, a).or_else(|| side(a, b)) else { continue };
        let linear = graph.node(linear);
        let mut operands = linear.operands.clone();
        operands.push(residual);
        let attrs = linear.attrs.clone().with("residual", Attr::Bool(true));
        let name = linear.name.clone();
        graph.rewrite(n, "linear", format!("{name}.residual"), operands, attrs);
    }
}
