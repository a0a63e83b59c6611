//! Memory plans: lifespans → placement → independent verification → file.
//!
//! Offsets and sizes are bytes everywhere. The arena is `[persistent | transient | scratch of each worker]`.

pub mod budget;
pub mod buffers;
pub mod container;
mod draft;
pub mod file;
pub mod placement;
pub mod report;
pub mod verify;

use crate::error::Result;
use crate::graph::Graph;
use crate::ops::Capacity;
use crate::passes::{Fusions, Mode, alias::Aliases};
pub use buffers::{BufferKind, PlanBuffer};
use draft::Draft;
use serde::{Deserialize, Serialize};

/// Alignment of every buffer and of the arena, in bytes: a cache line, and the widest vector.
pub const ALIGN: u64 = 64;
/// Most bytes of an arena, scratch of workers left out: what a process can address on the CPUs of today.
const MAX_ARENA: u64 = 1 << 47;

/// A planned graph: all that the executor needs beside weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the plan is for.
    pub mode: Mode,
    /// The lowered graph, in execution order.
    pub graph: Graph,
    /// Largest live sizes.
    pub capacity: Capacity,
    /// For each tensor, the operand whose memory it takes over.
    pub aliases: Aliases,
    /// Every buffer, with its offset in the arena.
    pub buffers: Vec<PlanBuffer>,
    /// The buffer of each tensor; `None` for parameters that live outside the arena.
    pub tensor_buffer: Vec<Option<u32>>,
    /// For each node, its shared scratch buffer, if it has one.
    pub node_scratch: Vec<Option<u32>>,
    /// Totals.
    pub totals: Totals,
}

/// Sizes of a plan in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Buffers that live from call to call, at the start of the arena.
    pub persistent: u64,
    /// Most transient bytes live at one step: the lower bound of `transient`.
    pub max_load: u64,
    /// What placement reached for the transient part.
    pub transient: u64,
    /// Scratch of one worker.
    pub scratch_per_worker: u64,
}

impl Totals {
    /// Bytes of the arena for a number of workers.
    pub fn arena(&self, workers: usize) -> u64 {
        self.persistent + self.transient + self.scratch_per_worker * workers as u64
    }

    /// What is known of the transient part: `optimal (= bound)`, or `gap x%`.
    pub fn status(&self) -> String {
        let reached = self.transient == self.max_load;
        let status = if reached { placement::Status::Optimal } else { placement::Status::Gap };
        status.describe(self.fragmentation())
    }

    /// (reached − bound) / bound of the transient part; 0 when nothing is transient.
    pub fn fragmentation(&self) -> f64 {
        if self.max_load == 0 { 0.0 } else { (self.transient - self.max_load) as f64 / self.max_load as f64 }
    }
}

/// Plans a graph for a mode and sizes: passes, aliasing, lifespans, placement, verification.
///
/// # Errors
/// What a pass refuses; sizes of zero; an arena that overflows.
pub fn compile(graph: Graph, mode: Mode, capacity: Capacity) -> Result<Plan> {
    compile_with(graph, mode, capacity, Fusions::ALL)
}

/// As [`compile`], with only some of the fusion passes.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(graph: Graph, mode: Mode, capacity: Capacity, fusions: Fusions) -> Result<Plan> {
    Draft::new(graph, mode, capacity, fusions)?.place()
}
