//! How products with a thin matrix cover their columns and thin rows.

use super::THIN;
use crate::kernels::vector::Simd;

/// A product of which each element is one chain, whatever the block that computes it.
pub(super) trait Blocks {
    /// Columns.
    fn width(&self) -> usize;
    /// Thin rows.
    fn rank(&self) -> usize;
    /// What thin values are multiplied by.
    fn factor(&self) -> f32;
    /// Computes `V` vectors of columns from `column` on, the last of which holds `count` columns, and `J` thin rows from `thin` on. Implement it
    /// with `#[inline(always)]`.
    fn block<S: Simd, const V: usize, const J: usize, const SCALED: bool>(
        &mut self,
        s: S,
        column: usize,
        count: usize,
        thin: usize,
    );
}

/// Computes all blocks of `product`, the thin rows of a column in ascending order.
#[inline(always)]
pub(super) fn all<S: Simd, B: Blocks>(product: &mut B, s: S) {
    if product.factor() == 1.0 { scaled::<S, B, false>(product, s) } else { scaled::<S, B, true>(product, s) }
}

#[inline(always)]
fn scaled<S: Simd, B: Blocks, const SCALED: bool>(product: &mut B, s: S) {
    let width = product.width();
    let mut column = 0;
    if S::LANES == 16 {
        while column + 2 * S::LANES <= width {
            columns::<S, B, 2, SCALED>(product, s, column, S::LANES);
            column += 2 * S::LANES;
        }
    }
    while column < width {
        let count = S::LANES.min(width - column);
        columns::<S, B, 1, SCALED>(product, s, column, count);
        column += count;
    }
}

#[inline(always)]
fn columns<S: Simd, B: Blocks, const V: usize, const SCALED: bool>(product: &mut B, s: S, column: usize, count: usize) {
    let rank = product.rank();
    let mut thin = 0;
    while thin < rank {
        if thin + THIN <= rank {
            product.block::<S, V, THIN, SCALED>(s, column, count, thin);
            thin += THIN;
        } else {
            product.block::<S, V, 1, SCALED>(s, column, count, thin);
            thin += 1;
        }
    }
}
