//! `plan-dump diff`: what changed from one plan to another.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use staticgrad::error::Result;
use staticgrad::plan::file;
use staticgrad::plan::report::{BufferChange, Diff, Report};

use crate::output;
use crate::size::{bytes, flops, signed};
use crate::style::{ColorChoice, Style};
use crate::table::{self, Align};

/// Shown below the options.
const EXAMPLES: &str = "Examples:
  plan-dump diff before.plan after.plan               lists and deltas; exit code 1 when the peak grew
  plan-dump diff before.plan after.plan --format json the same for programs";

/// Compare two plans: new, gone, resized and moved buffers, peak and FLOP deltas. Exit code 1 when B needs more memory than A.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// The plan before.
    a: PathBuf,
    /// The plan after.
    b: PathBuf,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Buffers to list of each kind of change.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// When to use colour.
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

/// Forms of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lists for a terminal.
    Text,
    /// The same for programs.
    Json,
}

/// Compares and prints. Exit code 1 when the highest load or the arena grew.
///
/// # Errors
/// Files that cannot be read, and plans that the verifier refuses.
pub fn run(args: &DiffArgs) -> Result<ExitCode> {
    let (a, b) = (Report::of(&file::load(&args.a)?), Report::of(&file::load(&args.b)?));
    let diff = Diff::between(&a, &b);
    let text = match args.format {
        Format::Text => text(&diff, args.top, &Style::detect(args.color, false)),
        Format::Json => serde_json::to_string_pretty(&diff).expect("a difference is plain data") + "\n",
    };
    output::print(&text)?;
    Ok(if diff.peak_grew() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(diff: &Diff, top: usize, style: &Style) -> String {
    let mut lines = Vec::new();
    let mut list = |title: &str, code: &str, entries: Vec<String>| {
        if entries.is_empty() {
            return;
        }
        lines.push(style.paint(&format!("{title}: {}", entries.len()), code));
        lines.extend(entries.iter().take(top).map(|e| format!("  {e}")));
        if entries.len() > top {
            lines.push(style.dim(&format!("  … and {} more (--top)", entries.len() - top)));
        }
    };
    let sized = |all: &[(String, u64)]| all.iter().map(|(id, n)| format!("{id}  {}", bytes(*n))).collect::<Vec<_>>();
    let changed = |all: &[BufferChange], how: fn(&BufferChange) -> String| {
        all.iter().map(|c| format!("{}  {}", c.id, how(c))).collect::<Vec<_>>()
    };
    list("new", "31", sized(&diff.new));
    list("gone", "32", sized(&diff.gone));
    let resized = changed(&diff.resized, |c| {
        format!("{} → {} ({})", bytes(c.bytes.0), bytes(c.bytes.1), signed(c.bytes.1 as i64 - c.bytes.0 as i64))
    });
    list("resized", "33", resized);
    list("moved", "36", changed(&diff.moved, |c| format!("{} → {}", c.offset.0, c.offset.1)));
    let span = |(lower, upper): (u32, u32)| format!("[{lower}, {upper})");
    let retimed = diff.retimed.iter().map(|c| format!("{}  {} → {}", c.id, span(c.lifespan.0), span(c.lifespan.1)));
    list("other lifespan", "36", retimed.collect());
    if lines.is_empty() {
        lines.push("the same buffers at the same places".into());
    }
    lines.push(String::new());
    lines.extend(deltas(diff, style));
    lines.join("\n") + "\n"
}

fn deltas(diff: &Diff, style: &Style) -> Vec<String> {
    let sizes = [
        ("peak load", diff.max_load),
        ("transient", diff.transient),
        ("persistent", diff.persistent),
        ("worker scratch", diff.scratch_per_worker),
        ("arena, 1 worker", diff.arena),
    ];
    let percent = |a: f64, b: f64| if a == 0.0 { String::new() } else { format!("{:+.2}%", 100.0 * (b - a) / a) };
    let mut rows: Vec<Vec<String>> = sizes
        .iter()
        .map(|&(name, (a, b))| {
            vec![name.into(), bytes(a), bytes(b), signed(b as i64 - a as i64), percent(a as f64, b as f64)]
        })
        .collect();
    let (a, b) = diff.flops;
    let sign = if b < a { "-" } else { "+" };
    rows.push(vec!["arithmetic".into(), flops(a), flops(b), format!("{sign}{}", flops((b - a).abs())), percent(a, b)]);
    let (a, b) = diff.steps;
    rows.push(vec![
        "steps".into(),
        a.to_string(),
        b.to_string(),
        format!("{:+}", i64::from(b) - i64::from(a)),
        percent(a.into(), b.into()),
    ]);
    let header = ["", "before", "after", "change", ""].map(|name| (name, Align::Right));
    let mut lines = table::lines(&header, &rows);
    lines[0] = style.bold(&lines[0]);
    let verdict = match diff.peak_grew() {
        true => style.paint("the peak grew", "31"),
        false => style.paint("the peak did not grow", "32"),
    };
    lines.push(verdict);
    lines
}
