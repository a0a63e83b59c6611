//! Products with a thin matrix of few rows, the rank of an adapter: nothing is packed, each operand is read where it is.
//!
//! | product | what | reads |
//! | --- | --- | --- |
//! | [`project`] | `out[t, j] = factor · Σ_k x[t, k] · a[j, k]` | both along their rows |
//! | [`add_product`] | `y[t, c] += Σ_j factor · low[t, j] · b[j, c]` | b along its rows |
//! | [`outer_sums`] | `out[j, c] (+)= Σ_t factor · low[t, j] · x[t, c]` | x along its rows |
//!
//! **Order of accumulation.** `project`: one chain for each lane over ascending k, then the lanes by halving. The others: one chain over
//! ascending j or t. An element has the same bits in any block, tile or call.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "rows and vectors run in step")]

use super::isa::Isa;
use super::vector::map::Write;
use super::vector::{Kernel, Simd, dispatch};
use super::view::{View, ViewMut};
use std::ops::Range;

/// Columns of one block of [`outer_sums`]: a whole number of vectors on every instruction set, two cache lines.
pub const COLUMNS: usize = 32;

/// Rows whose columns [`outer_sums`] asks for ahead: they lie too far apart for a CPU to foresee them.
const ROWS_AHEAD: usize = 24;

/// Thin rows that are multiplied side by side.
const THIN: usize = 8;

struct Project<'a> {
    x: View<'a, f32>,
    a: View<'a, f32>,
    factor: f32,
    out: ViewMut<'a, f32>,
}

impl Project<'_> {
    /// Rows `row ..` of x with rows `thin ..` of a.
    #[inline(always)]
    fn block<S: Simd, const R: usize, const J: usize>(&mut self, s: S, row: usize, thin: usize) {
        let k = self.x.width();
        let mut sums = [[s.splat(0.0); J]; R];
        let mut x = [std::ptr::null(); R];
        let mut a = [std::ptr::null(); J];
        // Rows of a few KB are too short for a CPU to foresee the next ones.
        let mut next = [std::ptr::null(); R];
        for r in 0..R {
            x[r] = self.x.row_ptr(row + r);
            next[r] = self.x.row_ptr((row + R + r).min(self.x.rows() - 1));
        }
        for j in 0..J {
            a[j] = self.a.row_ptr(thin + j);
        }
        let mut i = 0;
        // SAFETY: rows of `k` values each; every access ends at or before `k`.
        unsafe {
            while i + S::LANES <= k {
                let mut v = [s.splat(0.0); R];
                for r in 0..R {
                    s.prefetch(next[r].wrapping_add(i));
                    v[r] = s.load(x[r].add(i));
                }
                for j in 0..J {
                    let w = s.load(a[j].add(i));
                    for r in 0..R {
                        sums[r][j] = s.fma(v[r], w, sums[r][j]);
                    }
                }
                i += S::LANES;
            }
            if i < k {
                let count = k - i;
                for j in 0..J {
                    let w = s.load_partial(a[j].add(i), count);
                    for r in 0..R {
                        sums[r][j] = s.fma(s.load_partial(x[r].add(i), count), w, sums[r][j]);
                    }
                }
            }
        }
        for r in 0..R {
            let out = &mut self.out.row_mut(row + r)[thin..thin + J];
            for j in 0..J {
                out[j] = self.factor * s.reduce_add(sums[r][j]);
            }
        }
    }

    #[inline(always)]
    fn rows<S: Simd, const R: usize, const J: usize>(&mut self, s: S, thin: usize) {
        let rows = self.x.rows();
        let mut row = 0;
        while row + R <= rows {
            self.block::<S, R, J>(s, row, thin);
            row += R;
        }
        while row < rows {
            self.block::<S, 1, J>(s, row, thin);
            row += 1;
        }
    }
}

impl Kernel for Project<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let rank = self.a.rows();
        let mut thin = 0;
        while thin + THIN <= rank {
            // Registers for 3 × 8 sums where there are 32, else for 1 × 8.
            if S::LANES == 16 {
                self.rows::<S, 3, THIN>(s, thin)
            } else {
                self.rows::<S, 1, THIN>(s, thin)
            }
            thin += THIN;
        }
        while thin < rank {
            self.rows::<S, 2, 1>(s, thin);
            thin += 1;
        }
    }
}

/// `out = factor · x · aᵀ`; x: rows × k, a: rank × k, out: rows × rank.
///
/// # Panics
/// When the shapes do not fit.
pub fn project(isa: Isa, x: &View<f32>, a: &View<f32>, factor: f32, out: ViewMut<f32>) {
    assert!(x.width() == a.width() && out.rows() == x.rows() && out.width() == a.rows(), "shapes of a projection");
    dispatch(isa, Project { x: *x, a: *a, factor, out });
}

struct AddProduct<'a> {
    low: View<'a, f32>,
    b: View<'a, f32>,
    factor: f32,
    y: ViewMut<'a, f32>,
    write: Write,
}

