//! Thin products added to rows.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "rows and vectors run in step")]

use super::blocks::{self, Blocks};
use crate::kernels::isa::Isa;
use crate::kernels::vector::map::Write;
use crate::kernels::vector::{Kernel, Simd, dispatch};
use crate::kernels::view::{View, ViewMut};

struct AddProduct<'a> {
    low: View<'a, f32>,
    b: View<'a, f32>,
    factor: f32,
    y: ViewMut<'a, f32>,
    write: Write,
}

impl Blocks for AddProduct<'_> {
    fn width(&self) -> usize {
        self.y.width()
    }

    fn rank(&self) -> usize {
        self.b.rows()
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
        let fresh = thin == 0 && self.write == Write::Overwrite;
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
}

impl Kernel for AddProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        blocks::all(&mut self, s);
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
