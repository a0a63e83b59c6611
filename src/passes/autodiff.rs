//! Reverse-mode differentiation: appends the nodes that compute the gradients of the trainable parameters.
//!
//! Nodes are walked backwards; each op emits ordinary nodes for the gradients of its operands ([`Op::grad`](crate::ops::Op::grad)). Where
//! several uses contribute to a gradient, the op adds to the one that exists, or an `add` does.

use super::loss::is_loss;
use crate::error::{Error, Result};
use crate::graph::{Attrs, Graph, NodeId, Section, TensorId, TensorKind};
use crate::ops::{self, GradBuilder};
use std::collections::BTreeMap;

/// Prefix of the results that hold gradients of parameters: `grad.` and the parameter's name.
pub const GRADIENT: &str = "grad.";

/// Suffix of the states in which gradients accumulate; `_1` and so on follow for further uses of the parameter.
pub const SUM: &str = ".gradient_sum";

/// Whether parameter gradients add up over micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulation {
    /// Gradients are born in the schedule, once per step.
    Off,
    /// Gradients are persistent states that every micro-batch adds to; the optimiser zeroes them.
    On,
}

/// The graph with a result `grad.NAME` for each trainable parameter that a loss depends on.
///
/// # Errors
/// When there is no loss, or an op on the way has no derivative.
pub fn differentiate(mut graph: Graph, accumulation: Accumulation) -> Result<Graph> {
    if !graph.nodes.iter().any(is_loss) {
        return Err(Error::Plan("cannot differentiate a graph without a loss".into()));
    }
    let seeds = BTreeMap::new();
    let gradients = backward(&mut graph, &seeds, accumulation)?;
    let params: Vec<TensorId> = graph.params().collect();
    for p in params {
        if let Some(g) = gradients.of(&mut graph, p)? {
            let name = format!("{GRADIENT}{}", graph.tensor(p).name);
            graph.outputs.push((name, g));
        }
    }
    Ok(graph)
}

/// As [`differentiate`], from given gradients of some tensors, with gradients of inputs too: what the gradient check needs.
/// Results are called `grad.NAME`.
///
/// # Errors
/// As [`differentiate`].
pub fn differentiate_from(mut graph: Graph, seeds: &BTreeMap<TensorId, TensorId>, of: &[TensorId]) -> Result<Graph> {
    let mut wanted = wanted(&graph);
    of.iter().for_each(|t| wanted[t.index()] = true);
    let gradients = walk(&mut graph, seeds, Accumulation::Off, wanted)?;
    for &t in of {
        if let Some(g) = gradients.of(&mut graph, t)? {
            let name = format!("{GRADIENT}{}", graph.tensor(t).name);
            graph.outputs.push((name, g));
        }
    }
    Ok(graph)
}

/// What the walk found.
struct Gradients {
    /// For each tensor of the forward graph.
    of: Vec<Option<TensorId>>,
    /// With accumulation: the contributions of several uses of a parameter, kept apart until the update.
    apart: BTreeMap<TensorId, Vec<TensorId>>,
}

impl Gradients {
    /// Gradient of a tensor; contributions that were kept apart are merged in the optimiser's section.
    fn of(&self, graph: &mut Graph, t: TensorId) -> Result<Option<TensorId>> {
        let Some(parts) = self.apart.get(&t) else { return Ok(self.of[t.index()]) };
        let op = ops::find("merge_gradients").expect("the op is in the registry");
        let mut sum = parts[0];
        for &part in &parts[1..] {
            let name = format!("{}.merge", graph.tensor(t).name);
            let merged = ops::build::add(graph, op, name, vec![sum, part], Attrs::new(), Section::Update);
            sum = merged.map_err(Error::Plan)?[0];
        }
        Ok(Some(sum))
    }
}

fn backward(graph: &mut Graph, seeds: &BTreeMap<TensorId, TensorId>, accumulation: Accumulation) -> Result<Gradients> {
    let wanted = wanted(graph);
    walk(graph, seeds, accumulation, wanted)
}

