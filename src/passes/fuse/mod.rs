//! Fusion: several nodes become one `linear` with more to do. One file a rule, each can be switched off, none changes a bit of the result.
//!
//! Order matters: products of one input are joined first, so that the norm before them has a single reader left.

mod activation;
mod gate_up;
mod norm;
mod products;
mod residual;
mod silu_mul;

use crate::graph::{Graph, Node, NodeId, TensorId};
use serde::{Deserialize, Serialize};

/// Which rules run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fusions {
    /// gate + up: silu(x·W₁) · (x·W₂) in one product.
    pub gate_up: bool,
    /// bias + activation into linear.
    pub activation: bool,
    /// q, k, v as one product.
    pub products: bool,
    /// Residual add into linear.
    pub residual: bool,
    /// Norm into the linear that reads it.
    pub norm: bool,
}

impl Fusions {
    /// Every rule.
    pub const ALL: Fusions = Fusions { gate_up: true, activation: true, products: true, residual: true, norm: true };
    /// No rule.
    pub const NONE: Fusions =
        Fusions { gate_up: false, activation: false, products: false, residual: false, norm: false };

    /// Names of the rules, as the command line takes them.
    pub const NAMES: [&str; 5] = ["gate-up", "activation", "products", "residual", "norm"];

    /// Switches one rule off; false when there is none of that name.
    pub fn switch_off(&mut self, name: &str) -> bool {
        match name {
            "gate-up" => self.gate_up = false,
            "activation" => self.activation = false,
            "products" => self.products = false,
            "residual" => self.residual = false,
            "norm" => self.norm = false,
            _ => return false,
        }
        true
    }
}

/// A rule rewrites nodes in place; what it leaves unused is dead code.
type Rule = fn(&mut Graph);

/// Runs the rules that are switched on.
pub fn fuse(mut graph: Graph, fusions: Fusions) -> Graph {
    let rules: [(bool, Rule); 5] = [
        (fusions.gate_up, gate_up::run),
        (fusions.activation, activation::run),
        (fusions.products, products::run),
        (fusions.residual, residual::run),
        (fusions.norm, norm::run),
    ];
    for (_, run) in rules.into_iter().filter(|(on, _)| *on) {
        run(&mut graph);
        graph = super::dead_code::eliminate(&graph);
    }
    graph
}

/// Fuses what has a derivative when it is fused: before differentiation.
pub fn before_differentiation(mut graph: Graph) -> Graph {
    silu_mul::run(&mut graph);
    super::dead_code::eliminate(&graph)
}

/// Nodes that read each tensor, and whether it is a result; rules fuse through tensors with one reader.
struct Uses {
    readers: Vec<Vec<(NodeId, usize)>>,
    result: Vec<bool>,
}

impl Uses {
    fn of(graph: &Graph) -> Self {
        let mut result = vec![false; graph.tensors.len()];
        graph.outputs.iter().for_each(|(_, t)| result[t.index()] = true);
        Uses { readers: graph.readers(), result }
    }

    /// The only operand position that reads `t`, when there is exactly one.
    fn single(&self, t: TensorId) -> Option<(NodeId, usize)> {
        match self.readers[t.index()].as_slice() {
            &[reader] if !self.result[t.index()] => Some(reader),
            _ => None,
        }
    }
}

/// What `silu` is taken of to give `t`, which only one node reads.
fn silu_before(graph: &Graph, uses: &Uses, t: TensorId) -> Option<TensorId> {
    let silu = graph.node(graph.producer(t)?);
    (silu.op == "silu" && uses.single(t).is_some()).then(|| silu.operands[0])
}

/// A `linear` with one output and nothing after its bias.
fn is_plain_linear(node: &Node) -> bool {
    let bare = |name: &str| node.attrs.get(name).is_none();
    node.op == "linear"
        && node.outputs.len() == 1
        && bare("activation")
        && bare("residual")
        && bare("norm")
        && bare("weights")
}

/// The producer of `t`, when it is a plain linear that only one node reads.
fn plain_linear_before(graph: &Graph, uses: &Uses, t: TensorId) -> Option<NodeId> {
    let producer = graph.producer(t)?;
    (is_plain_linear(graph.node(producer)) && uses.single(t).is_some()).then_some(producer)
}
