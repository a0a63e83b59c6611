//! `cross_entropy_head(x, W, targets, hyper)`: head, softmax and cross-entropy in one node, in chunks of rows.
//!
//! x: rows × K; W: [V, K] (`layout = "out_in"`) or [K, V]; targets: one i32 per row, −100 for none. With z = x·Wᵀ, the result is
//! log Σ e^z − z[target] per row (0 without a target). Logits exist for one chunk of rows at a time, in the node's scratch.
//!
//! `gradients = true` also gives dz·W and dzᵀ·x, where dz = loss scale · (softmax(z) − onehot), computed while the chunk's logits are
//! there: the node differentiates the sum of its results times the loss scale itself, and is a root of differentiation.

mod kernel;

use super::linear::shape::layout;
use super::{Case, Cost, GradBuilder, Kernel, Op, RefTensor, RowDep, Signature, hyper, product, rule};
use crate::graph::{Attr, Attrs, Layout, TensorId};
use crate::kernels::gemm::Precision;
use crate::kernels::reduce::ROW_TILE;
use crate::tensor::{DType, RowExtent, Shape, TensorType};
use kernel::HeadKernel;

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
        Ok(Box::new(HeadKernel::new(Form::of(&sig.attrs, &sig.operands)?, accumulate)))
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
