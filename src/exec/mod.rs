//! Executor: binds a plan to its arena and runs its steps.

mod arena;
mod bind;
mod cores;
mod distance;
mod high_water;
mod job;
mod profile;
mod run;
mod runs;
mod session;
mod trained;
mod trainer;
pub mod workers;

pub use arena::{Arena, return_freed_memory};
pub use profile::{NodeTime, PhaseTime};
pub use session::Session;
pub use trainer::{Trainer, Update};

use crate::error::{Error, Result};
use crate::graph::TensorId;
use crate::kernels::isa::Isa;
use crate::kernels::param::Param;
use crate::ops::Kernel;
use crate::plan::Plan;
use arena::{BoundNode, LiveRows, NodeOperands, ScratchSlot, Set};
use distance::Distance;
use profile::Profile;
use run::{Run, Together};
use std::ops::Range;
use workers::{Job, Workers};

/// Which rows of a call get results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// None (prefill of a prompt's first part).
    None,
    /// The last row of each sequence.
    Last,
    /// All rows.
    All,
}

/// Rows of a call from which on the cores' distance is measured first, which takes microseconds, or 100 when a worker has lost its core: such
/// a call takes milliseconds.
const ROWS_WORTH_MEASURING: usize = 64;

/// A plan bound to memory and threads. It knows steps and rows; sequences and prefixes are the business of [`Session`].
pub struct Executor<'w> {
    plan: &'w Plan,
    arena: Arena,
    nodes: Vec<BoundNode<'w>>,
    kernels: Vec<Box<dyn Kernel>>,
    /// (node, phase of the node), in execution order.
    phases: Vec<(u32, u32)>,
    /// For each phase what runs together with it.
    together: Vec<Together>,
    rows: LiveRows,
    scratch: Vec<ScratchSlot>,
    workers: Workers,
    distance: Distance,
    isa: Isa,
    profile: Option<Profile>,
}

impl<'w> Executor<'w> {
    /// Allocates the arena, resolves every operand, starts the workers. `param` gives the parameters that live outside the arena.
    ///
    /// # Errors
    /// A parameter that is missing or of another shape; too little memory; threads that do not start.
    pub fn new(plan: &'w Plan, threads: usize, param: &dyn Fn(&str) -> Option<Param<'w>>) -> Result<Self> {
        let threads = threads.max(1);
        let mut arena = Arena::new(plan.totals.arena(threads))?;
        bind::clear_persistent(plan, &mut arena);
        let nodes = bind::nodes(plan, &arena, param)?;
        let kernels = bind::kernels(plan)?;
        let phases: Vec<(u32, u32)> =
            (0u32..).zip(&kernels).flat_map(|(n, k)| (0..k.phases() as u32).map(move |p| (n, p))).collect();
        let start = plan.totals.persistent + plan.totals.transient;
        let size = plan.totals.scratch_per_worker;
        let scratch = (0..threads as u64)
            .map(|w| ScratchSlot { ptr: arena.at(start + w * size, size), len: size as usize })
            .collect();
        let workers = Workers::new(threads)
            .map_err(|e| Error::Request(format!("cannot start {threads} threads: {e}; lower --threads")))?;
        let distance = Distance::between(threads);
        let rows = bind::row_sets(plan);
        let isa = Isa::current();
        let together = Together::alone(phases.len());
        let mut executor = Executor {
            plan,
            arena,
            nodes,
            kernels,
            phases,
            together,
            rows,
            scratch,
            workers,
            distance,
            isa,
            profile: None,
        };
        for run in bind::runs(plan, &executor.kernels) {
            executor.join(run);
        }
        Ok(executor)
    }

