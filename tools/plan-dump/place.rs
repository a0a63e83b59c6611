//! `plan-dump place`: the planner as a stand-alone tool on MiniMalloc's CSV format.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use staticgrad::disk::{keep_input, write_atomically};
use staticgrad::error::{Error, Result};
use staticgrad::plan::placement::{self, Options, csv};

use crate::{output, size};

/// Shown below the options.
const EXAMPLES: &str = "Examples:
  plan-dump place in.csv -o out.csv                        the lowest arena within the compiler's effort
  plan-dump place in.csv --capacity 1048576                the first placement that fits; exit code 1 when none is found
  plan-dump place in.csv --minimize --time-limit 10        the lowest arena in ten seconds
  plan-dump place out.csv --ignore-offsets                 place again what has been placed

Columns are named by the header, in any order: id, lower, upper and size, and if there are any, alignment (a power of two) and
offset (where a buffer already lies). Lifespans are half-open: [lower, upper).";

/// Place the buffers of a CSV file (`id,lower,upper,size[,alignment][,offset]`) in the lowest arena.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct PlaceArgs {
    /// Buffers to place, - for standard input; those with an offset stay where they are.
    input: PathBuf,
    /// Place buffers that have an offset as well, as if they had none.
    #[arg(long)]
    ignore_offsets: bool,
    /// Write the buffers with their offsets to this file.
    #[arg(short, long, value_name = "OUT.csv")]
    output: Option<PathBuf>,
    /// Bytes available, such as 1048576 or 1MiB; exit code 1 when the arena is larger. Stops at the first placement that fits, unless --minimize.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    capacity: Option<u64>,
    /// Stop after this many seconds with the best placement so far.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse_seconds)]
    time_limit: Option<Duration>,
    /// Look for the lowest arena even when the capacity is met; the default without --capacity.
    #[arg(long)]
    minimize: bool,
    /// Search nodes to spend; without it and without --time-limit, the compiler's default.
    #[arg(long, value_name = "NODES")]
    effort: Option<u64>,
}

/// Places, prints arena, bound, status and milliseconds, and writes the output. Exit code 1 when the capacity is not met.
///
/// # Errors
/// Files that cannot be read, parsed or written, and buffers that cannot be placed.
pub fn run(args: &PlaceArgs) -> Result<ExitCode> {
    args.output.iter().try_for_each(|output| keep_input(&args.input, output))?;
    let table = read(args)?;
    let effort = args.effort.unwrap_or(if args.time_limit.is_some() { u64::MAX } else { placement::DEFAULT_EFFORT });
    let capacity = args.capacity.filter(|_| !args.minimize);
    let start = Instant::now();
    let placed = placement::place(&table.buffers, &Options { effort, time_limit: args.time_limit, capacity })?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    placement::verify(&table.buffers, &placed.offsets, placed.arena)
        .map_err(|violation| Error::Plan(format!("the planner made an illegal placement: {violation}")))?;

    if let Some(path) = &args.output {
        write_atomically(path, |file| file.put(csv::write(&table, &placed.offsets).as_bytes()))?;
    }
    let mut report = String::new();
    report += &format!("buffers       {}\n", table.buffers.len());
    report += &format!("arena         {}\n", placed.arena);
    report += &format!("bound         {}\n", placed.bound);
    report += &format!("status        {}\n", placed.describe_status());
    report += &format!("found by      {}\n", placed.winner);
    report += &format!("search nodes  {}\n", placed.nodes);
    report += &format!("milliseconds  {milliseconds:.1}\n");
    let fits = args.capacity.is_none_or(|capacity| placed.arena <= capacity);
    if let Some(capacity) = args.capacity {
        let verdict = if fits {
            "met"
        } else if placed.proved > capacity {
            "cannot be met"
        } else {
            "not met"
        };
        report += &format!("capacity      {capacity} {verdict}\n");
    }
    output::print(&report)?;
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(args: &PlaceArgs) -> Result<csv::Table> {
    let (name, text) = match args.input.as_os_str() == "-" {
        true => (Path::new("<stdin>"), std::io::read_to_string(std::io::stdin())),
        false => (args.input.as_path(), std::fs::read_to_string(&args.input)),
    };
    let mut table = csv::read(name, &text.map_err(|e| Error::io(name, "read", e))?)?;
    if args.ignore_offsets {
        table.buffers.iter_mut().for_each(|b| b.fixed = None);
    }
    Ok(table)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a duration".to_string())
}
