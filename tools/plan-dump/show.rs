//! `plan-dump show`: one plan, for people and for programs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use staticgrad::disk::keep_input;
use staticgrad::error::Result;
use staticgrad::plan::file;
use staticgrad::plan::report::Report;

use crate::style::{ColorChoice, Style};
use crate::{dot, html, json, output, size, svg, text, why};

/// Shown below the options.
const EXAMPLES: &str = "Examples:
  plan-dump show gpt2.plan                                  tables for the terminal
  plan-dump show gpt2.plan --format html -o gpt2.html       the picture, to explore in a browser
  plan-dump show gpt2.plan --budget 700MiB --threads 2      compare with a budget
  plan-dump show gpt2.plan --why h.0.mlp.gelu               who keeps a buffer alive
  plan-dump show gpt2.plan --format csv | plan-dump place - --ignore-offsets";

/// Show a plan: every buffer, totals, the load, what is live at the peak, what each pass saved.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ShowArgs {
    /// The plan file.
    file: PathBuf,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write to this file instead of standard output.
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Compare with a memory budget for everything but the persistent region, such as 1GiB (as compile's --memory-budget).
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    budget: Option<u64>,
    /// Workers to count scratch for.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Buffers to list at the peak.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Explain one buffer or tensor instead: who reads it last, and what the peak would be without it.
    #[arg(long, value_name = "NAME", conflicts_with = "format")]
    why: Option<String>,
    /// When to use colour.
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

/// Forms of a shown plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for a terminal.
    Text,
    /// Everything, schema documented in tools/plan-dump/README.md.
    Json,
    /// id,lower,upper,size,offset: MiniMalloc's columns.
    Csv,
    /// The graph, for Graphviz.
    Dot,
    /// A picture: buffers as rectangles in time × memory, with the load curve.
    Svg,
    /// The same, to explore in a browser: hover, zoom, search.
    Html,
}

/// Loads, verifies and shows.
///
/// # Errors
/// Files that cannot be read or written; plans that the verifier refuses.
pub fn run(args: &ShowArgs) -> Result<ExitCode> {
    args.output.iter().try_for_each(|output| keep_input(&args.file, output))?;
    let plan = file::load(&args.file)?;
    let report = Report::of(&plan);
    let style = Style::detect(args.color, args.output.is_some());
    let threads = usize::from(args.threads);
    let text = match args.format {
        _ if args.why.is_some() => why::explain(&report, args.why.as_deref().unwrap_or_default(), &style)?,
        Format::Text => {
            let options = text::Options { budget: args.budget, threads, top: args.top, style };
            text::show(&report, &options)
        }
        Format::Dot => dot::dot(&plan),
        Format::Svg => svg::svg(&report, args.budget, threads),
        Format::Html => html::page(&report, args.budget, threads),
        Format::Json => json::json(&report),
        Format::Csv => json::csv(&report),
    };
    output::deliver(args.output.as_deref(), &text)?;
    Ok(ExitCode::SUCCESS)
}
