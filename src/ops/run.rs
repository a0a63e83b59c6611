//! What a kernel sees while it runs: live rows, operands, scratch.

use crate::kernels::gemm::Matrix;
use crate::kernels::isa::Isa;
use crate::kernels::linear::PackedMatrix;
use crate::kernels::stream;
use crate::kernels::view::{View, ViewMut};
use half::{bf16, f16};
use std::ops::Range;

/// Largest sizes a plan allows; scratch is sized from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sequences.
    pub slots: usize,
    /// Rows (token positions) kept per sequence.
    pub context: usize,
    /// Rows that one call computes.
    pub step_rows: usize,
    /// Rows of one call whose results are wanted.
    pub wanted_rows: usize,
}

/// Bytes that a node needs while it runs; both kinds are 64-byte aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Scratch {
    /// Shared by all workers, planned as a buffer that lives for the node's step.
    pub shared: usize,
    /// For each worker; a single region sized for the neediest node.
    pub per_worker: usize,
}

/// Consecutive rows of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The sequence.
    pub slot: usize,
    /// Position of the first row.
    pub first_row: usize,
    /// Number of rows.
    pub count: usize,
    /// Where the segment starts in the flat list of rows.
    pub start: usize,
}

/// The live rows of a run, as one flat list and as segments. Capacity is reserved at start-up; refilling allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct RowSet {
    segments: Vec<Segment>,
    positions: Vec<u32>,
    kept: Vec<u32>,
}

impl RowSet {
    /// Room for `rows` rows.
    pub fn with_capacity(rows: usize) -> Self {
        RowSet {
            segments: Vec::with_capacity(rows),
            positions: Vec::with_capacity(rows),
            kept: Vec::with_capacity(rows),
        }
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.positions.clear();
        self.kept.clear();
    }

