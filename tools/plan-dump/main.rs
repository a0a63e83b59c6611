//! `plan-dump`: look at memory plans, check them, compare them, and make them from a list of buffers.

mod place;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "plan-dump", version, about = "Inspect and make memory plans")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Place(place::PlaceArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Place(args) => place::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("plan-dump: {error}");
        ExitCode::from(error.exit_code())
    })
}
