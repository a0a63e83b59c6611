//! Appends the optimiser: norm of all gradients, then AdamW for each parameter, in place.

use super::autodiff::GRADIENT;
use crate::error::{Error, Result};
use crate::graph::{Attr, Attrs, Graph, Node, NodeId, Section, TensorId, TensorKind};
use crate::ops::{self, hyper};
use crate::tensor::DType;

/// Result that holds [norm of all gradients before clipping, factor applied to them].
pub const GRADIENT_NORM: &str = "gradient_norm";
/// Suffix of the first moment's name.
pub const FIRST_MOMENT: &str = ".first_moment";
/// Suffix of the second moment's name.
pub const SECOND_MOMENT: &str = ".second_moment";

/// Elements from which on a gradient is worth a step of its own for its norm.
const LARGE_GRADIENT: usize = 1 << 16;

/// Constants of AdamW that do not change during training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of the parameters that decay.
    pub weight_decay: f64,
    /// Whether moments are kept in bf16, rounded stochastically, instead of f32.
    pub bf16_moments: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, bf16_moments: false }
    }
}

/// Adds the nodes; `clear` zeroes each gradient after its use (gradients that accumulate).
///
/// # Errors
/// When nothing is trainable.
pub fn attach(mut graph: Graph, adamw: &AdamW, clear: bool) -> Result<Graph> {
    let gradients: Vec<(TensorId, TensorId)> = graph
        .params()
        .filter_map(|p| Some((p, graph.output(&format!("{GRADIENT}{}", graph.tensor(p).name))?)))
        .collect();
    if gradients.is_empty() {
        return Err(Error::Plan("nothing to train: every parameter is frozen".into()));
    }
    let (hyper_input, counters) = (hyper::hyper(&mut graph), hyper::counters(&mut graph));
    let add =
        |graph: &mut Graph, op, name, operands, attrs| add_node(graph, op, name, operands, attrs, Section::Update);
    let mut operands = block_norms(&mut graph, &gradients, clear)?;
    operands.push(hyper_input);
    let norm = add(&mut graph, "grad_norm", "grad_norm".into(), operands, Attrs::new())?[0];
    graph.outputs.push((GRADIENT_NORM.into(), norm));
    for (number, (p, g)) in gradients.into_iter().enumerate() {
        let (name, mut ty) = (graph.tensor(p).name.clone(), graph.ty(p).clone());
        if adamw.bf16_moments {
            ty.dtype = DType::BF16;
        }
        let decays = graph.param(p).is_some_and(|info| info.decay);
        let m = graph.add_tensor(format!("{name}{FIRST_MOMENT}"), ty.clone(), TensorKind::State);
        let v = graph.add_tensor(format!("{name}{SECOND_MOMENT}"), ty, TensorKind::State);
        let mut attrs = Attrs::new()
            .with("beta1", Attr::Float(adamw.beta1))
            .with("beta2", Attr::Float(adamw.beta2))
            .with("eps", Attr::Float(adamw.eps))
            .with("weight_decay", Attr::Float(if decays { adamw.weight_decay } else { 0.0 }))
            .with("clear", Attr::Bool(clear));
        if adamw.bf16_moments {
            attrs.set("moments", Attr::Str("bf16".into()));
            attrs.set("number", Attr::Int(number as i64));
        }
        add(&mut graph, "adamw", format!("{name}.adamw"), vec![p, g, m, v, hyper_input, counters, norm], attrs)?;
    }
    Ok(norms_behind_gradients(graph))
}

/// Whether a node helps to find the norm of all gradients.
pub fn is_norm(node: &Node) -> bool {
    node.op == "grad_norm" || node.op == "block_norms"
}

fn add_node(
    graph: &mut Graph,
    op: &str,
    name: String,
    operands: Vec<TensorId>,
    attrs: Attrs,
    section: Section,
) -> Result<Vec<TensorId>> {
    let op = ops::find(op).expect("the op is in the registry");
    ops::build::add(graph, op, name, operands, attrs, section).map_err(Error::Plan)
}

/// Norms of the gradients' blocks: a large gradient's are taken in backward, while the caches hold much of it, unless it is complete only in the
/// update (`accumulated`); those of the others together in the update. The sums are the same either way.
fn block_norms(graph: &mut Graph, gradients: &[(TensorId, TensorId)], accumulated: bool) -> Result<Vec<TensorId>> {
    let large = |graph: &Graph, g: TensorId| graph.ty(g).shape.elements() >= LARGE_GRADIENT;
    let section = if accumulated { Section::Update } else { Section::Backward };
    let mut norms = Vec::new();
    for &(p, g) in gradients.iter().filter(|(_, g)| large(graph, *g)).collect::<Vec<_>>() {
        let name = format!("{}.block_norms", graph.tensor(p).name);
        norms.extend(add_node(graph, "block_norms", name, vec![g], Attrs::new(), section)?);
    }
    let small: Vec<TensorId> = gradients.iter().map(|&(_, g)| g).filter(|&g| !large(graph, g)).collect();
    if !small.is_empty() {
        norms.extend(add_node(graph, "block_norms", "block_norms".into(), small, Attrs::new(), Section::Update)?);
    }
    Ok(norms)
}

/// Moves each node that takes norms in backward behind the one that completes its gradient, as if it had been written there.
fn norms_behind_gradients(graph: Graph) -> Graph {
    let in_backward = |n: &NodeId| graph.node(*n).op == "block_norms" && graph.node(*n).section == Section::Backward;
    let completes =
        |n: NodeId| graph.producer(graph.node(n).operands[0]).expect("a gradient of backward has a producer");
    let moves: Vec<(NodeId, NodeId)> = graph.node_ids().filter(in_backward).map(|n| (n, completes(n))).collect();
    graph.with_moved(&moves, &[]).with_values_in_order()
}
