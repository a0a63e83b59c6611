//! `--memory-budget`: chooses what to recompute so that a training plan fits, with the least extra arithmetic.

use super::{Plan, Totals, draft::Draft};
use crate::error::{Error, Result};
use crate::graph::{Attr, Graph, NodeId, RowSpace, Section};
use crate::ops::{self, Capacity, ROW_TILE};
use crate::passes::{Fusions, Mode, fuse_optimizer, recompute};
use rayon::prelude::*;

/// Whether the optimiser runs inside backward, which frees each gradient at once and excludes clipping and accumulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FuseOptimizer {
    /// No.
    Never,
    /// Yes.
    Always,
    /// Where it saves arithmetic that recomputing would cost.
    WhereItHelps,
}

/// One choice of what backward recomputes.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// In words: `keep everything`, `norms and activations`, `norms and activations, 3 of 12 blocks`, …
    pub name: String,
    /// Bytes of activations, gradients and scratch: the arena without parameters, moments and inputs. Of a choice that was not placed, the
    /// most bytes live at one step, which placement nearly always reaches.
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

/// Most rows of a chunk of logits in a frugal plan.
const FRUGAL_CHUNK: usize = 2 * ROW_TILE;

/// Rows of the longest chunk of logits in a graph.
fn head_chunk(graph: &Graph) -> usize {
    let heads = graph.nodes.iter().filter(|n| n.op == "cross_entropy_head");
    heads.filter_map(|n| ops::head_chunk_rows(&ops::build::signature(graph, n))).max().unwrap_or(0)
}

fn set_head_chunk(graph: &mut Graph, rows: usize) {
    graph.nodes.iter_mut().filter(|n| n.op == "cross_entropy_head").for_each(|n| {
        n.attrs.set("chunk_rows", Attr::Int(rows as i64));
    });
}

/// Plans a training graph (the result of [`crate::passes::train`]) in little memory at hardly any cost: backward recomputes norms and
/// activations but no product, and chunks of logits are short.
///
/// # Errors
/// As [`super::compile`].
pub fn frugal(graph: &Graph, capacity: Capacity) -> Result<Plan> {
    let mut graph = recompute::recompute(graph, &recompute::cheap_nodes(graph));
    if head_chunk(&graph) > FRUGAL_CHUNK {
        set_head_chunk(&mut graph, FRUGAL_CHUNK);
    }
    Draft::new(graph, Mode::Train, capacity, Fusions::ALL)?.place()
}

/// What may be recomputed, in words and as nodes.
type Candidate = (String, Vec<NodeId>);

/// What may be recomputed: nothing, cheap ops, those and more and more blocks, those and coarser blocks.
fn candidates(graph: &Graph) -> Vec<Candidate> {
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

/// A candidate, drafted.
struct Drafted {
    draft: Draft,
    choice: Choice,
}

/// Drafts what recomputes `nodes`; with shorter chunks of logits when it would not fit `budget` otherwise.
fn draft(graph: &Graph, capacity: Capacity, budget: u64, workers: usize, (name, nodes): &Candidate) -> Result<Drafted> {
    let lowered = recompute::recompute(graph, nodes);
    let extra = extra(&lowered, &capacity);
    let mut draft = Draft::new(lowered, Mode::Train, capacity, Fusions::ALL)?;
    // Shorter chunks of logits give the same bits; they only cost speed.
    let mut chunk = head_chunk(draft.graph());
    while draft.least_bytes(workers) > budget && chunk > ROW_TILE {
        chunk = chunk.div_ceil(2).next_multiple_of(ROW_TILE);
        draft = draft.changed(|graph| set_head_chunk(graph, chunk))?;
    }
    let choice = Choice { name: name.clone(), bytes: draft.least_bytes(workers), extra };
    Ok(Drafted { draft, choice })
}

/// The graphs to choose from, each with what its choices' names end in.
fn variants(graph: Graph, fuse: FuseOptimizer) -> Result<Vec<(Graph, &'static str)>> {
    Ok(match fuse {
        FuseOptimizer::Never => vec![(graph, "")],
        FuseOptimizer::Always => vec![(fuse_optimizer::run(graph)?, "")],
        FuseOptimizer::WhereItHelps => {
            vec![(graph.clone(), ""), (fuse_optimizer::run(graph)?, ", optimiser inside backward")]
        }
    })
}

/// Plans a training graph (the result of [`crate::passes::train`]) so that activations, gradients and the scratch of `workers` workers take
/// at most `budget` bytes. All candidates are drafted; placed and verified is the one with the least extra arithmetic that fits.
///
/// # Errors
/// When no choice fits: the smallest budget that would, and what is in the way.
pub fn fit(graph: Graph, capacity: Capacity, budget: u64, workers: usize, fuse: FuseOptimizer) -> Result<Budgeted> {
    let variants = variants(graph, fuse)?;
    let mut tasks: Vec<(&Graph, Candidate)> = Vec::new();
    for (graph, ending) in &variants {
        tasks.extend(candidates(graph).into_iter().map(|(name, nodes)| (graph, (name + ending, nodes))));
    }
    let drafts: Result<Vec<Drafted>> =
        tasks.par_iter().map(|(graph, candidate)| draft(graph, capacity, budget, workers, candidate)).collect();
    let mut drafts = drafts?;
    drafts.sort_by(|a, b| a.choice.extra.total_cmp(&b.choice.extra));
    let mut curve: Vec<Choice> = drafts.iter().map(|d| d.choice.clone()).collect();
    let mut smallest: Option<(u64, String)> = None;
    let least = curve.iter().map(|c| c.bytes).min().unwrap_or(0);
    // A placement may end above the bound, so the first that fits by its bound is not always the answer.
    for (i, Drafted { draft, choice }) in drafts.into_iter().enumerate() {
        if choice.bytes > budget.max(least) {
            continue;
        }
        let peak = draft.peak();
        let plan = draft.place()?;
        curve[i].bytes = budgeted_bytes(&plan.totals, workers);
        if curve[i].bytes <= budget {
            return Ok(Budgeted { plan, choice: curve[i].clone(), curve });
        }
        if smallest.as_ref().is_none_or(|(bytes, _)| curve[i].bytes < *bytes) {
            smallest = Some((curve[i].bytes, peak));
        }
    }
    let (bytes, peak) = smallest.expect("there is always a candidate, and the least is placed");
    Err(Error::Plan(format!(
        "nothing fits --memory-budget {budget} B; the smallest that would is {bytes} B. In the way is {peak}"
    )))
}
