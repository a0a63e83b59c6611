//! How many transient bytes each pass saved, from memory of its own for every tensor to the finished arena.
//!
//! A plan holds only its final graph; earlier stages are rebuilt from it. Recomputed nodes are folded back into what they repeat,
//! the written order follows from the numbers of tensors, and aliases are taken back to those that ops demand.

use crate::graph::{Graph, NodeId, TensorId, TensorKind, verify};
use crate::passes::alias::{self, Aliases};
use crate::passes::schedule;
use crate::plan::{ALIGN, Plan, buffers, draft::Draft, placement};
use crate::tensor::RowExtent;
use serde::Serialize;
use std::collections::HashMap;

/// One stage of the waterfall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// `naive`, `lifespans`, `in-place`, `order`, `recomputation` or `placement`.
    pub name: &'static str,
    /// Transient bytes after this stage: a sum for `naive`, the highest load for those between, the placed size for the last.
    pub bytes: u64,
    /// What the stage saved; negative where it costs bytes, as placement does when the arena ends above the highest load.
    pub saved: i64,
}

/// The stages of a verified plan, in order.
pub(super) fn stages(plan: &Plan) -> Vec<Stage> {
    let folded = fold_recomputed(&plan.graph);
    let recomputes = folded.nodes.len() < plan.graph.nodes.len();
    let written = written_order(&folded);
    let final_load = plan.totals.max_load;
    let load = |graph: &Graph, aliases: &Aliases| peak_load(plan, graph, aliases).unwrap_or(final_load);
    // Recomputation changes which order is best, so the best one without it is looked for again.
    let ordered = load(&folded, &alias::choose(&folded));
    let ordered = match recomputes {
        true => Draft::in_best_order(written.clone(), plan.mode, plan.capacity).map_or(ordered, |best| {
            let best = best.into_graph();
            ordered.min(load(&best, &alias::choose(&best)))
        }),
        false => ordered,
    };
    let alone = transient(plan, &folded, &alone(&folded));
    let naive = alone.map_or(final_load, |all| all.iter().map(|b| b.size).sum());
    let bytes = [
        ("naive", naive),
        ("lifespans", load(&written, &alias::required(&written))),
        ("in-place", load(&written, &alias::choose(&written))),
        ("order", ordered),
        ("recomputation", final_load),
        ("placement", plan.totals.transient),
    ];
    let mut before = bytes[0].1;
    let stage = |(name, bytes): (&'static str, u64)| {
        let saved = before as i64 - bytes as i64;
        before = bytes;
        Stage { name, bytes, saved }
    };
    bytes.into_iter().map(stage).collect()
}

/// Every tensor in memory of its own, but for what updates persistent memory in place.
fn alone(graph: &Graph) -> Aliases {
    let required = alias::required(graph);
    let outlives_call = |t| {
        let tensor = graph.tensor(buffers::root(&required, t));
        !matches!(tensor.kind, TensorKind::Value(_)) || tensor.ty.extent == RowExtent::Kept
    };
    graph.tensor_ids().map(|t| required[t.index()].filter(|_| outlives_call(t))).collect()
}

/// Highest load of a graph with the sizes of the plan.
fn peak_load(plan: &Plan, graph: &Graph, aliases: &Aliases) -> Option<u64> {
    Some(placement::max_load(&transient(plan, graph, aliases)?))
}

/// Transient buffers of a graph with the sizes of the plan.
fn transient(plan: &Plan, graph: &Graph, aliases: &Aliases) -> Option<Vec<placement::Buffer>> {
    let layout = buffers::layout(graph, plan.mode, &plan.capacity, aliases).ok()?;
    let transient = layout.buffers.iter().filter(|b| !b.kind.is_persistent());
    let padded =
        transient.map(|b| placement::Buffer::new(b.lower.into(), b.upper.into(), b.size.next_multiple_of(ALIGN)));
    Some(padded.collect())
}

/// The graph without recomputed nodes: what they computed again is read from the node that they repeat.
pub(super) fn fold_recomputed(graph: &Graph) -> Graph {
    if graph.nodes.iter().all(|n| !n.recomputed) {
        return graph.clone();
    }
    let mut same: Vec<TensorId> = graph.tensor_ids().collect();
    let mut first: HashMap<(String, Vec<TensorId>), NodeId> = HashMap::new();
    let mut folded = graph.clone();
    let mut order = Vec::new();
    for n in graph.node_ids() {
        let node = &mut folded.nodes[n.index()];
        node.operands.iter_mut().for_each(|t| *t = same[t.index()]);
        let key = (format!("{} {:?}", node.op, node.attrs), node.operands.clone());
        match first.get(&key) {
            Some(original) if graph.node(n).recomputed => {
                let outputs = graph.node(*original).outputs.iter().zip(&graph.node(n).outputs);
                outputs.for_each(|(&original, clone)| same[clone.index()] = original);
            }
            _ => {
                first.entry(key).or_insert(n);
                order.push(n);
            }
        }
    }
    folded.outputs.iter_mut().for_each(|(_, t)| *t = same[t.index()]);
    let folded = folded.reordered(&order);
    if verify::verify(&folded).is_ok() { folded } else { graph.clone() }
}

/// The graph in the order of its tensors' numbers, as far as operands and updates in place allow.
pub(super) fn written_order(graph: &Graph) -> Graph {
    let key = |n: &NodeId| {
        let node = graph.node(*n);
        let first = node.outputs.iter().map(|t| t.0).min().unwrap_or(u32::MAX);
        (node.section, first, *n)
    };
    let order = schedule::topological(graph, |ready| ready.iter().copied().min_by_key(key));
    if order.len() == graph.nodes.len() { graph.reordered(&order) } else { graph.clone() }
}
