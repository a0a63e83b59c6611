//! Softmax of the scores of one tile, for blocks of query vectors.
#![allow(unsafe_code)]

use super::running::{Part, Running};
use super::tile::KEY_TILE;
use crate::kernels::vector::Simd;
use crate::kernels::vector::math::exp2_falling;

/// The scratch of one forward call, cut up. A "vector" is one query head of one row; those of one key-value head lie together,
/// by row and then by head.
#[derive(Clone, Copy)]
pub struct State {
    /// Scaled queries, in units of log 2: `q_row` words per vector.
    pub q: *mut f32,
    pub q_row: usize,
    pub running: Running,
    /// Transposed keys of the tile.
    pub keys: *mut f32,
    /// Values of the tile, where they are copied.
    pub values: *mut f32,
    /// Scores, then probabilities, of up to SPAN vectors.
    pub scores: *mut f32,
    /// What the tile gives each of up to SPAN vectors; no results where a product merges them itself.
    pub part: Part,
    /// A row of values on its own: padded(D).
    pub last: *mut f32,
}

impl State {
    /// The state without its first `vectors` vectors.
    #[inline(always)]
    pub fn after(self, vectors: usize) -> Self {
        State { q: self.q.wrapping_add(vectors * self.q_row), running: self.running.after(vectors), ..self }
    }

    /// Turns the scores of some vectors into 2^(score − maximum of the tile), 0 from each limit to the end of its vector (with `PAIRS` as pairs
    /// of bf16 values); maxima and sums go to the part.
    ///
    /// # Safety
    /// Scores and part have as many rows as there are limits, each at most KEY_TILE.
    #[inline(always)]
    pub unsafe fn softmax<S: Simd, const PAIRS: bool>(self, s: S, limits: &[usize]) {
        // SAFETY: the scores hold rows of KEY_TILE; LANES divides KEY_TILE and is at most PAD.
        unsafe {
            for (i, &limit) in limits.iter().enumerate() {
                let row = self.scores.add(i * KEY_TILE);
                // Most rows see all of a tile: a loop of known length.
                let most = if limit == KEY_TILE { largest(s, row, KEY_TILE) } else { largest(s, row, limit) };
                *self.part.after(i).maximum() = s.reduce_max(most);
            }
            for (i, &limit) in limits.iter().enumerate() {
                let row = self.scores.add(i * KEY_TILE);
                let part = self.part.after(i);
                // Without a finite score nothing is lost: what is shifted stays −∞.
                let shift = s.splat((*part.maximum()).max(f32::MIN));
                let sum = if limit == KEY_TILE {
                    exponentials::<S, PAIRS>(s, row, KEY_TILE, shift)
                } else {
                    exponentials::<S, PAIRS>(s, row, limit, shift)
                };
                s.store(part.sums(), sum);
            }
        }
    }
}

/// The largest of the first `limit` scores of a row, in lanes; −∞ takes the place of what is left of the last vector.
///
/// # Safety
/// `limit` values rounded up to whole vectors can be read and written at `row`.
#[inline(always)]
unsafe fn largest<S: Simd>(s: S, row: *mut f32, limit: usize) -> S::V {
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut most = lowest;
    for at in (0..limit).step_by(S::LANES) {
        // SAFETY: the caller's contract.
        unsafe {
            let mut x = s.load(row.add(at));
            if limit - at < S::LANES {
                x = s.keep_first(x, limit - at, lowest);
                s.store(row.add(at), x);
            }
            most = s.max(most, x);
        }
    }
    most
}

/// Turns the first `limit` scores of a row, whole vectors, into 2^(score − shift), with `PAIRS` as pairs of bf16 values; gives the lanes' sums.
///
/// # Safety
/// `limit` values rounded up to whole vectors can be read and written at `row`.
#[inline(always)]
unsafe fn exponentials<S: Simd, const PAIRS: bool>(s: S, row: *mut f32, limit: usize, shift: S::V) -> S::V {
    let mut sum = s.splat(0.0);
    let step = if PAIRS { 2 * S::LANES } else { S::LANES };
    for at in (0..limit).step_by(step) {
        // SAFETY: the caller's contract.
        unsafe {
            let p = exp2_falling::<S, PAIRS>(s, s.sub(s.load(row.add(at)), shift));
            sum = s.add(sum, p);
            if !PAIRS {
                s.store(row.add(at), p);
                continue;
            }
            // Two vectors make one of pairs, which takes the place of what has been read.
            let mut late = s.splat(0.0);
            if at + S::LANES < limit {
                late = exp2_falling::<S, PAIRS>(s, s.sub(s.load(row.add(at + S::LANES)), shift));
                sum = s.add(sum, late);
            }
            s.store(row.add(at / 2), s.narrow(p, late));
        }
    }
    sum
}
