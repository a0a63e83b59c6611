//! Says how the executor holds the weights of `linear` (packed for inference, as the checkpoint stores them for training), and to what
//! products round their factors.

use super::Mode;
use crate::graph::{Attr, Graph, Layout, NodeId, TensorId};
use crate::tensor::DType;

/// Sets the `storage` attribute of every `linear`.
pub fn assign(graph: Graph, mode: Mode) -> Graph {
    if mode == Mode::Train { plain(graph) } else { graph }
}

/// Makes every `linear` read its weight as the checkpoint stores it: also for inference on parameters that are being trained. Such a
/// graph takes no fused form.
pub fn plain(mut graph: Graph) -> Graph {
    for node in graph.nodes.iter_mut().filter(|n| n.op == "linear") {
        node.attrs.set("storage", Attr::Str("plain".into()));
    }
    graph
}

/// Whether `linear` reads weight `t` in the `wanted` storage (`"plain"`, `"packed"`) wherever it reads it.
pub fn is_read_as(graph: &Graph, t: TensorId, wanted: &str) -> bool {
    let mut readers = graph.nodes.iter().filter(|n| n.op == "linear" && n.operands.contains(&t));
    readers.all(|n| n.attrs.str_or("storage", "packed") == Ok(wanted))
}

/// Keeps frozen matrices in bf16 where products and embeddings alone read them.
pub fn narrow_frozen(mut graph: Graph) -> Graph {
    let readers = graph.readers();
    for t in graph.tensor_ids() {
        let frozen = graph.param(t).is_some_and(|p| !p.trainable && p.layout != Layout::Plain);
        let weight = |&(n, operand): &(NodeId, usize)| {
            ["linear", "embedding"].contains(&graph.node(n).op.as_str()) && operand == 1
        };
        if frozen && readers[t.index()].iter().all(weight) {
            graph.tensors[t.index()].ty.dtype = DType::BF16;
        }
    }
    graph
}

/// Rounds the factors of all products to bf16. Runs before differentiation, which carries it over.
pub fn round_products(mut graph: Graph) -> Graph {
    for node in graph.nodes.iter_mut().filter(|n| n.op == "linear") {
        node.attrs.set("precision", Attr::Str("bf16".into()));
    }
    graph
}
