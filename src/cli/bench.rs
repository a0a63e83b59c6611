//! `staticgrad bench`: speed against the limits that the machine shows in the same run.

mod train;

use super::ThreadArgs;
use super::ladder;
use super::model::{Model, ModelArgs};
use super::output::line;
use crate::error::{Error, Result};
use crate::exec::{Session, Want};
use crate::graph::RowSpace;
use crate::kernels::isa::Isa;
use crate::kernels::roofline::{Arithmetic, Streams, arithmetic_peak};
use crate::ops::{self, Capacity};
use crate::plan::Plan;
use crate::tensor::DType;
use crate::weights::ParamStore;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::time::Instant;

/// Options of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// What to measure.
    #[arg(long, value_enum)]
    what: What,
    /// The model; for train, a spec from scratch (by default gpt2) or a checkpoint.
    #[arg(long, value_name = "PATH", required_if_eq_any([("what", "prefill"), ("what", "decode"), ("what", "ladder")]))]
    model: Option<std::path::PathBuf>,
    /// Weights for a plan that holds none.
    #[arg(long, value_name = "PATH")]
    weights: Option<std::path::PathBuf>,
    /// Types of the weights in memory.
    #[arg(long, value_name = "TYPE", default_value = "native")]
    weights_type: String,
    /// Draw the ladder as SVG.
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<std::path::PathBuf>,
    /// Rows of the prompt for prefill; position of the first token for decode; tokens of the ladder.
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    #[command(flatten)]
    train: train::TrainBenchArgs,
    /// Repetitions.
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeat: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArgs,
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
enum What {
    Roofline,
    Prefill,
    Decode,
    Ladder,
    Train,
}

/// One measured line.
struct Measured<'a> {
    what: &'a str,
    model: &'a str,
    dtype: &'a str,
    rows: usize,
    best: f64,
    median: f64,
    unit: &'a str,
    percent_of_limit: f64,
}

fn print(args: &BenchArgs, threads: usize, m: &Measured) {
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    if args.json {
        let object = json!({
            "what": m.what, "model": m.model, "dtype": m.dtype, "threads": threads, "rows": m.rows,
            "best": round(m.best), "median": round(m.median), "unit": m.unit, "percent_of_limit": round(m.percent_of_limit),
        });
        line(&object.to_string());
    } else {
        line(&format!(
            "{:<22} {:<24} {:<6} best {:>10.2} {:<9} median {:>10.2}  {:>5.1} % of the limit",
            m.what, m.model, m.dtype, m.best, m.unit, m.median, m.percent_of_limit
        ));
    }
}

