//! Aliases of a plan: each must be legal, and those that ops demand must be there.

use super::broken;
use crate::error::Result;
use crate::graph::{Graph, TensorId, TensorKind};
use crate::ops;
use crate::plan::{Plan, buffers::tensor_bytes};
use crate::tensor::RowExtent;

/// Whether the content of one tensor may stand where that of another stood: both are results of nodes that live within one call, of one type and
/// row extent, and the caller does not read the first. Written without the pass that chooses aliases, so that they share no mistake.
fn interchangeable(graph: &Graph, before: TensorId, after: TensorId) -> bool {
    let (a, b) = (&graph.tensors[before.index()], &graph.tensors[after.index()]);
    let computed = |kind: &TensorKind| matches!(kind, TensorKind::Value(_));
    computed(&a.kind)
        && computed(&b.kind)
        && (a.ty.dtype, a.ty.extent) == (b.ty.dtype, b.ty.extent)
        && a.ty.shape.elements() == b.ty.shape.elements()
        && b.ty.extent != RowExtent::Kept
        && !graph.outputs.iter().any(|(_, result)| *result == before)
}

/// An alias is legal when the op allows it, the operand's whole chain is dead afterwards, and the sizes agree.
pub(super) fn check(plan: &Plan) -> Result<()> {
    let graph = &plan.graph;
    let mut last_use = vec![0usize; graph.tensors.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        node.operands.iter().for_each(|t| last_use[t.index()] = n);
    }
    graph.outputs.iter().for_each(|(_, t)| last_use[t.index()] = graph.nodes.len());
    for t in graph.tensor_ids() {
        let illegal = |why: &str| {
            let over =
                plan.aliases[t.index()].map_or("nothing", |o| graph.tensors.get(o.index()).map_or("?", |x| &x.name));
            Err(broken(format!("alias of '{}' on '{over}' is not legal: {why}", graph.tensor(t).name)))
        };
        let Some(operand) = plan.aliases[t.index()] else { continue };
        let Some(producer) = graph.producer(t) else { return illegal("it is not computed by a node") };
        let node = graph.node(producer);
        let Some(position) = node.operands.iter().position(|&o| o == operand) else {
            return illegal("it is not an operand of the node");
        };
        let output = node.outputs.iter().position(|&o| o == t).expect("the graph was verified");
        let sig = ops::build::signature(graph, node);
        let op = ops::find(&node.op).expect("the graph was checked");
        let must = op.must_alias(&sig, output) == Some(position);
        if !must && !op.may_alias(&sig, position, output) {
            return illegal("the op does not allow it");
        }
        if !must && !interchangeable(graph, operand, t) {
            return illegal("kinds, extents or sizes differ");
        }
        if tensor_bytes(graph.ty(operand), &plan.capacity)? != tensor_bytes(graph.ty(t), &plan.capacity)? {
            return illegal("sizes differ");
        }
        if last_use[operand.index()] > producer.index() {
            return illegal("the operand is still read later");
        }
        if node.operands.iter().filter(|&&o| o == operand).count() > 1 {
            return illegal("the node reads the operand twice");
        }
        let twin = graph.tensor_ids().any(|u| u != t && plan.aliases[u.index()] == Some(operand));
        if twin {
            return illegal("another tensor takes over the same operand");
        }
    }
    for (n, node) in graph.nodes.iter().enumerate() {
        let sig = ops::build::signature(graph, node);
        let op = ops::find(&node.op).expect("the graph was checked");
        for (o, t) in node.outputs.iter().enumerate() {
            if let Some(i) = op.must_alias(&sig, o)
                && plan.aliases[t.index()] != Some(node.operands[i])
            {
                return Err(broken(format!("'{}' must share the memory of its operand {i}", node.name)));
            }
        }
        for (i, &t) in node.operands.iter().enumerate() {
            let writes_value = op.mutates(&sig, i);
            if writes_value
                && last_use[t.index()] > n
                && matches!(graph.tensor(t).kind, TensorKind::Param(_) | TensorKind::Value(_))
            {
                return Err(broken(format!(
                    "'{}' updates '{}', which is still read later",
                    node.name,
                    graph.tensor(t).name
                )));
            }
        }
    }
    Ok(())
}
