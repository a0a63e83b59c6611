//! Online softmax for blocks of query vectors: what one tile gives each, and the running state into which tiles are merged in their order.
//!
//! A tile's sums refer to its own largest score and not to that of the tiles before it. So a tile has the same bits wherever it is computed, and
//! other workers may do so.
#![allow(unsafe_code)]

use super::tile::{KEY_TILE, PAD, Product, SPAN, Start, padded};
use crate::kernels::vector::Simd;
use crate::kernels::vector::math::exp2_falling;
use std::ops::Range;

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

    /// Whether vector `i` sees anything of the tile. One that does not keeps its running state, bit for bit.
    ///
    /// # Safety
    /// The part holds the vector, whose maximum was written.
    #[inline(always)]
    unsafe fn sees(self, i: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { *self.after(i).maximum() != f32::NEG_INFINITY }
    }
}

/// Factors of up to SPAN vectors: with M the larger of the running maximum m and a tile's t, results and sums become 2^(m − M) · theirs, `old`, +
/// 2^(t − M) · the tile's, `new`.
pub struct Factors {
    old: [f32; SPAN],
    new: [f32; SPAN],
}

impl Factors {
    /// `to = old · to + new · from` for `floats` floats of vector `i`, whole vectors.
    ///
    /// # Safety
    /// So many can be read at `from`, and read and written at `to`.
    #[inline(always)]
    unsafe fn merge<S: Simd>(&self, s: S, i: usize, to: *mut f32, from: *const f32, floats: usize) {
        let (old, new) = (s.splat(self.old[i]), s.splat(self.new[i]));
        for at in (0..floats).step_by(S::LANES) {
            // SAFETY: the caller's contract.
            unsafe { s.store(to.add(at), s.fma(s.load(to.add(at)), old, s.mul(s.load(from.add(at)), new))) };
        }
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
                if limit == KEY_TILE {
                    // Most are: a loop of known length.
                    for at in (0..KEY_TILE).step_by(S::LANES) {
                        most = s.max(most, s.load(row.add(at)));
                    }
                } else {
                    for at in (0..limit).step_by(S::LANES) {
                        let mut x = s.load(row.add(at));
                        if limit - at < S::LANES {
                            x = s.keep_first(x, limit - at, lowest);
                            s.store(row.add(at), x);
                        }
                        most = s.max(most, x);
                    }
                }
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

/// Turns the first `limit` scores of a row, whole vectors, into 2^(score − shift), with `PAIRS` as pairs of bf16 values; gives the lanes' sums.
///
/// # Safety
/// `limit` values rounded up to whole vectors (with `PAIRS` pairs of them) can be read and written at `row`.
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

    /// Merges `part`, of the next tile, into the first `n` vectors, at most SPAN.
    ///
    /// # Safety
    /// Both hold `n` vectors.
    #[inline(always)]
    pub unsafe fn merge<S: Simd>(self, s: S, part: Part, n: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            let factors = self.take_maxima(s, part, n);
            self.merge_sums(s, part, &factors, n);
            self.merge_results(s, part, &factors, 0..n);
        }
    }

    /// Takes over the maxima of `part`, of the next tile, for the first `n` vectors, at most SPAN; sums and results are still to be merged.
    ///
    /// # Safety
    /// Both hold `n` vectors.
    #[inline(always)]
    pub unsafe fn take_maxima<S: Simd>(self, s: S, part: Part, n: usize) -> Factors {
        let mut factors = Factors { old: [0.0; SPAN], new: [0.0; SPAN] };
        let Factors { old, new } = &mut factors;
        // SAFETY: the caller's contract; LANES divides SPAN.
        unsafe {
            for i in 0..n {
                let (running, tile) = (self.maxima.add(i), *part.after(i).maximum());
                let most = (*running).max(tile);
                (old[i], new[i]) = (*running - most, tile - most);
                *running = most;
            }
            for factors in [old, new] {
                for i in (0..n).step_by(S::LANES) {
                    let p = factors.as_mut_ptr().add(i);
                    s.store(p, exp2_falling::<S, false>(s, s.load(p)));
                }
            }
        }
        factors
    }

    /// Merges the sums of `part` into those of the first `n` vectors.
    ///
    /// # Safety
    /// Both hold `n` vectors, which the factors are of.
    #[inline(always)]
    pub unsafe fn merge_sums<S: Simd>(self, s: S, part: Part, factors: &Factors, n: usize) {
        for i in 0..n {
            // SAFETY: the caller's contract.
            unsafe {
                if part.sees(i) {
                    factors.merge(s, i, self.sums.add(i * PAD), part.after(i).sums(), S::LANES);
                }
            }
        }
    }

    /// Merges the results of `part` into those of vectors `vectors`.
    ///
    /// # Safety
    /// Both hold these vectors, which the factors are of.
    #[inline(always)]
    pub unsafe fn merge_results<S: Simd>(self, s: S, part: Part, factors: &Factors, vectors: Range<usize>) {
        for i in vectors {
            // SAFETY: the caller's contract.
            unsafe {
                if part.sees(i) {
                    factors.merge(s, i, self.o.add(i * self.width), part.after(i).at, self.width);
                }
            }
        }
    }

    /// `sums`, a product that makes the results of a part, as one that merges those of vectors `vectors` at once. `None` where one of them sees
    /// nothing of the tile.
    ///
    /// # Safety
    /// Both hold these vectors, whose maxima the part has and which the factors are of.
    #[inline(always)]
    pub unsafe fn merging(
        self,
        sums: Product,
        part: Part,
        factors: &Factors,
        vectors: Range<usize>,
    ) -> Option<(Product, Start)> {
        let first = vectors.start;
        // SAFETY: the caller's contract.
        let all = vectors.into_iter().all(|i| unsafe { part.sees(i) });
        all.then(|| {
            let (old, new) = (&raw const factors.old[first], &raw const factors.new[first]);
            let c = self.o.wrapping_add(first * self.width);
            (Product { c, c_row: self.width, ..sums.after(first) }, Start::Merge { old, new })
        })
    }

    /// Writes the first vector's result, divided by its sum.
    ///
    /// # Safety
    /// There is a vector, of `d` elements, and `dst` has room for them.
    #[inline(always)]
    pub unsafe fn write<S: Simd>(self, s: S, d: usize, dst: *mut f32) {
        // SAFETY: the caller's contract; outputs are padded to whole vectors.
        unsafe {
            let inverse = s.splat(1.0 / s.reduce_add(s.load(self.sums)));
            for i in (0..d).step_by(S::LANES) {
                s.store_partial(dst.add(i), s.mul(s.load(self.o.add(i)), inverse), S::LANES.min(d - i));
            }
        }
    }

    /// log Σ e^score of the first vector.
    ///
    /// # Safety
    /// There is a vector.
    #[inline(always)]
    pub unsafe fn log_sum_exp<S: Simd>(self, s: S) -> f32 {
        // SAFETY: the caller's contract.
        unsafe { self.maxima.read().mul_add(std::f32::consts::LN_2, s.reduce_add(s.load(self.sums)).ln()) }
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
