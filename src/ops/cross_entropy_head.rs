//! `cross_entropy_head(x, W, targets, hyper)`: head, softmax and cross-entropy in one node, in chunks of rows.
//!
//! x: rows × K; W: [V, K] (`layout = "out_in"`) or [K, V]; targets: one i32 per row, −100 for none. With z = x·Wᵀ, the result is
//! log Σ e^z − z[target] per row (0 without a target). Logits exist for one chunk of rows at a time, in the node's scratch.
//!
//! `gradients = true` also gives dz·W and dzᵀ·x, where dz = loss scale · (softmax(z) − onehot), computed while the chunk's logits are
//! there: the node differentiates the sum of its results times the loss scale itself, and is a root of differentiation.

use super::linear::shape::layout;
use super::product::{self, Finish, Start};
use super::{
    Capacity, Case, Cost, GradBuilder, Kernel, Op, Operands, RefTensor, RowDep, Scratch, Signature, hyper, rule,
};
use crate::graph::{Attr, Attrs, Layout, TensorId};
use crate::kernels::gemm::{Gemm, Precision, STEP};
use crate::kernels::reduce::ROW_TILE;
use crate::kernels::softmax::{cross_entropy, cross_entropy_with_gradient};
use crate::kernels::view::{InOut, View};
use crate::tensor::{DType, RowExtent, Shape, TensorType};
use std::ops::Range;

/// Head and loss.
pub struct CrossEntropyHead;

/// Most bytes of a chunk's logits, unless one tile of rows needs more.
const CHUNK_BYTES: usize = 52_000_000;

/// Rows whose logits a node holds at a time, at most; `None` for a node of another op.
pub fn head_chunk_rows(sig: &Signature) -> Option<usize> {
    Form::of(&sig.attrs, &sig.operands).ok().map(|form| form.chunk)
}

/// A node, resolved.
#[derive(Clone, Debug)]
struct Form {
    k: usize,
    vocabulary: usize,
    layout: Layout,
    gradients: bool,
    weight_gradient: bool,
    /// Rows of a chunk.
    chunk: usize,
    precision: Precision,
}

impl Form {
    fn of(attrs: &Attrs, operands: &[TensorType]) -> Result<Form, String> {
        let (k, layout) = (rule::width(operands, 0)?, layout(attrs)?);
        let dims = operands.get(1).ok_or("operand 1 is missing")?.shape.dims();
        let vocabulary = match (layout, dims) {
            (Layout::OutIn, &[n, inputs]) | (_, &[inputs, n]) if inputs == k && n > 0 => n,
            _ => return Err(format!("the weight has shape {}, but x has features [{k}]", operands[1].shape)),
        };
        rule::weight(operands, 1, dims)?;
        rule::integer_rows(operands, 2)?;
        hyper::is_hyper(operands, 3)?;
        let gradients = attrs.bool_or("gradients", false)?;
        let weight_gradient = gradients && attrs.bool_or("weight_gradient", true)?;
        if weight_gradient && operands.len() == 5 {
            rule::fixed(operands, 4, dims)?;
        } else {
            rule::arity(operands, 4)?;
        }
        let chunk = match attrs.size_or("chunk_rows", 0)? {
            0 => (CHUNK_BYTES / 4 / vocabulary / ROW_TILE).max(1) * ROW_TILE,
            n if n.is_multiple_of(ROW_TILE) => n,
            n => return Err(format!("chunk_rows = {n} must be a multiple of {ROW_TILE}")),
        };
        let precision = product::precision(attrs)?;
        Ok(Form { k, vocabulary, layout, gradients, weight_gradient, chunk, precision })
    }

    /// Elements from one row of logits in scratch to the next.
    fn stride(&self) -> usize {
        self.vocabulary.next_multiple_of(16)
    }
}

