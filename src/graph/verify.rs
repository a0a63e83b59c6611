//! Invariants of a graph. Cheap enough to run after every pass.

use super::{Graph, NodeId, TensorKind};
use crate::error::{Error, Result};
use std::collections::HashSet;

fn broken(message: String) -> Error {
    Error::Plan(format!("broken graph: {message}"))
}

/// Checks that every key is in range, every tensor has one producer that comes before its readers, names are unique,
/// and producers and outputs agree.
///
/// # Errors
/// The first broken invariant, by name. A graph read from a file is checked with this before anything else touches it.
pub fn verify(graph: &Graph) -> Result<()> {
    let mut names = HashSet::new();
    for t in &graph.tensors {
        if !names.insert(t.name.as_str()) {
            return Err(broken(format!("two tensors are called '{}'", t.name)));
        }
        if t.ty.shape.checked_elements().is_none_or(|n| n.checked_mul(8).is_none()) {
            return Err(broken(format!("the shape {} of '{}' overflows", t.ty.shape, t.name)));
        }
    }
    let mut defined: Vec<bool> = graph.tensors.iter().map(|t| !matches!(t.kind, TensorKind::Value(_))).collect();
    let mut node_names = HashSet::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        if !node_names.insert(node.name.as_str()) {
            return Err(broken(format!("two nodes are called '{}'", node.name)));
        }
        for t in &node.operands {
            match defined.get(t.index()) {
                None => return Err(broken(format!("'{}' reads tensor {}, which does not exist", node.name, t.0))),
                Some(false) => {
                    let tensor = &graph.tensors[t.index()].name;
                    return Err(broken(format!("'{}' reads '{tensor}' before it is computed", node.name)));
                }
                Some(true) => {}
            }
        }
        for t in &node.outputs {
            let Some(tensor) = graph.tensors.get(t.index()) else {
                return Err(broken(format!("'{}' writes tensor {}, which does not exist", node.name, t.0)));
            };
            if tensor.kind != TensorKind::Value(NodeId(i as u32)) {
                return Err(broken(format!("'{}' writes '{}', which has another producer", node.name, tensor.name)));
            }
            if std::mem::replace(&mut defined[t.index()], true) {
                return Err(broken(format!("'{}' writes '{}' twice", node.name, tensor.name)));
            }
        }
    }
    if let Some(t) = defined.iter().position(|d| !d) {
        return Err(broken(format!("nothing computes '{}'", graph.tensors[t].name)));
    }
    for (name, t) in &graph.outputs {
        if t.index() >= graph.tensors.len() {
            return Err(broken(format!("result '{name}' is tensor {}, which does not exist", t.0)));
        }
    }
    Ok(())
}
