//! Reductions: along a row (one lane order), and over rows in tiles of [`ROW_TILE`] absolute rows in ascending order.
//!
//! Tiles of work split the columns; a sum over rows is never split between threads.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "several arrays of lanes run in step")]

use super::elementwise::add_slices;
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
    // SAFETY: the caller's contract.
    unsafe { row_sums_ahead::<S, F, N, M, 0>(s, terms, inputs, len) }
}

/// As [`row_sums`], fetching each input `AHEAD` elements ahead where that is not 0.
///
/// # Safety
/// As [`row_sums`].
#[inline(always)]
pub unsafe fn row_sums_ahead<S: Simd, F: LaneFn<N, M>, const N: usize, const M: usize, const AHEAD: usize>(
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
                    if AHEAD > 0 {
                        s.prefetch(inputs[n].wrapping_add(i + k * S::LANES + AHEAD));
                    }
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

/// What [`tile_sums_of`] adds up: `M` terms from row `row` of its operands, for each column.
pub(super) trait ColumnTerms<const M: usize> {
    /// The terms of `count` ≤ LANES columns from `column` on. Implement with `#[inline(always)]`.
    /// # Safety
    /// `row` and the columns are inside the operands.
    unsafe fn terms<S: Simd>(&self, s: S, row: usize, column: usize, count: usize) -> [S::V; M];
    /// Asks for what the terms of a row of the operands are made of, from a column on. Implement with `#[inline(always)]`.
    fn prefetch<S: Simd>(&self, s: S, row: usize, column: usize);
}

/// Rows from one whose terms are added to one whose operands are fetched meanwhile.
const ROWS_AHEAD: usize = 8;

struct TileSums<'a, T, const M: usize> {
    terms: &'a T,
    rows: usize,
    width: usize,
    outputs: [*mut f32; M],
}

impl<T: ColumnTerms<M>, const M: usize> TileSums<'_, T, M> {
    /// `V` vectors of columns from `column` on, the last of which holds `count` columns.
    #[inline(always)]
    unsafe fn block<S: Simd, const V: usize>(&self, s: S, column: usize, count: usize) {
        let mut sums = [[s.splat(0.0); M]; V];
        // SAFETY: the caller keeps the columns inside the width; rows are below `rows`.
        unsafe {
            for row in 0..self.rows {
                for v in 0..V {
                    let at = column + v * S::LANES;
                    if row + ROWS_AHEAD < self.rows {
                        self.terms.prefetch(s, row + ROWS_AHEAD, at);
                    }
                    let t = self.terms.terms(s, row, at, if v + 1 < V { S::LANES } else { count });
                    for m in 0..M {
                        sums[v][m] = s.add(sums[v][m], t[m]);
                    }
                }
            }
            for v in 0..V {
                let lanes = if v + 1 < V { S::LANES } else { count };
                for m in 0..M {
                    s.store_partial(self.outputs[m].add(column + v * S::LANES), sums[v][m], lanes);
                }
            }
        }
    }

    /// All columns, `V` vectors at a time while there are as many.
    #[inline(always)]
    unsafe fn columns<S: Simd, const V: usize>(&self, s: S) {
        let mut column = 0;
        // SAFETY: every block ends at or before the width.
        unsafe {
            while column + V * S::LANES <= self.width {
                self.block::<S, V>(s, column, S::LANES);
                column += V * S::LANES;
            }
            while column + 2 * S::LANES <= self.width {
                self.block::<S, 2>(s, column, S::LANES);
                column += 2 * S::LANES;
            }
            while column < self.width {
                let count = S::LANES.min(self.width - column);
                self.block::<S, 1>(s, column, count);
                column += count;
            }
        }
    }
}

impl<T: ColumnTerms<M>, const M: usize> Kernel for TileSums<'_, T, M> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `tile_sums_of` promises rows and columns. Eight sums fit the registers of every instruction set.
        unsafe { if M == 1 { self.columns::<S, 8>(s) } else { self.columns::<S, 4>(s) } }
    }
}

