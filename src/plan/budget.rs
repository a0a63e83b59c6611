//! `--memory-budget`: chooses what to recompute so that a training plan fits, with the least extra arithmetic.

use super::{Plan, Totals, compile};
use crate::error::{Error, Result};
use crate::graph::{Attr, Graph, NodeId, RowSpace, Section};
use crate::ops::{self, Capacity};
use crate::passes::{Mode, fuse_optimizer, recompute};

/// One choice of what backward recomputes.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// In words: `keep everything`, `norms and activations`, `norms and activations, 3 of 12 blocks`, …
    pub name: String,
    /// Bytes of activations, gradients and scratch: the arena without parameters, moments and inputs.
    pub bytes: u64,
    /// Arithmetic that is done twice, over the arithmetic of the step without recomputation.
    pub extra: f64,
}

/// A plan within a budget, and the curve it was chosen from.
pub struct Budgeted {
    /// The plan.
    pub plan: Plan,
    /// What it recomputes.
    pub choice: Choice,
    /// Every choice that was looked at, least arithmetic first.
    pub curve: Vec<Choice>,
}

/// Bytes that a budget limits: everything but what persists from step to step.
pub fn budgeted_bytes(totals: &Totals, workers: usize) -> u64 {
    totals.transient + totals.scratch_per_worker * workers as u64
}

/// Arithmetic of a node in a training step.
fn flops(graph: &Graph, n: NodeId, capacity: &Capacity) -> f64 {
    let node = graph.node(n);
    let rows = if node.space == RowSpace::Fixed { 1 } else { capacity.step_rows };
    ops::find(&node.op).map_or(0.0, |op| op.cost(&ops::build::signature(graph, node), rows, capacity.context).flops)
}

/// Extra arithmetic of recomputed nodes over that of the others.
fn extra(graph: &Graph, capacity: &Capacity) -> f64 {
    let sum = |again: bool| {
        let part =
            graph.node_ids().filter(|&n| graph.node(n).recomputed == again && graph.node(n).section != Section::Update);
        part.map(|n| flops(graph, n, capacity)).sum::<f64>()
    };
    sum(true).max(0.0) / sum(false).max(1.0)
}

/// Most counts of blocks that are tried, so that the answer comes at once for deep models too.
const COUNTS: usize = 12;

/// Rows of the shortest chunk of logits: one tile of rows.
const SMALLEST_CHUNK: i64 = crate::ops::ROW_TILE as i64;

/// What may be recomputed, in words and as nodes: nothing, cheap ops, those and more and more blocks, those and coarser blocks.
fn candidates(graph: &Graph) -> Vec<(String, Vec<NodeId>)> {
    let cheap = recompute::cheap_nodes(graph);
    let with_cheap = |blocks: &[Vec<NodeId>]| {
        let mut nodes: Vec<NodeId> = blocks.iter().flatten().chain(&cheap).copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    };
    let mut candidates =
        vec![("keep everything".to_string(), Vec::new()), ("norms and activations".to_string(), cheap.clone())];
    let blocks = recompute::blocks(graph, 1);
    let counts = COUNTS.min(blocks.len());
    for i in 1..=counts {
        // Early blocks first: their activations would be kept longest.
        let k = i * blocks.len() / counts;
        candidates.push((format!("norms and activations, {k} of {} blocks", blocks.len()), with_cheap(&blocks[..k])));
    }
    for stride in [2, 4] {
        let coarse = recompute::blocks(graph, stride);
        if !coarse.is_empty() {
            candidates.push((format!("norms and activations, all blocks in groups of {stride}"), with_cheap(&coarse)));
        }
    }
    candidates
}

/// Plans a training graph (the result of [`crate::passes::train`]) so that activations, gradients and the scratch of `workers` workers take
/// at most `budget` bytes.
///
/// # Errors
/// When no choice fits: the smallest budget that would, and the largest buffer in the way.
pub fn fit(graph: Graph, capacity: Capacity, budget: u64, workers: usize, fuse: bool) -> Result<Budgeted> {
    let graph = if fuse { fuse_optimizer::run(graph)? } else { graph };
    let mut curve = Vec::new();
    let mut best: Option<(Plan, Choice)> = None;
    let mut smallest: Option<(u64, String)> = None;
    for (name, nodes) in candidates(&graph) {
        let mut lowered = recompute::recompute(&graph, &nodes);
        let extra = extra(&lowered, &capacity);
        let mut plan = compile(lowered.clone(), Mode::Train, capacity)?;
        if budgeted_bytes(&plan.totals, workers) > budget {
            // Shorter chunks of logits give the same bits; they only cost speed.
            lowered.nodes.iter_mut().filter(|n| n.op == "cross_entropy_head").for_each(|n| {
                n.attrs.set("chunk_rows", Attr::Int(SMALLEST_CHUNK));
            });
            plan = compile(lowered, Mode::Train, capacity)?;
        }
        let choice = Choice { name, bytes: budgeted_bytes(&plan.totals, workers), extra };
        if smallest.as_ref().is_none_or(|(bytes, _)| choice.bytes < *bytes) {
            let largest = plan.buffers.iter().filter(|b| !b.kind.is_persistent()).max_by_key(|b| b.size);
            smallest = Some((choice.bytes, largest.map_or(String::new(), |b| format!("{} ({} B)", b.name, b.size))));
        }
        if choice.bytes <= budget && best.as_ref().is_none_or(|(_, b)| choice.extra < b.extra) {
            best = Some((plan, choice.clone()));
        }
        curve.push(choice);
    }
    curve.sort_by(|a, b| a.extra.total_cmp(&b.extra));
    match (best, smallest) {
        (Some((plan, choice)), _) => Ok(Budgeted { plan, choice, curve }),
        (None, Some((bytes, largest))) => Err(Error::Plan(format!(
            "nothing fits --memory-budget {budget} B; the smallest that would is {bytes} B, and the largest buffer in the way is {largest}"
        ))),
        (None, None) => unreachable!("there is always a candidate"),
    }
}
