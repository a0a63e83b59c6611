//! `staticgrad compile`: a spec or a checkpoint to a plan file.

use super::model::{checkpoint_at, parse_kv_type};
use super::output::{bytes, line};
use super::size;
use super::train::source::ModelSource;
use crate::disk::keep_input;
use crate::error::{Error, Result};
use crate::ops::Capacity;
use crate::passes::kept_type::keep_as;
use crate::passes::optimizer::AdamW;
use crate::passes::{Fusions, Layout, Mode, Training, lower, train};
use crate::plan::budget::{self, FuseOptimizer};
use crate::plan::{Plan, compile_with, file};
use crate::weights::{ParamStore, WeightsType};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Options of `compile`.
#[derive(Args)]
pub struct CompileArgs {
    /// A spec (`gpt2`, `llama`, or a .sg file), or a checkpoint whose configuration picks and sizes the spec.
    #[arg(value_name = "SPEC")]
    spec: String,
    /// What the plan is for.
    #[arg(long, value_enum, default_value_t = PlanMode::Infer)]
    mode: PlanMode,
    /// Rows of a sequence [default: the model's context T].
    #[arg(long, value_name = "T")]
    rows: Option<usize>,
    /// Rows that one call computes at most (inference).
    #[arg(long, value_name = "N")]
    step_rows: Option<usize>,
    /// Rows of one call that get logits (inference) [default: one per slot].
    #[arg(long, value_name = "N")]
    wanted_rows: Option<usize>,
    /// Sequences (batch, when training).
    #[arg(long, value_name = "B", default_value_t = 1)]
    slots: usize,
    /// What an inference plan keeps: compact keeps what later rows read, full keeps every activation.
    #[arg(long, value_enum, default_value_t = PlanLayout::Compact)]
    layout: PlanLayout,
    /// Recompute what it takes to keep activations and gradients of a training step within SIZE (1GiB, 500MiB, bytes).
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory_budget: Option<u64>,
    /// Update parameters inside backward, so that each gradient is freed at once (training without clipping or accumulation).
    #[arg(long)]
    fuse_optimizer: bool,
    /// Keep gradients over several micro-batches (training).
    #[arg(long)]
    accumulate: bool,
    /// A named size of the spec.
    #[arg(long, value_name = "NAME")]
    size: Option<String>,
    /// Set a dimension or constant of the spec (repeatable), such as C=64.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Leave a fusion pass out (repeatable): all, gate-up, activation, products, residual or norm.
    #[arg(long, value_name = "NAME")]
    no_fuse: Vec<String>,
    /// Print the graph as text instead: as the spec unrolls (graph) or as it is planned (lowered).
    #[arg(long, value_enum)]
    emit: Option<Emit>,
    /// Pack these weights into the file, ready to run.
    #[arg(long, value_name = "PATH")]
    weights: Option<PathBuf>,
    /// Types of the packed weights.
    #[arg(long, value_name = "TYPE", default_value = "native")]
    weights_type: String,
    /// Type in which keys and values are kept (inference): f32, f16 or bf16.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    kv_type: String,
    /// The plan file to write.
    #[arg(short, long, value_name = "FILE.plan")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
enum PlanMode {
    Infer,
    Train,
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
enum PlanLayout {
    Compact,
    Full,
}

#[derive(Clone, Copy, ValueEnum)]
enum Emit {
    Graph,
    Lowered,
}

/// Refuses options that would have no effect beside the others.
fn refuse_ignored(args: &CompileArgs) -> Result<()> {
    let training = args.mode == PlanMode::Train;
    let rules = [
        (training && args.step_rows.is_some(), "--step-rows is for --mode infer"),
        (training && args.wanted_rows.is_some(), "--wanted-rows is for --mode infer"),
        (training && args.layout == PlanLayout::Full, "--layout is for --mode infer"),
        (training && args.kv_type != "f32", "--kv-type is for --mode infer; training needs f32"),
        (!training && args.memory_budget.is_some(), "--memory-budget is for --mode train"),
        (!training && args.fuse_optimizer, "--fuse-optimizer is for --mode train"),
        (!training && args.accumulate, "--accumulate is for --mode train"),
        (args.emit.is_some() && args.output.is_some(), "--emit prints a graph and writes no plan; leave out -o"),
        (
            args.weights.is_some() && args.output.is_none(),
            "--weights packs weights into a plan file; name the file with -o, or leave out --weights",
        ),
        (
            args.weights.is_none() && args.weights_type != "native",
            "--weights-type is the type of packed weights; give --weights PATH",
        ),
    ];
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, message)) => Err(Error::Usage((*message).into())),
        None => Ok(()),
    }
}

