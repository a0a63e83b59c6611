//! Low-rank adapters (Hu et al., "LoRA", 2021): y = x·W + (alpha / rank)·(x·Aᵀ)·Bᵀ on chosen linear ops, everything else frozen.
//!
//! For a linear with path PATH the adapter's parameters are `PATH.lora_A.weight` [rank, in] and `PATH.lora_B.weight` [out, rank], as
//! in PEFT. B starts at zero, so that training starts from the base model.

use crate::error::{Error, Result};
use crate::graph::{Attr, Attrs, Graph, NodeId, TensorId, TensorKind};
use crate::ops::build::{Call, call};
use std::collections::{BTreeMap, BTreeSet};

/// Suffix of the name of A, after the path of the linear.
pub const LORA_A: &str = ".lora_A.weight";
/// Suffix of the name of B, after the path of the linear.
pub const LORA_B: &str = ".lora_B.weight";

/// Whether a parameter of this name is half of an adapter.
pub fn is_adapter(name: &str) -> bool {
    name.ends_with(LORA_A) || name.ends_with(LORA_B)
}

/// What to adapt.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Inner width of the adapters.
    pub rank: usize,
    /// The adapter's product is scaled by alpha / rank.
    pub alpha: f64,
    /// Last parts of the paths of the linears to adapt (`q_proj`, `c_attn`, `attn.c_proj`); empty adapts every linear but the head.
    pub modules: Vec<String>,
}

impl Lora {
    fn adapts(&self, path: &str) -> bool {
        let ends = |m: &String| path == m || path.strip_suffix(m.as_str()).is_some_and(|rest| rest.ends_with('.'));
        self.modules.is_empty() || self.modules.iter().any(ends)
    }
}

/// The graph with adapters, and all its own parameters frozen.
///
/// # Errors
/// A rank of zero; modules that match no linear.
pub fn attach(graph: &Graph, lora: &Lora) -> Result<Graph> {
    if lora.rank == 0 {
        return Err(Error::Request("--lora-rank must be at least 1".into()));
    }
    let mut out = graph.clone();
    for tensor in &mut out.tensors {
        if let TensorKind::Param(info) = &mut tensor.kind {
            info.trainable = false;
        }
    }
    let mut order = Vec::new();
    for n in graph.node_ids() {
        order.push(n);
        let Some(path) = adapted(graph, n, lora) else { continue };
        let first = out.nodes.len() as u32;
        let replaced = adapt(&mut out, n, &path, lora).map_err(|message| Error::Shape {
            op: "linear".into(),
            node: graph.node(n).name.clone(),
            message,
        })?;
        for node in &mut out.nodes[..graph.nodes.len()] {
            node.operands.iter_mut().for_each(|t| *t = replaced.get(t).copied().unwrap_or(*t));
        }
        order.extend((first..out.nodes.len() as u32).map(NodeId));
    }
    if order.len() == graph.nodes.len() {
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_string();
        let names: BTreeSet<String> =
            graph.node_ids().filter_map(|n| linear(graph, n)).map(|path| last(&path)).collect();
        let names: Vec<String> = names.into_iter().collect();
        let message = format!("no linear is called {}; there are {}", lora.modules.join(" or "), names.join(", "));
        return Err(Error::Request(message));
    }
    Ok(out.reordered(&order))
}

/// Path of a linear that gets an adapter.
fn adapted(graph: &Graph, n: NodeId, lora: &Lora) -> Option<String> {
    linear(graph, n).filter(|path| lora.adapts(path))
}

/// Path of a linear that can have an adapter: all but the head.
fn linear(graph: &Graph, n: NodeId) -> Option<String> {
    let node = graph.node(n);
    let result = node.outputs.iter().any(|t| graph.outputs.iter().any(|(_, r)| r == t));
    if node.op != "linear" || result || node.attrs.get("weights").is_some() {
        return None;
    }
    Some(graph.tensor(node.operands[1]).name.strip_suffix(".weight")?.to_string())
}

/// Appends the adapter of node `n`; gives what its outputs are replaced by.
fn adapt(graph: &mut Graph, n: NodeId, path: &str, lora: &Lora) -> Result<BTreeMap<TensorId, TensorId>, String> {
    let (x, outputs) = (graph.node(n).operands[0], graph.node(n).outputs.clone());
    let mut add = |op: &str, name: String, inputs: Vec<TensorId>, attrs: Attrs| {
        call(graph, Call { op, path: Some(&name.clone()), name, inputs, attrs })
    };
    let attrs = Attrs::new()
        .with("rank", Attr::Int(lora.rank as i64))
        .with("factor", Attr::Float(lora.alpha / lora.rank as f64));
    let low = add("low_rank_down", format!("{path}.lora_A"), vec![x], attrs)?;
    let inputs = outputs.iter().copied().chain(low).collect();
    let sums = add("low_rank_up", format!("{path}.lora_B"), inputs, Attrs::new())?;
    Ok(outputs.into_iter().zip(sums).collect())
}
