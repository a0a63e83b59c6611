//! Says how the executor holds the weights of `linear` (packed for inference, as the checkpoint stores them for training), and to what
//! products round their factors.

use super::Mode;
use crate::graph::{Attr, Graph};

/// Sets the `storage` attribute of every `linear`.
pub fn assign(mut graph: Graph, mode: Mode) -> Graph {
    if mode == Mode::Train {
        for node in graph.nodes.iter_mut().filter(|n| n.op == "linear") {
            node.attrs.set("storage", Attr::Str("plain".into()));
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
