//! Another process that keeps one core busy: this program, started with `bench --what busy`.

use crate::error::{Error, Result};
use std::hint::black_box;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

/// A process that is busy from [`Competitor::start`] until it is dropped, or until this process ends in whatever way: the system then
/// closes the pipe that is its standard input.
pub struct Competitor(Child);

impl Competitor {
    /// Starts it and waits until it is busy.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn start() -> Result<Self> {
        let failed = |e| Error::io("a competing process", "start", e);
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["bench", "--what", "busy"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut competitor = Competitor(command.spawn().map_err(failed)?);
        let said = competitor.0.stdout.take().map(|mut out| out.read_exact(&mut [0]));
        said.unwrap_or(Ok(())).map_err(failed)?;
        Ok(competitor)
    }
}

impl Drop for Competitor {
    fn drop(&mut self) {
        // A process that has ended already is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the competitor does: a byte on standard output, then work on one core until standard input ends.
///
/// # Errors
/// What the system reports about standard output.
pub fn keep_busy() -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let mut out = std::io::stdout();
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(|e| Error::io("standard output", "write", e))?;
    // Arithmetic, as pauses in a loop are what some hypervisors take the core away for.
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}
