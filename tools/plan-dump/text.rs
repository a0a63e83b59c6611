//! The plan as text for a terminal.

use staticgrad::plan::report::{BufferRow, LastUse, Region, Report};

use crate::output::printable;
use crate::size::{bytes, flops, signed};
use crate::style::{Style, kind_code};
use crate::table::{self, Align, shorten};
use crate::timeline;

/// What to print, and how.
pub struct Options {
    /// Budget of transient memory and worker scratch in bytes.
    pub budget: Option<u64>,
    /// Workers to count scratch for.
    pub threads: usize,
    /// Buffers to list at the peak.
    pub top: usize,
    /// Width and colour.
    pub style: Style,
}

/// Width of text that need not fit a terminal.
const WIDE: usize = 100;

/// The whole report: the buffers first, so that the summary stays in view.
pub fn show(report: &Report, options: &Options) -> String {
    let style = &options.style;
    let parts = [
        buffers(report, style),
        timeline::load(report, style.width.unwrap_or(WIDE), style),
        peak(report, options.top, style),
        waterfall(report, style),
        totals(report, options),
    ];
    parts.map(|lines| lines.join("\n")).join("\n\n") + "\n"
}

/// What the buffer holds after its first tensor, each in place of the one before.
fn chain(b: &BufferRow) -> String {
    let names: Vec<String> = b.tensors.iter().skip(1).map(|t| printable(&t.name)).collect();
    names.join(" → ")
}

/// What keeps a buffer alive, in at most `room` characters: the op of the last reader is left out first.
fn last_reader(b: &BufferRow, room: usize) -> String {
    match &b.last_use {
        LastUse::Read { node, op, .. } => {
            let (node, both) = (printable(node), format!("{} ({op})", printable(node)));
            if table::width(&both) <= room { both } else { shorten(&node, room) }
        }
        _ => shorten(&last_use(b), room),
    }
}

/// Why a buffer is alive until its end.
pub fn last_use(b: &BufferRow) -> String {
    match &b.last_use {
        LastUse::Read { step, node, op } => format!("{} ({op}) at step {step}", printable(node)),
        LastUse::Result(name) => format!("result {}", printable(name)),
        LastUse::Persistent => "kept from call to call".into(),
        LastUse::Producer => "its producer only".into(),
    }
}