/// Sums terms over the rows of one tile of [`ROW_TILE`] rows, for each column, into `outputs` of equal length.
///
/// # Safety
/// Rows below `rows` and columns below the outputs' length are inside the operands of `terms`.
pub(super) unsafe fn tile_sums_of<T: ColumnTerms<M>, const M: usize>(
    isa: Isa,
    terms: &T,
    rows: usize,
    outputs: [&mut [f32]; M],
) {
    let width = outputs[0].len();
    assert!(outputs.iter().all(|o| o.len() == width), "column sums of different widths");
    assert!(0 < rows && rows <= ROW_TILE, "a tile of {rows} rows");
    let outputs = outputs.map(<[f32]>::as_mut_ptr);
    dispatch(isa, TileSums { terms, rows, width, outputs });
}

struct Plain<'a>(&'a View<'a, f32>);
impl ColumnTerms<1> for Plain<'_> {
    #[inline(always)]
    unsafe fn terms<S: Simd>(&self, s: S, row: usize, column: usize, count: usize) -> [S::V; 1] {
        // SAFETY: the caller's contract: inside the view.
        unsafe { [s.load_partial(self.0.row_ptr(row).add(column), count)] }
    }
    #[inline(always)]
    fn prefetch<S: Simd>(&self, s: S, row: usize, column: usize) {
        s.prefetch(self.0.row_ptr(row).wrapping_add(column));
    }
}

/// `out[j] = Σ_rows x[row][j]` over the rows of one tile: parts of bias gradients, which [`add_tiles`] adds up.
///
/// # Panics
/// When `out` is not as wide as the view, or the view is no tile of [`ROW_TILE`] rows or less.
pub fn tile_sums(isa: Isa, x: &View<f32>, out: &mut [f32]) {
    assert!(out.len() == x.width(), "column sums of width {} into {}", x.width(), out.len());
    // SAFETY: the terms read the view's own rows and columns.
    unsafe { tile_sums_of(isa, &Plain(x), x.rows(), [out]) }
}

/// Adds the sums of tiles, a row of `tiles` each, in ascending order: to `out`, or to nothing.
///
/// # Panics
/// When `out` is not as wide as the view.
pub fn add_tiles(isa: Isa, tiles: &View<f32>, out: &mut [f32], write: Write) {
    assert!(out.len() == tiles.width(), "sums of width {} into {}", tiles.width(), out.len());
    if write == Write::Overwrite {
        out.fill(0.0);
    }
    for tile in 0..tiles.rows() {
        add_slices(isa, out, tiles.row(tile));
    }
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
        let (rows, tiles) = (200usize, 200usize.div_ceil(ROW_TILE));
        for isa in Isa::available() {
            for width in [1, 5, 16, 63, 64, 100] {
                let stride = width + 2;
                let x: Vec<f32> = (0..rows * stride + 1).map(|i| ((i * 37) as f32).sin()).collect();
                let sums = |first: usize, columns: usize, out: &mut [f32], existing: Write| {
                    let mut parts = vec![f32::NAN; tiles * columns];
                    for (tile, part) in parts.chunks_exact_mut(columns).enumerate() {
                        let start = tile * ROW_TILE;
                        let here = &x[1 + start * stride + first..];
                        tile_sums(isa, &View::new(here, ROW_TILE.min(rows - start), stride, columns), part);
                    }
                    add_tiles(isa, &View::new(&parts, tiles, columns, columns), out, existing);
                };
                let mut whole = vec![f32::NAN; width];
                sums(0, width, &mut whole, Write::Overwrite);
                for j in 0..width {
                    let want: f64 = (0..rows).map(|r| f64::from(x[1 + r * stride + j])).sum();
                    assert!((f64::from(whole[j]) - want).abs() < 1e-4, "{isa:?} width {width} column {j}");
                }
                let mut parts = vec![0.0; width];
                let (head, tail) = parts.split_at_mut(width / 3);
                if width >= 3 {
                    sums(0, width / 3, head, Write::Overwrite);
                }
                sums(width / 3, width - width / 3, tail, Write::Add);
                assert_eq!(parts, whole, "{isa:?} width {width}");
            }
        }
        let losses: Vec<f32> = (0..300).map(|i| (i as f32).cos()).collect();
        let whole = sum_rows(&losses, 0, 0.0);
        assert_eq!(sum_rows(&losses[192..], 192, sum_rows(&losses[..192], 0, 0.0)), whole);
    }
}
