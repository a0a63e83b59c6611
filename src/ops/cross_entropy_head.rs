//! `cross_entropy_head(x, W, targets, hyper)`: head, softmax and cross-entropy in one node, in chunks of rows.
//!
//! x: rows × K; W: [V, K] (`layout = "out_in"`) or [K, V]; targets: one i32 per row, −100 for none. With z = x·Wᵀ, the result is
//! log Σ e^z − z[target] per row (0 without a target). Logits exist for one chunk of rows at a time, in the node's scratch.
//!
//! `gradients = true` also gives dz·W and dzᵀ·x, where dz = loss scale · (softmax(z) − onehot), computed while the chunk's logits are
//! there: the node differentiates the sum of its results times the loss scale itself, and is a root of differentiation.

use super::linear::plain::{Blocks, input_gradient, matrix, outputs_of, weight_gradient};
use super::linear::shape::layout;
use super::{
    Capacity, Case, Cost, GradBuilder, Kernel, Op, Operands, RefTensor, RowDep, Scratch, Signature, hyper, rule,
};
use crate::graph::{Attr, Attrs, Layout, TensorId};
use crate::kernels::reduce::ROW_TILE;
use crate::kernels::softmax::{cross_entropy, cross_entropy_with_gradient};
use crate::kernels::strided::{Factor, product};
use crate::kernels::vector::map::Write;
use crate::kernels::view::{InOut, View};
use crate::tensor::{DType, RowExtent, Shape, TensorType};
use std::ops::Range;

/// Head and loss.
pub struct CrossEntropyHead;

/// Most bytes of a chunk's logits, unless one tile of rows needs more.
const CHUNK_BYTES: usize = 52_000_000;

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
}

impl Form {
    fn of(attrs: &Attrs, operands: &[TensorType]) -> Result<Form, String> {
        let (k, layout) = (rule::width(operands, 0)?, layout(attrs)?);
        let dims = operands.get(1).ok_or("operand 1 is missing")?.shape.dims();
        let vocabulary = match (layout, dims) {
            (Layout::OutIn, &[n, inputs]) | (_, &[inputs, n]) if inputs == k && n > 0 => n,
            _ => return Err(format!("the weight has shape {}, but x has features [{k}]", operands[1].shape)),
        };
        rule::fixed(operands, 1, dims)?;
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
        Ok(Form { k, vocabulary, layout, gradients, weight_gradient, chunk })
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
        &["layout", "chunk_rows"]
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
        let attrs =
            g.attrs().with("gradients", Attr::Bool(true)).with("weight_gradient", Attr::Bool(weight));
        g.extend_forward(attrs, existing)?;
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
        let at = |i: usize, o: usize| if form.layout == Layout::OutIn { x[1].data[o * k + i] } else { x[1].data[i * n + o] };
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

/// Phases of one chunk: logits, loss and their gradient, products of the gradient.
const PHASES: usize = 3;
/// Rows of one tile of the loss phase.
const LOSS_ROWS: usize = 4;

impl HeadKernel {
    /// Rows of chunk `i` of this call.
    fn rows(&self, o: &dyn Operands, i: usize) -> Range<usize> {
        let n = o.rows().len();
        (i * self.form.chunk).min(n)..((i + 1) * self.form.chunk).min(n)
    }

    fn trains(&self, o: &dyn Operands) -> bool {
        self.form.gradients && o.fixed(3)[hyper::TRAINING] != 0.0
    }

    fn weight_blocks(&self) -> Blocks {
        match self.form.layout {
            Layout::OutIn => Blocks::new(self.form.vocabulary, self.form.k),
            _ => Blocks::new(self.form.k, self.form.vocabulary),
        }
    }

    fn logits(&self, o: &dyn Operands, chunk: Range<usize>, tile: usize) {
        let (rows, columns) = Blocks::new(chunk.len(), self.form.vocabulary).block(tile);
        let x = o.input(0).slice_rows(chunk.start + rows.start..chunk.start + rows.end);
        let weight = outputs_of(&matrix(o, 1), self.form.layout, columns.clone());
        let mut out = o.shared_block(0, self.form.stride(), rows, columns);
        product(Factor::plain(x), weight, &mut out, Write::Overwrite);
    }

    fn losses(&self, o: &dyn Operands, chunk: Range<usize>, tile: usize) {
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

    fn gradients(&self, o: &dyn Operands, chunk: Range<usize>, tile: usize) {
        let d_logits = o.shared_rows(0, chunk.len(), self.form.stride()).columns(0, self.form.vocabulary);
        let blocks = Blocks::new(chunk.len(), self.form.k);
        if tile < blocks.count() {
            let (rows, columns) = blocks.block(tile);
            let mut out = o.output(1, chunk.start + rows.start..chunk.start + rows.end, columns.clone());
            let d = d_logits.slice_rows(rows);
            return input_gradient(&d, &matrix(o, 1), self.form.layout, 0, columns, &mut out, Write::Overwrite);
        }
        let (rows, columns) = self.weight_blocks().block(tile - blocks.count());
        let add = self.accumulate || chunk.start > 0;
        let x = o.input(0).slice_rows(chunk);
        let mut out = o.fixed_output_block(2, rows.clone(), columns.clone());
        let write = if add { Write::Add } else { Write::Overwrite };
        weight_gradient(&x, &d_logits, self.form.layout, rows, columns, &mut out, write);
    }
}

impl Kernel for HeadKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        let rows = self.form.chunk.min(capacity.step_rows);
        Scratch { shared: 4 * rows * self.form.stride(), per_worker: 0 }
    }

    fn prepare(&mut self, capacity: &Capacity) {
        self.chunks = capacity.step_rows.div_ceil(self.form.chunk);
    }

    fn phases(&self) -> usize {
        PHASES * self.chunks
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        let rows = self.rows(o, phase / PHASES).len();
        match phase % PHASES {
            _ if rows == 0 => 0,
            0 => Blocks::new(rows, self.form.vocabulary).count(),
            1 => rows.div_ceil(LOSS_ROWS),
            _ if !self.trains(o) => 0,
            _ => {
                let weight = if self.form.weight_gradient { self.weight_blocks().count() } else { 0 };
                Blocks::new(rows, self.form.k).count() + weight
            }
        }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let chunk = self.rows(o, phase / PHASES);
        match phase % PHASES {
            0 => self.logits(o, chunk, tile),
            1 => self.losses(o, chunk, tile),
            _ => self.gradients(o, chunk, tile),
        }
    }
}