/// A column of the table of buffers: title, alignment, what it shows.
type Column = (&'static str, Align, fn(&BufferRow) -> String);

/// Columns in the order in which a narrow terminal keeps them.
const COLUMNS: [Column; 8] = [
    ("buffer", Align::Left, |b| b.id.clone()),
    ("bytes", Align::Right, |b| b.bytes.to_string()),
    ("steps", Align::Right, |b| format!("[{}, {})", b.lower, b.upper)),
    ("offset", Align::Right, |b| b.offset.to_string()),
    ("kind", Align::Left, |b| b.kind.name().to_string()),
    ("op", Align::Left, |b| printable(&b.op)),
    ("shape", Align::Left, |b| b.shape.clone()),
    ("then holds", Align::Left, chain),
];

/// Every buffer with its lifespan as a bar. On a terminal, the columns that do not fit are left out, and it says so.
fn buffers(report: &Report, style: &Style) -> Vec<String> {
    let mut order: Vec<&BufferRow> = report.buffers.iter().collect();
    order.sort_by_key(|b| (b.region == Region::Transient, b.lower, b.offset));
    let mut cells: Vec<Vec<String>> = COLUMNS.iter().map(|c| order.iter().map(|b| c.2(b)).collect()).collect();
    let (mut shown, mut bar) = (COLUMNS.len(), 40);
    if let Some(limit) = style.width {
        let longest = (limit / 3).max(12);
        for column in [0, COLUMNS.len() - 1] {
            cells[column].iter_mut().for_each(|c| *c = shorten(c, longest));
        }
        let size = |c: usize| cells[c].iter().map(|x| table::width(x)).max().unwrap_or(0).max(COLUMNS[c].0.len()) + 2;
        let room = |n: usize| limit.checked_sub((0..n).map(size).sum::<usize>());
        shown = (1..=COLUMNS.len()).rev().find(|&n| room(n).is_some_and(|r| r >= 20)).unwrap_or(1);
        bar = room(shown).unwrap_or(10).clamp(4, 100);
    }
    let steps = report.steps.max(1) as usize;
    if bar >= steps {
        bar -= bar % steps;
    }
    let mut header: Vec<(&str, Align)> = COLUMNS[..shown].iter().map(|c| (c.0, c.1)).collect();
    header.insert(3.min(shown), ("lifespan", Align::Left));
    let rows: Vec<Vec<String>> = order
        .iter()
        .enumerate()
        .map(|(i, b)| {
            let mut row: Vec<String> = (0..shown).map(|c| cells[c][i].clone()).collect();
            let text = timeline::bar(b.lower, b.upper, report.steps, bar);
            row.insert(3.min(shown), format!("{text:bar$}"));
            row
        })
        .collect();
    let mut lines = table::lines(&header, &rows);
    for (line, b) in lines[1..].iter_mut().zip(&order) {
        if let (Some(first), Some(last)) = (line.find('█'), line.rfind('█')) {
            let end = last + '█'.len_utf8();
            *line = format!("{}{}{}", &line[..first], style.paint(&line[first..end], kind_code(b.kind)), &line[end..]);
        }
    }
    lines[0] = style.bold(&lines[0]);
    if shown < COLUMNS.len() {
        let names: Vec<&str> = COLUMNS[shown..].iter().map(|c| c.0).collect();
        lines.push(style.dim(&format!("(too narrow for {}; --format json has all)", names.join(", "))));
    }
    lines
}

fn peak(report: &Report, top: usize, style: &Style) -> Vec<String> {
    let p = &report.peak;
    let at = p.node.as_ref().map_or(String::new(), |n| format!(" ({})", printable(n)));
    let (load, count) = (bytes(p.bytes), p.buffers.len());
    let mut lines =
        vec![style.bold(&format!("peak: {load} in {count} buffers at step {} of {}{at}", p.step, report.steps))];
    let limit = style.width.map_or(usize::MAX, |w| (w.saturating_sub(39) / 2).max(8));
    let shown = || p.buffers.iter().take(top);
    let longest = shown().map(|x| table::width(&x.id)).max().unwrap_or(0).min(limit);
    let rest = style.width.map_or(usize::MAX, |w| w.saturating_sub(longest + 38).max(8));
    let rows = shown().map(|x| {
        let b = report.buffers.iter().find(|b| b.id == x.id).expect("buffers at the peak are in the table");
        let until = (b.upper - 1).to_string();
        vec![format!("  {}", shorten(&x.id, limit)), bytes(x.bytes), bytes(x.without), until, last_reader(b, rest)]
    });
    let header = [
        ("  buffer", Align::Left),
        ("bytes", Align::Right),
        ("peak without", Align::Right),
        ("until", Align::Right),
        ("alive for", Align::Left),
    ];
    lines.extend(table::lines(&header, &rows.collect::<Vec<_>>()));
    if count > top {
        lines.push(style.dim(&format!("  … and {} more (--top)", count - top)));
    }
    lines
}

fn waterfall(report: &Report, style: &Style) -> Vec<String> {
    let room = style.width.unwrap_or(WIDE).saturating_sub(44).clamp(8, 50);
    let most = report.waterfall.iter().map(|s| s.bytes).max().unwrap_or(0).max(1);
    let cells = |bytes: u64| (bytes as f64 / most as f64 * room as f64).round() as usize;
    let rows = report.waterfall.iter().enumerate().map(|(i, s)| {
        let before = if i == 0 { s.bytes } else { report.waterfall[i - 1].bytes };
        let (now, was) = (cells(s.bytes), cells(before));
        let bar = "█".repeat(now.min(was)) + &if now < was { "░".repeat(was - now) } else { "▓".repeat(now - was) };
        let change = match s.saved {
            0 => String::new(),
            saved => signed(-saved),
        };
        vec![format!("  {}", s.name), bytes(s.bytes), change, bar]
    });
    let header = [("  pass", Align::Left), ("bytes", Align::Right), ("change", Align::Right), ("", Align::Left)];
    let mut lines = vec![style.bold("transient bytes after each pass (░ saved, ▓ added)")];
    lines.extend(table::lines(&header, &rows.collect::<Vec<_>>()));
    lines
}

fn totals(report: &Report, options: &Options) -> Vec<String> {
    let (t, c, style) = (&report.totals, &report.capacity, &options.style);
    let size = |n: u64| format!("{} ({n} bytes)", bytes(n));
    let again = match report.recomputed_flops > 0.0 {
        true => format!(", {} of them recomputed", flops(report.recomputed_flops)),
        false => String::new(),
    };
    let fit = style.width.map_or(usize::MAX, |w| w.saturating_sub(15) / 14);
    let workers: Vec<String> = t.arena.iter().take(fit).map(|a| format!("{}: {}", a.workers, bytes(a.bytes))).collect();
    let arena = t.arena(options.threads);
    let plural = if options.threads == 1 { "" } else { "s" };
    let mut rows = vec![
        ("graph", format!("{}, {} steps, {}", printable(&report.graph), report.steps, report.mode)),
        ("slots × rows", format!("{} × {}, {} rows a call, {} wanted", c.slots, c.context, c.step_rows, c.wanted_rows)),
        ("arithmetic", format!("{} a call{again}", flops(report.flops))),
        ("persistent", size(t.persistent)),
        ("transient", size(t.transient)),
        ("bound", format!("{}, the highest load", size(t.max_load))),
        ("placement", format!("{}, fragmentation {:.3}%", t.status, 100.0 * t.fragmentation)),
        ("worker scratch", size(t.scratch_per_worker)),
        ("by workers", workers.join(", ")),
        ("arena", format!("{} with {} worker{plural}", size(arena), options.threads)),
    ];
    if let Some(budget) = options.budget {
        let used = t.transient + t.scratch_per_worker * options.threads as u64;
        let verdict = match used <= budget {
            true => format!("met, {} to spare", bytes(budget - used)),
            false => style.paint(&format!("exceeded by {}", bytes(used - budget)), "31"),
        };
        rows.push(("budget", format!("{} for transient and scratch, {verdict}", bytes(budget))));
    }
    rows.into_iter().map(|(name, value)| format!("{} {value}", style.bold(&format!("{name:<14}")))).collect()
}
