//! The plan as text for a terminal.

use staticgrad::plan::report::{BufferRow, LastUse, Report};

use crate::output::printable;
use crate::size::{bytes, flops};
use crate::table::{self, Align};

/// What to print.
pub struct Options {
    /// Budget of the whole arena in bytes.
    pub budget: Option<u64>,
    /// Workers to count scratch for.
    pub threads: usize,
    /// Buffers to list at the peak.
    pub top: usize,
}

/// The whole report: the buffers first, so that the summary stays in view.
pub fn show(report: &Report, options: &Options) -> String {
    let mut out = Vec::new();
    out.extend(buffers(report));
    out.push(String::new());
    out.extend(peak(report, options.top));
    out.push(String::new());
    out.extend(waterfall(report));
    out.push(String::new());
    out.extend(totals(report, options));
    out.join("\n") + "\n"
}

/// In place of what the buffer's later tensors are: `x ← y ← z`.
fn chain(b: &BufferRow) -> String {
    let names: Vec<String> = b.tensors.iter().skip(1).map(|t| printable(&t.name)).collect();
    names.join(" ← ")
}

/// Why a buffer is alive until its end.
pub fn last_use(b: &BufferRow) -> String {
    match &b.last_use {
        LastUse::Read { step, node, op } => format!("{} ({op}) at step {step}", printable(node)),
        LastUse::Result(name) => format!("result {}", printable(name)),
        LastUse::Persistent => "kept from call to call".into(),
        LastUse::Producer => "used by its producer only".into(),
    }
}

fn buffers(report: &Report) -> Vec<String> {
    let header = [
        ("buffer", Align::Left),
        ("kind", Align::Left),
        ("op", Align::Left),
        ("shape", Align::Left),
        ("bytes", Align::Right),
        ("offset", Align::Right),
        ("steps", Align::Right),
        ("also holds", Align::Left),
    ];
    let row = |b: &BufferRow| {
        vec![
            b.id.clone(),
            b.kind.name().to_string(),
            printable(&b.op),
            b.shape.clone(),
            b.bytes.to_string(),
            b.offset.to_string(),
            format!("[{}, {})", b.lower, b.upper),
            chain(b),
        ]
    };
    table::lines(&header, &report.buffers.iter().map(row).collect::<Vec<_>>())
}

fn peak(report: &Report, top: usize) -> Vec<String> {
    let p = &report.peak;
    let at = p.node.as_ref().map_or(String::new(), |n| format!(" ({})", printable(n)));
    let mut lines = vec![format!(
        "peak: {} in {} buffers at step {} of {}{at}",
        bytes(p.bytes),
        p.buffers.len(),
        p.step,
        report.steps
    )];
    let header = [
        ("  buffer", Align::Left),
        ("bytes", Align::Right),
        ("peak without it", Align::Right),
        ("alive for", Align::Left),
    ];
    let rows = p.buffers.iter().take(top).map(|x| {
        let b = report.buffers.iter().find(|b| b.id == x.id).expect("buffers at the peak are in the table");
        vec![format!("  {}", x.id), bytes(x.bytes), bytes(x.without), last_use(b)]
    });
    lines.extend(table::lines(&header, &rows.collect::<Vec<_>>()));
    if p.buffers.len() > top {
        lines.push(format!("  … and {} more (--top)", p.buffers.len() - top));
    }
    lines
}

fn waterfall(report: &Report) -> Vec<String> {
    let mut lines = vec!["transient bytes after each pass:".to_string()];
    let most = report.waterfall.iter().map(|s| s.bytes).max().unwrap_or(0).max(1);
    let rows = report.waterfall.iter().enumerate().map(|(i, s)| {
        let bar = "█".repeat(((s.bytes as f64 / most as f64) * 30.0).round() as usize);
        let saved = if i == 0 { String::new() } else { crate::size::signed(-s.saved) };
        vec![format!("  {}", s.name), bytes(s.bytes), saved, bar]
    });
    let header = [("  pass", Align::Left), ("bytes", Align::Right), ("change", Align::Right), ("", Align::Left)];
    lines.extend(table::lines(&header, &rows.collect::<Vec<_>>()));
    lines
}

fn totals(report: &Report, options: &Options) -> Vec<String> {
    let (t, c) = (&report.totals, &report.capacity);
    let name = printable(&report.graph);
    let mut lines = vec![
        format!("graph               {name}, {} steps, {}", report.steps, report.mode),
        format!(
            "capacity            {} slots × {} rows, {} rows a call, {} wanted",
            c.slots, c.context, c.step_rows, c.wanted_rows
        ),
        format!("persistent          {} ({} bytes)", bytes(t.persistent), t.persistent),
        format!("transient           {} ({} bytes)", bytes(t.transient), t.transient),
        format!("max load            {} ({} bytes)", bytes(t.max_load), t.max_load),
        format!("fragmentation       {:.3}%", 100.0 * t.fragmentation),
        format!("scratch per worker  {} ({} bytes)", bytes(t.scratch_per_worker), t.scratch_per_worker),
    ];
    let workers = t.arena.iter().map(|a| format!("{} with {}", bytes(a.bytes), a.workers));
    lines.push(format!("arena by workers    {}", workers.collect::<Vec<_>>().join(", ")));
    let again = match report.recomputed_flops > 0.0 {
        true => format!(", {} of them recomputed", flops(report.recomputed_flops)),
        false => String::new(),
    };
    lines.push(format!("arithmetic          {} a call at full capacity{again}", flops(report.flops)));
    let arena = t.arena(options.threads);
    lines.push(format!("arena               {} ({arena} bytes) with {} workers", bytes(arena), options.threads));
    if let Some(budget) = options.budget {
        let verdict = match arena <= budget {
            true => format!("met, {} to spare", bytes(budget - arena)),
            false => format!("exceeded by {}", bytes(arena - budget)),
        };
        lines.push(format!("budget              {} ({verdict})", bytes(budget)));
    }
    lines
}