impl AddProduct<'_> {
    /// `V` vectors of columns from `column` on, the last of which holds `count` columns, and thin rows `thin ..`. `fresh` starts from zero.
    #[inline(always)]
    fn block<S: Simd, const V: usize, const J: usize, const SCALED: bool>(
        &mut self,
        s: S,
        column: usize,
        count: usize,
        thin: usize,
        fresh: bool,
    ) {
        let mut b = [[s.splat(0.0); V]; J];
        let mut lanes = [S::LANES; V];
        lanes[V - 1] = count;
        // SAFETY: rows of b and y hold the columns; low holds J values from `thin` on in each row.
        unsafe {
            for j in 0..J {
                for v in 0..V {
                    b[j][v] = s.load_partial(self.b.row_ptr(thin + j).add(column + v * S::LANES), lanes[v]);
                }
            }
            for row in 0..self.y.rows() {
                let low = self.low.row_ptr(row).add(thin);
                let y = self.y.row_ptr(row).add(column);
                let mut sums = [s.splat(0.0); V];
                if !fresh {
                    for v in 0..V {
                        sums[v] = s.load_partial(y.add(v * S::LANES).cast_const(), lanes[v]);
                    }
                }
                for j in 0..J {
                    let factor = s.splat(if SCALED { self.factor * *low.add(j) } else { *low.add(j) });
                    for v in 0..V {
                        sums[v] = s.fma(factor, b[j][v], sums[v]);
                    }
                }
                for v in 0..V {
                    s.store_partial(y.add(v * S::LANES), sums[v], lanes[v]);
                }
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const V: usize, const SCALED: bool>(&mut self, s: S, column: usize, count: usize) {
        let rank = self.b.rows();
        let mut fresh = self.write == Write::Overwrite;
        let mut thin = 0;
        while thin < rank {
            if thin + THIN <= rank {
                self.block::<S, V, THIN, SCALED>(s, column, count, thin, fresh);
                thin += THIN;
            } else {
                self.block::<S, V, 1, SCALED>(s, column, count, thin, fresh);
                thin += 1;
            }
            fresh = false;
        }
    }
}

impl AddProduct<'_> {
    #[inline(always)]
    fn all<S: Simd, const SCALED: bool>(&mut self, s: S) {
        let width = self.y.width();
        let mut column = 0;
        if S::LANES == 16 {
            while column + 2 * S::LANES <= width {
                self.columns::<S, 2, SCALED>(s, column, S::LANES);
                column += 2 * S::LANES;
            }
        }
        while column < width {
            let count = S::LANES.min(width - column);
            self.columns::<S, 1, SCALED>(s, column, count);
            column += count;
        }
    }
}

impl Kernel for AddProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        if self.factor == 1.0 { self.all::<S, false>(s) } else { self.all::<S, true>(s) }
    }
}

/// `y = factor · low · b`, or added to y; low: rows × rank, b: rank × width, y: rows × width.
///
/// # Panics
/// When the shapes do not fit.
pub fn add_product(isa: Isa, low: &View<f32>, b: &View<f32>, factor: f32, y: ViewMut<f32>, write: Write) {
    assert!(
        low.width() == b.rows() && y.rows() == low.rows() && y.width() == b.width(),
        "shapes of a low-rank product"
    );
    dispatch(isa, AddProduct { low: *low, b: *b, factor, y, write });
}

struct OuterSums<'a, 'o> {
    low: View<'a, f32>,
    x: View<'a, f32>,
    factor: f32,
    thin: Range<usize>,
    /// Sums of one thin row after the other, `COLUMNS` apart.
    sums: &'o mut [f32],
}

impl OuterSums<'_, '_> {
    /// `V` vectors of columns from `column` on, the last of which holds `count` columns, and thin rows `thin ..`.
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

    #[inline(always)]
    fn columns<S: Simd, const V: usize, const SCALED: bool>(&mut self, s: S, column: usize, count: usize) {
        let rank = self.thin.len();
        let mut thin = 0;
        while thin < rank {
            if thin + THIN <= rank {
                self.block::<S, V, THIN, SCALED>(s, column, count, thin);
                thin += THIN;
            } else {
                self.block::<S, V, 1, SCALED>(s, column, count, thin);
                thin += 1;
            }
        }
    }
}

impl OuterSums<'_, '_> {
    #[inline(always)]
    fn all<S: Simd, const SCALED: bool>(&mut self, s: S) {
        let width = self.x.width();
        let mut column = 0;
        if S::LANES == 16 && width == COLUMNS {
            self.columns::<S, 2, SCALED>(s, 0, S::LANES);
            return;
        }
        while column < width {
            let count = S::LANES.min(width - column);
            self.columns::<S, 1, SCALED>(s, column, count);
            column += count;
        }
    }
}

impl Kernel for OuterSums<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        if self.factor == 1.0 { self.all::<S, false>(s) } else { self.all::<S, true>(s) }
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

#[cfg(test)]
mod tests;
