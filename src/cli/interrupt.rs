//! What an interrupt (Ctrl-C, a request to end) does: training saves and ends, commands that write files leave none half written.

use crate::disk::abandon_files;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a command that was interrupted, as of one that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Removes temporary files and ends the process when it is interrupted.
///
/// # Errors
/// When the system refuses to tell of interrupts.
pub fn leave_nothing() -> Result<()> {
    handle(|| {
        abandon_files();
        std::process::exit(INTERRUPTED);
    })
}

/// Becomes true when the process is interrupted.
///
/// # Errors
/// When the system refuses to tell of interrupts.
pub fn noticed() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    handle(move || flag.store(true, Ordering::Relaxed))?;
    Ok(stop)
}

fn handle(interrupted: impl FnMut() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(interrupted).map_err(|e| Error::Request(format!("cannot watch for interrupts: {e}")))
}
