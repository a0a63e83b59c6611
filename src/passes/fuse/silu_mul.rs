//! silu(gate) · up becomes one node, where the product of training keeps its linears apart.

use super::{Uses, silu_before};
use crate::graph::{Attrs, Graph, TensorId};

pub(super) fn run(graph: &mut Graph) {
    let uses = Uses::of(graph);
    for n in graph.node_ids() {
        let node = graph.node(n);
        if node.op != "mul" {
            continue;
        }
        let &[a, b] = node.operands.as_slice() else { continue };
        let gate = |t: TensorId| silu_before(graph, &uses, t);
        let Some(operands) = gate(a).map(|g| vec![g, b]).or_else(|| gate(b).map(|g| vec![g, a])) else { continue };
        let name = node.name.clone();
        graph.rewrite(n, "silu_mul", name, operands, Attrs::new());
    }
}
