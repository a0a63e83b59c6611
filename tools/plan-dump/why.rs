//! Why a buffer is alive: who writes it, who reads it, and what the peak would be without it.

use staticgrad::error::{Error, Result};
use staticgrad::ops::build::edit_distance;
use staticgrad::plan::report::{Load, Region, Report};

use crate::output::printable;
use crate::size::bytes;
use crate::style::Style;
use crate::table;
use crate::text::last_use;

/// How many readers of a tensor are listed.
const READERS: usize = 8;

/// The life of the buffer called `name`, or of the one in which the tensor called `name` lives.
///
/// # Errors
/// When there is no such buffer; names the nearest.
pub fn explain(report: &Report, name: &str, style: &Style) -> Result<String> {
    let b = report.find(name).ok_or_else(|| unknown(report, name))?;
    let size = bytes(b.bytes);
    let mut lines = vec![
        style.bold(&b.id),
        format!("  {}, {} of {size} at offset {}, steps [{}, {})", b.kind.name(), b.shape, b.offset, b.lower, b.upper),
    ];
    for t in &b.tensors {
        let origin = match (&t.op, t.step) {
            (Some(op), Some(step)) => format!("computed by {} at step {step}", printable(op)),
            _ => "there before the first step".into(),
        };
        let over = t.in_place_of.as_ref().map_or(String::new(), |o| format!(", in place of {}", printable(o)));
        lines.push(format!("  holds {}: {}, {origin}{over}", printable(&t.name), t.ty));
        let mut readers: Vec<String> = t.readers.iter().take(READERS).map(|n| printable(n)).collect();
        if t.readers.len() > READERS {
            readers.push(format!("… and {} more", t.readers.len() - READERS));
        }
        lines.push(match readers.is_empty() {
            true => "    read by no node".into(),
            false => format!("    read by {}", readers.join(", ")),
        });
    }
    lines.push(format!("  alive to the end of step {}, for {}", b.upper - 1, last_use(b)));
    let load = Load { bytes: report.load.clone() };
    let (step, most) = load.highest();
    let without = load.without(b);
    lines.push(match b.region {
        Region::Persistent => format!("  without it, the persistent region would be {} smaller", bytes(b.padded())),
        Region::Transient if without < most => {
            format!(
                "  without it, the peak would be {} instead of {}: {} less",
                bytes(without),
                bytes(most),
                bytes(most - without)
            )
        }
        Region::Transient if b.live_at(step) => {
            format!("  without it, the peak would still be {}: another step is as high", bytes(most))
        }
        Region::Transient => {
            format!("  it is not alive at the peak (step {step}, {}), which it does not change", bytes(most))
        }
    });
    let fitted = lines.iter().flat_map(|line| table::wrapped(line, style.width));
    Ok(fitted.collect::<Vec<_>>().join("\n") + "\n")
}

fn unknown(report: &Report, name: &str) -> Error {
    let names = report.buffers.iter().flat_map(|b| std::iter::once(&b.id).chain(b.tensors.iter().map(|t| &t.name)));
    let nearest = names.min_by_key(|n| edit_distance(n, name));
    let hint = nearest.map_or(String::new(), |n| format!("; did you mean '{n}'?"));
    Error::Request(format!("the plan has no buffer or tensor '{name}'{hint}"))
}
