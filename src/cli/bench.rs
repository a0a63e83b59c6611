//! `staticgrad bench`: speed against the limits that the machine shows in the same run.

mod competitor;
mod disturbed;
mod report;
mod speed;
mod train;
mod types;
mod update_stream;

use super::ThreadArgs;
use super::ladder;
use super::model::{Model, ModelArgs};
use super::output::{bytes, line, note};
use crate::disk::{destination, keep_input};
use crate::error::{Error, Result};
use crate::kernels::isa::Isa;
use crate::kernels::roofline::{Arithmetic, Streams, arithmetic_peak};
use clap::{Args, ValueEnum};
use report::{Measured, print};
use serde_json::json;
pub(super) use speed::main_type;
use speed::{Work, best_and_median, tokens};

/// Options of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// What to measure.
    #[arg(long, value_enum)]
    what: What,
    /// The model, for everything but the roofline; for train, a spec from scratch (by default gpt2) or a checkpoint.
    #[arg(long, value_name = "PATH")]
    model: Option<std::path::PathBuf>,
    /// Weights for a plan that holds none.
    #[arg(long, value_name = "PATH")]
    weights: Option<std::path::PathBuf>,
    /// Types of the weights in memory.
    #[arg(long, value_name = "TYPE", default_value = "native")]
    weights_type: String,
    /// Type in which keys and values are kept: f32, f16 or bf16 [default: f32, or as a plan was compiled].
    #[arg(long, value_name = "TYPE")]
    kv_type: Option<String>,
    /// Draw the ladder as SVG.
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<std::path::PathBuf>,
    /// Text whose perplexity is measured for each type of weights (types).
    #[arg(long, value_name = "FILE")]
    text: Option<std::path::PathBuf>,
    /// Rows of the prompt for prefill; position of the first token for decode; tokens of the ladder.
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    #[command(flatten)]
    train: train::TrainBenchArgs,
    /// Print time, arithmetic and traffic of prefill, decode or training per kind of op, in the mean of the repetitions; with a file name, write a
    /// trace that Perfetto opens too.
    #[arg(long, value_name = "TRACE.json", num_args = 0..=1, default_missing_value = "")]
    profile: Option<String>,
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
    /// Read and update bandwidth, arithmetic peaks.
    Roofline,
    /// A prompt in one call.
    Prefill,
    /// 64 tokens, one a call.
    Decode,
    /// Prefill and decode beside a busy process, and with four threads a core, over the undisturbed time.
    Disturbed,
    /// What keeps one core busy beside `disturbed`, until its standard input ends.
    #[value(hide = true)]
    Busy,
    /// Perplexity beside speed for each type of weights.
    Types,
    /// The published ablation of row skipping.
    Ladder,
    /// A training step by section and op.
    Train,
}

