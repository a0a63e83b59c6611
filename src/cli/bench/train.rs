//! `bench --what train`: a training step against the limits of the machine, split into its sections and into kinds of ops.

mod report;

use super::super::op_times::{self, OpTimes};
use super::super::output::note;
use super::super::profile;
use super::super::size;
use super::super::train::lora_options::LoraArgs;
use super::super::train::source::ModelSource;
use super::update_stream::UpdateStream;
use super::{BenchArgs, best_and_median, tokens};
use crate::error::{Error, Result};
use crate::exec::{Trainer, Update};
use crate::graph::{Node, TensorId};
use crate::kernels::isa::Isa;
use crate::kernels::roofline::{Arithmetic, Passes, Streams, arithmetic_peak};
use crate::ops::{self, Capacity};
use crate::passes::{self, Mode, Training};
use crate::plan::budget::{self, FuseOptimizer};
use crate::plan::{self, Plan};
use crate::tensor::RowExtent;
use crate::train::{Precision, init};
use clap::Args;
use std::path::Path;
use std::time::Instant;

/// Options of `bench --what train`.
#[derive(Args)]
pub struct TrainBenchArgs {
    /// A named size of the spec that is trained.
    #[arg(long, value_name = "NAME")]
    size: Option<String>,
    /// Set a dimension or constant of the spec that is trained (repeatable), such as C=64.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Factors of matrix products while training: f32 or bf16.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    precision: String,
    /// Sequences of a training step.
    #[arg(long, value_name = "B", default_value_t = 4)]
    batch: usize,
    /// Tokens of a training sequence.
    #[arg(long, value_name = "T", default_value_t = 64)]
    context: usize,
    #[command(flatten)]
    lora: LoraArgs,
    /// Keep activations, gradients and scratch of a training step within SIZE (1GiB, 500MiB, bytes).
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory_budget: Option<u64>,
    /// Measure training on one thread too: how much of the arithmetic's own scaling the other threads give.
    #[arg(long)]
    scaling: bool,
}

impl TrainBenchArgs {
    /// Whether an option is given that has no default.
    pub fn any(&self) -> bool {
        let planned = self.memory_budget.is_some() || self.scaling || self.lora.is_given();
        self.size.is_some() || !self.set.is_empty() || planned
    }
}

/// What the machine does beside the steps.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    /// Multiply-adds of products at their precision, operations a second.
    products: Passes,
    /// Multiply-adds in f32, after the steps.
    f32: f64,
    /// Bytes a second of the stream that reads four arrays and writes three: the median over steps.
    update: f64,
}

/// Multiply-adds of products at `precision`, operations a second.
fn products_now(precision: Precision, threads: usize) -> Passes {
    let kind = match precision {
        Precision::F32 => Arithmetic::F32,
        Precision::Bf16 => Arithmetic::Bf16,
    };
    arithmetic_peak(Isa::current(), kind, threads)
}

/// One step, the limits of which are measured beside it.
struct Step {
    /// Seconds.
    seconds: f64,
    /// Of them those of forward, backward, optimiser.
    sections: [f64; 3],
    /// Bytes a second of the stream, the mean of passes just before and just after the optimiser: the bandwidth of a shared machine changes
    /// within seconds, and the optimiser takes a tenth of one.
    stream: f64,
    /// Operations a second of products in registers just before and just after the step.
    products: Passes,
}

impl Step {
    fn run(
        trainer: &mut Trainer,
        (inputs, targets): (&[i32], &[i32]),
        number: usize,
        stream: &UpdateStream,
        products: impl Fn() -> Passes,
    ) -> Result<Self> {
        let peak = products();
        let start = Instant::now();
        trainer.begin(number);
        trainer.micro_step(inputs, targets, 1.0 / inputs.len() as f32)?;
        let gradients = start.elapsed();
        let before = stream.bandwidth(trainer.executor());
        let start = Instant::now();
        trainer.update(&Update { step: number, learning_rate: 1e-4, max_norm: Some(1.0) });
        let seconds = (gradients + start.elapsed()).as_secs_f64();
        let after = stream.bandwidth(trainer.executor());
        let products = Passes::together([peak, products()]);
        Ok(Step { seconds, sections: trainer.seconds(), stream: (before + after) / 2.0, products })
    }
}

/// Steps on so many threads.
struct Measured {
    /// Seconds of each step, shortest first.
    steps: Vec<f64>,
    /// Mean seconds of forward, backward, optimiser.
    sections: [f64; 3],
    /// The optimiser's bandwidth over that of the stream beside it: the median over steps.
    stream_share: f64,
    kinds: Vec<OpTimes>,
    limits: Limits,
}

/// Whether most of a node's time should go into matrix products. Head and loss are one node, so softmax is in it.
fn is_product(op: &str) -> bool {
    matches!(op, "linear" | "linear.d_input" | "linear.d_weight" | "cross_entropy_head")
}

