//! Writing results: standard output, files, and text that is safe to show on a terminal.

use std::io::Write;
use std::path::Path;

use staticgrad::disk::write_atomically;
use staticgrad::error::{Error, Result};

/// Writes to standard output; a reader that went away (`| head`) is no error.
///
/// # Errors
/// What the system reports.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("<stdout>", "write", e)),
        _ => Ok(()),
    }
}

/// An error on standard error, which may be a closed pipe: then the exit code alone tells.
pub fn complain(error: &Error) {
    let _ = writeln!(std::io::stderr(), "plan-dump: {}", printable(&error.to_string()));
}

/// To a file, or to standard output when there is none.
///
/// # Errors
/// What the system reports.
pub fn deliver(path: Option<&Path>, text: &str) -> Result<()> {
    path.map_or_else(|| print(text), |path| write_atomically(path, |file| file.put(text.as_bytes())))
}

/// The text without control characters: names come from files that nobody vouches for, and must not steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Text that XML takes as text.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
