//! Graph rewrites, one file each. [`lower`] is the whole order, in one readable place; the graph is verified after each pass.

pub mod alias;
pub mod autodiff;
pub mod dead_code;
pub mod dropout;
pub mod fuse;
pub mod fuse_optimizer;
pub mod kept_type;
pub mod lora;
pub mod loss;
pub mod optimizer;
pub mod recompute;
pub mod rows;
pub mod schedule;
pub mod storage;

use crate::error::{Error, Result};
use crate::graph::{Graph, verify::verify};
use crate::ops;
pub use fuse::Fusions;
use serde::{Deserialize, Serialize};

/// How much an inference plan keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Only what later rows read is kept for all rows; everything else is sized for the rows of one call.
    Compact,
    /// Every activation keeps all rows, so that skipping can be switched off per op (the published ablation).
    Full,
}

/// What the plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Forward only, row-skipping between calls.
    Infer(Layout),
    /// Forward, backward and optimiser on full sequences.
    Train,
}

/// What a training graph holds beside the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Training {
    /// Gradients add up over micro-batches in persistent memory.
    pub accumulate: bool,
    /// The optimiser; without, a step ends with the gradients.
    pub optimizer: Option<optimizer::AdamW>,
    /// Gradients stay readable after the step as results `grad.NAME`. With accumulation the optimiser zeroes them, so that they are
    /// readable before it only, as states.
    pub keep_gradients: bool,
    /// Factors of matrix products are rounded to bf16; sums, parameters and everything else stay f32.
    pub bf16: bool,
}

/// Makes a training graph of a graph that gives logits: loss, gradients, optimiser. Compile the result with [`Mode::Train`].
///
/// # Errors
/// What a pass refuses.
pub fn train(graph: &Graph, training: &Training) -> Result<Graph> {
    let accumulation = if training.accumulate { autodiff::Accumulation::On } else { autodiff::Accumulation::Off };
    let mut graph = graph.clone();
    if training.bf16 {
        graph = storage::round_products(graph);
    }
    let mut graph = loss::attach(&graph)?;
    // Adapters are trained in little memory, where SiLU(gate) would be computed again for backward; elsewhere it is kept.
    if graph.params().any(|p| graph.param(p).is_some_and(|info| !info.trainable)) {
        graph = fuse::before_differentiation(graph);
    }
    let mut graph = autodiff::differentiate(graph, accumulation)?;
    if let Some(adamw) = &training.optimizer {
        graph = optimizer::attach(graph, adamw, training.accumulate)?;
    }
    if training.optimizer.is_some() && (training.accumulate || !training.keep_gradients) {
        graph.outputs.retain(|(name, _)| !name.starts_with(autodiff::GRADIENT));
    }
    Ok(graph)
}

/// A pass: its name and what it does.
type Pass<'a> = (&'static str, Box<dyn Fn(Graph) -> Result<Graph> + 'a>);

/// Lowers a graph as a spec wrote it into the graph that is planned and executed.
///
/// # Errors
/// What a pass refuses, or a broken invariant with the name of the pass that broke it.
pub fn lower(graph: Graph, mode: Mode, fusions: Fusions) -> Result<Graph> {
    // The full layout exists to switch single ops on and off, so nothing is fused there.
    let fusions = if mode == Mode::Infer(Layout::Compact) { fusions } else { Fusions::NONE };
    let passes: Vec<Pass> = vec![
        ("dead code", Box::new(|g| Ok(dead_code::eliminate(&g)))),
        ("dropout", Box::new(move |g| Ok(if mode == Mode::Train { g } else { dropout::remove(g) }))),
        ("fusion", Box::new(move |g| Ok(fuse::fuse(g, fusions)))),
        ("storage", Box::new(move |g| Ok(storage::assign(g, mode)))),
        ("rows", Box::new(move |g| rows::assign(g, mode))),
    ];
    check(&graph).map_err(|e| Error::Plan(format!("before the passes: {e}")))?;
    passes.into_iter().try_fold(graph, |graph, (name, pass)| {
        let graph = pass(graph)?;
        check(&graph).map_err(|e| Error::Plan(format!("after pass '{name}': {e}")))?;
        Ok(graph)
    })
}

/// Checks the invariants of the graph and re-runs every shape rule.
///
/// # Errors
/// The first thing that does not hold, with the node's name. A graph read from a file goes through here first.
pub fn check(graph: &Graph) -> Result<()> {
    verify(graph)?;
    for node in &graph.nodes {
        let refuse = |message: String| Error::Shape { op: node.op.clone(), node: node.name.clone(), message };
        let op = ops::find(&node.op).ok_or_else(|| refuse("unknown op".into()))?;
        let sig = ops::build::signature(graph, node);
        let inferred = op.infer(&sig.attrs, &sig.operands).map_err(refuse)?;
        let same = inferred.len() == sig.outputs.len()
            && inferred.iter().zip(&sig.outputs).all(|(a, b)| a.dtype == b.dtype && a.shape == b.shape);
        if !same {
            let list = |types: &[crate::tensor::TensorType]| {
                types.iter().map(|t| format!("{} {}", t.dtype, t.shape)).collect::<Vec<_>>().join(", ")
            };
            return Err(refuse(format!(
                "has outputs {}, but its shape rule gives {}",
                list(&sig.outputs),
                list(&inferred)
            )));
        }
    }
    rows::check(graph)
}
