//! The two halves of a low-rank adapter (Hu et al., "LoRA", 2021): `low_rank_down` makes low = factor·x·Aᵀ, `low_rank_up` adds low·Bᵀ to y.
//!
//! x: rows × K, A: [rank, K], low: rows × rank, B: [N, rank], y: rows × N, which may be split by columns. d_low = dy·B, dB = dyᵀ·low,
//! dA = factor·d_lowᵀ·x, dx = factor·d_low·A; y's own gradient is dy. Nothing is packed: thin products would not make up for it.

mod down;
mod gradients;
mod up;

pub use down::{LowRankDInput, LowRankDown};
pub use gradients::LowRankDWeight;
pub use up::{LowRankDLow, LowRankUp};

use super::{Operands, rule};
use crate::graph::Attrs;
use crate::kernels::view::View;
use crate::tensor::TensorType;
use std::ops::Range;

/// Rows of one tile: enough that reading the thin matrix does not count.
const ROWS: usize = 24;

/// The `factor` attribute, 1 without.
fn factor(attrs: &Attrs) -> Result<f32, String> {
    if attrs.get("factor").is_none() {
        return Ok(1.0);
    }
    match attrs.float("factor")? {
        f if f.is_finite() => Ok(f as f32),
        f => Err(format!("factor = {f} must be finite")),
    }
}

/// A fixed operand as a matrix of rows of `width`.
fn matrix(o: &dyn Operands, operand: usize, width: usize) -> View<'_, f32> {
    let values = o.fixed(operand);
    View::new(values, values.len() / width, width, width)
}

/// Widths of operands `parts`, which stand side by side.
fn widths(operands: &[TensorType], parts: Range<usize>) -> Result<Vec<usize>, String> {
    parts.map(|i| rule::width(operands, i)).collect()
}

/// Tiles of `rows` rows.
fn row_tiles(rows: usize) -> usize {
    rows.div_ceil(ROWS)
}

/// Rows of tile `tile`.
fn tile_rows(tile: usize, rows: usize) -> Range<usize> {
    tile * ROWS..((tile + 1) * ROWS).min(rows)
}

/// Transposes [n, rank] values into the shared scratch, as rank rows of n: phase 0 of kernels that read B along its rows. Tile `tile` is a row.
fn transpose_row(o: &dyn Operands, operand: usize, n: usize, tile: usize) {
    let values = o.fixed(operand);
    let rank = values.len() / n;
    let mut row = o.shared_mut(tile * n..(tile + 1) * n);
    for (out, value) in row.row_mut(0).iter_mut().zip(values[tile..].iter().step_by(rank)) {
        *out = *value;
    }
}

/// Tiles of a kernel that turns B round in phase 0 ([`transpose_row`]) and computes rows in phase 1.
fn turned_tiles(o: &dyn Operands, rank: usize, phase: usize) -> usize {
    match (phase, o.rows().is_empty()) {
        (_, true) => 0,
        (0, _) => rank,
        _ => row_tiles(o.rows().len()),
    }
}
