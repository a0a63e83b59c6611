//! `plan-dump check`: runs the verifier on a plan file, and compares every checksum of a compiled model.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use staticgrad::error::{Error, Result};
use staticgrad::plan::file::PlanFile;
use staticgrad::weights::{Entry, ParamStore};

use crate::output;
use crate::size::bytes;

/// Shown below the options.
const EXAMPLES: &str = "Examples:
  plan-dump check gpt2.plan                one line that says it is sound
  plan-dump check --quiet plans/*.plan     the exit code alone";

/// Prove that a plan file is sound: checksums (of every packed weight too), graph, aliases, sizes, lifespans, placement. Exit code 1 when
/// it is not.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
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
        match PlanFile::open(path).and_then(|file| Ok((file.plan()?, sound_contents(&file)?))) {
            Ok((plan, weights)) => {
                let totals = plan.totals;
                report += &output::printable(&format!(
                    "{}: sound; {} buffers over {} steps, {} persistent + {} transient{weights}",
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
                output::complain(&error);
            }
        }
    }
    if !args.quiet {
        output::print(&report)?;
    }
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Compares the checksums of all that a start of the program does not read: first of each packed weight, so that a damaged one is named,
/// then of every section. Returns what to say about the weights.
fn sound_contents(file: &PlanFile) -> Result<String> {
    let path = file.mapped().path();
    let mut said = String::new();
    if let Some((section, entries)) = file.weight_index::<Entry>()? {
        let store = ParamStore::map(Arc::clone(file.mapped()), section.offset, section.len, entries)?;
        store.verify().map_err(|e| Error::file(path, e.to_string()))?;
        said = format!("; {} weights, {}", store.entries().len(), bytes(section.len as u64));
    }
    for section in file.sections() {
        section.bytes(path, file.mapped().bytes())?;
    }
    Ok(said)
}
