//! The picture as SVG: load curve, bands, buffers as rectangles in time × memory, holes hatched.

use std::fmt::Write;

use staticgrad::plan::BufferKind;
use staticgrad::plan::report::{BufferRow, Region, Report};

use crate::output::escape;
use crate::size::bytes;
use crate::style;
use crate::table::shorten;
use crate::text::last_use;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 760.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 12.0;
/// Load curve.
const LOAD: (f64, f64) = (46.0, 156.0);
/// Top of the band strip, and its height.
const BANDS: (f64, f64) = (164.0, 16.0);
/// Rectangles.
const PLOT: (f64, f64) = (190.0, 700.0);
/// Pixels of a character of a label.
const CHARACTER: f64 = 6.2;

/// Colours in light and dark, as in `viewer/style.css`.
const STYLE: &str = include_str!("viewer/picture.css");

/// Scales of the picture.
struct Frame<'a> {
    report: &'a Report,
    /// Bytes of the transient region that the plot spans.
    span: f64,
    /// What the budget leaves for the transient region.
    budget: Option<i64>,
}

impl Frame<'_> {
    fn x(&self, step: u32) -> f64 {
        LEFT + f64::from(step) / f64::from(self.report.steps.max(1)) * (RIGHT - LEFT)
    }

    /// Height in the plot of a byte of the transient region.
    fn y(&self, byte: u64) -> f64 {
        PLOT.1 - byte as f64 / self.span * (PLOT.1 - PLOT.0)
    }

    fn load_y(&self, byte: u64) -> f64 {
        LOAD.1 - byte as f64 / self.span * (LOAD.1 - LOAD.0)
    }
}

/// The picture of the transient region. `budget` is for it and the scratch of `threads` workers.
pub fn svg(report: &Report, budget: Option<u64>, threads: usize) -> String {
    let t = &report.totals;
    let scratch = t.scratch_per_worker.saturating_mul(threads as u64);
    let budget = budget.map(|b| b as i64 - scratch as i64);
    let near = budget.filter(|&b| b > 0 && b as f64 <= 1.6 * t.transient as f64);
    let most = t.transient.max(t.max_load).max(near.unwrap_or(0) as u64).max(64);
    let frame = Frame { report, span: most as f64 * 1.04, budget: near };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\">\n<style>\n{STYLE}</style>\n"
    );
    out += "<defs><pattern id=\"holes\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\"><path class=\"hole\" d=\"M-2 2L2 -2M0 8L8 0M6 10L10 6\"/></pattern></defs>\n";
    heading(&mut out, report, budget);
    axes(&mut out, &frame);
    load(&mut out, &frame);
    bands(&mut out, &frame);
    holes(&mut out, &frame);
    report
        .buffers
        .iter()
        .filter(|b| b.region == Region::Transient && b.bytes > 0)
        .for_each(|b| rectangle(&mut out, &frame, b));
    limits(&mut out, &frame);
    legend(&mut out, &frame);
    out + "</svg>\n"
}

/// Appends a line. Writing to a String cannot fail.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {{ let _ = writeln!($out, $($format)*); }};
}

fn heading(out: &mut String, report: &Report, budget: Option<i64>) {
    let t = &report.totals;
    let budget = budget.map_or(String::new(), |b| match b >= t.transient as i64 {
        true => ", within the budget".into(),
        false => format!(", {} over the budget", bytes((t.transient as i64 - b) as u64)),
    });
    let title = format!("{}: {}, {} steps, {} buffers", report.graph, report.mode, report.steps, report.buffers.len());
    put!(out, "<text x=\"12\" y=\"18\" font-size=\"14\" font-weight=\"600\">{}</text>", escape(&title));
    put!(
        out,
        "<text x=\"12\" y=\"35\" class=\"faint\">transient {}, bound {}, {}{budget}; the persistent {} are not shown</text>",
        bytes(t.transient),
        bytes(t.max_load),
        t.status,
        bytes(t.persistent)
    );
}