fn best_and_median(mut rates: Vec<f64>) -> (f64, f64) {
    rates.sort_by(f64::total_cmp);
    (rates[rates.len() - 1], rates[rates.len() / 2])
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<()> {
    let threads = args.threads.count()?;
    if args.repeat == 0 {
        return Err(Error::Usage("--repeat must be at least 1".into()));
    }
    match (args.what, &args.model) {
        (What::Roofline, _) => {
            roofline(args, threads);
            Ok(())
        }
        (What::Train, model) => train::run(args, model.as_deref(), threads),
        (_, None) => Err(Error::Usage("--model PATH is missing".into())),
        (What::Ladder, Some(path)) => {
            let rows = args.rows.unwrap_or(LADDER_TOKENS);
            ladder::run(&model_args(args, path), threads, rows, args.json, args.chart.as_deref())
        }
        (What::Prefill, Some(path)) => prefill(args, &open(args, path)?, threads),
        (What::Decode, Some(path)) => decode(args, &open(args, path)?, threads),
    }
}

/// Tokens of the published ablation.
const LADDER_TOKENS: usize = 200;

fn model_args(args: &BenchArgs, path: &std::path::Path) -> ModelArgs {
    ModelArgs {
        model: Some(path.to_path_buf()),
        weights: args.weights.clone(),
        weights_type: args.weights_type.clone(),
        set: Vec::new(),
    }
}

fn open(args: &BenchArgs, path: &std::path::Path) -> Result<Model> {
    Model::open(&model_args(args, path))
}

fn roofline(args: &BenchArgs, threads: usize) {
    let isa = Isa::current();
    let mut streams = Streams::allocate();
    let repeat = |f: &mut dyn FnMut() -> f64| best_and_median((0..args.repeat).map(|_| f() / 1e9).collect());
    let show = |what, unit, (best, median): (f64, f64)| {
        let percent_of_limit = 100.0 * median / best;
        print(
            args,
            threads,
            &Measured { what, model: "machine", dtype: "f32", rows: 0, best, median, unit, percent_of_limit },
        );
    };
    show("read bandwidth", "GB/s", repeat(&mut || streams.read_bandwidth(isa, threads)));
    show("update bandwidth", "GB/s", repeat(&mut || streams.update_bandwidth(isa, threads)));
    for (what, kind) in
        [("f32 peak", Arithmetic::F32), ("bf16 peak", Arithmetic::Bf16), ("int8 peak", Arithmetic::Int8)]
    {
        show(what, "GFLOP/s", repeat(&mut || arithmetic_peak(isa, kind, threads)));
    }
}

/// Tokens that are as good as any: the same for every run and every program.
fn tokens(n: usize, vocabulary: usize) -> Vec<i32> {
    (0..n).map(|i| (i * 7919 % vocabulary.min(49000)) as i32).collect()
}

/// Weight bytes that one decoded token reads: every matrix that is multiplied by.
fn bytes_per_token(plan: &Plan, store: &ParamStore) -> usize {
    let multiplied = |name: &str| {
        plan.graph
            .nodes
            .iter()
            .any(|n| n.op == "linear" && n.operands.iter().any(|&t| plan.graph.tensor(t).name == name))
    };
    store.entries().iter().filter(|e| e.matrix.is_some() && multiplied(&e.name)).map(|e| e.len).sum()
}

/// Bytes of keys and values that a token at position `position` reads.
fn kept_bytes(plan: &Plan, position: usize) -> usize {
    let kept =
        plan.graph.tensors.iter().filter(|t| t.ty.extent == crate::tensor::RowExtent::Kept && t.ty.dtype == DType::F32);
    kept.map(|t| 4 * t.ty.shape.elements() * (position + 1)).sum()
}

/// Arithmetic of a call of `rows` rows from the first on, of which one is wanted.
fn flops(plan: &Plan, rows: usize) -> f64 {
    let cost = |node: &crate::graph::Node| {
        let op = ops::find(&node.op).expect("the plan was verified");
        let live = if node.space == RowSpace::Wanted { 1 } else { rows };
        op.cost(&ops::build::signature(&plan.graph, node), live, rows).flops
    };
    plan.graph.nodes.iter().filter(|n| n.op == "linear" || n.op == "causal_attention").map(cost).sum()
}

fn main_type(store: &ParamStore) -> DType {
    let matrix = |d: DType| {
        store.entries().iter().filter(move |e| e.matrix.is_some() && e.dtype == d).map(|e| e.len).sum::<usize>()
    };
    DType::ALL.into_iter().max_by_key(|&d| matrix(d)).unwrap_or(DType::F32)
}

fn prefill(args: &BenchArgs, model: &Model, threads: usize) -> Result<()> {
    let rows = args.rows.unwrap_or(512).min(model.context()?);
    let plan = model.plan(Capacity { slots: 1, context: rows, step_rows: rows, wanted_rows: 1 })?;
    let store = model.store(&plan)?;
    let mut session = Session::new(&plan, threads, &|name| store.get(name))?;
    let prompt = tokens(rows, session.vocabulary());
    let mut rates = Vec::new();
    for _ in 0..=args.repeat {
        session.truncate(0, 0);
        let start = Instant::now();
        prompt.chunks(plan.capacity.step_rows).try_for_each(|part| session.run(&[(0, part)], Want::Last))?;
        rates.push(rows as f64 / start.elapsed().as_secs_f64());
    }
    rates.remove(0);
    let dtype = main_type(&store);
    let kind = match dtype {
        DType::F32 | DType::F16 => Arithmetic::F32,
        DType::BF16 => Arithmetic::Bf16,
        _ => Arithmetic::Int8,
    };
    let limit = arithmetic_peak(Isa::current(), kind, threads);
    let (best, median) = best_and_median(rates);
    let percent_of_limit = 100.0 * best * flops(&plan, rows) / rows as f64 / limit;
    let name = model.name();
    let m = Measured {
        what: "prefill",
        model: &name,
        dtype: dtype.name(),
        rows,
        best,
        median,
        unit: "tokens/s",
        percent_of_limit,
    };
    print(args, threads, &m);
    Ok(())
}

/// Tokens generated after the prompt.
const DECODE_TOKENS: usize = 64;

fn decode(args: &BenchArgs, model: &Model, threads: usize) -> Result<()> {
    let context = model.context()?;
    let rows = args.rows.unwrap_or(8).max(1);
    if rows + DECODE_TOKENS > context {
        return Err(Error::Usage(format!(
            "--rows {rows} and {DECODE_TOKENS} tokens exceed the context of {context} rows"
        )));
    }
    let capacity = Capacity { slots: 1, context: rows + DECODE_TOKENS, step_rows: rows.min(256), wanted_rows: 1 };
    let plan = model.plan(capacity)?;
    let store = model.store(&plan)?;
    let mut session = Session::new(&plan, threads, &|name| store.get(name))?;
    let text = tokens(rows + DECODE_TOKENS, session.vocabulary());
    let isa = Isa::current();
    let streams = Streams::allocate();
    let mut bandwidth: f64 = 0.0;
    let mut rates = Vec::new();
    for _ in 0..=args.repeat {
        bandwidth = bandwidth.max(streams.read_bandwidth(isa, threads));
        session.truncate(0, 0);
        session.advance_to(0, &text[..rows])?;
        let start = Instant::now();
        text[rows..].iter().try_for_each(|&t| session.run(&[(0, &[t])], Want::Last))?;
        rates.push(DECODE_TOKENS as f64 / start.elapsed().as_secs_f64());
    }
    rates.remove(0);
    let (best, median) = best_and_median(rates);
    let bytes = bytes_per_token(&plan, &store) + kept_bytes(&plan, rows + DECODE_TOKENS / 2);
    let percent_of_limit = 100.0 * best * bytes as f64 / bandwidth;
    let (name, dtype) = (model.name(), main_type(&store));
    let m = Measured {
        what: "decode",
        model: &name,
        dtype: dtype.name(),
        rows,
        best,
        median,
        unit: "tokens/s",
        percent_of_limit,
    };
    print(args, threads, &m);
    Ok(())
}