/// Trainable parameters.
fn wanted(graph: &Graph) -> Vec<bool> {
    graph.tensor_ids().map(|t| graph.param(t).is_some_and(|p| p.trainable)).collect()
}

/// `wants`: tensors whose gradients are asked for; what depends on them follows.
fn walk(
    graph: &mut Graph,
    seeds: &BTreeMap<TensorId, TensorId>,
    accumulation: Accumulation,
    mut wants: Vec<bool>,
) -> Result<Gradients> {
    for node in &graph.nodes {
        let depends = node.operands.iter().any(|t| wants[t.index()]);
        node.outputs.iter().for_each(|t| wants[t.index()] |= depends);
    }
    let mut gradients = Gradients { of: vec![None; graph.tensors.len()], apart: BTreeMap::new() };
    seeds.iter().for_each(|(&t, &d)| gradients.of[t.index()] = Some(d));
    for n in graph.node_ids().rev() {
        let node = graph.node(n).clone();
        let d_outputs: Vec<Option<TensorId>> = node.outputs.iter().map(|t| gradients.of[t.index()]).collect();
        let reached = d_outputs.iter().any(Option::is_some) || is_loss(&node);
        if !reached || node.operands.iter().all(|t| !wants[t.index()]) {
            continue;
        }
        let mut existing = Vec::new();
        for (i, &t) in node.operands.iter().enumerate() {
            let first_use = !node.operands[..i].contains(&t);
            existing.push(match graph.param(t) {
                Some(_) if accumulation == Accumulation::On && wants[t.index()] => {
                    Some(accumulator(graph, t, &mut gradients))
                }
                _ if first_use => gradients.of[t.index()],
                _ => None,
            });
        }
        let refuse = |message| Error::Shape { op: node.op.clone(), node: node.name.clone(), message };
        let of_node: Vec<bool> = node.operands.iter().map(|t| wants[t.index()]).collect();
        let op = ops::find(&node.op).ok_or_else(|| refuse("unknown op".into()))?;
        let mut builder = GradBuilder { graph, node: n, d_outputs, wants: of_node, existing };
        let found = op.grad(&mut builder).map_err(refuse)?;
        let left = std::mem::take(&mut builder.existing);
        for (i, (&t, found)) in node.operands.iter().zip(found).enumerate() {
            let Some(mut g) = found.filter(|_| wants[t.index()]) else { continue };
            if accumulation == Accumulation::On && graph.param(t).is_some() {
                if left[i].is_some() {
                    return Err(refuse("cannot add to a gradient, which accumulation needs".into()));
                }
                gradients.apart.entry(t).or_default().push(g);
                continue;
            }
            let taken = left[i].is_none() && !node.operands[..i].contains(&t);
            if let Some(before) = gradients.of[t.index()].filter(|_| !taken) {
                g = sum(graph, n, before, g).map_err(refuse)?;
            }
            gradients.of[t.index()] = Some(g);
        }
    }
    Ok(gradients)
}

/// A new state that the next use of parameter `t` adds to.
fn accumulator(graph: &mut Graph, t: TensorId, gradients: &mut Gradients) -> TensorId {
    let number = gradients.apart.get(&t).map_or(0, Vec::len);
    let name = format!("{}{SUM}", graph.tensor(t).name);
    let name = if number == 0 { name } else { format!("{name}_{number}") };
    let ty = graph.ty(t).clone();
    graph.add_tensor(name, ty, TensorKind::State)
}

/// a + b as a node of its own.
fn sum(graph: &mut Graph, n: NodeId, a: TensorId, b: TensorId) -> Result<TensorId, String> {
    let name = format!("{}.sum", graph.node(n).name);
    let op = ops::find("add").expect("the op is in the registry");
    Ok(ops::build::add(graph, op, name, vec![a, b], Attrs::new(), Section::Backward)?[0])
}
