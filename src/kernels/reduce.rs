//! Reductions: along a row (one lane order), and over rows in tiles of [`ROW_TILE`] absolute rows in ascending order.
//!
//! Tiles of work split the columns; a sum over rows is never split between threads.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "several arrays of lanes run in step")]

use super::isa::Isa;
use super::vector::map::{LaneFn, Write};
use super::vector::{Kernel, Simd, dispatch};
use super::view::View;

/// Rows that are summed before they are added to the total. Boundaries lie at multiples of it, counted from absolute row 0,
/// so that any split of the rows into calls at those boundaries gives the same bits.
pub const ROW_TILE: usize = 64;

/// Sums over `len` elements of the `M` outputs of `terms`, inside a kernel.
///
/// Four vectors side by side, then single vectors, then a partial one: the order depends on `len` alone.
///
/// # Safety
/// `len` elements are readable at each input.
#[inline(always)]
pub unsafe fn row_sums<S: Simd, F: LaneFn<N, M>, const N: usize, const M: usize>(
    s: S,
    terms: &F,
    inputs: [*const f32; N],
    len: usize,
) -> [f32; M] {
    let zero = s.splat(0.0);
    let mut sums = [[zero; M]; 4];
    let mut x = [zero; N];
    let mut i = 0;
    // SAFETY: every access ends at or before `len`.
    unsafe {
        while i + 4 * S::LANES <= len {
            for (k, sum) in sums.iter_mut().enumerate() {
                for n in 0..N {
                    x[n] = s.load(inputs[n].add(i + k * S::LANES));
                }
                let t = terms.apply(s, x);
                for m in 0..M {
                    sum[m] = s.add(sum[m], t[m]);
                }
            }
            i += 4 * S::LANES;
        }
        while i < len {
            let count = S::LANES.min(len - i);
            for n in 0..N {
                x[n] = s.load_partial(inputs[n].add(i), count);
            }
            let t = terms.apply(s, x);
            for m in 0..M {
                sums[0][m] = s.add(sums[0][m], s.keep_first(t[m], count, zero));
            }
            i += count;
        }
    }
    let mut out = [0.0; M];
    for m in 0..M {
        out[m] = s.reduce_add(s.add(s.add(sums[0][m], sums[1][m]), s.add(sums[2][m], sums[3][m])));
    }
    out
}

/// What [`column_sums_of`] adds up: `M` terms from row `row` of its operands, for each column.
pub(super) trait ColumnTerms<const M: usize> {
    /// The terms of `count` ≤ LANES columns from `column` on. Implement with `#[inline(always)]`.
    /// # Safety
    /// `row` and the columns are inside the operands.
    unsafe fn terms<S: Simd>(&self, s: S, row: usize, column: usize, count: usize) -> [S::V; M];
}

struct ColumnSums<'a, T, const M: usize> {
    terms: &'a T,
    rows: usize,
    first_row: usize,
    width: usize,
    outputs: [*mut f32; M],
    write: Write,
}

impl<T: ColumnTerms<M>, const M: usize> ColumnSums<'_, T, M> {
    /// `VECTORS` vectors of columns from `column` on, of which the last holds `count` columns.
    #[inline(always)]
    unsafe fn block<S: Simd, const VECTORS: usize>(&self, s: S, column: usize, count: usize) {
        let zero = s.splat(0.0);
        let mut total = [[zero; M]; VECTORS];
        // SAFETY: the caller keeps the columns inside the width, and rows run below `self.rows`.
        unsafe {
            if self.write == Write::Add {
                for (v, total) in total.iter_mut().enumerate() {
                    for m in 0..M {
                        total[m] = s.load_partial(self.outputs[m].add(column + v * S::LANES).cast_const(), count);
                    }
                }
            }
            let mut row = 0;
            while row < self.rows {
                let end = (row + ROW_TILE - (self.first_row + row) % ROW_TILE).min(self.rows);
                let mut tile = [[zero; M]; VECTORS];
                while row < end {
                    for (v, tile) in tile.iter_mut().enumerate() {
                        let t = self.terms.terms(s, row, column + v * S::LANES, count);
                        for m in 0..M {
                            tile[m] = s.add(tile[m], t[m]);
                        }
                    }
                    row += 1;
                }
                for v in 0..VECTORS {
                    for m in 0..M {
                        total[v][m] = s.add(total[v][m], tile[v][m]);
                    }
                }
            }
            for (v, total) in total.iter().enumerate() {
                for m in 0..M {
                    s.store_partial(self.outputs[m].add(column + v * S::LANES), total[m], count);
                }
            }
        }
    }
}

