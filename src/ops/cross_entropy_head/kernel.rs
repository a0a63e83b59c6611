//! The phases of `cross_entropy_head`, chunk of rows by chunk of rows.

use super::Form;
use crate::kernels::gemm::{Gemm, STEP};
use crate::kernels::softmax::{cross_entropy, cross_entropy_with_gradient};
use crate::kernels::view::{InOut, View};
use crate::ops::product::{self, Finish, Start};
use crate::ops::{Capacity, Kernel, Operands, Scratch, hyper};
use std::ops::Range;

/// Executable form.
pub(super) struct HeadKernel {
    form: Form,
    accumulate: bool,
    /// Chunks of a call at full size.
    chunks: usize,
}

/// Rows of one tile of the loss phase.
const LOSS_ROWS: usize = 4;
/// Vocabulary entries over which a part of d_x is summed at a time: what is packed of the logits' gradient. A multiple of
/// [`STEP`], so that the result does not depend on it.
const D_X_BLOCK: usize = 4096;
const _: () = assert!(D_X_BLOCK.is_multiple_of(STEP));

/// What happens to a chunk, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Packs x for logits and for the gradient of the weight.
    PackRows,
    Logits,
    /// Losses; logits become their gradient.
    Loss,
    WeightGradient,
    /// Packs the gradient of the logits of one block of the vocabulary.
    PackBlock(usize),
    /// Continues the sums of d_x with that block.
    InputGradient(usize),
}

impl HeadKernel {
    /// `accumulate`: the weight's gradient is added to what its memory holds.
    pub(super) fn new(form: Form, accumulate: bool) -> Self {
        HeadKernel { form, accumulate, chunks: 1 }
    }

    fn phases_per_chunk(&self) -> usize {
        if self.form.gradients { 4 + 2 * self.blocks() } else { 3 }
    }

    fn blocks(&self) -> usize {
        self.form.vocabulary.div_ceil(D_X_BLOCK)
    }

    /// Rows of the chunk of a phase in this call, and what to do.
    fn phase(&self, o: &dyn Operands, phase: usize) -> (Range<usize>, Phase) {
        let (chunk, phase, n) = (phase / self.phases_per_chunk(), phase % self.phases_per_chunk(), o.rows().len());
        let rows = (chunk * self.form.chunk).min(n)..((chunk + 1) * self.form.chunk).min(n);
        let phase = match phase {
            0 => Phase::PackRows,
            1 => Phase::Logits,
            2 => Phase::Loss,
            3 => Phase::WeightGradient,
            p if p % 2 == 0 => Phase::PackBlock((p - 4) / 2),
            p => Phase::InputGradient((p - 5) / 2),
        };
        (rows, phase)
    }

    /// Elements of scratch where the packed x for logits, the packed x for the weight's gradient, the packed block, and nothing more start.
    fn regions(&self, rows: usize) -> [usize; 4] {
        let Form { k, vocabulary, layout, precision, .. } = self.form;
        let rows = rows.min(self.form.chunk);
        let logits = rows * self.form.stride();
        let x = logits + product::shared_elements(&product::rows_shape(rows, k, vocabulary, precision));
        let weight = product::weight_shape(rows, k, vocabulary, layout, precision, false);
        let block = x + if self.form.weight_gradient { product::shared_elements(&weight) } else { 0 };
        let packed = product::rows_shape(rows, vocabulary.min(D_X_BLOCK), k, precision);
        [logits, x, block, block + if self.form.gradients { product::shared_elements(&packed) } else { 0 }]
    }

    fn trains(&self, o: &dyn Operands) -> bool {
        self.form.gradients && o.fixed(3)[hyper::TRAINING] != 0.0
    }

    fn logits<'a>(&self, o: &'a dyn Operands, chunk: &Range<usize>) -> Gemm<'a> {
        let x = o.input(0).slice_rows(chunk.clone());
        product::forward(o, self.form.precision, x, product::matrix(o, 1), self.form.layout)
    }

    fn d_logits<'a>(&self, o: &'a dyn Operands, chunk: &Range<usize>) -> View<'a, f32> {
        o.shared_rows(0, chunk.len(), self.form.stride()).columns(0, self.form.vocabulary)
    }

    fn weight_gradient<'a>(&self, o: &'a dyn Operands, chunk: &Range<usize>) -> Gemm<'a> {
        let x = o.input(0).slice_rows(chunk.clone());
        product::weight_gradient(o, self.form.precision, x, self.d_logits(o, chunk), self.form.layout, false)
    }

    fn input_gradient<'a>(&self, o: &'a dyn Operands, chunk: &Range<usize>, block: usize) -> Gemm<'a> {
        let first = block * D_X_BLOCK;
        let d = self.d_logits(o, chunk).columns(first, D_X_BLOCK.min(self.form.vocabulary - first));
        product::input_gradient(o, self.form.precision, d, product::matrix(o, 1), self.form.layout, first)
    }

    fn losses(&self, o: &dyn Operands, chunk: &Range<usize>, tile: usize) {
        let (targets, scale, n) = (o.integers(2), o.fixed(3)[hyper::LOSS_SCALE], self.form.vocabulary);
        for i in tile * LOSS_ROWS..((tile + 1) * LOSS_ROWS).min(chunk.len()) {
            let mut logits = o.shared_block(0, self.form.stride(), i..i + 1, 0..n);
            let row = chunk.start + i;
            let mut out = o.output(0, row..row + 1, 0..1);
            let (target, loss) = (targets.row(row), out.row_mut(0));
            if self.trains(o) {
                cross_entropy_with_gradient(o.isa(), &mut InOut::new(logits.row_mut(0), 1, n, n), target, scale, loss);
            } else {
                cross_entropy(o.isa(), &View::new(logits.row(0), 1, n, n), target, loss);
            }
        }
    }
}

