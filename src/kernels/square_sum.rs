//! The sum of squares that clipping the norm of gradients needs.

#![allow(unsafe_code)]

use super::isa::Isa;
use super::reduce::row_sums_ahead;
use super::vector::map::{LaneFn, STREAM_AHEAD};
use super::vector::{Kernel, Simd, dispatch};

/// Elements whose squares are summed in f32 lanes before they are added up in f64. Tiles of work are multiples of it.
pub const SQUARE_BLOCK: usize = 16384;

struct Squares;
impl LaneFn<1, 1> for Squares {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        [s.mul(x, x)]
    }
}

struct SquareSum<'a>(&'a [f32]);
impl Kernel for SquareSum<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut total = 0.0;
        for block in self.0.chunks(SQUARE_BLOCK) {
            // SAFETY: the pointer and length are the block's.
            let [sum] =
                unsafe { row_sums_ahead::<S, _, 1, 1, STREAM_AHEAD>(s, &Squares, [block.as_ptr()], block.len()) };
            total += f64::from(sum);
        }
        total
    }
}

/// Σ x², over blocks of [`SQUARE_BLOCK`] in ascending order. Add the sums of consecutive pieces in order; pieces that do not
/// depend on the thread count give bits that do not either.
pub fn square_sum(isa: Isa, x: &[f32]) -> f64 {
    dispatch(isa, SquareSum(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn square_sum_matches_f64_and_adds_up_over_blocks() {
        for isa in Isa::available() {
            let x = (0..3 * SQUARE_BLOCK + 77).map(|i| ((i as f32 + 0.5) * 1.7).sin()).collect::<Vec<_>>();
            let want: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let whole = square_sum(isa, &x);
            assert!((whole / want - 1.0).abs() < 1e-6);
            let blocks: f64 = x.chunks(SQUARE_BLOCK).map(|b| square_sum(isa, b)).fold(0.0, |a, b| a + b);
            assert_eq!(blocks, whole);
        }
    }
}
