//! The command line: thin, and the only place that prints.

mod accuracy;
mod bench;
mod check;
mod compile;
mod embedded;
mod eval;
mod export;
mod gradients;
mod ladder;
mod merge;
mod model;
mod output;
mod perplexity;
mod profile;
mod run;
mod size;
mod tokenize;
mod train;

use crate::error::{Error, Result};
use crate::kernels::isa::Isa;
use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// A static-graph compiler for GPT-class transformers on CPUs.
#[derive(Parser)]
#[command(name = "staticgrad", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  staticgrad run \"ROMEO:\"
  staticgrad train --model gpt2 --set V=256 --set C=64 --set L=2 --set H=4 --context 128 --data text.txt --steps 500 --out mine
  staticgrad run --model SmolLM2.gguf \"Once upon a time\" --max-tokens 40
  staticgrad compile gpt2 --size medium --rows 1024 --step-rows 64 -o gpt2.plan
  staticgrad eval --model ./gpt2 --tokens in.safetensors --out out.safetensors
  staticgrad bench --what decode --model ./gpt2 --json";

#[derive(Subcommand)]
enum Command {
    /// Generate text: prompt and continuation go to standard output, timing to standard error.
    Run(run::RunArgs),
    /// Compute logits and loss of given tokens.
    Eval(eval::EvalArgs),
    /// Compile a graph spec or a checkpoint's model to a memory plan.
    Compile(compile::CompileArgs),
    /// Train a model from scratch, or finetune one.
    Train(Box<train::TrainArgs>),
    /// Turn text files into token files for training.
    Tokenize(tokenize::TokenizeArgs),
    /// Compare logits, loss and gradients with an llm.c debug state.
    Check(check::CheckArgs),
    /// Measure how well a model predicts a text.
    Perplexity(perplexity::PerplexityArgs),
    /// Answer multiple-choice questions in llm.c's eval format.
    Accuracy(accuracy::AccuracyArgs),
    /// Write a checkpoint in another format.
    Export(export::ExportArgs),
    /// Merge a low-rank adapter (PEFT's layout) into its base model.
    Merge(merge::MergeArgs),
    /// Measure the machine's limits and the speed of a model against them.
    Bench(bench::BenchArgs),
}

/// Options of every command that computes.
#[derive(Args, Clone)]
struct ThreadArgs {
    /// Worker threads [default: one per core].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl ThreadArgs {
    fn count(&self) -> Result<usize> {
        match self.threads {
            Some(n) if n == 0 || n > 1024 => Err(Error::Usage(format!("--threads {n} must be 1 to 1024"))),
            Some(n) => Ok(n),
            None => Ok(std::thread::available_parallelism().map_or(1, |n| n.get())),
        }
    }
}

/// Parses the command line, runs the command, prints errors. Exit code 1 on failure, 2 on wrong usage.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Isa::from_environment().map_err(Error::Usage).and_then(|_| match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Accuracy(args) => accuracy::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Bench(args) => bench::run(&args),
    });
    match result.and_then(|()| output::refused()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be a closed pipe: then the exit code alone tells.
            let _ = writeln!(std::io::stderr(), "staticgrad: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
