//! Keys and values kept in half precision: rows are rounded once, where they are written, and every call reads the rounded ones. A row
//! thus has the same bits in any split into calls.

use crate::error::{Error, Result};
use crate::graph::{Attr, Attrs, Graph, NodeId};
use crate::ops::build::{Call, call};
use crate::tensor::DType;

/// The graph with keys and values of every attention kept as `dtype`; f32 changes nothing.
///
/// # Errors
/// A type that is neither f32, f16 nor bf16.
pub fn keep_as(graph: &Graph, dtype: DType) -> Result<Graph> {
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(Error::Usage(format!("--kv-type {dtype}: unknown; use f32, f16 or bf16")));
    }
    let mut out = graph.clone();
    let mut order = Vec::with_capacity(graph.nodes.len());
    for n in graph.node_ids() {
        let node = graph.node(n);
        let keys_values = match node.op.as_str() {
            "causal_attention" if dtype != DType::F32 && graph.ty(node.operands[1]).dtype == DType::F32 => {
                [node.operands[1], node.operands[2]]
            }
            _ => {
                order.push(n);
                continue;
            }
        };
        let added = NodeId(out.nodes.len() as u32);
        let attrs = Attrs::new().with("dtype", Attr::Str(dtype.name().into()));
        let name = format!("{}.kept", node.name);
        let call = call(&mut out, Call { op: "narrow", name, inputs: keys_values.to_vec(), path: None, attrs });
        let refuse = |message| Error::Shape { op: "narrow".into(), node: node.name.clone(), message };
        out.nodes[n.index()].operands[1..3].copy_from_slice(&call.map_err(refuse)?);
        order.extend([added, n]);
    }
    Ok(out.reordered(&order))
}
