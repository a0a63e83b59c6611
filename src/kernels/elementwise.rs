//! Sums and products of rows, element by element, and gathers of embedding rows.

use super::isa::Isa;
use super::vector::Simd;
use super::vector::map::{self, LaneFn, Write};
use super::vector::stored::Stored;
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

struct ProductBackward;
impl LaneFn<3, 2> for ProductBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [a, b, d]: [S::V; 3]) -> [S::V; 2] {
        [s.mul(d, b), s.mul(d, a)]
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

/// `io[i] = io[i] · x[i]` on slices.
///
/// # Panics
/// When the lengths differ.
pub fn multiply_slices(isa: Isa, io: &mut [f32], x: &[f32]) {
    let n = io.len();
    multiply_inplace(isa, &mut InOut::new(io, 1, n, n), &View::new(x, 1, x.len(), x.len()));
}

/// `d_a = d_out · b` and `d_b = d_out · a`, element by element.
pub fn multiply_backward(
    isa: Isa,
    a: &View<f32>,
    b: &View<f32>,
    d_out: &View<f32>,
    d_a: &mut ViewMut<f32>,
    d_b: &mut ViewMut<f32>,
    write: Write,
) {
    map::rows_two(isa, &ProductBackward, [a, b, d_out], d_a, d_b, write);
}

/// `out = factor · x`.
pub fn scale(isa: Isa, x: &View<f32>, factor: f32, out: &mut ViewMut<f32>, write: Write) {
    map::rows(isa, &Scale(factor), [x], out, write);
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

/// Widens rows of a stored type to f32: `out = x`.
///
/// # Panics
/// When rows or widths differ.
pub fn widen_rows<E: Stored>(isa: Isa, x: &View<E>, out: &mut ViewMut<f32>) {
    assert!(x.rows() == out.rows());
    for i in 0..x.rows() {
        map::widen(isa, x.row(i), out.row_mut(i), Write::Overwrite);
    }
}

/// Every element becomes `value`.
pub fn fill(out: &mut ViewMut<f32>, value: f32) {
    for i in 0..out.rows() {
        out.row_mut(i).fill(value);
    }
}

/// `out` row `i` = `table` row `indices[i]`, widened to f32 (token and position embeddings).
///
/// # Panics
/// When an index is not below the table's rows, or the shapes differ: callers check tokens first.
pub fn gather_rows<E: Stored>(isa: Isa, table: &View<E>, indices: &[u32], out: &mut ViewMut<f32>, write: Write) {
    assert!(indices.len() == out.rows(), "gather of {} rows into {}", indices.len(), out.rows());
    for (i, &index) in indices.iter().enumerate() {
        map::widen(isa, table.row(index as usize), out.row_mut(i), write);
    }
}

/// `table` row `indices[i]` += `d_out` row `i`, rows in ascending order (backward of [`gather_rows`]).
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
                let (a, b, c) = (buffer(rows, width, 0.0), buffer(rows, width, 5.0), buffer(rows, width, 9.0));
                let (av, bv, dv) = (
                    View::new(&a[1..], rows, stride, width),
                    View::new(&b[1..], rows, stride, width),
                    View::new(&c[1..], rows, stride, width),
                );
                let mut out = vec![[2.0f32; 4]; a.len()];
                let mut lane: Vec<Vec<f32>> = (0..4).map(|k| out.iter().map(|o| o[k]).collect()).collect();
                let [sum, product, d_a, d_b] = &mut lane[..] else { unreachable!() };
                add(isa, &av, &bv, &mut ViewMut::new(&mut sum[1..], rows, stride, width));
                scale_inplace(isa, &mut ViewMut::new(&mut sum[1..], rows, stride, width), 0.5);
                multiply(isa, &av, &bv, &mut ViewMut::new(&mut product[1..], rows, stride, width), Write::Add);
                multiply_backward(
                    isa,
                    &av,
                    &bv,
                    &dv,
                    &mut ViewMut::new(&mut d_a[1..], rows, stride, width),
                    &mut ViewMut::new(&mut d_b[1..], rows, stride, width),
                    Write::Overwrite,
                );
                for r in 0..rows {
                    for i in 0..width {
                        let k = 1 + r * stride + i;
                        out[k] = [(a[k] + b[k]) * 0.5, 2.0 + a[k] * b[k], c[k] * b[k], c[k] * a[k]];
                    }
                }
                for k in 0..a.len() {
                    assert_eq!(
                        [lane[0][k], lane[1][k], lane[2][k], lane[3][k]],
                        out[k],
                        "{isa:?} width {width} at {k}"
                    );
                }
            }
        }
    }

    #[test]
    fn gather_and_scatter_with_repeated_rows() {
        let indices = [4, 0, 4, 2, 4];
        for isa in Isa::available() {
            let width = 19;
            let table: Vec<half::f16> = (0..5 * width).map(|i| half::f16::from_f32(i as f32 * 0.25)).collect();
            let mut out = vec![1.0; 5 * width];
            let table_view = View::new(&table, 5, width, width);
            gather_rows(isa, &table_view, &indices, &mut ViewMut::new(&mut out, 5, width, width), Write::Add);
            for (i, &t) in indices.iter().enumerate() {
                for j in 0..width {
                    assert_eq!(out[i * width + j], 1.0 + table[t as usize * width + j].to_f32());
                }
            }
            let mut d_table = vec![0.5; 5 * width];
            scatter_add_rows(
                isa,
                &View::new(&out, 5, width, width),
                &indices,
                &mut ViewMut::new(&mut d_table, 5, width, width),
            );
            for j in 0..width {
                assert_eq!(d_table[width + j], 0.5);
                assert_eq!(d_table[4 * width + j], ((0.5 + out[j]) + out[2 * width + j]) + out[4 * width + j]);
            }
        }
    }
}