    /// Appends rows `first_row .. first_row + count` of `slot`, where a slot keeps `context` rows. A segment that continues
    /// the last one is joined to it.
    pub fn push(&mut self, slot: usize, first_row: usize, count: usize, context: usize) {
        if count == 0 {
            return;
        }
        match self.segments.last_mut() {
            Some(last) if last.slot == slot && last.first_row + last.count == first_row => last.count += count,
            _ => self.segments.push(Segment { slot, first_row, count, start: self.positions.len() }),
        }
        for position in first_row..first_row + count {
            self.positions.push(position as u32);
            self.kept.push((slot * context + position) as u32);
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The segments, in flat order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Position of each row in its sequence.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Row of each row in a kept tensor (slot × context + position).
    pub fn kept(&self) -> &[u32] {
        &self.kept
    }
}

/// A weight matrix as a kernel sees it.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// Packed once for inference; rows are outputs.
    Packed(PackedMatrix<'a>),
    /// As the checkpoint stores it (training), in f32 or in bf16.
    Plain(Matrix<'a>),
}

/// All rows of a prefix operand, in the type in which they are kept.
#[derive(Clone, Copy)]
pub enum KeptRows<'a> {
    /// As they were computed.
    F32(View<'a, f32>),
    /// Rounded to IEEE half precision.
    F16(View<'a, f16>),
    /// Rounded to bfloat16.
    Bf16(View<'a, bf16>),
}

/// Rows of a half-precision output, to write.
pub enum HalfRows<'a> {
    /// IEEE half precision.
    F16(ViewMut<'a, f16>),
    /// bfloat16.
    Bf16(ViewMut<'a, bf16>),
}

/// Operands, results and scratch of the node that runs. All views are of live rows in the node's row space.
///
/// The executor implements it over the arena. Two tiles of one phase must ask for disjoint parts of the outputs and of
/// the shared scratch; a kernel asks for an output that shares memory with an operand ([`Operands::in_place`]) instead of,
/// never beside, that operand.
pub trait Operands: Sync {
    /// Instruction set in use.
    fn isa(&self) -> Isa;
    /// The rows that this node computes.
    fn rows(&self) -> &RowSet;
    /// Rows that a kept tensor holds per slot.
    fn context(&self) -> usize;
    /// How many workers share the tiles of a phase. Results must not depend on it.
    fn workers(&self) -> usize;
    /// Whether the cores of the workers have no cache in common, and memory that one of them has read is slow to write for another. Not in calls of
    /// few rows, where it makes no difference.
    fn workers_are_apart(&self) -> bool;
    /// A per-row operand: one view row per live row.
    fn input(&self, operand: usize) -> View<'_, f32>;
    /// A per-row integer operand (tokens, targets).
    fn integers(&self, operand: usize) -> View<'_, i32>;
    /// All `slots × context` rows of a prefix operand. Rows that were never computed hold anything.
    fn kept(&self, operand: usize) -> KeptRows<'_>;
    /// Where rows of such an operand begin, to be fetched only: others may be writing them.
    fn kept_memory(&self, operand: usize, row: usize) -> *const u8;
    /// A fixed operand: norms, biases, tables, scalars, or a whole parameter.
    fn fixed(&self, operand: usize) -> &[f32];
    /// A fixed integer operand.
    fn fixed_integers(&self, operand: usize) -> &[i32];
    /// A weight matrix.
    fn weight(&self, operand: usize) -> Weight<'_>;
    /// Features of a per-row output, or elements of a fixed one.
    fn output_width(&self, output: usize) -> usize;
    /// Rows and columns of a per-row output, to write.
    fn output(&self, output: usize, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_, f32>;
    /// As [`Operands::output`], for a kernel that writes all of it, and reads nothing of it before unless it is planned onto an operand.
    fn fresh_output(&self, output: usize, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_, f32> {
        let mut out = self.output(output, rows, columns);
        if self.workers_are_apart() && !self.is_in_place(output) {
            let rows = 0..out.rows();
            stream::take_back(&mut out, rows);
        }
        out
    }
    /// Rows of a per-row output in half precision, to write.
    fn half_output(&self, output: usize, rows: Range<usize>) -> HalfRows<'_>;
    /// Elements of a fixed output, as one row.
    fn fixed_output(&self, output: usize, elements: Range<usize>) -> ViewMut<'_, f32>;
    /// Columns of a fixed matrix output, one view row per matrix row.
    fn fixed_output_matrix(&self, output: usize, columns: Range<usize>) -> ViewMut<'_, f32>;
    /// Rows and columns of a fixed matrix output.
    fn fixed_output_block(&self, output: usize, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_, f32>;
    /// Elements of a fixed operand that the node updates in place, as one row.
    fn fixed_in_place(&self, operand: usize, elements: Range<usize>) -> ViewMut<'_, f32>;
    /// As [`Operands::fixed_in_place`], of a bf16 operand.
    fn fixed_in_place_bf16(&self, operand: usize, elements: Range<usize>) -> ViewMut<'_, half::bf16>;
    /// Whether the output was planned onto the operand's memory.
    fn in_place(&self, operand: usize, output: usize) -> bool;
    /// Whether the output was planned onto the memory of any operand.
    fn is_in_place(&self, output: usize) -> bool;
    /// Part of the shared scratch, to read; elements of f32.
    fn shared(&self, elements: Range<usize>) -> View<'_, f32>;
    /// `rows` rows of `width` elements of the shared scratch from element `start` on, to read.
    fn shared_rows(&self, start: usize, rows: usize, width: usize) -> View<'_, f32>;
    /// Part of the shared scratch, to write, as one row.
    fn shared_mut(&self, elements: Range<usize>) -> ViewMut<'_, f32>;
    /// As [`Operands::shared_mut`], for a kernel that writes all of it and reads nothing of it before.
    fn fresh_shared(&self, elements: Range<usize>) -> ViewMut<'_, f32> {
        let mut part = self.shared_mut(elements);
        if self.workers_are_apart() {
            stream::take_back(&mut part, 0..1);
        }
        part
    }
    /// Rows and columns of a matrix of rows of `width` elements that starts at element `start` of the shared scratch, to write.
    fn shared_block(&self, start: usize, width: usize, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_, f32>;
    /// This worker's scratch, as one row.
    fn scratch(&self) -> ViewMut<'_, f32>;
}

/// No memory to fetch.
pub const NO_MEMORY: Range<*const u8> = std::ptr::null()..std::ptr::null();

/// The executable form of a node.
pub trait Kernel: Send + Sync {
    /// Bytes of scratch for the largest live sizes.
    fn scratch(&self, _capacity: &Capacity) -> Scratch {
        Scratch::default()
    }

    /// Makes tables that depend on the largest sizes; called once, before the first run.
    fn prepare(&mut self, _capacity: &Capacity) {}

    /// How many phases the node has; a barrier stands between two phases.
    fn phases(&self) -> usize {
        1
    }

    /// Number of independent tiles of a phase for these rows. Tiles split outputs, or a reduction at places
    /// that do not depend on the workers. Zero skips the phase.
    fn tiles(&self, operands: &dyn Operands, phase: usize) -> usize;

    /// Computes one tile.
    fn run(&self, operands: &dyn Operands, phase: usize, tile: usize);

    /// Computes adjacent tiles, where that is cheaper than one by one.
    fn run_tiles(&self, operands: &dyn Operands, phase: usize, tiles: Range<usize>) {
        tiles.for_each(|tile| self.run(operands, phase, tile));
    }

    /// Memory that the phase reads from tile `tile` on, so that it can be fetched before the phase begins. Empty where it is unknown. Only a
    /// hint, asked for while phases before may still write: nothing but weights may be read here.
    fn memory_from(&self, _operands: &dyn Operands, _phase: usize, _tile: usize) -> Range<*const u8> {
        NO_MEMORY
    }
}
