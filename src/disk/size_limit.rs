//! The limit of file sizes that a process may have (`ulimit -f`).
#![allow(unsafe_code)]

/// Lets a write past the limit fail, so that it is reported and leaves no file. By default the system ends the process by the signal SIGXFSZ,
/// and what it was writing stays.
pub fn fail_past_size_limit() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal runs no code of this process when it comes.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
