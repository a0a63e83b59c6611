//! `causal_attention.d_inputs(d_out, q, k, v, out, log_sum_exp)`: gradients of q, k and v; see [`super::causal_attention`].
//!
//! One unit of work is a key-value head of one sequence with its query heads; probabilities are recomputed tile by tile. Units that are left when
//! every worker has had as many are split, which gives the same bits: three heads are then shared by two workers.

use super::causal_attention::Heads;
use super::shares::{Piece, Shares};
use super::{Capacity, Cost, Kernel, Op, Operands, RowDep, Scratch, Signature, rule};
use crate::graph::Attrs;
use crate::kernels::attention::{
    AttentionPart, AttentionSaved, GRADIENT_TILE, attention_backward, attention_backward_scratch,
};
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

/// Work of a unit in one piece, and in parts, whose probabilities are computed twice: products of a block and a tile.
const WHOLE: usize = 5;
const IN_PARTS: usize = 7;

/// Shares of units of so many parts each: those that do not come out even are split where that takes less time than leaving workers idle.
fn shares_of(units: usize, parts: usize, workers: usize) -> Shares {
    let left = units % workers;
    if left > 0 && IN_PARTS * left < WHOLE * workers {
        Shares::split(units, units / workers, parts, workers)
    } else {
        Shares::whole(units)
    }
}

impl GradientKernel {
    fn units(&self, o: &dyn Operands) -> usize {
        o.rows().segments().len() * self.heads.kv_heads
    }

    /// Blocks of queries, as many as tiles of keys, of the longest sequence.
    fn blocks(o: &dyn Operands) -> usize {
        o.rows().segments().iter().map(|s| s.count.div_ceil(GRADIENT_TILE)).max().unwrap_or(0)
    }

    fn shares(&self, o: &dyn Operands) -> Shares {
        shares_of(self.units(o), 2 * Self::blocks(o), o.workers())
    }
}

impl Kernel for GradientKernel {
    fn scratch(&self, _capacity: &Capacity) -> Scratch {
        Scratch { shared: 0, per_worker: 4 * attention_backward_scratch(self.heads.head_dim) }
    }

    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        self.shares(o).tiles()
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let Heads { kv_heads, head_dim: d, .. } = self.heads;
        let shares = self.shares(o);
        let (unit, part) = match shares.piece(tile) {
            Piece::Unit(unit) => (unit, AttentionPart::All),
            Piece::Part(number) => {
                let blocks = Self::blocks(o);
                let (unit, number) = (shares.unsplit() + number / (2 * blocks), number % (2 * blocks));
                (
                    unit,
                    if number < blocks { AttentionPart::Keys(number) } else { AttentionPart::Queries(number - blocks) },
                )
            }
        };
        let (segment, kv) = (o.rows().segments()[unit / kv_heads], unit % kv_heads);
        debug_assert!(segment.first_row == 0, "gradients of attention need whole sequences");
        let rows = segment.start..segment.start + segment.count;
        if matches!(part, AttentionPart::Keys(n) | AttentionPart::Queries(n) if n * GRADIENT_TILE >= rows.len()) {
            return;
        }
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
        // Parts of a unit write different rows of these.
        let mut d_q = o.output(0, rows.clone(), queries);
        let mut d_keys = o.output(1, rows.clone(), kv * d..(kv + 1) * d);
        let mut d_values = o.output(2, rows, kv * d..(kv + 1) * d);
        let mut scratch = o.scratch();
        attention_backward(o.isa(), &saved, part, &mut d_q, &mut d_keys, &mut d_values, scratch.row_mut(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_split_where_the_rest_is_less_than_it_costs() {
        assert_eq!((shares_of(3, 16, 2).tiles(), shares_of(3, 16, 2).unsplit()), (18, 2));
        assert_eq!(shares_of(4, 16, 2).tiles(), 4);
        assert_eq!(shares_of(3, 16, 4).tiles(), 3, "three of four workers take whole units as fast");
    }
}