impl<T: ColumnTerms<M>, const M: usize> Kernel for ColumnSums<'_, T, M> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut column = 0;
        // SAFETY: every block ends at or before `width`.
        unsafe {
            while column + 4 * S::LANES <= self.width {
                self.block::<S, 4>(s, column, S::LANES);
                column += 4 * S::LANES;
            }
            while column < self.width {
                let count = S::LANES.min(self.width - column);
                self.block::<S, 1>(s, column, count);
                column += count;
            }
        }
    }
}

/// Sums terms over rows, for each column, into `outputs` of equal length.
///
/// # Safety
/// Rows below `rows` and columns below the outputs' length are inside the operands of `terms`.
pub(super) unsafe fn column_sums_of<T: ColumnTerms<M>, const M: usize>(
    isa: Isa,
    terms: &T,
    rows: usize,
    first_row: usize,
    outputs: [&mut [f32]; M],
    write: Write,
) {
    let width = outputs[0].len();
    assert!(outputs.iter().all(|o| o.len() == width), "column sums of different widths");
    let outputs = outputs.map(<[f32]>::as_mut_ptr);
    dispatch(isa, ColumnSums { terms, rows, first_row, width, outputs, write });
}

struct Plain<'a>(&'a View<'a, f32>);
impl ColumnTerms<1> for Plain<'_> {
    #[inline(always)]
    unsafe fn terms<S: Simd>(&self, s: S, row: usize, column: usize, count: usize) -> [S::V; 1] {
        // SAFETY: the caller's contract: inside the view.
        unsafe { [s.load_partial(self.0.row_ptr(row).add(column), count)] }
    }
}

/// `out[j] = Σ_rows x[row][j]`: bias gradients. `first_row` is the absolute number of the view's first row.
///
/// # Panics
/// When `out` is not as wide as the view.
pub fn column_sums(isa: Isa, x: &View<f32>, first_row: usize, out: &mut [f32], write: Write) {
    assert!(out.len() == x.width(), "column sums of width {} into {}", x.width(), out.len());
    // SAFETY: the terms read the view's own rows and columns.
    unsafe { column_sums_of(isa, &Plain(x), x.rows(), first_row, [out], write) }
}

/// Sum in f64 of per-row values, such as losses: tiles of [`ROW_TILE`] absolute rows in ascending order, added to `total`.
pub fn sum_rows(values: &[f32], first_row: usize, total: f64) -> f64 {
    let (mut total, mut tile) = (total, 0.0);
    for (i, &x) in values.iter().enumerate() {
        if (first_row + i).is_multiple_of(ROW_TILE) {
            total += tile;
            tile = 0.0;
        }
        tile += f64::from(x);
    }
    total + tile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_sums_match_and_do_not_depend_on_the_split() {
        for isa in Isa::available() {
            for width in [1, 5, 16, 63, 64, 100] {
                let (rows, stride) = (200, width + 2);
                let x: Vec<f32> = (0..rows * stride + 1).map(|i| ((i * 37) as f32).sin()).collect();
                let mut whole = vec![f32::NAN; width];
                column_sums(isa, &View::new(&x[1..], rows, stride, width), 0, &mut whole, Write::Overwrite);
                for j in 0..width {
                    let want: f64 = (0..rows).map(|r| f64::from(x[1 + r * stride + j])).sum();
                    assert!((f64::from(whole[j]) - want).abs() < 1e-4, "{isa:?} width {width} column {j}");
                }
                let mut parts = vec![f32::NAN; width];
                let (head, tail) = parts.split_at_mut(width / 3);
                for (first, columns, out) in [(0, width / 3, head), (width / 3, width - width / 3, tail)] {
                    let part = |r: usize, n| View::new(&x[1 + r * stride + first..], n, stride, columns);
                    column_sums(isa, &part(0, 128), 0, out, Write::Overwrite);
                    column_sums(isa, &part(128, 72), 128, out, Write::Add);
                }
                assert_eq!(parts, whole, "{isa:?} width {width}");
            }
        }
        let losses: Vec<f32> = (0..300).map(|i| (i as f32).cos()).collect();
        let whole = sum_rows(&losses, 0, 0.0);
        assert_eq!(sum_rows(&losses[192..], 192, sum_rows(&losses[..192], 0, 0.0)), whole);
    }
}
