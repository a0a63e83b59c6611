//! What a plan looks like to people: rows, totals, the load curve, the peak, what each pass saved, differences.
//!
//! A [`Report`] is plain data without references to its plan; serialised as it is, it is the JSON form of `plan-dump show`
//! (schema [`SCHEMA`], version [`VERSION`], documented in `tools/plan-dump/README.md`). Sizes and offsets are bytes; steps count
//! nodes of the schedule; lifespans are half-open.

mod diff;
mod load;
mod rows;
mod waterfall;

use super::Plan;
use crate::graph::Section;
use crate::passes::{Layout, Mode};
pub use diff::{BufferChange, Diff};
pub use load::{Load, Peak, PeakBuffer};
pub use rows::{BufferRow, LastUse, NodeRow, Region, TensorRow};
use serde::Serialize;
pub use waterfall::Stage;

/// Name of the JSON schema.
pub const SCHEMA: &str = "staticgrad.plan";
/// Version of the JSON schema: raised when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;
/// Numbers of workers for which the arena is reported.
const WORKERS: [usize; 5] = [1, 2, 4, 8, 16];

/// A plan, laid out for reading.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// [`VERSION`].
    pub version: u32,
    /// Name of the graph.
    pub graph: String,
    /// `infer compact`, `infer full` or `train`.
    pub mode: &'static str,
    /// Largest live sizes.
    pub capacity: CapacityRow,
    /// Number of steps of the schedule.
    pub steps: u32,
    /// Sizes.
    pub totals: TotalsRow,
    /// Floating-point operations of one call at full capacity.
    pub flops: f64,
    /// The part of [`Report::flops`] that repeats earlier nodes.
    pub recomputed_flops: f64,
    /// Runs of consecutive steps of one part of the training step.
    pub bands: Vec<Band>,
    /// Where the transient load is highest, and what is live there.
    pub peak: Peak,
    /// What the passes and placement made of the transient bytes.
    pub waterfall: Vec<Stage>,
    /// Every buffer, in the order of the plan.
    pub buffers: Vec<BufferRow>,
    /// Every step.
    pub nodes: Vec<NodeRow>,
    /// Transient bytes live at each step, sizes rounded up to the alignment.
    pub load: Vec<u64>,
}

/// Largest live sizes of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CapacityRow {
    /// Sequences.
    pub slots: usize,
    /// Rows kept per sequence.
    pub context: usize,
    /// Rows that one call computes.
    pub step_rows: usize,
    /// Rows of one call whose results are wanted.
    pub wanted_rows: usize,
}

/// Sizes of a plan in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TotalsRow {
    /// Buffers that live from call to call.
    pub persistent: u64,
    /// The region in which buffers come and go.
    pub transient: u64,
    /// Most transient bytes live at one step: the lower bound of `transient`.
    pub max_load: u64,
    /// (transient − max_load) / max_load.
    pub fragmentation: f64,
    /// What is known of the placement: `optimal (= bound)`, or `gap x%` above the highest load.
    pub status: String,
    /// Scratch of one worker.
    pub scratch_per_worker: u64,
    /// Whole arena for some numbers of workers.
    pub arena: Vec<ArenaRow>,
}

impl TotalsRow {
    /// Bytes of the arena for a number of workers.
    pub fn arena(&self, workers: usize) -> u64 {
        self.persistent + self.transient + self.scratch_per_worker * workers as u64
    }
}

/// Size of the arena for a number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ArenaRow {
    /// Worker threads.
    pub workers: usize,
    /// Bytes.
    pub bytes: u64,
}

/// Consecutive steps `[first, end)` of one section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Band {
    /// Forward, backward or update.
    pub section: Section,
    /// First step.
    pub first: u32,
    /// One past the last step.
    pub end: u32,
}

impl Report {
    /// Reports on a plan, which must have been verified.
    pub fn of(plan: &Plan) -> Report {
        let capacity = plan.capacity;
        let nodes = rows::nodes(plan);
        let buffers = rows::buffers(plan);
        let load = Load::of(&buffers, plan.graph.nodes.len());
        let flops = |recomputed: bool| nodes.iter().filter(|n| n.recomputed || !recomputed).map(|n| n.flops).sum();
        let totals = plan.totals;
        Report {
            schema: SCHEMA,
            version: VERSION,
            graph: plan.graph.name.clone(),
            mode: match plan.mode {
                Mode::Infer(Layout::Compact) => "infer compact",
                Mode::Infer(Layout::Full) => "infer full",
                Mode::Train => "train",
            },
            capacity: CapacityRow {
                slots: capacity.slots,
                context: capacity.context,
                step_rows: capacity.step_rows,
                wanted_rows: capacity.wanted_rows,
            },
            steps: load.bytes.len() as u32,
            totals: TotalsRow {
                persistent: totals.persistent,
                transient: totals.transient,
                max_load: totals.max_load,
                fragmentation: totals.fragmentation(),
                status: totals.status(),
                scratch_per_worker: totals.scratch_per_worker,
                arena: WORKERS.map(|workers| ArenaRow { workers, bytes: totals.arena(workers) }).to_vec(),
            },
            flops: flops(false),
            recomputed_flops: flops(true),
            bands: bands(&nodes),
            peak: load.peak(&buffers, &nodes),
            waterfall: waterfall::stages(plan),
            buffers,
            nodes,
            load: load.bytes,
        }
    }

    /// The buffer with this id, or the one in which a tensor of this name lives.
    pub fn find(&self, name: &str) -> Option<&BufferRow> {
        let holds = |b: &&BufferRow| b.tensors.iter().any(|t| t.name == name);
        self.buffers.iter().find(|b| b.id == name).or_else(|| self.buffers.iter().find(holds))
    }
}

fn bands(nodes: &[NodeRow]) -> Vec<Band> {
    let mut bands: Vec<Band> = Vec::new();
    for n in nodes {
        match bands.last_mut() {
            Some(band) if band.section == n.section => band.end = n.step + 1,
            _ => bands.push(Band { section: n.section, first: n.step, end: n.step + 1 }),
        }
    }
    bands
}