fn axes(out: &mut String, f: &Frame) {
    let tick = (f.span / 10.0).log2().ceil().exp2().max(64.0);
    let mut byte = 0.0;
    while byte < f.span {
        let y = f.y(byte as u64);
        put!(out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
        put!(
            out,
            "<text class=\"faint\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            bytes(byte as u64)
        );
        byte += tick;
    }
    let steps = f64::from(f.report.steps.max(1));
    let power = 10f64.powf((steps / 12.0).log10().floor().max(0.0));
    let every =
        [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|n| n * 12.0 >= steps).unwrap_or(power * 10.0);
    let mut step = 0.0;
    while step <= steps {
        put!(
            out,
            "<text class=\"faint\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{step}</text>",
            f.x(step as u32),
            PLOT.1 + 16.0
        );
        step += every;
    }
}

/// An outline of one height per step, from `base` up.
fn outline(f: &Frame, base: f64, heights: impl Iterator<Item = f64>) -> String {
    let mut path = format!("M{LEFT} {base:.1}");
    let mut last = f64::NAN;
    for (step, y) in heights.enumerate() {
        if y != last {
            let _ = write!(path, "H{:.2}V{y:.2}", f.x(step as u32));
            last = y;
        }
    }
    path + &format!("H{RIGHT}V{base:.1}Z")
}

fn load(out: &mut String, f: &Frame) {
    let path = outline(f, LOAD.1, f.report.load.iter().map(|&n| f.load_y(n)));
    put!(
        out,
        "<path class=\"load\" d=\"{path}\"><title>transient load, at most {}</title></path>",
        bytes(f.report.peak.bytes)
    );
    put!(out, "<text class=\"faint\" x=\"{}\" y=\"{}\" text-anchor=\"end\">load</text>", LEFT - 6.0, LOAD.1);
    let y = f.load_y(f.report.peak.bytes) + 4.0;
    put!(
        out,
        "<text class=\"faint\" x=\"{}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
        LEFT - 6.0,
        bytes(f.report.peak.bytes)
    );
}

fn bands(out: &mut String, f: &Frame) {
    for band in &f.report.bands {
        let (name, ..) = style::section(band.section);
        let (x, width) = (f.x(band.first), f.x(band.end) - f.x(band.first));
        put!(
            out,
            "<rect class=\"{name}\" x=\"{x:.2}\" y=\"{}\" width=\"{width:.2}\" height=\"{}\"><title>{name}, steps {} to {}</title></rect>",
            BANDS.0,
            BANDS.1,
            band.first,
            band.end - 1
        );
        if width > 60.0 {
            put!(
                out,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
                x + width / 2.0,
                BANDS.0 + 12.0
            );
        }
    }
}

fn holes(out: &mut String, f: &Frame) {
    let persistent = f.report.totals.persistent;
    let mut top = vec![0u64; f.report.load.len()];
    for b in f.report.buffers.iter().filter(|b| b.region == Region::Transient) {
        let end = (b.offset + b.padded()).saturating_sub(persistent);
        top[b.lower as usize..b.upper as usize].iter_mut().for_each(|t| *t = end.max(*t));
    }
    let path = outline(f, PLOT.1, top.into_iter().map(|n| f.y(n)));
    put!(out, "<path fill=\"url(#holes)\" d=\"{path}\"><title>hole</title></path>");
}

fn class(kind: BufferKind) -> String {
    kind.name().replace(' ', "-")
}

fn rectangle(out: &mut String, f: &Frame, b: &BufferRow) {
    let start = b.offset.saturating_sub(f.report.totals.persistent);
    let (x, y) = (f.x(b.lower), f.y(start + b.padded()));
    let (width, height) = (f.x(b.upper) - x, f.y(start) - y);
    let chain: Vec<&str> = b.tensors.iter().map(|t| t.name.as_str()).collect();
    let title = format!(
        "{}: {} {}, {} at {}, steps {} to {}, alive for {}{}",
        b.id,
        b.op,
        b.shape,
        bytes(b.bytes),
        b.offset,
        b.lower,
        b.upper - 1,
        last_use(b),
        if chain.len() > 1 { format!(", in place: {}", chain.join(" → ")) } else { String::new() }
    );
    put!(
        out,
        "<rect class=\"{} edge\" x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\"><title>{}</title></rect>",
        class(b.kind),
        width.max(0.4),
        height.max(0.4),
        escape(&title)
    );
    // What is too narrow for its name has it from bottom to top.
    let room = |pixels: f64| ((pixels - 6.0) / CHARACTER) as usize;
    let least = b.id.chars().count().min(10);
    let upright = room(width) < least && room(height) > room(width);
    let (along, across) = if upright { (height, width) } else { (width, height) };
    if across > 13.0 && room(along) >= 4 {
        let name = escape(&shorten(&b.id, room(along)));
        let (x, y) = (x + width / 2.0, y + height / 2.0);
        let turn = if upright { format!(" transform=\"rotate(-90 {x:.1} {y:.1})\"") } else { String::new() };
        put!(out, "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\"{turn}>{name}</text>", y + 4.0);
    }
}

fn limits(out: &mut String, f: &Frame) {
    let t = &f.report.totals;
    let mut lines = vec![("arena", t.transient), ("bound", t.max_load)];
    lines.extend(f.budget.map(|b| ("budget", b as u64)));
    for (name, byte) in lines {
        for y in [f.y(byte), f.load_y(byte)] {
            put!(
                out,
                "<path class=\"{name}\" fill=\"none\" stroke-width=\"1.5\" d=\"M{LEFT} {y:.1}H{RIGHT}\"><title>{name} {}</title></path>",
                bytes(byte)
            );
        }
    }
}

fn legend(out: &mut String, f: &Frame) {
    const KINDS: [BufferKind; 10] = [
        BufferKind::Input,
        BufferKind::Parameter,
        BufferKind::State,
        BufferKind::Kept,
        BufferKind::Activation,
        BufferKind::Saved,
        BufferKind::ActivationGradient,
        BufferKind::ParameterGradient,
        BufferKind::Recomputed,
        BufferKind::Scratch,
    ];
    let (mut x, y) = (LEFT, HEIGHT - 20.0);
    let report = f.report;
    for kind in
        KINDS.into_iter().filter(|k| report.buffers.iter().any(|b| b.kind == *k && b.region == Region::Transient))
    {
        put!(out, "<rect class=\"{}\" x=\"{x}\" y=\"{}\" width=\"11\" height=\"11\"/>", class(kind), y - 10.0);
        put!(out, "<text x=\"{}\" y=\"{y}\">{}</text>", x + 16.0, kind.name());
        x += 34.0 + CHARACTER * kind.name().len() as f64;
    }
    let lines = [("arena", "arena"), ("bound", "bound (max load)"), ("budget", "budget")];
    for (name, what) in &lines[..if f.budget.is_some() { 3 } else { 2 }] {
        put!(
            out,
            "<path class=\"{name}\" stroke-width=\"1.5\" d=\"M{x} {}h22\"/><text x=\"{}\" y=\"{y}\">{what}</text>",
            y - 4.0,
            x + 27.0
        );
        x += 44.0 + CHARACTER * what.len() as f64;
    }
    put!(
        out,
        "<rect fill=\"url(#holes)\" x=\"{x}\" y=\"{}\" width=\"22\" height=\"11\"/><text x=\"{}\" y=\"{y}\">hole</text>",
        y - 10.0,
        x + 27.0
    );
}
