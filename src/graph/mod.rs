//! The graph: an SSA DAG of tensors and nodes. No op semantics live here; see [`crate::ops`].

pub mod attr;
pub mod display;
mod reorder;
pub mod verify;

use crate::tensor::{DType, RowExtent, Shape, TensorType};
pub use attr::{Attr, Attrs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

macro_rules! id {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// As an index into the graph's list.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}
id!(TensorId, "Key of a tensor (an SSA value).");
id!(NodeId, "Key of a node.");

/// Where a tensor comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorKind {
    /// Written by the caller before a run (tokens, targets, hyperparameters).
    Input,
    /// A named parameter of the model.
    Param(ParamInfo),
    /// Persistent memory that steps update in place (moments, accumulated gradients). Zero at the start.
    State,
    /// Output of a node.
    Value(NodeId),
}

/// What is known of a parameter beside its shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParamInfo {
    /// How `train` fills it when there is no checkpoint.
    pub init: Init,
    /// Whether weight decay applies.
    pub decay: bool,
    /// Whether training updates it.
    pub trainable: bool,
    /// For a matrix used by `linear`: how its two dimensions are stored.
    pub layout: Layout,
}

/// How the two dimensions of a weight matrix are stored, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `[out, in]`: y = x·Wᵀ (Llama, llm.c, GGUF, embeddings).
    OutIn,
    /// `[in, out]`: y = x·W (GPT-2's Conv1D).
    InOut,
    /// Not a matrix that is multiplied by.
    Plain,
}

/// Initial value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Normal with mean zero and this standard deviation.
    Normal(f64),
}

/// A tensor: an SSA value, a parameter, an input or a state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Unique name; for parameters the checkpoint's name.
    pub name: String,
    /// Element type, row extent and features.
    pub ty: TensorType,
    /// Where it comes from.
    pub kind: TensorKind,
}

/// Which rows a node computes in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowSpace {
    /// The rows that are new in this call.
    New,
    /// Only the rows whose result the caller wants.
    Wanted,
    /// No rows: it works on whole tensors (optimiser, norms of gradients).
    Fixed,
}

/// Which part of a training step a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// Forward.
    Forward,
    /// Backward.
    Backward,
    /// Optimiser: once per step, after all micro-batches.
    Update,
}

/// One op applied to operands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Keyword of the op in the registry.
    pub op: String,
    /// Unique name, for dumps and profiles.
    pub name: String,
    /// Inputs, then parameters, as the op defines.
    pub operands: Vec<TensorId>,
    /// Results; the op defines their order.
    pub outputs: Vec<TensorId>,
    /// Named attributes.
    pub attrs: Attrs,
    /// Which rows it computes.
    pub space: RowSpace,
    /// Part of the step.
    pub section: Section,
    /// Whether it repeats an earlier node so that its result need not be kept.
    #[serde(default)]
    pub recomputed: bool,
}

/// A static op graph. Nodes are stored in a valid execution order (every operand is produced earlier).
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Graph {
    /// Name of the model family (`gpt2`, `llama`, …).
    pub name: String,
    /// The resolved dimensions and constants of the spec.
    pub constants: BTreeMap<String, Attr>,
    /// All tensors, by [`TensorId`].
    pub tensors: Vec<Tensor>,
    /// All nodes, by [`NodeId`], in execution order.
    pub nodes: Vec<Node>,
    /// Named results.
    pub outputs: Vec<(String, TensorId)>,
}

impl Graph {
    /// An empty graph called `name`.
    pub fn new(name: &str) -> Self {
        Graph { name: name.to_string(), ..Graph::default() }
    }

    /// The tensor behind a key.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.index()]
    }

    /// Type of a tensor.
    pub fn ty(&self, id: TensorId) -> &TensorType {
        &self.tensors[id.index()].ty
    }

    /// The node behind a key.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Keys of all tensors.
    pub fn tensor_ids(&self) -> impl DoubleEndedIterator<Item = TensorId> + use<> {
        (0..self.tensors.len() as u32).map(TensorId)
    }

    /// Keys of all nodes, in execution order.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// The tensor called `name`.
    pub fn find(&self, name: &str) -> Option<TensorId> {
        self.tensor_ids().find(|&t| self.tensor(t).name == name)
    }

    /// The result called `name`.
    pub fn output(&self, name: &str) -> Option<TensorId> {
        self.outputs.iter().find(|(n, _)| n == name).map(|&(_, t)| t)
    }

    /// The node that produces a tensor, if a node does.
    pub fn producer(&self, id: TensorId) -> Option<NodeId> {
        match self.tensor(id).kind {
            TensorKind::Value(n) => Some(n),
            _ => None,
        }
    }

    /// What is known of a tensor that is a parameter.
    pub fn param(&self, id: TensorId) -> Option<&ParamInfo> {
        match &self.tensor(id).kind {
            TensorKind::Param(p) => Some(p),
            _ => None,
        }
    }

    /// Keys of all parameters, in order of first use.
    pub fn params(&self) -> impl Iterator<Item = TensorId> + '_ {
        self.tensor_ids().filter(|&t| self.param(t).is_some())
    }

    /// For each tensor, the (node, operand position) pairs that read it, in execution order.
    pub fn readers(&self) -> Vec<Vec<(NodeId, usize)>> {
        let mut readers = vec![Vec::new(); self.tensors.len()];
        for n in self.node_ids() {
            for (position, t) in self.node(n).operands.iter().enumerate() {
                readers[t.index()].push((n, position));
            }
        }
        readers
    }

    /// Adds a tensor.
    pub fn add_tensor(&mut self, name: impl Into<String>, ty: TensorType, kind: TensorKind) -> TensorId {
        self.tensors.push(Tensor { name: name.into(), ty, kind });
        TensorId(self.tensors.len() as u32 - 1)
    }

    /// Adds an input: `shape` values per row, or in all when the extent is fixed.
    pub fn add_input(&mut self, name: &str, dtype: DType, extent: RowExtent, shape: Shape) -> TensorId {
        self.add_tensor(name, TensorType { dtype, extent, shape }, TensorKind::Input)
    }

    /// Adds a node with outputs of the given types at the end of the execution order. Output names follow the node's.
    pub fn add_node(&mut self, mut node: Node, outputs: Vec<TensorType>) -> Vec<TensorId> {
        let id = NodeId(self.nodes.len() as u32);
        let several = outputs.len() > 1;
        node.outputs = outputs
            .into_iter()
            .enumerate()
            .map(|(i, ty)| {
                let name = if several { format!("{}.{i}", node.name) } else { node.name.clone() };
                self.add_tensor(name, ty, TensorKind::Value(id))
            })
            .collect();
        let ids = node.outputs.clone();
        self.nodes.push(node);
        ids
    }

    /// Makes node `n` another op on other operands. Its outputs, row space and section stay.
    pub fn rewrite(&mut self, n: NodeId, op: &str, name: String, operands: Vec<TensorId>, attrs: Attrs) {
        let node = &mut self.nodes[n.index()];
        node.op = op.to_string();
        node.name = name;
        node.operands = operands;
        node.attrs = attrs;
    }
}
