//! Memory placement: packs buffers with known lifespans into the lowest arena (dynamic storage allocation, NP-hard).
//!
//! A buffer is a rectangle in time × address whose position in time is given; only its offset is chosen. The most
//! bytes live at one step ([`max_load`]) bound every arena from below. [`place`] runs a portfolio and stops as soon as
//! the arena equals that bound, or a proof shows that no placement is lower:
//!
//! 1. `outward`: stack what is live at the peak, then best fit away from it in both directions of time. Near
//!    linear, so it also serves a million buffers.
//! 2. `search`: exact branch and bound up to a few thousand buffers; first one dive of each strategy at the bound.
//! 3. `greedy`: static orders, each with first fit and best fit.
//! 4. `search` again, at the bound and at the heights between it and the best arena that `minimise` chooses.
//! 5. `local`: reordering around what sticks out, where the search leaves a gap or cannot reach.
//!
//! Effort is counted in search nodes, so the same input and options give the same bytes; only an explicit
//! [`Options::time_limit`] makes a result depend on the clock, and then [`Placement::timed_out`] says so.
//! [`verify()`] checks a placement with none of this code.

mod clock;
pub mod csv;
mod greedy;
mod interval_index;
mod load;
mod local;
mod minimise;
mod outward;
mod portfolio;
mod problem;
mod random;
mod search;
pub mod verify;

use std::time::Duration;

use crate::error::Result;

pub use load::{max_load, peak};
pub use verify::{Violation, verify};

/// One buffer to place: a half-open lifespan `[lower, upper)` in schedule steps and an extent in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// First step at which the buffer is live.
    pub lower: u64,
    /// First step at which it is dead again; greater than `lower`.
    pub upper: u64,
    /// Bytes. A buffer of zero bytes occupies nothing and conflicts with nothing; its offset is 0 unless fixed.
    pub size: u64,
    /// The offset is a multiple of this power of two, at least 1.
    pub align: u64,
    /// The offset of a pre-placed buffer.
    pub fixed: Option<u64>,
}

impl Buffer {
    /// A free buffer without alignment.
    pub fn new(lower: u64, upper: u64, size: u64) -> Self {
        Self { lower, upper, size, align: 1, fixed: None }
    }

    /// The same buffer, its offset a multiple of `align`.
    pub fn aligned(self, align: u64) -> Self {
        Self { align, ..self }
    }

    /// The same buffer, pre-placed at `offset`.
    pub fn at(self, offset: u64) -> Self {
        Self { fixed: Some(offset), ..self }
    }
}

/// How good an arena is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The arena equals the bound (most bytes live at one step, or the end of a fixed buffer).
    Optimal,
    /// The arena is above the bound, and the search has shown that no placement is lower.
    Proved,
    /// A lower placement may exist.
    Gap,
}

impl Status {
    /// `optimal (= bound)`, `proved` or `gap x%`. A gap so small that its digits are zeros is rounded up, since it is one.
    pub fn describe(self, gap: f64) -> String {
        match self {
            Status::Optimal => "optimal (= bound)".to_string(),
            Status::Proved => "proved".to_string(),
            Status::Gap => format!("gap {:.3}%", (100.0 * gap).max(0.001)),
        }
    }
}

/// How much work to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Search nodes that may be spent beyond the greedy heuristics, which always run.
    pub effort: u64,
    /// Wall-clock limit. A result that it cut short is marked; leave `None` where results must be reproducible.
    pub time_limit: Option<Duration>,
    /// Stop at the first placement of at most this many bytes, instead of minimising.
    pub capacity: Option<u64>,
}

/// Enough for every graph of a model with room to spare; a few tenths of a second at most where the bound is out of reach.
pub const DEFAULT_EFFORT: u64 = 100_000;

impl Default for Options {
    fn default() -> Self {
        Self { effort: DEFAULT_EFFORT, time_limit: None, capacity: None }
    }
}

/// A legal placement of all buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Offset of each buffer in bytes, in the order given.
    pub offsets: Vec<u64>,
    /// Bytes of the arena: the highest end of a buffer.
    pub arena: u64,
    /// Most bytes live at one step, or the highest end of a fixed buffer if that is more.
    pub bound: u64,
    /// No placement is lower than this: the bound, or more where the search has proved more.
    pub proved: u64,
    /// What is known about the arena.
    pub status: Status,
    /// Search nodes spent.
    pub nodes: u64,
    /// The wall-clock limit cut the work short, so that another run may give another result.
    pub timed_out: bool,
    /// The member of the portfolio that found the placement.
    pub winner: &'static str,
}

impl Placement {
    /// `(arena - proved) / proved`: how far from the optimum this may be.
    pub fn gap(&self) -> f64 {
        if self.proved == 0 { 0.0 } else { (self.arena - self.proved) as f64 / self.proved as f64 }
    }

    /// `optimal (= bound)`, `proved` or `gap x%`; with `(cut by time)` where the clock ended the work.
    pub fn describe_status(&self) -> String {
        let text = self.status.describe(self.gap());
        if self.timed_out { format!("{text} (cut by time)") } else { text }
    }
}

/// Places `buffers` in the lowest arena found within `options`.
///
/// # Errors
/// [`Error::Plan`](crate::error::Error::Plan) for a lifespan that is empty, an alignment that is not a power of two, a
/// fixed offset that is misaligned or collides with another, and sizes that could add up to 2^63 bytes or more. An
/// arena above [`Options::capacity`] is no error: compare [`Placement::arena`].
pub fn place(buffers: &[Buffer], options: &Options) -> Result<Placement> {
    portfolio::run(buffers, options)
}