/// Refuses options that would have no effect on what is measured.
fn refuse_ignored(args: &BenchArgs) -> Result<()> {
    use What::{Decode, Ladder, Prefill, Roofline, Train, Types};
    let rules: [(&str, bool, &[What], &str); 4] = [
        (
            "--profile",
            args.profile.is_some(),
            &[Prefill, Decode, Train],
            "prefill, decode or train; `run --profile` has a prompt and tokens",
        ),
        ("--chart", args.chart.is_some(), &[Ladder], "ladder"),
        ("--text", args.text.is_some(), &[Types], "types"),
        ("--size, --set, --scaling, --memory-budget and --lora-rank", args.train.any(), &[Train], "train"),
    ];
    for (options, given, places, names) in rules {
        if given && !places.contains(&args.what) {
            return Err(Error::Usage(format!("{options}: for --what {names}")));
        }
    }
    if args.rows.is_some() && [Roofline, Train, Types].contains(&args.what) {
        return Err(Error::Usage("--rows: for --what prefill, decode, disturbed or ladder".into()));
    }
    Ok(())
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<()> {
    let threads = args.threads.count()?;
    if args.repeat == 0 {
        return Err(Error::Usage("--repeat must be at least 1".into()));
    }
    if args.rows == Some(0) {
        return Err(Error::Usage("--rows 0: must be at least 1".into()));
    }
    refuse_ignored(args)?;
    let trace = args.profile.iter().filter(|trace| !trace.is_empty()).map(std::path::Path::new);
    for written in trace.chain(args.chart.as_deref()) {
        destination(written)?;
        args.model.iter().chain(&args.weights).chain(&args.text).try_for_each(|input| keep_input(input, written))?;
    }
    match (args.what, &args.model) {
        (What::Roofline, _) => {
            roofline(args, threads);
            Ok(())
        }
        (What::Busy, _) => competitor::keep_busy(),
        (What::Train, model) => train::run(args, model.as_deref(), threads),
        (_, None) => Err(Error::Usage("--model PATH is missing".into())),
        (What::Types, Some(path)) => {
            let text = args.text.as_deref().ok_or_else(|| Error::Usage("--text FILE is missing".into()))?;
            types::run(&model_args(args, path), text, threads, args.repeat, &|row| print_type(args, path, threads, row))
        }
        (What::Ladder, Some(path)) => {
            let rows = args.rows.unwrap_or(LADDER_TOKENS);
            ladder::run(&model_args(args, path), threads, (rows, args.repeat), args.json, args.chart.as_deref())
        }
        (What::Disturbed, Some(path)) => disturbed(args, &open(args, path)?, threads),
        (What::Prefill, Some(path)) => {
            let model = open(args, path)?;
            let context = model.context()?;
            if let Some(rows) = args.rows.filter(|&rows| rows > context) {
                return Err(Error::Usage(format!("--rows {rows} exceeds the model's context of {context} rows")));
            }
            speed(args, &model, Work::Prefill(args.rows.unwrap_or(512)), threads)
        }
        (What::Decode, Some(path)) => speed(args, &open(args, path)?, Work::Decode(args.rows.unwrap_or(8)), threads),
    }
}

/// Tokens of the published ablation.
const LADDER_TOKENS: usize = 200;

fn model_args(args: &BenchArgs, path: &std::path::Path) -> ModelArgs {
    ModelArgs {
        model: Some(path.to_path_buf()),
        weights: args.weights.clone(),
        weights_type: args.weights_type.clone(),
        kv_type: args.kv_type.clone(),
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
    let show = |what, dtype, unit, (best, median): (f64, f64)| {
        let percent_of_limit = 100.0 * median / best;
        print(
            args,
            threads,
            &Measured {
                what,
                model: "machine",
                dtype,
                rows: 0,
                best,
                median,
                unit,
                percent_of_limit,
                rates: None,
                limit: None,
            },
        );
    };
    show("read bandwidth", "f32", "GB/s", repeat(&mut || streams.read_bandwidth(isa, threads)));
    show("update bandwidth", "f32", "GB/s", repeat(&mut || streams.update_bandwidth(isa, threads)));
    for (what, dtype, kind) in [
        ("f32 peak", "f32", Arithmetic::F32),
        ("bf16 peak", "bf16", Arithmetic::Bf16),
        ("int8 peak", "int8", Arithmetic::Int8),
    ] {
        show(what, dtype, "GFLOP/s", repeat(&mut || arithmetic_peak(isa, kind, threads).best));
    }
}

fn speed(args: &BenchArgs, model: &Model, work: Work, threads: usize) -> Result<()> {
    let speed = speed::measure(model, work, threads, args.repeat, args.profile.as_deref())?;
    let m = Measured {
        what: work.name(),
        model: &model.name(),
        dtype: speed.dtype.name(),
        rows: speed.rows,
        best: speed.best,
        median: speed.median,
        unit: "tokens/s",
        percent_of_limit: speed.percent_of_limit,
        rates: Some((speed.bytes_per_second, speed.flops_per_second)),
        limit: Some(speed.limit),
    };
    print(args, threads, &m);
    speed.profile.iter().for_each(|table| note(table.trim_end()));
    Ok(())
}

/// Most that a disturbance may cost, in undisturbed times.
const MOST_SLOWDOWN: f64 = 2.0;

fn disturbed(args: &BenchArgs, model: &Model, threads: usize) -> Result<()> {
    for work in [Work::Decode(8), Work::Prefill(args.rows.unwrap_or(512))] {
        for slow in disturbed::measure(model, work, threads, args.repeat)? {
            let m = Measured {
                what: &format!("{} {}", slow.work.name(), slow.by),
                model: &model.name(),
                dtype: "",
                rows: work.rows(),
                best: slow.best,
                median: slow.median,
                unit: "× time",
                percent_of_limit: 100.0 * slow.median / MOST_SLOWDOWN,
                rates: None,
                limit: None,
            };
            print(args, slow.threads, &m);
        }
    }
    Ok(())
}

fn print_type(args: &BenchArgs, path: &std::path::Path, threads: usize, row: &types::Row) {
    let model = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let (decode, prefill) = (&row.decode, &row.prefill);
    if args.json {
        let object = json!({
            "what": "types", "model": model, "dtype": row.name, "threads": threads, "perplexity": row.perplexity,
            "tokens": row.tokens, "weights": decode.weights, "decode": decode.median, "prefill": prefill.median,
            "unit": "tokens/s",
        });
        return line(&object.to_string());
    }
    line(&format!(
        "{:<7} weights {:>10}  perplexity {:>9.4} ({} tokens)  decode {:>8.1} tokens/s  prefill({}) {:>8.1} tokens/s",
        row.name,
        bytes(decode.weights as u64),
        row.perplexity,
        row.tokens,
        decode.median,
        prefill.rows,
        prefill.median
    ));
}