/// Runs the measurement and prints it.
///
/// # Errors
/// What the spec, the checkpoint or the planner refuses; too little memory.
pub fn run(args: &BenchArgs, model: Option<&Path>, threads: usize) -> Result<()> {
    let TrainBenchArgs { size, set, batch, context, scaling, .. } = &args.train;
    let precision: Precision = args.train.precision.parse()?;
    let name = model.map_or("gpt2".into(), |path| path.to_string_lossy());
    let source = ModelSource::open(&name, size.as_deref(), set)?;
    let longest = source.dim("T")?;
    if *batch == 0 || *context == 0 || *context > longest {
        return Err(Error::Usage(format!(
            "--batch {batch} --context {context}: at least 1, and a context of {longest} at most"
        )));
    }
    let training =
        Training { optimizer: Some(Default::default()), bf16: precision == Precision::Bf16, ..Training::default() };
    let rows = batch * context;
    let capacity = Capacity { slots: *batch, context: *context, step_rows: rows, wanted_rows: rows };
    let adapters = args.train.lora.adapters()?;
    let graph = match &adapters {
        Some(adapters) => adapters.attach(&source.graph)?,
        None => source.graph.clone(),
    };
    let graph = passes::train(&graph, &training)?;
    let plan = match (args.train.memory_budget, &adapters) {
        (Some(bytes), _) => budget::fit(graph, capacity, bytes, threads, FuseOptimizer::Never)?.plan,
        (None, Some(_)) => budget::frugal(&graph, capacity)?,
        (None, None) => plan::compile(graph, Mode::Train, capacity)?,
    };
    let mut streams = Streams::allocate();
    let counts = if *scaling && threads > 1 { vec![threads, 1] } else { vec![threads] };
    let mut results = Vec::new();
    for threads in counts {
        results.push(measure(args, &plan, &source, &mut streams, precision, threads)?);
    }
    let name = Path::new(&*name).file_name().map_or(name.clone(), |n| n.to_string_lossy());
    let name = adapters.map_or(name.to_string(), |a| format!("{name}, adapters of rank {}", a.rank));
    report::print(args, &plan, &name, threads, &results);
    if args.profile.is_some() {
        note(op_times::table(&mut results[0].kinds).trim_end());
    }
    Ok(())
}

fn measure(
    args: &BenchArgs,
    plan: &Plan,
    source: &ModelSource,
    streams: &mut Streams,
    precision: Precision,
    threads: usize,
) -> Result<Measured> {
    let mut trainer = Trainer::new(plan, threads)?;
    match &source.checkpoint {
        Some(checkpoint) => init::load(&mut trainer, checkpoint, 0)?,
        None => init::initialise(&mut trainer, 1),
    }
    let text = tokens(trainer.rows() + 1, source.dim("V")?);
    let (inputs, targets) = (&text[..trainer.rows()], &text[1..]);
    let stream = UpdateStream::new(streams);
    let products = || products_now(precision, threads);
    Step::run(&mut trainer, (inputs, targets), 1, &stream, products)?;
    let trace = args.profile.as_ref().is_some_and(|file| !file.is_empty());
    trainer.executor_mut().set_profile(true, trace);
    let mut steps = Vec::with_capacity(args.repeat);
    for number in 0..args.repeat {
        steps.push(Step::run(&mut trainer, (inputs, targets), number + 2, &stream, products)?);
    }
    if let Some(file) = args.profile.as_ref().filter(|_| trace) {
        profile::write_trace(trainer.executor(), file.as_ref())?;
    }
    let bytes = update_bytes(plan);
    let share = |s: &Step| bytes / s.sections[2] / s.stream;
    let stream_share = best_and_median(steps.iter().map(share).collect()).1;
    let limits = Limits {
        products: Passes::together(steps.iter().map(|s| s.products)),
        f32: arithmetic_peak(Isa::current(), Arithmetic::F32, threads).mean,
        update: best_and_median(steps.iter().map(|s| s.stream).collect()).1,
    };
    let sections = [0, 1, 2].map(|i| steps.iter().map(|s| s.sections[i]).sum::<f64>() / args.repeat as f64);
    let mut steps: Vec<f64> = steps.iter().map(|s| s.seconds).collect();
    steps.sort_by(f64::total_cmp);
    let mut kinds = Vec::new();
    for time in trainer.executor().profile() {
        let node = &plan.graph.nodes[time.node];
        let (flops, bytes) = work(plan, node);
        let peak = if is_product(&node.op) { limits.products.mean } else { limits.f32 };
        let least = f64::max(flops / peak, bytes / limits.update);
        op_times::add(&mut kinds, node, time.nanoseconds as f64 * 1e-9 / args.repeat as f64, (flops, bytes, least));
    }
    Ok(Measured { steps, sections, stream_share, kinds, limits })
}

/// Arithmetic and bytes of a node in a step; the bytes of products include weights and their gradients.
fn work(plan: &Plan, node: &Node) -> (f64, f64) {
    let op = ops::find(&node.op).expect("the plan was verified");
    let Capacity { step_rows, context, .. } = plan.capacity;
    let cost = op.cost(&ops::build::signature(&plan.graph, node), step_rows, context);
    let matrix = |t: &&TensorId| plan.graph.ty(**t).extent == RowExtent::Fixed && plan.graph.ty(**t).shape.rank() == 2;
    let matrices = node.operands.iter().chain(&node.outputs).filter(matrix);
    let bytes: usize = matrices.map(|&t| 4 * plan.graph.ty(t).shape.elements()).sum();
    (cost.flops, cost.bytes + if is_product(&node.op) { bytes as f64 } else { 0.0 })
}

/// Bytes of the four arrays that an optimiser step must read and the three that it must write.
fn update_bytes(plan: &Plan) -> f64 {
    let nodes = plan.graph.nodes.iter().filter(|n| n.op == "adamw");
    nodes.map(|n| 28.0 * plan.graph.ty(n.operands[0]).shape.elements() as f64).sum()
}
