//! In-place aliasing: which outputs are written over one of their operands.

use crate::graph::{Graph, TensorId, TensorKind};
use crate::ops;
use crate::tensor::RowExtent;

/// For each tensor, the operand of its producer whose memory it takes over.
pub type Aliases = Vec<Option<TensorId>>;

/// No aliasing beyond what ops demand.
pub fn required(graph: &Graph) -> Aliases {
    let mut aliases = vec![None; graph.tensors.len()];
    for node in &graph.nodes {
        let Some(op) = ops::find(&node.op) else { continue };
        let sig = ops::build::signature(graph, node);
        for (o, t) in node.outputs.iter().enumerate() {
            aliases[t.index()] = op.must_alias(&sig, o).map(|i| node.operands[i]);
        }
    }
    aliases
}

/// Aliases every output that may legally take over the memory of an operand, first fit in operand order.
pub fn choose(graph: &Graph) -> Aliases {
    let mut aliases = required(graph);
    let last_reader = last_readers(graph);
    for (n, node) in graph.nodes.iter().enumerate() {
        let op = ops::find(&node.op).expect("the graph was checked");
        let sig = ops::build::signature(graph, node);
        let mut taken: Vec<TensorId> = node.outputs.iter().filter_map(|t| aliases[t.index()]).collect();
        for (o, &output) in node.outputs.iter().enumerate() {
            if aliases[output.index()].is_some() {
                continue;
            }
            let fit = node.operands.iter().enumerate().find(|&(i, &operand)| {
                op.may_alias(&sig, i, o)
                    && legal(graph, operand, output)
                    && last_reader[operand.index()] == Some(n)
                    && !taken.contains(&operand)
                    && node.operands.iter().filter(|&&t| t == operand).count() == 1
            });
            if let Some((_, &operand)) = fit {
                aliases[output.index()] = Some(operand);
                taken.push(operand);
            }
        }
    }
    aliases
}

/// Whether the two tensors may share memory as far as their kinds, extents and sizes say.
pub fn legal(graph: &Graph, operand: TensorId, output: TensorId) -> bool {
    let (a, b) = (graph.tensor(operand), graph.tensor(output));
    matches!(a.kind, TensorKind::Value(_))
        && a.ty.extent == b.ty.extent
        && a.ty.extent != RowExtent::Kept
        && a.ty.dtype == b.ty.dtype
        && a.ty.shape.elements() == b.ty.shape.elements()
        && graph.outputs.iter().all(|&(_, t)| t != operand)
}

/// Index of the last node that reads each tensor.
pub fn last_readers(graph: &Graph) -> Vec<Option<usize>> {
    let mut last = vec![None; graph.tensors.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        node.operands.iter().for_each(|t| last[t.index()] = Some(n));
    }
    last
}
