//! `causal_attention.d_inputs(d_out, q, k, v, out, log_sum_exp)`: gradients of q, k and v; see [`super::causal_attention`].
//!
//! One unit of work is a key-value head of one sequence with its query heads; probabilities are recomputed tile by tile.

use super::causal_attention::Heads;
use super::{Capacity, Cost, Kernel, Op, Operands, RowDep, Scratch, Signature, rule};
use crate::graph::Attrs;
use crate::kernels::attention::{AttentionPart, AttentionSaved, attention_backward, attention_backward_scratch};
use crate::tensor::TensorType;

/// Gradients of attention.
pub struct CausalAttentionDInputs;

impl Op for CausalAttentionDInputs {
    fn keyword(&self) -> &'static str {
        "causal_attention.d_inputs"
    }
    fn doc(&self) -> &'static str {
        "causal_attention.d_inputs(d_out, q, k, v, out, log_sum_exp, heads, kv_heads): gradients of q, k and v."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["heads", "kv_heads"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 6)?;
        let heads = Heads::of(attrs, &operands[1..])?;
        rule::same_width(operands, 0, 1)?;
        rule::same_width(operands, 0, 4)?;
        if rule::width(operands, 5)? != heads.heads {
            return Err(format!("log-sum-exp has type {}, but {} heads a row are expected", operands[5], heads.heads));
        }
        (1..4).map(|i| Ok(rule::rows_like(operands, rule::width(operands, i)?))).collect()
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn cost(&self, sig: &Signature, rows: usize, context: usize) -> Cost {
        let q = sig.operands[1].shape.elements() as f64;
        let pairs = rows as f64 * (context as f64 + 1.0) / 2.0;
        Cost { flops: 10.0 * pairs * q, bytes: 4.0 * rows as f64 * 8.0 * q }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(GradientKernel { heads: Heads::of(&sig.attrs, &sig.operands[1..])? }))
    }
}

struct GradientKernel {
    heads: Heads,
}

impl Kernel for GradientKernel {
    fn scratch(&self, _capacity: &Capacity) -> Scratch {
        Scratch { shared: 0, per_worker: 4 * attention_backward_scratch(self.heads.head_dim) }
    }

    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        o.rows().segments().len() * self.heads.kv_heads
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let Heads { kv_heads, head_dim: d, .. } = self.heads;
        let (segment, kv) = (o.rows().segments()[tile / kv_heads], tile % kv_heads);
        debug_assert!(segment.first_row == 0, "gradients of attention need whole sequences");
        let rows = segment.start..segment.start + segment.count;
        let group = self.heads.group();
        let heads = kv * group..(kv + 1) * group;
        let queries = heads.start * d..heads.end * d;
        let cut = |i: usize, first: usize, width: usize| o.input(i).slice_rows(rows.clone()).columns(first, width);
        let saved = AttentionSaved {
            q: cut(1, queries.start, queries.len()),
            keys: cut(2, kv * d, d),
            values: cut(3, kv * d, d),
            out: cut(4, queries.start, queries.len()),
            log_sum_exp: cut(5, heads.start, group),
            d_out: cut(0, queries.start, queries.len()),
            scale: 1.0 / (d as f32).sqrt(),
        };
        let mut d_q = o.output(0, rows.clone(), queries);
        let mut d_keys = o.output(1, rows.clone(), kv * d..(kv + 1) * d);
        let mut d_values = o.output(2, rows, kv * d..(kv + 1) * d);
        let mut scratch = o.scratch();
        let (part, scratch) = (AttentionPart::All, scratch.row_mut(0));
        attention_backward(o.isa(), &saved, part, &mut d_q, &mut d_keys, &mut d_values, scratch);
    }
}
