//! `plan-dump check`: runs the verifier on a plan file.

use std::path::PathBuf;
use std::process::ExitCode;

use staticgrad::error::Result;
use staticgrad::plan::file;

use crate::output;
use crate::size::bytes;

/// Prove that a plan file is sound: checksums, graph, aliases, sizes, lifespans, placement. Exit code 1 when it is not.
#[derive(clap::Args)]
pub struct CheckArgs {
    /// Plan files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print nothing when all is well.
    #[arg(short, long)]
    quiet: bool,
}

/// Checks every file; one line each.
///
/// # Errors
/// What standard output refuses. A broken plan is no error of this function: it is printed and makes the exit code 1.
pub fn run(args: &CheckArgs) -> Result<ExitCode> {
    let mut broken = false;
    let mut report = String::new();
    for path in &args.files {
        match file::load(path) {
            Ok(plan) => {
                let totals = plan.totals;
                report += &output::printable(&format!(
                    "{}: sound; {} buffers over {} steps, {} persistent + {} transient",
                    path.display(),
                    plan.buffers.len(),
                    plan.graph.nodes.len(),
                    bytes(totals.persistent),
                    bytes(totals.transient),
                ));
                report.push('\n');
            }
            Err(error) => {
                broken = true;
                eprintln!("plan-dump: {}", output::printable(&error.to_string()));
            }
        }
    }
    if !args.quiet {
        output::print(&report)?;
    }
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
