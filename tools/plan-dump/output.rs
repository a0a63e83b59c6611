//! Writing results: standard output, files, and text that is safe to show on a terminal.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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

/// Writes beside the file and renames, so that a reader sees the old content or the new, never a part.
///
/// # Errors
/// What the system reports.
pub fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let readable = std::fs::Permissions::from_mode(0o666);
    let mut file =
        tempfile::Builder::new().permissions(readable).tempfile_in(folder).map_err(|e| Error::io(path, "write", e))?;
    file.write_all(text.as_bytes()).map_err(|e| Error::io(path, "write", e))?;
    file.as_file().sync_all().map_err(|e| Error::io(path, "write", e))?;
    file.persist(path).map_err(|e| Error::io(path, "write", e.error))?;
    Ok(())
}

/// To a file, or to standard output when there is none.
///
/// # Errors
/// What the system reports.
pub fn deliver(path: Option<&Path>, text: &str) -> Result<()> {
    path.map_or_else(|| print(text), |path| write_atomically(path, text))
}

/// The text without control characters: names come from files that nobody vouches for, and must not steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
