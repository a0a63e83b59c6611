//! Sizes of memory on the command line, and the curve of budget against arithmetic.

use super::output::{bytes, line};
use crate::plan::budget::Choice;

/// `1GiB`, `1.5 GiB`, `500MiB`, `64KiB` or a number of bytes.
pub fn parse(text: &str) -> std::result::Result<u64, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..split].trim(), text[split..].trim());
    let scale = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1024.0 * 1024.0,
        "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("unknown unit '{unit}'; write 1GiB, 500MiB, 64KiB or a number of bytes")),
    };
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 && n * scale < 1e15 => Ok((n * scale) as u64),
        _ => Err("write a size such as 1GiB, 500MiB or a number of bytes".into()),
    }
}

/// Prints what each choice takes and costs.
pub fn print_curve(curve: &[Choice], chosen: &Choice) {
    line("budget curve: bytes beyond parameters and moments, extra arithmetic");
    for c in curve {
        let mark = if c == chosen { " <- chosen" } else { "" };
        line(&format!("  {:>14} B  {:>10}  +{:5.2} %  {}{mark}", c.bytes, bytes(c.bytes), 100.0 * c.extra, c.name));
    }
}