impl Op for CrossEntropyHead {
    fn keyword(&self) -> &'static str {
        "cross_entropy_head"
    }
    fn doc(&self) -> &'static str {
        "cross_entropy_head(x, PATH, targets, hyper): cross-entropy of softmax(x·Wᵀ) with the target, per row; passes make it from the head."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["layout", "chunk_rows", "precision"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let form = Form::of(attrs, operands)?;
        let mut outputs = vec![rule::rows_like(operands, 1)];
        if form.gradients {
            outputs.push(rule::rows_like(operands, form.k));
        }
        if form.weight_gradient {
            outputs.push(rule::fixed_type(operands[1].shape.dims()));
        }
        Ok(outputs)
    }
    fn row_dependency(&self, attrs: &Attrs, _operand: usize) -> RowDep {
        if attrs.bool_or("gradients", false) == Ok(true) { RowDep::AllRows } else { RowDep::PerRow }
    }
    fn must_alias(&self, sig: &Signature, output: usize) -> Option<usize> {
        (output == 2 && sig.operands.len() == 5).then_some(4)
    }
    fn is_loss(&self) -> bool {
        true
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let weight = g.wants[1];
        let existing = g.take_existing(1).filter(|_| weight);
        let attrs = g.attrs().with("gradients", Attr::Bool(true)).with("weight_gradient", Attr::Bool(weight));
        g.extend_forward(attrs, existing, "gradient")?;
        let mut grads = vec![None; g.forward().operands.len()];
        grads[0] = Some(g.output(1));
        grads[1] = weight.then(|| g.output(2));
        Ok(grads)
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let Ok(form) = Form::of(&sig.attrs, &sig.operands) else { return Cost::default() };
        let products = 1.0 + f64::from(u8::from(form.gradients)) + f64::from(u8::from(form.weight_gradient));
        let n = (rows * form.vocabulary) as f64;
        Cost { flops: 2.0 * products * n * form.k as f64, bytes: 8.0 * products * n }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let accumulate = sig.operands.len() == 5;
        Ok(Box::new(HeadKernel { form: Form::of(&sig.attrs, &sig.operands)?, accumulate, chunks: 1 }))
    }
    fn reference(&self, sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let form = Form::of(&sig.attrs, &sig.operands).ok()?;
        let (k, n) = (form.k, form.vocabulary);
        let at =
            |i: usize, o: usize| if form.layout == Layout::OutIn { x[1].data[o * k + i] } else { x[1].data[i * n + o] };
        let loss = |(row, target): (&[f64], &f64)| {
            if *target < 0.0 {
                return 0.0;
            }
            let logits: Vec<f64> = (0..n).map(|o| row.iter().enumerate().map(|(i, v)| v * at(i, o)).sum()).collect();
            let top = logits.iter().copied().fold(f64::MIN, f64::max);
            top + logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln() - logits[*target as usize]
        };
        let data = x[0].data.chunks(k).zip(&x[2].data).map(loss).collect();
        Some(vec![RefTensor { rows: x[0].rows, width: 1, data }])
    }
    fn cases(&self) -> Vec<Case> {
        let case = |name, attrs: Attrs, weight: [usize; 2]| Case {
            name,
            attrs,
            inputs: vec![
                TensorType { extent: RowExtent::Step, ..rule::fixed_type(&[10]) },
                rule::fixed_type(&weight),
                TensorType { dtype: DType::I32, extent: RowExtent::Step, shape: Shape::new([1]) },
                hyper::hyper_type(),
            ],
            slots: 2,
            rows: 70,
            int_limit: 13,
        };
        let in_out = Attrs::new().with("layout", Attr::Str("in_out".into()));
        vec![
            case("three_chunks", Attrs::new().with("chunk_rows", Attr::Int(64)), [13, 10]),
            case("one_chunk_in_out", in_out, [10, 13]),
        ]
    }
}

struct HeadKernel {
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
                let mut out = Finish { o, place, rows: chunk.len(), bias: None, start: Start::Zero, streamed: false };
                product::multiply(o, &self.logits(o, &chunk), packed, tile, &mut out);
            }
            Phase::Loss => self.losses(o, &chunk, tile),
            Phase::WeightGradient => {
                let place = |rows: Range<usize>, columns: Range<usize>| o.fixed_output_block(2, rows, columns);
                let start = if self.accumulate || chunk.start > 0 { Start::Output } else { Start::Zero };
                let product = self.weight_gradient(o, &chunk);
                let mut out =
                    Finish { o, place, rows: product.shape().m, bias: None, start, streamed: product.is_large() };
                product::multiply(o, &product, packed_for_weight, tile, &mut out);
            }
            Phase::PackBlock(block) => product::pack(o, &self.input_gradient(o, &chunk, block), packed_block, tile),
            Phase::InputGradient(block) => {
                let place = |rows: Range<usize>, columns: Range<usize>| {
                    o.output(1, chunk.start + rows.start..chunk.start + rows.end, columns)
                };
                let start = if block > 0 { Start::Output } else { Start::Zero };
                let mut out = Finish { o, place, rows: chunk.len(), bias: None, start, streamed: false };
                product::multiply(o, &self.input_gradient(o, &chunk, block), packed_block, tile, &mut out);
            }
        }
    }
}
