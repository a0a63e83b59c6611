//! `plan-dump`: look at memory plans, check them, compare them, and make them from a list of buffers.

mod check;
mod diff;
mod dot;
mod html;
mod json;
mod output;
mod place;
mod show;
mod size;
mod style;
mod svg;
mod table;
mod text;
mod timeline;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use staticgrad::disk::fail_past_size_limit;

/// Shown below the commands.
const EXAMPLES: &str = "Examples:
  staticgrad compile gpt2 --rows 256 --step-rows 16 -o gpt2.plan
  plan-dump show gpt2.plan
  plan-dump show gpt2.plan --format html -o gpt2.html
  plan-dump diff before.plan after.plan
  plan-dump place problem.csv --minimize -o placed.csv

Exit codes: 0 all is well; 1 a file is damaged, a plan is refused, or what was asked for does not hold; 2 usage.";

#[derive(Parser)]
#[command(name = "plan-dump", version, about = "Inspect, check, compare and make memory plans", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Show(show::ShowArgs),
    Check(check::CheckArgs),
    Diff(diff::DiffArgs),
    Place(place::PlaceArgs),
}

fn main() -> ExitCode {
    fail_past_size_limit();
    let result = match Cli::parse().command {
        Command::Show(args) => show::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Place(args) => place::run(&args),
    };
    result.unwrap_or_else(|error| {
        output::complain(&error);
        ExitCode::from(error.exit_code())
    })
}
