//! A plan before placement: everything but the offsets. It costs a fraction of a plan, so that many can be compared.

use super::{ALIGN, MAX_ARENA, Plan, Totals, buffers, placement, verify};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::Capacity;
use crate::passes::{self, Fusions, Mode, alias::Aliases};

/// A lowered graph in execution order, with its buffers and their lifespans.
pub(super) struct Draft {
    graph: Graph,
    mode: Mode,
    capacity: Capacity,
    aliases: Aliases,
    layout: buffers::Layout,
    /// Transient buffers as a placement problem, with their numbers.
    transient: Vec<usize>,
    problem: Vec<placement::Buffer>,
    /// Most transient bytes live at one step, which no placement gets below.
    max_load: u64,
}

impl Draft {
    /// Lowers a graph and puts it into the better order.
    ///
    /// # Errors
    /// What a pass refuses; sizes of zero, or that overflow.
    pub fn new(graph: Graph, mode: Mode, capacity: Capacity, fusions: Fusions) -> Result<Self> {
        let Capacity { slots, context, step_rows, wanted_rows } = capacity;
        if [slots, context, step_rows, wanted_rows].contains(&0) {
            return Err(Error::Plan("slots, rows and step rows must be at least 1".into()));
        }
        if mode != Mode::Train && (wanted_rows > step_rows || step_rows > slots.saturating_mul(context)) {
            return Err(Error::Plan(format!(
                "{step_rows} rows a call with {wanted_rows} wanted do not fit {slots} slots of {context} rows; lower --step-rows"
            )));
        }
        Self::in_best_order(passes::lower(graph, mode, fusions)?, mode, capacity)
    }

    /// The graph in the memory-aware order where that lowers the most bytes live at one step, else in the written order.
    ///
    /// # Errors
    /// Sizes that overflow.
    pub fn in_best_order(graph: Graph, mode: Mode, capacity: Capacity) -> Result<Self> {
        let bytes = |t| buffers::tensor_bytes(graph.ty(t), &capacity).unwrap_or(u64::MAX >> 8);
        let other = passes::schedule::memory_aware(&graph, &bytes).map(|order| graph.reordered(&order));
        let written = Self::of(graph, mode, capacity)?;
        let other = other.map(|graph| Self::of(graph, mode, capacity)).transpose()?;
        Ok(match other {
            Some(other) if other.max_load < written.max_load => other,
            _ => written,
        })
    }

    /// Buffers and lifespans of a lowered graph in its own order.
    fn of(graph: Graph, mode: Mode, capacity: Capacity) -> Result<Self> {
        let aliases = passes::alias::choose(&graph);
        let layout = buffers::layout(&graph, mode, &capacity, &aliases)?;
        let transient: Vec<usize> =
            (0..layout.buffers.len()).filter(|&i| !layout.buffers[i].kind.is_persistent()).collect();
        let problem = transient.iter().map(|&i| {
            let b = &layout.buffers[i];
            placement::Buffer::new(b.lower as u64, b.upper as u64, b.size.next_multiple_of(ALIGN)).aligned(ALIGN)
        });
        let problem: Vec<placement::Buffer> = problem.collect();
        let max_load = placement::max_load(&problem);
        Ok(Draft { graph, mode, capacity, aliases, layout, transient, problem, max_load })
    }

    /// The draft of a graph that differs in attributes alone, in the same order.
    ///
    /// # Errors
    /// Sizes that overflow.
    pub fn changed(&self, change: impl FnOnce(&mut Graph)) -> Result<Self> {
        let mut graph = self.graph.clone();
        change(&mut graph);
        Self::of(graph, self.mode, self.capacity)
    }

    /// The lowered graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The lowered graph, without the rest.
    pub fn into_graph(self) -> Graph {
        self.graph
    }

    /// Least transient bytes, and the scratch of `workers` workers.
    pub fn least_bytes(&self, workers: usize) -> u64 {
        self.max_load + self.layout.scratch_per_worker * workers as u64
    }

    /// What runs when most bytes are live, and the largest buffer then, in words.
    pub fn peak(&self) -> String {
        let step = placement::peak(&self.problem).0 as u32;
        let live =
            self.transient.iter().map(|&i| &self.layout.buffers[i]).filter(|b| b.lower <= step && step < b.upper);
        match (self.graph.nodes.get(step as usize), live.max_by_key(|b| b.size)) {
            (Some(node), Some(b)) => {
                format!("{} '{}', while the largest buffer is '{}' ({} B)", node.op, node.name, b.name, b.size)
            }
            _ => "nothing".into(),
        }
    }

    /// Gives every buffer its offset, persistent ones one after another, transient ones by the placement portfolio, and verifies the plan.
    ///
    /// # Errors
    /// An arena that overflows.
    pub fn place(mut self) -> Result<Plan> {
        let mut persistent = 0u64;
        for b in self.layout.buffers.iter_mut().filter(|b| b.kind.is_persistent()) {
            b.offset = persistent;
            persistent = (persistent + b.size).checked_next_multiple_of(ALIGN).ok_or_else(arena_overflows)?;
        }
        let placed = placement::place(&self.problem, &placement::Options::default())?;
        if persistent.checked_add(placed.arena).is_none_or(|end| end > MAX_ARENA) {
            return Err(arena_overflows());
        }
        for (&i, offset) in self.transient.iter().zip(&placed.offsets) {
            self.layout.buffers[i].offset = persistent + offset;
        }
        let totals = Totals {
            persistent,
            max_load: placed.bound,
            transient: placed.arena,
            scratch_per_worker: self.layout.scratch_per_worker,
        };
        let plan = Plan {
            mode: self.mode,
            graph: self.graph,
            capacity: self.capacity,
            aliases: self.aliases,
            buffers: self.layout.buffers,
            tensor_buffer: self.layout.tensor_buffer,
            node_scratch: self.layout.node_scratch,
            totals,
        };
        verify::verify(&plan)?;
        Ok(plan)
    }
}

fn arena_overflows() -> Error {
    Error::Plan("the arena overflows the address space; ask for fewer rows or sequences".into())
}
