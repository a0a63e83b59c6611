//! Products of strided matrices, one output block at a time.
#![allow(unsafe_code)]

use super::vector::map::Write;
use super::view::{View, ViewMut};

/// A factor of a product, read as it is stored or transposed. Its rows are consecutive (no index).
#[derive(Clone, Copy)]
pub struct Factor<'a> {
    /// As stored.
    pub view: View<'a, f32>,
    /// Whether rows and columns trade places.
    pub transposed: bool,
}

impl<'a> Factor<'a> {
    /// As stored.
    pub fn plain(view: View<'a, f32>) -> Self {
        Factor { view, transposed: false }
    }

    /// Transposed.
    pub fn transposed(view: View<'a, f32>) -> Self {
        Factor { view, transposed: true }
    }

    fn shape(&self) -> (usize, usize) {
        let (r, c) = (self.view.rows(), self.view.width());
        if self.transposed { (c, r) } else { (r, c) }
    }

    fn strides(&self) -> (isize, isize) {
        let s = self.view.stride() as isize;
        if self.transposed { (1, s) } else { (s, 1) }
    }
}

/// `out = a·b`, or added to `out`: `a` is m × k, `b` is k × n, `out` m × n. Each element is one chain over ascending k.
///
/// # Panics
/// When the shapes differ or a view's rows are not consecutive.
pub fn product(a: Factor<'_>, b: Factor<'_>, out: &mut ViewMut<'_, f32>, write: Write) {
    let ((m, k), (k2, n)) = (a.shape(), b.shape());
    assert!(k == k2 && m == out.rows() && n == out.width(), "product of {m} × {k} and {k2} × {n}");
    assert!(a.view.is_contiguous() && b.view.is_contiguous() && out.is_contiguous(), "rows must be consecutive");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if write == Write::Overwrite {
            (0..m).for_each(|i| out.row_mut(i).fill(0.0));
        }
        return;
    }
    let beta = if write == Write::Add { 1.0 } else { 0.0 };
    let (c, stride) = (out.row_ptr(0), out.stride() as isize);
    let ((ra, ca), (rb, cb)) = (a.strides(), b.strides());
    // SAFETY: shapes agree and rows are consecutive, so every element addressed lies inside a view; `out` is exclusive.
    unsafe {
        let (pa, pb) = (a.view.row_ptr(0), b.view.row_ptr(0));
        matrixmultiply::sgemm(m, k, n, 1.0, pa, ra, ca, pb, rb, cb, beta, c, stride, 1);
    }
}