impl Kernel for HeadKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        let Form { k, vocabulary, layout, precision, .. } = self.form;
        let rows = self.form.chunk.min(capacity.step_rows);
        let logits = product::rows_shape(rows, k, vocabulary, precision);
        let weight = product::weight_shape(rows, k, vocabulary, layout, precision, false);
        let input = product::rows_shape(rows, vocabulary.min(D_X_BLOCK), k, precision);
        let per_worker = [logits, weight, input].iter().map(|s| s.worker_bytes()).max().unwrap_or(0);
        Scratch { shared: 4 * self.regions(rows)[3], per_worker }
    }

    fn prepare(&mut self, capacity: &Capacity) {
        self.chunks = capacity.step_rows.div_ceil(self.form.chunk);
    }

    fn phases(&self) -> usize {
        self.phases_per_chunk() * self.chunks
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        let (chunk, phase) = self.phase(o, phase);
        let weight = |tiles: fn(&Gemm<'_>) -> usize| {
            if self.trains(o) && self.form.weight_gradient { tiles(&self.weight_gradient(o, &chunk)) } else { 0 }
        };
        match phase {
            _ if chunk.is_empty() => 0,
            Phase::PackRows => self.logits(o, &chunk).pack_tiles() + weight(|g| g.pack_tiles()),
            Phase::Logits => self.logits(o, &chunk).tiles(),
            Phase::Loss => chunk.len().div_ceil(LOSS_ROWS),
            Phase::WeightGradient => weight(|g| g.tiles()),
            _ if !self.trains(o) => 0,
            Phase::PackBlock(block) => self.input_gradient(o, &chunk, block).pack_tiles(),
            Phase::InputGradient(block) => self.input_gradient(o, &chunk, block).tiles(),
        }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let (chunk, phase) = self.phase(o, phase);
        let [packed, packed_for_weight, packed_block, _] = self.regions(chunk.len());
        match phase {
            Phase::PackRows => {
                let logits = self.logits(o, &chunk);
                match tile.checked_sub(logits.pack_tiles()) {
                    None => product::pack(o, &logits, packed, tile),
                    Some(tile) => product::pack(o, &self.weight_gradient(o, &chunk), packed_for_weight, tile),
                }
            }
            Phase::Logits => {
                let place =
                    |rows: Range<usize>, columns: Range<usize>| o.shared_block(0, self.form.stride(), rows, columns);
                let product = self.logits(o, &chunk);
                let caching = product.read_by_all(o.workers_are_apart());
                let mut out = Finish { o, place, rows: chunk.len(), bias: None, start: Start::Zero, caching };
                product::multiply(o, &product, packed, tile, &mut out);
            }
            Phase::Loss => self.losses(o, &chunk, tile),
            Phase::WeightGradient => {
                let place = |rows: Range<usize>, columns: Range<usize>| o.fixed_output_block(2, rows, columns);
                let start = if self.accumulate || chunk.start > 0 { Start::Output } else { Start::Zero };
                let product = self.weight_gradient(o, &chunk);
                let (rows, caching) = (product.shape().m, product.unread(o.workers_are_apart()));
                let mut out = Finish { o, place, rows, bias: None, start, caching };
                product::multiply(o, &product, packed_for_weight, tile, &mut out);
            }
            Phase::PackBlock(block) => product::pack(o, &self.input_gradient(o, &chunk, block), packed_block, tile),
            Phase::InputGradient(block) => {
                let place = |rows: Range<usize>, columns: Range<usize>| {
                    o.output(1, chunk.start + rows.start..chunk.start + rows.end, columns)
                };
                let start = if block > 0 { Start::Output } else { Start::Zero };
                let product = self.input_gradient(o, &chunk, block);
                let caching = product.read_by_all(o.workers_are_apart());
                let mut out = Finish { o, place, rows: chunk.len(), bias: None, start, caching };
                product::multiply(o, &product, packed_block, tile, &mut out);
            }
        }
    }
}
