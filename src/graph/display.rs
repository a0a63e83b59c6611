//! Text form of a graph, for `--emit graph` and golden tests.

use super::{Graph, Init, Node, TensorId, TensorKind};
use std::fmt;

impl Graph {
    fn operand(&self, t: TensorId) -> String {
        format!("%{}", self.tensor(t).name)
    }

    fn line(&self, node: &Node) -> String {
        let outputs: Vec<String> =
            node.outputs.iter().map(|&t| format!("{}: {}", self.operand(t), self.ty(t))).collect();
        let mut arguments: Vec<String> = node.operands.iter().map(|&t| self.operand(t)).collect();
        arguments.extend(node.attrs.0.iter().map(|(name, value)| format!("{name} = {value}")));
        let left = if outputs.is_empty() { String::new() } else { format!("{} = ", outputs.join(", ")) };
        let recomputed = if node.recomputed { "  # recomputed" } else { "" };
        format!("{left}{}({}){recomputed}", node.op, arguments.join(", "))
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {}", self.name)?;
        for (name, value) in &self.constants {
            writeln!(f, "  const {name} = {value}")?;
        }
        for t in &self.tensors {
            match &t.kind {
                TensorKind::Input => writeln!(f, "  input %{}: {}", t.name, t.ty)?,
                TensorKind::State => writeln!(f, "  state %{}: {}", t.name, t.ty)?,
                TensorKind::Param(p) => {
                    let init = match p.init {
                        Init::Zeros => "zeros".to_string(),
                        Init::Ones => "ones".to_string(),
                        Init::Normal(std) => format!("normal({std:?})"),
                    };
                    let decay = if p.decay { ", decay" } else { "" };
                    let frozen = if p.trainable { "" } else { ", frozen" };
                    writeln!(f, "  param %{}: {}  # {init}{decay}{frozen}", t.name, t.ty)?;
                }
                TensorKind::Value(_) => {}
            }
        }
        for node in &self.nodes {
            writeln!(f, "  {}", self.line(node))?;
        }
        for (name, t) in &self.outputs {
            writeln!(f, "  result {name} = {}", self.operand(*t))?;
        }
        Ok(())
    }
}
