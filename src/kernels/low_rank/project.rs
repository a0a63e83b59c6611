//! Rows projected on thin rows.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "rows and vectors run in step")]

use super::THIN;
use crate::kernels::isa::Isa;
use crate::kernels::vector::{Kernel, Simd, dispatch};
use crate::kernels::view::{View, ViewMut};

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