/// Runs the command.
pub fn run(args: &CompileArgs) -> Result<()> {
    let counts = [("--rows", args.rows), ("--step-rows", args.step_rows), ("--wanted-rows", args.wanted_rows)];
    for (flag, count) in counts.into_iter().chain([("--slots", Some(args.slots))]) {
        if count == Some(0) {
            return Err(Error::Usage(format!("{flag} 0: must be at least 1")));
        }
    }
    refuse_ignored(args)?;
    for input in args.weights.iter().chain([&PathBuf::from(&args.spec)]) {
        args.output.iter().try_for_each(|output| keep_input(input, output))?;
    }
    let kv_type = parse_kv_type(Some(&args.kv_type))?;
    let graph = ModelSource::open(&args.spec, args.size.as_deref(), &args.set)?.graph;
    let mode = match (args.mode, args.layout) {
        (PlanMode::Train, _) => Mode::Train,
        (PlanMode::Infer, PlanLayout::Compact) => Mode::Infer(Layout::Compact),
        (PlanMode::Infer, PlanLayout::Full) => Mode::Infer(Layout::Full),
    };
    let mut fusions = Fusions::ALL;
    for name in &args.no_fuse {
        if name == "all" {
            fusions = Fusions::NONE;
        } else if !fusions.switch_off(name) {
            return Err(Error::Usage(format!(
                "--no-fuse {name}: unknown; use all or one of {}",
                Fusions::NAMES.join(", ")
            )));
        }
    }
    let graph = match args.mode {
        PlanMode::Infer => keep_as(&graph, kv_type)?,
        PlanMode::Train => {
            let training =
                Training { accumulate: args.accumulate, optimizer: Some(AdamW::default()), ..Training::default() };
            train(&graph, &training)?
        }
    };
    if let Some(emit) = args.emit {
        let graph = match emit {
            Emit::Graph => graph,
            Emit::Lowered => lower(graph, mode, fusions)?,
        };
        line(graph.to_string().trim_end());
        return Ok(());
    }
    let model_rows = match graph.constants.get("T") {
        Some(crate::graph::Attr::Int(t)) => Some(*t as usize),
        _ => None,
    };
    let context =
        args.rows.or(model_rows).ok_or_else(|| Error::Usage("the spec has no dimension T; give --rows".into()))?;
    if let Some(t) = model_rows.filter(|&t| context > t) {
        return Err(Error::Usage(format!("--rows {context} exceeds the model's context of {t} rows")));
    }
    let step_rows = match args.mode {
        PlanMode::Infer => args.step_rows.unwrap_or(context.min(64)),
        PlanMode::Train => args.slots.saturating_mul(context),
    };
    let wanted_rows = match args.mode {
        PlanMode::Infer => args.wanted_rows.unwrap_or(args.slots.min(step_rows)),
        PlanMode::Train => step_rows,
    };
    let capacity = Capacity { slots: args.slots, context, step_rows, wanted_rows };
    let plan = if args.memory_budget.is_some() || args.fuse_optimizer {
        let fuse = if args.fuse_optimizer { FuseOptimizer::Always } else { FuseOptimizer::Never };
        let budgeted = budget::fit(graph, capacity, args.memory_budget.unwrap_or(u64::MAX), 1, fuse)?;
        size::print_curve(&budgeted.curve, &budgeted.choice);
        budgeted.plan
    } else {
        compile_with(graph, mode, capacity, fusions)?
    };
    report(&plan);
    let Some(output) = &args.output else { return Ok(()) };
    match &args.weights {
        None => file::save(output, &plan)?,
        Some(weights) => {
            let checkpoint = checkpoint_at(weights, &[])?;
            let store = ParamStore::load(&plan.graph, &checkpoint, WeightsType::from_name(&args.weights_type)?)?;
            let text = checkpoint.tokenizer_metadata()?;
            file::save_with_weights(output, &plan, &store.checked_entries(), store.bytes(), &text)?;
            line(&format!("weights {} ({} B)", bytes(store.bytes().len() as u64), store.bytes().len()));
        }
    }
    line(&format!("wrote {}", output.display()));
    Ok(())
}

/// Bytes of each kind of buffer, in the order of first appearance.
fn by_kind(plan: &Plan) -> Vec<(&'static str, u64, usize)> {
    let mut kinds: Vec<(&'static str, u64, usize)> = Vec::new();
    for b in &plan.buffers {
        match kinds.iter_mut().find(|(name, ..)| *name == b.kind.name()) {
            Some((_, size, count)) => (*size, *count) = (*size + b.size, *count + 1),
            None => kinds.push((b.kind.name(), b.size, 1)),
        }
    }
    kinds
}

fn report(plan: &Plan) {
    let c = &plan.capacity;
    line(&format!(
        "{}: {} steps, {} buffers; {} slots × {} rows, {} rows a call",
        plan.graph.name,
        plan.graph.nodes.len(),
        plan.buffers.len(),
        c.slots,
        c.context,
        c.step_rows
    ));
    let t = &plan.totals;
    for (what, n) in [
        ("persistent", t.persistent),
        ("transient", t.transient),
        ("bound (max load)", t.max_load),
        ("scratch per worker", t.scratch_per_worker),
        ("arena, one worker", t.arena(1)),
    ] {
        line(&format!("  {what:<20} {n:>14} B  {}", bytes(n)));
    }
    for (name, size, count) in by_kind(plan) {
        line(&format!("    {name:<20} {size:>12} B in {count} buffers, before they share memory"));
    }
    line(&format!("  fragmentation        {:>14.3} %  {}", 100.0 * t.fragmentation(), t.status()));
}
