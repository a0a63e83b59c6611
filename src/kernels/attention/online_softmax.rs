//! Online softmax for blocks of query vectors: what one tile gives each, and the running state into which tiles are merged in their order.
//!
//! A tile's sums refer to its own largest score and not to that of the tiles before it. So a tile has the same bits wherever it is computed, and
//! other workers may do so.
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
    pub running: Running,
    /// Transposed keys of the tile.
    pub keys: *mut f32,
    /// Values of the tile, where they are copied.
    pub values: *mut f32,
    /// Scores, then probabilities, of up to SPAN vectors.
    pub scores: *mut f32,
    /// What the tile gives each of up to SPAN vectors.
    pub part: Part,
    /// A row of values on its own: padded(D).
    pub last: *mut f32,
}

/// What the tiles so far give some vectors.
#[derive(Clone, Copy)]
pub struct Running {
    /// Outputs: `width` per vector.
    o: *mut f32,
    /// Sums of exponentials: PAD lanes per vector.
    sums: *mut f32,
    /// Maxima of the scores in units of log 2: one per vector.
    maxima: *mut f32,
    /// padded(D)
    width: usize,
}

/// Floats of one vector of a [`Running`].
pub const fn running_floats(head_dim: usize) -> usize {
    padded(head_dim) + PAD + 1
}

/// What one tile gives some vectors, each in one row: results (padded(D)), the sum of its exponentials ([`PAD`] lanes), and the maximum of its
/// scores ([`PAD`] floats, of which the first counts).
#[derive(Clone, Copy)]
pub struct Part {
    pub at: *mut f32,
    /// padded(D)
    pub width: usize,
}

/// Floats of a row of a [`Part`].
pub const fn part_floats(head_dim: usize) -> usize {
    padded(head_dim) + 2 * PAD
}

impl Part {
    /// Floats from one row to the next.
    #[inline(always)]
    pub fn row(self) -> usize {
        part_floats(self.width)
    }

    /// The part without its first `vectors` rows.
    #[inline(always)]
    pub fn after(self, vectors: usize) -> Self {
        Part { at: self.at.wrapping_add(vectors * self.row()), ..self }
    }

    #[inline(always)]
    fn sums(self) -> *mut f32 {
        self.at.wrapping_add(self.width)
    }

    #[inline(always)]
    fn maximum(self) -> *mut f32 {
        self.sums().wrapping_add(PAD)
    }
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
        let lowest = s.splat(f32::NEG_INFINITY);
        // SAFETY: the scores hold rows of KEY_TILE; LANES divides KEY_TILE and is at most PAD.
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
                *self.part.after(i).maximum() = s.reduce_max(most);
            }
            for (i, &limit) in limits.iter().enumerate() {
                let row = self.scores.add(i * KEY_TILE);
                let part = self.part.after(i);
                // Without a finite score nothing is lost: what is shifted stays −∞.
                let shift = s.splat((*part.maximum()).max(f32::MIN));
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
                s.store(part.sums(), sum);
            }
        }
    }
}

impl Running {
    /// Of `n` vectors of `d` elements, at `at`: [`running_floats`] for each.
    #[inline(always)]
    pub fn new(at: *mut f32, n: usize, d: usize) -> Self {
        let sums = at.wrapping_add(n * padded(d));
        Running { o: at, sums, maxima: sums.wrapping_add(n * PAD), width: padded(d) }
    }

    /// Without its first `vectors` vectors.
    #[inline(always)]
    pub fn after(self, vectors: usize) -> Self {
        Running {
            o: self.o.wrapping_add(vectors * self.width),
            sums: self.sums.wrapping_add(vectors * PAD),
            maxima: self.maxima.wrapping_add(vectors),
            ..self
        }
    }

    /// Clears the first `n` vectors.
    ///
    /// # Safety
    /// There are as many.
    #[inline(always)]
    pub unsafe fn clear(self, n: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            std::slice::from_raw_parts_mut(self.o, n * self.width).fill(0.0);
            std::slice::from_raw_parts_mut(self.sums, n * PAD).fill(0.0);
            std::slice::from_raw_parts_mut(self.maxima, n).fill(f32::NEG_INFINITY);
        }
    }

    /// Merges `part`, of the next tile, into the first `n` vectors, at most SPAN: with M the larger of the running maximum m and
    /// the tile's t, results and sums become 2^(m − M) · theirs + 2^(t − M) · the tile's.
    ///
    /// # Safety
    /// Both hold `n` vectors.
    #[inline(always)]
    pub unsafe fn merge<S: Simd>(self, s: S, part: Part, n: usize) {
        let (mut old, mut new) = ([0.0; SPAN], [0.0; SPAN]);
        // SAFETY: the caller's contract; LANES divides SPAN, PAD and padded widths.
        unsafe {
            for i in 0..n {
                let (running, tile) = (self.maxima.add(i), *part.after(i).maximum());
                let most = (*running).max(tile);
                (old[i], new[i]) = (*running - most, tile - most);
                *running = most;
            }
            for factors in [&mut old, &mut new] {
                for i in (0..n).step_by(S::LANES) {
                    let p = factors.as_mut_ptr().add(i);
                    s.store(p, exp2_falling::<S, false>(s, s.load(p)));
                }
            }
            for i in 0..n {
                // A vector that sees nothing of this tile keeps its state, bit for bit.
                if *part.after(i).maximum() == f32::NEG_INFINITY {
                    continue;
                }
                let (old, new, part) = (s.splat(old[i]), s.splat(new[i]), part.after(i));
                let sums = (self.sums.add(i * PAD), part.sums(), S::LANES);
                for (to, from, floats) in [sums, (self.o.add(i * self.width), part.at, self.width)] {
                    for at in (0..floats).step_by(S::LANES) {
                        let scaled = s.mul(s.load(from.add(at)), new);
                        s.store(to.add(at), s.fma(s.load(to.add(at)), old, scaled));
                    }
                }
            }
        }
    }

    /// Writes the first vector's result, divided by its sum; returns log Σ e^score.
    ///
    /// # Safety
    /// There is a vector, of `d` elements, and `dst` has room for them.
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
