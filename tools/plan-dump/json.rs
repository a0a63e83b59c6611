//! The formats for programs: JSON (schema in `README.md`) and MiniMalloc's CSV.

use std::fmt::Write;

use staticgrad::plan::report::Report;

/// The report as JSON, with a final newline.
pub fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).expect("a report has no values that JSON cannot hold") + "\n"
}

/// `id,lower,upper,size,offset`, one buffer a line. Sizes are rounded up to the alignment, so that whatever places them again
/// side by side keeps them aligned.
pub fn csv(report: &Report) -> String {
    let mut text = String::from("id,lower,upper,size,offset\n");
    for b in &report.buffers {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{},{},{},{},{}", b.id, b.lower, b.upper, b.padded(), b.offset);
    }
    text
}
