//! Row-dependency analysis: which activations are kept between calls, and which nodes run for wanted rows only.
//!
//! What a `Prefix` operand reads is kept; what only `PerRow` operands read is sized for the rows of one call. Wanted rows
//! propagate backwards from the results: in prefill the head, and the last block beyond its keys and values, run for them alone.

use super::{Layout, Mode};
use crate::error::{Error, Result};
use crate::graph::{Graph, RowSpace, TensorKind};
use crate::ops::{self, RowDep};
use crate::tensor::RowExtent;

/// Sets the row extent of every tensor and the row space of every node.
///
/// # Errors
/// When an inference graph holds an op that needs all rows at once (a reduction over rows).
pub fn assign(mut graph: Graph, mode: Mode) -> Result<Graph> {
    let Mode::Infer(layout) = mode else { return Ok(graph) };
    let mut kept = vec![false; graph.tensors.len()];
    for node in &graph.nodes {
        let op = ops::find(&node.op).expect("the graph was checked");
        for (i, t) in node.operands.iter().enumerate() {
            match op.row_dependency(&node.attrs, i) {
                RowDep::PerRow => {}
                RowDep::Prefix => kept[t.index()] = true,
                RowDep::AllRows => {
                    return Err(Error::Shape {
                        op: node.op.clone(),
                        node: node.name.clone(),
                        message:
                            "needs all rows at once, which an inference plan cannot give; compile with --mode train"
                                .into(),
                    });
                }
            }
        }
    }
    for (t, tensor) in graph.tensors.iter_mut().enumerate() {
        let has_rows = tensor.ty.extent != RowExtent::Fixed;
        if has_rows && (kept[t] || layout == Layout::Full || tensor.kind == TensorKind::Input) {
            tensor.ty.extent = RowExtent::Kept;
        }
    }
    if layout == Layout::Compact {
        narrow_to_wanted(&mut graph);
    }
    Ok(graph)
}

/// Walks backwards: a node computes wanted rows only when each of its outputs is a result or read by such nodes alone.
fn narrow_to_wanted(graph: &mut Graph) {
    let mut every_row = vec![false; graph.tensors.len()];
    for (t, tensor) in graph.tensors.iter().enumerate() {
        every_row[t] = tensor.ty.extent == RowExtent::Kept;
    }
    for n in graph.node_ids().rev() {
        let node = graph.node(n);
        if node.space == RowSpace::Fixed {
            continue;
        }
        if node.outputs.iter().any(|t| every_row[t.index()]) {
            node.operands.iter().for_each(|t| every_row[t.index()] = true);
        } else {
            let outputs = node.outputs.clone();
            graph.nodes[n.index()].space = RowSpace::Wanted;
            outputs.iter().for_each(|t| graph.tensors[t.index()].ty.extent = RowExtent::Wanted);
        }
    }
}

/// Checks that spaces and extents agree: a node reads what exists for its rows, and what a prefix operand reads is kept (or, in
/// a training graph, holds all rows of the call).
///
/// # Errors
/// The first node that does not fit.
pub fn check(graph: &Graph) -> Result<()> {
    let inference = graph.tensors.iter().any(|t| t.ty.extent == RowExtent::Kept);
    for node in &graph.nodes {
        let refuse = |message: String| Err(Error::Shape { op: node.op.clone(), node: node.name.clone(), message });
        let op = ops::find(&node.op).expect("the caller looked the op up");
        for (i, &t) in node.operands.iter().enumerate() {
            let tensor = graph.tensor(t);
            let extent = tensor.ty.extent;
            let fits = match node.space {
                RowSpace::Fixed => extent == RowExtent::Fixed,
                RowSpace::New => extent != RowExtent::Wanted,
                RowSpace::Wanted => true,
            };
            if !fits {
                return refuse(format!("reads '{}', which has {} rows", tensor.name, extent.name()));
            }
            if inference && op.row_dependency(&node.attrs, i) == RowDep::Prefix && extent != RowExtent::Kept {
                return refuse(format!("reads earlier rows of '{}', which are not kept", tensor.name));
            }
        }
        for &t in &node.outputs {
            let tensor = graph.tensor(t);
            let fits = match tensor.ty.extent {
                RowExtent::Fixed => true,
                RowExtent::Wanted => node.space == RowSpace::Wanted,
                RowExtent::Step | RowExtent::Kept => node.space == RowSpace::New,
            };
            if !fits {
                return refuse(format!("writes '{}' for other rows than it computes", tensor.name));
            }
        }
    }
    Ok(())
}
