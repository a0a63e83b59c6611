//! `bench --what ladder`: the published ablation. Skipping of computed rows is switched on class by class, then GELU by table.

use super::model::{Model, ModelArgs};
use super::output::line;
use crate::disk::write_atomically;
use crate::error::{Error, Result};
use crate::exec::{Session, Want};
use crate::graph::{Graph, Node};
use crate::ops::Capacity;
use crate::passes::{Layout, Mode};
use crate::plan::compile;
use plotters::prelude::*;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// Whether a node starts to skip at a rung; the flag says that it computes the logits.
type Joins = fn(&Node, bool) -> bool;

/// The rungs in the published order: name, and the nodes that start to skip there.
const RUNGS: [(&str, Joins); 7] = [
    ("nothing", |_, _| false),
    ("attention", |n, _| {
        !["linear", "gelu", "gelu_table", "silu", "mul", "add", "layer_norm", "rms_norm"].contains(&n.op.as_str())
    }),
    ("+ linear layers", |n, head| n.op == "linear" && !head),
    ("+ GELU", |n, _| ["gelu", "gelu_table", "silu", "mul"].contains(&n.op.as_str())),
    ("+ residual adds", |n, _| n.op == "add"),
    ("+ layer norms", |n, _| ["layer_norm", "rms_norm"].contains(&n.op.as_str())),
    ("+ unembedding", |n, head| n.op == "linear" && head),
];

/// One measured rung.
struct Rung {
    name: String,
    milliseconds: f64,
}

fn is_head(graph: &Graph, node: &Node) -> bool {
    graph.output("logits").is_some_and(|t| node.outputs.contains(&t))
}

/// Milliseconds per token of `tokens` single-row calls, with skipping on in the first `rungs` rungs.
fn measure(session: &mut Session, tokens: &[i32], rungs: usize) -> Result<f64> {
    let graph = session.executor().plan().graph.clone();
    let skips = |node: &Node| RUNGS[..=rungs].iter().any(|(_, joins)| joins(node, is_head(&graph, node)));
    session.executor_mut().set_recompute(&|node| !skips(node))?;
    session.truncate(0, 0);
    let start = Instant::now();
    tokens.iter().try_for_each(|&t| session.run(&[(0, &[t])], Want::Last))?;
    Ok(1e3 * start.elapsed().as_secs_f64() / tokens.len() as f64)
}

/// Runs the ladder over `count` tokens and prints a line a rung; `chart` gets bars as SVG.
///
/// # Errors
/// A model that is a compiled plan (the ladder needs the full layout), or that does not load.
pub fn run(args: &ModelArgs, threads: usize, count: usize, json_lines: bool, chart: Option<&Path>) -> Result<()> {
    let mut rungs = Vec::new();
    for by_table in [false, true] {
        let mut args = args.clone();
        if by_table {
            args.set.push("gelu_by_table=true".into());
        }
        let model = match Model::open(&args) {
            Err(_) if by_table => break,
            opened => opened?,
        };
        if model.is_plan() {
            return Err(Error::Usage("the ladder needs a checkpoint as --model, not a compiled plan".into()));
        }
        let context = model.context()?;
        if count == 0 || count > context {
            return Err(Error::Usage(format!("--rows {count} must be 1 to the context of {context} rows")));
        }
        // Calls of one row recompute up to all of them, which needs the scratch of as many.
        let capacity = Capacity { slots: 1, context: count, step_rows: count, wanted_rows: 1 };
        let plan = compile(model.graph().clone(), Mode::Infer(Layout::Full), capacity)?;
        let store = model.store(&plan)?;
        let mut session = Session::new(&plan, threads, &|name| store.get(name))?;
        let vocabulary = session.vocabulary();
        let tokens: Vec<i32> = (0..count).map(|i| (i * 7919 % vocabulary) as i32).collect();
        let which = if by_table { RUNGS.len() - 1..RUNGS.len() } else { 0..RUNGS.len() };
        for i in which {
            let milliseconds = measure(&mut session, &tokens, i)?;
            let name = if by_table { "+ GELU table (f16)" } else { RUNGS[i].0 };
            if json_lines {
                let object = json!({ "what": "ladder", "model": model.name(), "skipped": name, "threads": threads, "rows": count,
                    "median": milliseconds, "unit": "ms/token" });
                line(&object.to_string());
            } else {
                line(&format!("{name:<22} {milliseconds:>10.3} ms/token"));
            }
            rungs.push(Rung { name: name.to_string(), milliseconds });
        }
    }
    chart.map_or(Ok(()), |path| draw(path, &rungs))
}

/// Horizontal bars, one a rung.
fn draw(path: &Path, rungs: &[Rung]) -> Result<()> {
    let height = 60 + 34 * rungs.len() as u32;
    let longest = rungs.iter().map(|r| r.milliseconds).fold(1e-9, f64::max);
    let mut svg = String::new();
    let failed = |e: &dyn std::fmt::Display| Error::file(path, format!("cannot draw the chart: {e}"));
    {
        let root = SVGBackend::with_string(&mut svg, (760, height)).into_drawing_area();
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        let font = ("sans-serif", 16).into_font();
        let text =
            |s: &str, at: (i32, i32)| root.draw(&Text::new(s.to_string(), at, font.clone())).map_err(|e| failed(&e));
        text("ms per token, skipping added from top to bottom", (12, 12))?;
        for (i, rung) in rungs.iter().enumerate() {
            let top = 44 + 34 * i as i32;
            let right = 190 + (450.0 * rung.milliseconds / longest) as i32;
            let bar = Rectangle::new([(190, top), (right.max(192), top + 24)], RGBColor(38, 110, 180).filled());
            root.draw(&bar).map_err(|e| failed(&e))?;
            text(&rung.name, (12, top + 4))?;
            text(&format!("{:.2}", rung.milliseconds), (right.max(192) + 8, top + 4))?;
        }
        root.present().map_err(|e| failed(&e))?;
    }
    write_atomically(path, |out| out.put(svg.as_bytes()))
}
