//! What workers do together: phases of tiles.

use crate::ops::NO_MEMORY;
use std::ops::Range;

/// A call's work: a sequence of phases, each a number of independent tiles.
pub trait Job: Sync {
    /// Number of phases.
    fn phases(&self) -> usize;
    /// Tiles of a phase; fewer than 2^31. Zero skips it.
    fn tiles(&self, phase: usize) -> usize;
    /// Runs adjacent tiles as worker `worker`.
    fn run(&self, phase: usize, tiles: Range<usize>, worker: usize);
    /// What a claim leaves of a run, in claims of the same size: large claims cost least, and small ones keep more for workers that are faster.
    fn claims(&self) -> usize {
        CLAIMS
    }
    /// Memory that worker `worker` reads first after `phase`. Only a hint: nothing depends on it but speed.
    fn soon(&self, _phase: usize, _worker: usize) -> Range<*const u8> {
        NO_MEMORY
    }
    /// Called by one worker when a phase that has tiles has ended, before the next opens (for profiles).
    fn phase_done(&self, _phase: usize) {}
}

/// The usual answer of [`Job::claims`].
pub const CLAIMS: usize = 4;
