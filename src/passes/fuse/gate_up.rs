//! silu(linear(x, W₁)) · linear(x, W₂) becomes one linear with two weights.

use super::{Uses, plain_linear_before, silu_before};
use crate::graph::{Attr, Graph, NodeId, TensorId};

/// The plain linear under `silu`, when only the product reads that.
fn gate(graph: &Graph, uses: &Uses, t: TensorId) -> Option<NodeId> {
    plain_linear_before(graph, uses, silu_before(graph, uses, t)?)
}

pub(super) fn run(graph: &mut Graph) {
    let uses = Uses::of(graph);
    for n in graph.node_ids() {
        let node = graph.node(n);
        if node.op != "mul" {
            continue;
        }
        let &[a, b] = node.operands.as_slice() else { continue };
        let pair = |g: TensorId, u: TensorId| Some((gate(graph, &uses, g)?, plain_linear_before(graph, &uses, u)?));
        let Some((gate, up)) = pair(a, b).or_else(|| pair(b, a)) else { continue };
        let (gate, up) = (graph.node(gate), graph.node(up));
        let same = |name: &str| gate.attrs.get(name) == up.attrs.get(name);
        if gate.operands[0] != up.operands[0]
            || !["layout", "bias", "out"].iter().all(|a| same(a))
            || gate.operands.len() != up.operands.len()
        {
            continue;
        }
        let mut operands = vec![gate.operands[0]];
        (1..gate.operands.len()).for_each(|i| operands.extend([gate.operands[i], up.operands[i]]));
        let attrs = gate.attrs.clone().with("weights", Attr::Int(2)).with("activation", Attr::Str("swiglu".into()));
        let name = format!("{}.swiglu", gate.name);
        graph.rewrite(n, "linear", name, operands, attrs);
    }
}
