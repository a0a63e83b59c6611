//! `causal_attention(q, k, v; heads, kv_heads)`: softmax(q·kᵀ/√D)·v over the keys up to each row's own position.
//!
//! q, y: rows × (H·D); k, v: rows × (KV·D), query head h reads key-value head h / (H / KV). Attention is the only op that mixes rows:
//! k and v are `Prefix` operands and so are kept, in f32 or rounded to f16 or bf16 by `narrow`. With p the probabilities and g = dy: dv = pᵀ·g,
//! ds = p ∘ (g·vᵀ − rowsum(g ∘ y)), dq = ds·k/√D, dk = dsᵀ·q/√D; p is recomputed from the saved log-sum-exp.

use super::{Case, Cost, GradBuilder, Kernel, Op, RefTensor, RowDep, Signature, rule};
use crate::graph::{Attr, Attrs, TensorId};
use crate::tensor::{RowExtent, TensorType};

mod kernel;
mod shared_keys;
use kernel::AttentionKernel;

/// Causal attention, multi-head or grouped-query.
pub struct CausalAttention;

/// Heads of a node, resolved.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl Heads {
    /// From attributes and the types of q, k and v.
    ///
    /// # Errors
    /// When heads do not divide the features, or k and v do not fit q.
    pub fn of(attrs: &Attrs, operands: &[TensorType]) -> Result<Heads, String> {
        let heads = attrs.size("heads")?;
        let kv_heads = attrs.size_or("kv_heads", heads)?;
        let (q, k) = (rule::width(operands, 0)?, rule::stored_width(operands, 1, 2)?);
        if heads == 0 || !q.is_multiple_of(heads) {
            return Err(format!("{q} features do not divide into {heads} heads"));
        }
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} query heads do not divide among {kv_heads} key-value heads"));
        }
        let head_dim = q / heads;
        if k != kv_heads * head_dim {
            return Err(format!("keys have features [{k}], but {kv_heads} heads of {head_dim} are expected"));
        }
        Ok(Heads { heads, kv_heads, head_dim })
    }

    /// Query heads per key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

impl Op for CausalAttention {
    fn keyword(&self) -> &'static str {
        "causal_attention"
    }
    fn doc(&self) -> &'static str {
        "causal_attention(q, k, v, heads = H, kv_heads = H): softmax(q·kᵀ/√D)·v over rows 0..=t; grouped-query when kv_heads < heads."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["heads", "kv_heads"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 3)?;
        let heads = Heads::of(attrs, operands)?;
        let mut outputs = vec![rule::rows_like(&operands[..1], heads.heads * heads.head_dim)];
        if attrs.bool_or("save_log_sum_exp", false)? {
            outputs.push(rule::rows_like(&operands[..1], heads.heads));
        }
        Ok(outputs)
    }
    fn row_dependency(&self, _attrs: &Attrs, operand: usize) -> RowDep {
        if operand == 0 { RowDep::PerRow } else { RowDep::Prefix }
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None; 3]) };
        let log_sum_exp = g.save("save_log_sum_exp", 1)?;
        let operands = vec![d, g.operand(0), g.operand(1), g.operand(2), g.output(0), log_sum_exp];
        let mut attrs = g.attrs();
        attrs.0.remove("save_log_sum_exp");
        let grads = g.emit("causal_attention.d_inputs", operands, attrs)?;
        Ok(grads.into_iter().map(Some).collect())
    }
    fn cost(&self, sig: &Signature, rows: usize, context: usize) -> Cost {
        let q = sig.operands[0].shape.elements() as f64;
        let pairs = rows as f64 * (context as f64 + 1.0) / 2.0;
        // Queries, results, and each key and value once; fewer rows than the sequence has stand at its middle on average.
        let kept_rows = if rows >= context { context } else { context.div_ceil(2) };
        let kept = 2 * kept_rows * sig.operands[1].shape.elements() * sig.operands[1].dtype.block_bytes();
        Cost { flops: 4.0 * pairs * q, bytes: 8.0 * rows as f64 * q + kept as f64 }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let save = sig.attrs.bool_or("save_log_sum_exp", false)?;
        Ok(Box::new(AttentionKernel { heads: Heads::of(&sig.attrs, &sig.operands)?, save }))
    }
    fn reference(&self, sig: &Signature, case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let h = Heads::of(&sig.attrs, &sig.operands).ok()?;
        let (d, group) = (h.head_dim, h.group());
        let mut y = x[0].clone();
        let slice = |t: &RefTensor, row: usize, head: usize| t.data[row * t.width + head * d..][..d].to_vec();
        for row in 0..x[0].rows {
            let first = row / case.rows * case.rows;
            for head in 0..h.heads {
                let q = slice(&x[0], row, head);
                let dot = |key: &Vec<f64>| q.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt();
                let scores: Vec<f64> = (first..=row).map(|r| dot(&slice(&x[1], r, head / group))).collect();
                let top = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                let out = &mut y.data[row * h.heads * d + head * d..][..d];
                out.fill(0.0);
                for (s, r) in scores.iter().zip(first..=row) {
                    let p = (s - top).exp() / total;
                    out.iter_mut().zip(slice(&x[2], r, head / group)).for_each(|(o, v)| *o += p * v);
                }
            }
        }
        Some(vec![y])
    }
    fn cases(&self) -> Vec<Case> {
        let ty = |w: usize| TensorType { extent: RowExtent::Step, ..rule::fixed_type(&[w]) };
        let case = |name, heads: i64, kv: i64, d: usize, rows| Case {
            name,
            attrs: Attrs::new().with("heads", Attr::Int(heads)).with("kv_heads", Attr::Int(kv)),
            inputs: vec![ty(heads as usize * d), ty(kv as usize * d), ty(kv as usize * d)],
            slots: 2,
            rows,
            int_limit: 0,
        };
        vec![case("multi_head", 3, 3, 8, 9), case("grouped", 4, 2, 6, 9), case("two_key_tiles", 2, 1, 16, 70)]
    }
}
