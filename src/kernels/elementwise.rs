//! Sums and products of rows, element by element, and sums of rows by index.

use super::isa::Isa;
use super::vector::Simd;
use super::vector::map::{self, LaneFn, Write};
use super::view::{InOut, View, ViewMut};

struct Sum;
impl LaneFn<2, 1> for Sum {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [a, b]: [S::V; 2]) -> [S::V; 1] {
        [s.add(a, b)]
    }
}

struct Product;
impl LaneFn<2, 1> for Product {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [a, b]: [S::V; 2]) -> [S::V; 1] {
        [s.mul(a, b)]
    }
}

struct Scale(f32);
impl LaneFn<1, 1> for Scale {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        [s.mul(x, s.splat(self.0))]
    }
}

/// `out = a + b`.
pub fn add(isa: Isa, a: &View<f32>, b: &View<f32>, out: &mut ViewMut<f32>) {
    map::rows(isa, &Sum, [a, b], out, Write::Overwrite);
}

/// `io = io + x`.
pub fn add_inplace(isa: Isa, io: &mut InOut<f32>, x: &View<f32>) {
    map::rows_inplace2(isa, &Sum, io, x);
}

/// `io[i] = io[i] + x[i]` on slices.
///
/// # Panics
/// When the lengths differ.
pub fn add_slices(isa: Isa, io: &mut [f32], x: &[f32]) {
    let n = io.len();
    add_inplace(isa, &mut InOut::new(io, 1, n, n), &View::new(x, 1, x.len(), x.len()));
}

/// `out = a · b`, element by element.
pub fn multiply(isa: Isa, a: &View<f32>, b: &View<f32>, out: &mut ViewMut<f32>, write: Write) {
    map::rows(isa, &Product, [a, b], out, write);
}

/// `io = io · x`, element by element.
pub fn multiply_inplace(isa: Isa, io: &mut InOut<f32>, x: &View<f32>) {
    map::rows_inplace2(isa, &Product, io, x);
}

/// `io = factor · io`.
pub fn scale_inplace(isa: Isa, io: &mut InOut<f32>, factor: f32) {
    map::rows_inplace(isa, &Scale(factor), io);
}

/// `out = x`.
///
/// # Panics
/// When rows or widths differ.
pub fn copy<T: Copy>(x: &View<T>, out: &mut ViewMut<T>) {
    assert!(x.rows() == out.rows(), "copy of {} rows to {}", x.rows(), out.rows());
    for i in 0..x.rows() {
        out.row_mut(i).copy_from_slice(x.row(i));
    }
}

/// Every element becomes `value`.
pub fn fill(out: &mut ViewMut<f32>, value: f32) {
    for i in 0..out.rows() {
        out.row_mut(i).fill(value);
    }
}

/// `table` row `indices[i]` += `d_out` row `i`, rows in ascending order (backward of an embedding).
///
/// Tiles split the columns: give both views the same columns.
///
/// # Panics
/// When an index is not below the table's rows, or the shapes differ.
pub fn scatter_add_rows(isa: Isa, d_out: &View<f32>, indices: &[u32], table: &mut ViewMut<f32>) {
    assert!(indices.len() == d_out.rows(), "scatter of {} rows by {} indices", d_out.rows(), indices.len());
    for (i, &index) in indices.iter().enumerate() {
        map::widen(isa, d_out.row(i), table.row_mut(index as usize), Write::Add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rows` rows of `width` with a gap of 3 between them, starting one element into the buffer.
    fn buffer(rows: usize, width: usize, seed: f32) -> Vec<f32> {
        (0..1 + rows * (width + 3)).map(|i| ((i as f32 + seed) * 0.7).sin()).collect()
    }

    #[test]
    fn rows_add_multiply_and_scale() {
        for isa in Isa::available() {
            for width in [1, 7, 8, 16, 31, 48, 65] {
                let (rows, stride) = (3, width + 3);
                let (a, b) = (buffer(rows, width, 0.0), buffer(rows, width, 5.0));
                let (av, bv) = (View::new(&a[1..], rows, stride, width), View::new(&b[1..], rows, stride, width));
                let (mut sum, mut product) = (vec![2.0f32; a.len()], vec![2.0f32; a.len()]);
                add(isa, &av, &bv, &mut ViewMut::new(&mut sum[1..], rows, stride, width));
                scale_inplace(isa, &mut ViewMut::new(&mut sum[1..], rows, stride, width), 0.5);
                multiply(isa, &av, &bv, &mut ViewMut::new(&mut product[1..], rows, stride, width), Write::Add);
                let mut want = vec![[2.0f32; 2]; a.len()];
                for k in (0..rows).flat_map(|r| 1 + r * stride..1 + r * stride + width) {
                    want[k] = [(a[k] + b[k]) * 0.5, 2.0 + a[k] * b[k]];
                }
                for k in 0..a.len() {
                    assert_eq!([sum[k], product[k]], want[k], "{isa:?} width {width} at {k}");
                }
            }
        }
    }

    #[test]
    fn repeated_rows_add_up_in_order() {
        let indices = [4, 0, 4, 2, 4];
        for isa in Isa::available() {
            let width = 19;
            let d: Vec<f32> = (0..5 * width).map(|i| (i as f32 * 0.7).sin()).collect();
            let mut table = vec![0.5; 5 * width];
            let mut view = ViewMut::new(&mut table, 5, width, width);
            scatter_add_rows(isa, &View::new(&d, 5, width, width), &indices, &mut view);
            for j in 0..width {
                assert_eq!((table[j], table[width + j]), (0.5 + d[width + j], 0.5));
                assert_eq!(table[4 * width + j], ((0.5 + d[j]) + d[2 * width + j]) + d[4 * width + j]);
            }
        }
    }
}
