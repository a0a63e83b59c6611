//! What tiles of keys give query vectors, and the running state into which they are merged in their order.
//!
//! A tile's sums refer to its own largest score and not to that of the tiles before it. So a tile has the same bits wherever it is computed, and
//! other workers may do so.
#![allow(unsafe_code)]

use super::tile::{PAD, Product, SPAN, Start, padded};
use crate::kernels::vector::Simd;
use crate::kernels::vector::math::exp2_falling;
use std::ops::Range;

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

    /// The first vector's sum, in lanes.
    #[inline(always)]
    pub fn sums(self) -> *mut f32 {
        self.at.wrapping_add(self.width)
    }

    /// The first vector's maximum.
    #[inline(always)]
    pub fn maximum(self) -> *mut f32 {
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

/// Factors of up to SPAN vectors: merged, results and sums are `old` · the running ones + `new` · the tile's, with old = 2^(m − M), new =
/// 2^(t − M) and M the larger of the running maximum m and the tile's t.
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
    /// Both hold `n` vectors; the part was written.
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
    /// Both hold `n` vectors; the part's maxima were written.
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
            for exponents in [old, new] {
                for i in (0..n).step_by(S::LANES) {
                    let p = exponents.as_mut_ptr().add(i);
                    s.store(p, exp2_falling::<S, false>(s, s.load(p)));
                }
            }
        }
        factors
    }

    /// Merges the sums of `part` into those of the first `n` vectors.
    ///
    /// # Safety
    /// Both hold `n` vectors, which the factors are of; the part's maxima and sums were written.
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
    /// Both hold these vectors, which the factors are of; the part's maxima and results were written.
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

    /// `sums`, a product whose first row is the first result of the part, as one that merges those of vectors `vectors` at once. `None` where one of
    /// them sees nothing of the tile. The factors have to stay where they are as long as it is used.
    ///
    /// # Safety
    /// Both hold these vectors, which the factors are of; the part's maxima were written.
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
        let all = vectors.clone().all(|i| unsafe { part.sees(i) });
        all.then(|| {
            let (old, new) = (factors.old[vectors.clone()].as_ptr(), factors.new[vectors].as_ptr());
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

#[cfg(test)]
mod tests {
    use super::super::tests::Case;
    use super::super::tile::KEY_TILE;
    use crate::kernels::isa::Isa;
    use crate::kernels::vector::stored::Stored;

    /// Every second vector has only scores of −∞ in one whole tile of keys.
    #[test]
    fn vectors_that_see_nothing_of_a_tile_have_the_same_bits_beside_those_that_do() {
        fn check<E: Stored>(narrow: fn(f32) -> E) {
            for isa in Isa::available() {
                for (d, group, tile) in [(64, 1, 0), (64, 3, 1), (20, 1, 1), (20, 2, 0)] {
                    let mut case = Case::new(d, group, 2 * KEY_TILE + 22);
                    case.k[tile * KEY_TILE * d..(tile + 1) * KEY_TILE * d].fill(-1e38);
                    for (i, q) in case.q.chunks_exact_mut(d).enumerate() {
                        q.fill(if i % 2 == 0 { 100.0 } else { 1e-36 });
                    }
                    let rows: Vec<u32> = (2 * KEY_TILE as u32 + 2..2 * KEY_TILE as u32 + 22).collect();
                    let (together, _) = case.run_as(isa, &rows, narrow);
                    for (row, together) in rows.iter().zip(together.chunks_exact(group * d)) {
                        let (alone, _) = case.run_as(isa, &[*row], narrow);
                        assert!(alone.iter().all(|x| x.is_finite()), "{isa:?} d {d} group {group} row {row}");
                        let same = alone.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{isa:?} d {d} group {group} row {row}");
                    }
                }
            }
        }
        check(|x| x);
        check(half::f16::from_f32);
        check(half::bf16::from_f32);
    }
}
