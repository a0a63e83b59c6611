//! The command line: thin, and the only place that prints.

mod accuracy;
mod bench;
mod check;
mod compile;
mod embedded;
mod eval;
mod examples;
mod export;
mod gradients;
mod interrupt;
mod ladder;
mod merge;
mod model;
mod op_times;
mod output;
mod perplexity;
mod profile;
mod run;
mod size;
mod tokenize;
mod train;

use crate::disk::fail_past_size_limit;
use crate::error::{Error, Result};
use crate::kernels::isa::Isa;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// A static-graph compiler for GPT-class transformers on CPUs.
#[derive(Parser)]
#[command(name = "staticgrad", version, propagate_version = true, after_help = examples::ALL)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Generate text: prompt and continuation go to standard output, timing to standard error.
    #[command(after_help = examples::RUN)]
    Run(run::RunArgs),
    /// Compute logits and loss of given tokens.
    #[command(after_help = examples::EVAL)]
    Eval(eval::EvalArgs),
    /// Compile a graph spec or a checkpoint's model to a memory plan.
    #[command(after_help = examples::COMPILE)]
    Compile(compile::CompileArgs),
    /// Train a model from scratch, or finetune one.
    #[command(after_help = examples::TRAIN)]
    Train(Box<train::TrainArgs>),
    /// Turn text files into token files for training.
    #[command(after_help = examples::TOKENIZE)]
    Tokenize(tokenize::TokenizeArgs),
    /// Compare logits, loss and gradients with an llm.c debug state.
    #[command(after_help = examples::CHECK)]
    Check(check::CheckArgs),
    /// Measure how well a model predicts a text.
    #[command(after_help = examples::PERPLEXITY)]
    Perplexity(perplexity::PerplexityArgs),
    /// Answer multiple-choice questions in llm.c's eval format.
    #[command(after_help = examples::ACCURACY)]
    Accuracy(accuracy::AccuracyArgs),
    /// Write a checkpoint in another format.
    #[command(after_help = examples::EXPORT)]
    Export(export::ExportArgs),
    /// Merge a low-rank adapter (PEFT's layout) into its base model.
    #[command(after_help = examples::MERGE)]
    Merge(merge::MergeArgs),
    /// Measure the machine's limits and the speed of a model against them.
    #[command(after_help = examples::BENCH)]
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

/// The command line's grammar. A negative number is a value everywhere, so that it is refused, where it makes no sense, by the rule
/// of its option rather than as an unknown option.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|command| {
        command.mut_args(|argument| match argument.get_action().takes_values() {
            true => argument.allow_negative_numbers(true),
            false => argument,
        })
    })
}

/// Parses the command line, runs the command, prints errors. Exit code 1 on failure, 2 on wrong usage.
pub fn main() -> ExitCode {
    fail_past_size_limit();
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|e| e.exit());
    let writes = matches!(
        cli.command,
        Command::Eval(_) | Command::Compile(_) | Command::Tokenize(_) | Command::Export(_) | Command::Merge(_)
    );
    let prepared = Isa::from_environment().map_err(Error::Usage).map(drop);
    let prepared = prepared.and_then(|()| if writes { interrupt::leave_nothing() } else { Ok(()) });
    let result = prepared.and_then(|()| match cli.command {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a line; double quotes hold one together.
    fn words(line: &str) -> Vec<String> {
        let parts = line.split('"').enumerate();
        parts
            .flat_map(|(i, part)| {
                let several = part.split_whitespace().map(String::from).collect();
                if i % 2 == 1 { vec![part.to_string()] } else { several }
            })
            .collect()
    }

    #[test]
    fn every_command_has_examples_and_every_example_parses() {
        let mut program = command();
        let mut lines = Vec::new();
        for command in std::iter::once(&mut program.clone()).chain(program.get_subcommands_mut()) {
            let help = command.get_after_help().unwrap_or_else(|| panic!("{}", command.get_name())).to_string();
            let examples = help.strip_prefix("Examples:\n").expect("a heading");
            assert!(examples.lines().all(|l| l.len() <= 100), "lines that --help breaks: {examples}");
            lines.extend(examples.lines().map(|l| (command.get_name().to_string(), l.trim().to_string())));
        }
        assert!(lines.len() > 20);
        for (command, line) in &lines {
            let words = words(line);
            assert!(command == "staticgrad" || words.get(1) == Some(command), "{command}: {line}");
            Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }
}
