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
use crate::weights::{ParamStore, WeightsType};
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

/// Of rungs that take less than so many seconds a round, the median of all rounds counts; of the slow ones below them, the first.
const BRIEF: f64 = 3.0;

/// A rung: whether GELU comes from the table, up to which of [`RUNGS`] rows are skipped, and milliseconds per token of each round.
struct Rung {
    by_table: bool,
    skipped: usize,
    milliseconds: Vec<f64>,
}

impl Rung {
    fn name(&self) -> &'static str {
        if self.by_table { "+ GELU table (f16)" } else { RUNGS[self.skipped].0 }
    }

    fn median(&self) -> f64 {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
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

/// The model, with GELU as its spec has it or by the table; `None` when its spec knows no table.
fn open(args: &ModelArgs, by_table: bool) -> Result<Option<Model>> {
    let mut args = args.clone();
    if by_table {
        args.set.push("gelu_by_table=true".into());
    }
    match Model::open(&args) {
        Err(_) if by_table => Ok(None),
        opened => opened.map(Some),
    }
}

/// Runs the ladder over `count` tokens, up to `repeat` times, and prints a line a rung; `chart` gets bars as SVG.
///
/// # Errors
/// A model that is a compiled plan (the ladder needs the full layout), or that does not load.
pub fn run(
    args: &ModelArgs,
    threads: usize,
    (count, repeat): (usize, usize),
    json_lines: bool,
    chart: Option<&Path>,
) -> Result<()> {
    let model = Model::open(args)?;
    let (_, checkpoint) = model.checkpoint("the ladder")?;
    let context = model.context()?;
    if count == 0 || count > context {
        return Err(Error::Usage(format!("--rows {count} must be 1 to the context of {context} rows")));
    }
    // Calls of one row recompute up to all of them, which needs the scratch of as many.
    let capacity = Capacity { slots: 1, context: count, step_rows: count, wanted_rows: 1 };
    let mut plans = Vec::new();
    for by_table in [false, true] {
        if let Some(model) = open(args, by_table)? {
            plans.push(compile(model.graph().clone(), Mode::Infer(Layout::Full), capacity)?);
        }
    }
    // All rungs read the same memory: where the system put the weights makes no rung slower than another.
    let store = ParamStore::load(&plans[0].graph, checkpoint, WeightsType::from_name(&args.weights_type)?)?;
    let start = |plan| Session::new(plan, threads, &|name| store.get(name));
    let mut sessions = plans.iter().map(start).collect::<Result<Vec<_>>>()?;
    let vocabulary = sessions[0].vocabulary();
    let tokens: Vec<i32> = (0..count).map(|i| (i * 7919 % vocabulary) as i32).collect();
    let last = RUNGS.len() - 1;
    let rung = |by_table, skipped| Rung { by_table, skipped, milliseconds: Vec::with_capacity(repeat) };
    let mut rungs: Vec<Rung> = (0..=last).map(|i| rung(false, i)).collect();
    rungs.extend((sessions.len() > 1).then(|| rung(true, last)));
    for _ in 0..repeat {
        for rung in &mut rungs {
            let brief = |ms: &f64| ms * (tokens.len() as f64) < 1e3 * BRIEF;
            if rung.milliseconds.first().is_none_or(brief) {
                let session = &mut sessions[usize::from(rung.by_table)];
                rung.milliseconds.push(measure(session, &tokens, rung.skipped)?);
            }
        }
    }
    for rung in &rungs {
        let (name, median) = (rung.name(), rung.median());
        if json_lines {
            let object = json!({ "what": "ladder", "model": model.name(), "skipped": name, "threads": threads, "rows": count,
                "rounds": rung.milliseconds.len(), "median": median, "unit": "ms/token" });
            line(&object.to_string());
        } else {
            line(&format!("{name:<22} {median:>10.3} ms/token"));
        }
    }
    chart.map_or(Ok(()), |path| draw(path, &rungs))
}

/// Horizontal bars, one a rung.
fn draw(path: &Path, rungs: &[Rung]) -> Result<()> {
    let height = 60 + 34 * rungs.len() as u32;
    let longest = rungs.iter().map(Rung::median).fold(1e-9, f64::max);
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
            let right = 190 + (450.0 * rung.median() / longest) as i32;
            let bar = Rectangle::new([(190, top), (right.max(192), top + 24)], RGBColor(38, 110, 180).filled());
            root.draw(&bar).map_err(|e| failed(&e))?;
            text(rung.name(), (12, top + 4))?;
            text(&format!("{:.2}", rung.median()), (right.max(192) + 8, top + 4))?;
        }
        root.present().map_err(|e| failed(&e))?;
    }
    write_atomically(path, |out| out.put(svg.as_bytes()))
}
