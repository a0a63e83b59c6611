//! The graph of a plan in Graphviz's language.

use std::fmt::Write;

use staticgrad::graph::{Graph, Node, Section, TensorKind};
use staticgrad::plan::Plan;

use crate::output::printable;
use crate::style;

/// A quoted DOT string; a newline is a line break of the label.
fn quoted(text: &str) -> String {
    let line = |line: &str| printable(line).replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", text.split('\n').map(line).collect::<Vec<_>>().join("\\n"))
}

/// Nodes grouped by section, values as edges with their types, memory taken over in place as bold edges. Parameters are named in
/// the nodes that use them.
pub fn dot(plan: &Plan) -> String {
    let graph = &plan.graph;
    let mut text = format!("digraph {} {{\n", quoted(&graph.name));
    text += "  rankdir=TB;\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\", fontsize=10];\n";
    text += "  edge [fontname=\"sans-serif\", fontsize=8, color=\"#777777\"];\n";
    // Writing to a String cannot fail.
    for (i, t) in
        graph.tensors.iter().enumerate().filter(|(_, t)| matches!(t.kind, TensorKind::Input | TensorKind::State))
    {
        let label = quoted(&format!("{} {}", t.name, t.ty));
        let _ = writeln!(text, "  t{i} [label={label}, shape=ellipse, fillcolor=\"#eeeeee\"];");
    }
    for (section, color) in
        [(Section::Forward, "#dcefd8"), (Section::Backward, "#ecdcf0"), (Section::Update, "#d8e4f2")]
    {
        let mut members = graph.nodes.iter().enumerate().filter(|(_, n)| n.section == section).peekable();
        if members.peek().is_none() {
            continue;
        }
        let name = style::section(section).0;
        let _ = writeln!(text, "  subgraph cluster_{name} {{\n    label=\"{name}\"; color=\"#bbbbbb\";");
        for (n, node) in members {
            let color = if node.recomputed { "#f7dfc4" } else { color };
            let _ = writeln!(text, "    n{n} [label={}, fillcolor=\"{color}\"];", label(graph, n, node));
        }
        text += "  }\n";
    }
    for (n, node) in graph.nodes.iter().enumerate() {
        for &t in &node.operands {
            let tensor = graph.tensor(t);
            let from = match tensor.kind {
                TensorKind::Value(producer) => format!("n{}", producer.0),
                TensorKind::Input | TensorKind::State => format!("t{}", t.0),
                TensorKind::Param(_) => continue,
            };
            let in_place = node.outputs.iter().any(|o| plan.aliases[o.index()] == Some(t));
            let bold = if in_place { ", penwidth=2.5, color=\"#cc7722\"" } else { "" };
            let _ = writeln!(text, "  {from} -> n{n} [label={}{bold}];", quoted(&tensor.ty.to_string()));
        }
    }
    for (i, (name, t)) in graph.outputs.iter().enumerate() {
        let _ = writeln!(text, "  r{i} [label={}, shape=ellipse, fillcolor=\"#ffffff\"];", quoted(name));
        let from = graph.producer(*t).map_or(format!("t{}", t.0), |n| format!("n{}", n.0));
        let _ = writeln!(text, "  {from} -> r{i} [label={}];", quoted(&graph.ty(*t).to_string()));
    }
    text + "}\n"
}

fn label(graph: &Graph, step: usize, node: &Node) -> String {
    let params = node.operands.iter().filter(|t| graph.param(**t).is_some()).map(|&t| graph.tensor(t).name.as_str());
    let mut lines = vec![format!("{step}: {}", node.op), node.name.clone()];
    lines.extend(params.map(String::from));
    quoted(&lines.join("\n"))
}
