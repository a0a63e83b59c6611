//! Running state of online softmax for blocks of query vectors.
#![allow(unsafe_code)]

use super::tile::{KEY_TILE, PAD, SPAN, padded};
use crate::kernels::vector::Simd;
use crate::kernels::vector::math::exp2_falling;

/// The scratch of one forward call, cut up. A "vector" is one query head of one row; those of one key-value head lie together,
/// by row and then by head.
#[derive(Clone, Copy)]
pub struct State {
    /// Scaled queries, in units of log 2: `q_row` words per vector.
    pub q: *mut f32,
    pub q_row: usize,
    /// Running outputs: padded(D) per vector.
    pub o: *mut f32,
    /// Running sums of exponentials: PAD lanes per vector.
    pub sums: *mut f32,
    /// Running maxima of the scores in units of log 2: one per vector.
    pub maxima: *mut f32,
    /// Transposed keys of the tile.
    pub keys: *mut f32,
    /// Values of the tile, where they are copied.
    pub values: *mut f32,
    /// Scores, then probabilities, of up to SPAN vectors.
    pub scores: *mut f32,
    /// A row of values on its own: padded(D).
    pub last: *mut f32,
}

impl State {
    /// The state without its first `vectors` vectors of `d` elements.
    #[inline(always)]
    pub fn after(self, vectors: usize, d: usize) -> Self {
        State {
            q: self.q.wrapping_add(vectors * self.q_row),
            o: self.o.wrapping_add(vectors * padded(d)),
            sums: self.sums.wrapping_add(vectors * PAD),
            maxima: self.maxima.wrapping_add(vectors),
            ..self
        }
    }

    /// Turns the scores of some vectors into 2^(score − maximum), 0 from each limit to the end of its vector (with `PAIRS` as pairs of bf16
    /// values), and updates maxima and sums. `factors[i]` is what vector i's earlier results are to be multiplied by.
    ///
    /// # Safety
    /// The state holds at least as many vectors as there are limits (at most SPAN, each at most KEY_TILE).
    #[inline(always)]
    pub unsafe fn softmax<S: Simd, const PAIRS: bool>(self, s: S, limits: &[usize], factors: &mut [f32; SPAN]) {
        let lowest = s.splat(f32::NEG_INFINITY);
        let mut maxima = [0.0; SPAN];
        // SAFETY: the scores hold SPAN rows of KEY_TILE; LANES divides KEY_TILE and SPAN and is at most PAD.
        unsafe {
            for (i, &limit) in limits.iter().enumerate() {
                let row = self.scores.add(i * KEY_TILE);
                let mut most = lowest;
                let mut at = 0;
                while at < limit {
                    let mut x = s.load(row.add(at));
                    if limit - at < S::LANES {
                        x = s.keep_first(x, limit - at, lowest);
                        s.store(row.add(at), x);
                    }
                    most = s.max(most, x);
                    at += S::LANES;
                }
                let old = self.maxima.add(i);
                maxima[i] = (*old).max(s.reduce_max(most));
                // A vector with no key in this tile keeps its state: factor 2^0.
                factors[i] = if limit == 0 { 0.0 } else { *old - maxima[i] };
                *old = maxima[i];
            }
            for i in (0..limits.len()).step_by(S::LANES) {
                let p = factors.as_mut_ptr().add(i);
                s.store(p, exp2_falling::<S, PAIRS>(s, s.load(p)));
            }
            for (i, &limit) in limits.iter().enumerate() {
                let row = self.scores.add(i * KEY_TILE);
                let shift = s.splat(maxima[i]);
                let mut sum = s.splat(0.0);
                let mut at = 0;
                while at < limit {
                    let p = exp2_falling::<S, PAIRS>(s, s.sub(s.load(row.add(at)), shift));
                    sum = s.add(sum, p);
                    at += S::LANES;
                    if !PAIRS {
                        s.store(row.add(at - S::LANES), p);
                        continue;
                    }
                    // Two vectors make one of pairs, which takes the place of what has been read.
                    let mut late = s.splat(0.0);
                    if at < limit {
                        late = exp2_falling::<S, PAIRS>(s, s.sub(s.load(row.add(at)), shift));
                        sum = s.add(sum, late);
                    }
                    at += S::LANES;
                    s.store(row.add(at / 2 - S::LANES), s.narrow(p, late));
                }
                let total = self.sums.add(i * PAD);
                s.store(total, s.fma(s.load(total), s.splat(factors[i]), sum));
            }
        }
    }

    /// Writes the first vector's result, divided by its sum; returns log Σ e^score.
    ///
    /// # Safety
    /// The state holds a vector of `d` elements, and `dst` has room for them.
    #[inline(always)]
    pub unsafe fn write<S: Simd>(self, s: S, d: usize, dst: *mut f32) -> f32 {
        // SAFETY: the caller's contract; outputs are padded to whole vectors.
        unsafe {
            let sum = s.reduce_add(s.load(self.sums));
            let inverse = s.splat(1.0 / sum);
            let mut i = 0;
            while i < d {
                s.store_partial(dst.add(i), s.mul(s.load(self.o.add(i)), inverse), S::LANES.min(d - i));
                i += S::LANES;
            }
            self.maxima.read().mul_add(std::f32::consts::LN_2, sum.ln())
        }
    }
}

/// Writes `width` elements of a query times `factor`.
///
/// # Safety
/// `width` elements are readable at `src` and writable at `dst`.
#[inline(always)]
pub unsafe fn scale_row<S: Simd>(s: S, src: *const f32, width: usize, factor: f32, dst: *mut f32) {
    let factor = s.splat(factor);
    let mut i = 0;
    while i < width {
        let count = S::LANES.min(width - i);
        // SAFETY: the caller's contract.
        unsafe { s.store_partial(dst.add(i), s.mul(s.load_partial(src.add(i), count), factor), count) };
        i += count;
    }
}