    /// The plan.
    pub fn plan(&self) -> &'w Plan {
        self.plan
    }

    /// Bytes of the arena, scratch of all workers included.
    pub fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Number of workers.
    pub fn threads(&self) -> usize {
        self.workers.count()
    }

    /// Declares which rows the next runs compute: `(slot, first row, count)` each, and which of them are wanted.
    ///
    /// # Panics
    /// When they exceed the capacity of the plan; callers check first.
    pub fn set_rows(&mut self, segments: &[(usize, usize, usize)], want: Want) {
        let context = self.plan.capacity.context;
        let rows = &mut self.rows;
        rows.clear();
        for &(slot, first, count) in segments {
            assert!(slot < self.plan.capacity.slots && first + count <= context, "slot {slot}, rows {first} + {count}");
            let wanted = match want {
                Want::None => 0,
                Want::Last => count.min(1),
                Want::All => count,
            };
            rows.push(slot, first, count, wanted, context);
        }
        assert!(rows.new.len() <= self.plan.capacity.step_rows, "{} rows in one call", rows.new.len());
        assert!(rows.wanted.len() <= self.plan.capacity.wanted_rows, "{} wanted rows", rows.wanted.len());
    }

    /// Runs steps (nodes) `steps` for the rows set last. Allocates nothing.
    pub fn execute(&mut self, steps: Range<usize>) {
        let first = self.phases.partition_point(|&(n, _)| (n as usize) < steps.start);
        let end = self.phases.partition_point(|&(n, _)| (n as usize) < steps.end);
        if self.isa.takes_lines_back_slowly() && self.rows.new.len() >= ROWS_WORTH_MEASURING {
            self.distance.measure(&self.workers);
        }
        if let Some(profile) = &self.profile {
            profile.resume();
        }
        self.workers.run(&Run { exec: self, first, count: end - first });
    }

    /// Runs a job that is no part of the plan on the workers, who come to it as to a node: to measure the machine beside steps.
    pub fn run_job(&self, job: &dyn Job) {
        self.workers.run(job);
    }

    /// Takes the workers' cores to have a cache in common or not, instead of measuring it before calls of many rows. Results do not depend on it.
    pub fn assume_distance(&mut self, is_far: bool) {
        self.distance = Distance::assumed(is_far);
    }

    /// Switches skipping off for the nodes that `recompute` names: they compute every row from the first on in each call.
    ///
    /// # Errors
    /// On a compact plan, where earlier rows are not kept; on a plan whose calls have no room for all rows.
    pub fn set_recompute(&mut self, recompute: &dyn Fn(&crate::graph::Node) -> bool) -> Result<()> {
        if self.plan.mode != crate::passes::Mode::Infer(crate::passes::Layout::Full) {
            return Err(Error::Request(
                "skipping can be switched off on a full plan only; compile with --layout full".into(),
            ));
        }
        let c = &self.plan.capacity;
        if c.step_rows < c.slots * c.context {
            return Err(Error::Request(format!(
                "calls of {} rows have no room to recompute {} rows; compile with as many --step-rows",
                c.step_rows,
                c.slots * c.context
            )));
        }
        for (bound, node) in self.nodes.iter_mut().zip(&self.plan.graph.nodes) {
            bound.set = if recompute(node) { Set::All } else { Set::New };
        }
        Ok(())
    }

    /// Values of a tensor in the arena, at full capacity.
    ///
    /// # Panics
    /// When the tensor lives outside the arena.
    pub fn tensor<T: bytemuck::AnyBitPattern>(&self, t: TensorId) -> &[T] {
        let (offset, elements) = self.extent_of::<T>(t);
        self.arena.slice(offset, elements)
    }

    /// As [`Executor::tensor`], to write.
    ///
    /// # Panics
    /// When the tensor lives outside the arena.
    pub fn tensor_mut<T: bytemuck::AnyBitPattern>(&mut self, t: TensorId) -> &mut [T] {
        let (offset, elements) = self.extent_of::<T>(t);
        self.arena.slice_mut(offset, elements)
    }

    /// Fills every byte of transient buffers that are dead after step `step` and everything that no buffer uses then with NaN bits;
    /// tests prove with it that nothing reads dead memory.
    pub fn poison_dead(&mut self, step: usize) {
        let (start, end) = (self.plan.totals.persistent, self.plan.totals.persistent + self.plan.totals.transient);
        let mut live: Vec<(u64, u64)> = self
            .plan
            .buffers
            .iter()
            .filter(|b| !b.kind.is_persistent() && (b.lower as usize) <= step && step + 1 < b.upper as usize)
            .map(|b| (b.offset, b.offset + b.size))
            .collect();
        live.sort_unstable();
        let mut at = start;
        for (lower, upper) in live.into_iter().chain([(end, end)]) {
            if lower > at {
                self.arena.fill(at, lower - at, 0xff);
            }
            at = at.max(upper);
        }
    }

    fn extent_of<T>(&self, t: TensorId) -> (u64, usize) {
        let b = self.plan.tensor_buffer[t.index()].expect("the tensor lives in the arena");
        let buffer = &self.plan.buffers[b as usize];
        (buffer.offset, buffer.size as usize / size_of::<T>())
    }

    /// Lets the nodes of `run`, of one phase each, run together.
    fn join(&mut self, run: Range<usize>) {
        if run.len() < 2 {
            return;
        }
        let first = self.phases.partition_point(|&(n, _)| (n as usize) < run.start);
        let phases = first..first + run.len();
        let mut start = 0;
        for (node, phase) in run.zip(phases.clone()) {
            let end = start + self.kernels[node].tiles(&self.operands(node, 0), 0);
            self.together[phase] = Together { phases: phases.clone(), tiles: start..end };
            start = end;
        }
    }

    fn operands(&self, node: usize, worker: usize) -> NodeOperands<'_, 'w> {
        NodeOperands {
            node: &self.nodes[node],
            rows: &self.rows,
            context: self.plan.capacity.context,
            workers: self.workers.count(),
            apart: self.distance.is_far() && self.rows.new.len() >= ROWS_WORTH_MEASURING,
            isa: self.isa,
            scratch: self.scratch[worker],
        }
    }
}
