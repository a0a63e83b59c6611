//! Memory plans: lifespans → placement → independent verification → file.
//!
//! Offsets and sizes are bytes everywhere. The arena is `[persistent | transient | scratch of each worker]`.

pub mod budget;
pub mod buffers;
pub mod container;
pub mod file;
pub mod placement;
pub mod report;
pub mod verify;

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::Capacity;
use crate::passes::{self, Fusions, Mode, alias::Aliases};
pub use buffers::{BufferKind, PlanBuffer};
use serde::{Deserialize, Serialize};

/// Alignment of every buffer and of the arena, in bytes: a cache line, and the widest vector.
pub const ALIGN: u64 = 64;

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
    let Capacity { slots, context, step_rows, wanted_rows } = capacity;
    if [slots, context, step_rows, wanted_rows].contains(&0) {
        return Err(Error::Plan("slots, rows and step rows must be at least 1".into()));
    }
    if mode != Mode::Train && (wanted_rows > step_rows || step_rows > slots.saturating_mul(context)) {
        return Err(Error::Plan(format!(
            "{step_rows} rows a call with {wanted_rows} wanted do not fit {slots} slots of {context} rows; lower --step-rows"
        )));
    }
    let graph = in_best_order(passes::lower(graph, mode, fusions)?, mode, &capacity)?;
    let aliases = passes::alias::choose(&graph);
    assemble(graph, mode, capacity, aliases)
}

/// The graph in the memory-aware order where that lowers the most bytes live at one step, else in the written order.
fn in_best_order(graph: Graph, mode: Mode, capacity: &Capacity) -> Result<Graph> {
    let bytes = |t| buffers::tensor_bytes(graph.ty(t), capacity).unwrap_or(u64::MAX >> 8);
    let Some(order) = passes::schedule::memory_aware(&graph, &bytes) else { return Ok(graph) };
    let other = graph.reordered(&order);
    let load = |graph: &Graph| -> Result<u64> {
        let layout = buffers::layout(graph, mode, capacity, &passes::alias::choose(graph))?;
        Ok(placement::max_load(&problem(&layout.buffers).1))
    };
    Ok(if load(&other)? < load(&graph)? { other } else { graph })
}

/// The transient buffers as a placement problem, with their numbers.
fn problem(buffers: &[PlanBuffer]) -> (Vec<usize>, Vec<placement::Buffer>) {
    let transient: Vec<usize> = (0..buffers.len()).filter(|&i| !buffers[i].kind.is_persistent()).collect();
    let problem = transient.iter().map(|&i| {
        let b = &buffers[i];
        placement::Buffer::new(b.lower as u64, b.upper as u64, b.size.next_multiple_of(ALIGN)).aligned(ALIGN)
    });
    let problem = problem.collect();
    (transient, problem)
}

/// Lifespans and placement of a lowered graph.
fn assemble(graph: Graph, mode: Mode, capacity: Capacity, aliases: Aliases) -> Result<Plan> {
    let mut layout = buffers::layout(&graph, mode, &capacity, &aliases)?;
    let totals = place(&mut layout)?;
    let plan = Plan {
        mode,
        graph,
        capacity,
        aliases,
        buffers: layout.buffers,
        tensor_buffer: layout.tensor_buffer,
        node_scratch: layout.node_scratch,
        totals,
    };
    verify::verify(&plan)?;
    Ok(plan)
}

/// Gives every buffer its offset: persistent ones one after another, transient ones by the placement portfolio.
fn place(layout: &mut buffers::Layout) -> Result<Totals> {
    let mut persistent = 0u64;
    for b in layout.buffers.iter_mut().filter(|b| b.kind.is_persistent()) {
        b.offset = persistent;
        persistent = (persistent + b.size)
            .checked_next_multiple_of(ALIGN)
            .ok_or_else(|| Error::Plan("the arena overflows the address space; lower --rows or --slots".into()))?;
    }
    let (transient, problem) = problem(&layout.buffers);
    let placed = placement::place(&problem, &placement::Options::default())?;
    for (&i, offset) in transient.iter().zip(&placed.offsets) {
        layout.buffers[i].offset = persistent + offset;
    }
    Ok(Totals {
        persistent,
        max_load: placed.bound,
        transient: placed.arena,
        scratch_per_worker: layout.scratch_per_worker,
    })
}
