//! Sums over rows of outer products with thin rows.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "rows and vectors run in step")]

use super::blocks::{self, Blocks};
use crate::kernels::isa::Isa;
use crate::kernels::vector::{Kernel, Simd, dispatch};
use crate::kernels::view::View;
use std::ops::Range;

/// Columns of one block of [`outer_sums`]: a whole number of vectors on every instruction set, two cache lines.
pub const COLUMNS: usize = 32;

/// Rows whose columns [`outer_sums`] asks for ahead: they lie too far apart for a CPU to foresee them.
const ROWS_AHEAD: usize = 24;

struct OuterSums<'a, 'o> {
    low: View<'a, f32>,
    x: View<'a, f32>,
    factor: f32,
    thin: Range<usize>,
    /// Sums of one thin row after the other, `COLUMNS` apart.
    sums: &'o mut [f32],
}

impl Blocks for OuterSums<'_, '_> {
    fn width(&self) -> usize {
        self.x.width()
    }

    fn rank(&self) -> usize {
        self.thin.len()
    }

    fn factor(&self) -> f32 {
        self.factor
    }

    #[inline(always)]
    fn block<S: Simd, const V: usize, const J: usize, const SCALED: bool>(
        &mut self,
        s: S,
        column: usize,
        count: usize,
        thin: usize,
    ) {
        let mut lanes = [S::LANES; V];
        lanes[V - 1] = count;
        let sums = &mut self.sums[thin * COLUMNS + column..];
        assert!((J - 1) * COLUMNS + (V - 1) * S::LANES + count <= sums.len());
        let sums = sums.as_mut_ptr();
        let mut total = [[s.splat(0.0); V]; J];
        // SAFETY: sums are inside the slice by the assertion; rows of x hold the columns, rows of low the thin row.
        unsafe {
            for j in 0..J {
                for v in 0..V {
                    total[j][v] = s.load_partial(sums.add(j * COLUMNS + v * S::LANES).cast_const(), lanes[v]);
                }
            }
            for row in 0..self.x.rows() {
                let x = self.x.row_ptr(row).add(column);
                let low = self.low.row_ptr(row).add(self.thin.start + thin);
                let mut values = [s.splat(0.0); V];
                for v in 0..V {
                    s.prefetch(x.wrapping_add(ROWS_AHEAD * self.x.stride() + v * S::LANES));
                    values[v] = s.load_partial(x.add(v * S::LANES), lanes[v]);
                }
                for j in 0..J {
                    let factor = s.splat(if SCALED { self.factor * *low.add(j) } else { *low.add(j) });
                    for v in 0..V {
                        total[j][v] = s.fma(factor, values[v], total[j][v]);
                    }
                }
            }
            for j in 0..J {
                for v in 0..V {
                    s.store_partial(sums.add(j * COLUMNS + v * S::LANES), total[j][v], lanes[v]);
                }
            }
        }
    }
}

impl Kernel for OuterSums<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        blocks::all(&mut self, s);
    }
}

/// Continues `sums[j][c] += Σ_t factor · low[t, j] · x[t, c]` for thin rows `thin` and the columns of x, at most [`COLUMNS`]; row `j` of the sums
/// starts at `(j − thin.start) · COLUMNS`.
///
/// # Panics
/// When the shapes do not fit.
pub fn outer_sums(isa: Isa, low: &View<f32>, x: &View<f32>, factor: f32, thin: Range<usize>, sums: &mut [f32]) {
    assert!(low.rows() == x.rows() && thin.end <= low.width() && x.width() <= COLUMNS, "shapes of outer sums");
    dispatch(isa, OuterSums { low: *low, x: *x, factor, thin, sums });
}
