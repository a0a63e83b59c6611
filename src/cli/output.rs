//! Words for sizes and rates, and lines of standard output.

use crate::error::{Error, Result};
use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

/// Bytes with a unit a person reads: `12.3 MiB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.2} GiB")
}

/// What standard output refused first, other than that its reader went away.
static REFUSED: OnceLock<String> = OnceLock::new();

/// Writes a line to standard output. When the reader went away (`| head`) the text is dropped and the command goes on: what it was
/// asked to do, such as writing a file, is still done. Any other refusal is kept for [`refused`].
pub fn line(text: &str) {
    if let Err(e) = writeln!(std::io::stdout(), "{text}")
        && e.kind() != ErrorKind::BrokenPipe
    {
        let _ = REFUSED.set(e.to_string());
    }
}

/// Writes a line to standard error, where a reader that went away is no error either.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The error of the first line that standard output refused; the command then fails at its end.
///
/// # Errors
/// That error.
pub fn refused() -> Result<()> {
    REFUSED.get().map_or(Ok(()), |e| Err(Error::Request(format!("standard output: {e}"))))
}
