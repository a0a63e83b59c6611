//! Steps as columns of characters: lifespans as bars, the load as a curve.

use staticgrad::plan::report::{Band, Report};

use crate::size::bytes;
use crate::style::{self, Style};
use crate::table::width;

/// Lines of the load curve.
const HEIGHT: usize = 8;
/// Eighths of a line, from empty to full.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Which of `columns` columns show steps `[lower, upper)` of `steps`: at least one.
fn span(lower: u32, upper: u32, steps: u32, columns: usize) -> (usize, usize) {
    let at = |step: u32| step as usize * columns / steps.max(1) as usize;
    let first = at(lower).min(columns.saturating_sub(1));
    let end = (upper as usize * columns).div_ceil(steps.max(1) as usize);
    (first, end.clamp(first + 1, columns.max(first + 1)))
}

/// A lifespan as a bar of `columns` characters.
pub fn bar(lower: u32, upper: u32, steps: u32, columns: usize) -> String {
    let (first, end) = span(lower, upper, steps, columns);
    " ".repeat(first) + &"█".repeat(end - first)
}

/// The load over the steps, with the bands below it; at most `columns` characters wide, labels included.
pub fn load(report: &Report, columns: usize, style: &Style) -> Vec<String> {
    let most = report.peak.bytes.max(1);
    let label = bytes(report.peak.bytes);
    let margin = width(&label) + 1;
    let columns = columns.saturating_sub(margin + 1).min(report.load.len().max(24)).max(1);
    let steps = report.load.len();
    let heights: Vec<usize> = (0..columns)
        .map(|c| {
            let (first, end) = (c * steps / columns, ((c + 1) * steps).div_ceil(columns).min(steps));
            let load = report.load[first..end.max(first + 1)].iter().copied().max().unwrap_or(0);
            (load as f64 / most as f64 * (HEIGHT * 8) as f64).ceil() as usize
        })
        .collect();
    let mut lines = vec![style.bold("transient load over the steps")];
    for row in (0..HEIGHT).rev() {
        let text: String = heights.iter().map(|h| EIGHTHS[h.saturating_sub(row * 8).min(8)]).collect();
        let left = match row {
            r if r == HEIGHT - 1 => label.clone(),
            0 => "0".to_string(),
            _ => String::new(),
        };
        lines.push(format!("{left:>w$} {}", style.paint(text.trim_end(), "36"), w = margin - 1));
    }
    lines.push(format!("{:>w$} {}", "", bands(&report.bands, report.steps, columns, style), w = margin - 1));
    lines
}

/// One character per column that says forward, backward or optimiser, with the names where they fit.
fn bands(bands: &[Band], steps: u32, columns: usize, style: &Style) -> String {
    let mut text = String::new();
    let mut at = 0;
    for band in bands {
        let (_, end) = span(band.first, band.end, steps, columns);
        let room = end.saturating_sub(at);
        let (name, letter, code) = style::section(band.section);
        let cell = match room {
            0 => continue,
            r if r >= name.len() + 4 => format!("{name:─^room$}"),
            _ => letter.to_string().repeat(room),
        };
        text += &style.paint(&cell, code);
        at = end;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lifespan_shows_and_none_leaves_the_chart() {
        for steps in [1u32, 7, 100, 1000] {
            for columns in [1usize, 10, 99] {
                for lower in 0..steps {
                    let (first, end) = span(lower, lower + 1, steps, columns);
                    assert!(first < end && end <= columns, "{lower} of {steps} in {columns}");
                }
                assert_eq!(span(0, steps, steps, columns), (0, columns));
            }
        }
        assert_eq!(bar(2, 4, 8, 8), "  ██");
    }
}
