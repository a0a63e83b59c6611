//! Scores against keys in f32, or widened to it: products summed in chains.
//!
//! A score is the sum of [`CHAINS`] chains of fused multiply-adds, chain c over the elements c, c + CHAINS, … of the head, added up from the
//! first on. With few queries a chain is a lane: key rows are read as they lie. With many the keys are transposed, and a chain is a vector
//! of different keys.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "accumulators and operands run in step")]

use super::ahead::Stream;
use super::online_softmax::State;
use super::tile::{BLOCK_ROWS, KEY_TILE, Product, Start};
use crate::kernels::vector::stored::Stored;
use crate::kernels::vector::{Kernel, Simd};

/// Chains of a score, as many as the lanes of a vector that every instruction set has.
pub const CHAINS: usize = 8;
/// Rows of a block of a product in chains: each has its sum and its chain in registers.
const ROWS: usize = 2;

/// Scores of the first `n` vectors of `state`, at most [`BLOCK_ROWS`], against up to [`CHAINS`] key rows as they are, to a row of scores each. On
/// the way it asks for what comes on the `stream`.
///
/// # Safety
/// `d` elements are readable at each pointer of `rows`, of which there is one at least; the state holds `n` vectors, its scores eight floats at the
/// start of `n` rows.
#[inline(always)]
pub unsafe fn direct_chains<S: Simd, E: Stored>(
    s: S,
    rows: &[*const E],
    stream: &mut Stream<E>,
    d: usize,
    n: usize,
    state: State,
) {
    // SAFETY: the caller's contract. With several queries fewer keys at a time leave registers for all sums.
    unsafe {
        match n {
            1 => chains::<S, E, 1, 8>(s, rows, stream, d, state),
            2 => chains::<S, E, 2, 4>(s, rows, stream, d, state),
            3 => chains::<S, E, 3, 4>(s, rows, stream, d, state),
            _ => chains::<S, E, BLOCK_ROWS, 4>(s, rows, stream, d, state),
        }
    }
}

/// # Safety
/// As [`direct_chains`] for `N` vectors; `K` keys at a time.
#[inline(always)]
unsafe fn chains<S: Simd, E: Stored, const N: usize, const K: usize>(
    s: S,
    rows: &[*const E],
    stream: &mut Stream<E>,
    d: usize,
    state: State,
) {
    const { assert!(CHAINS.is_multiple_of(K) && <S::Eight as Simd>::LANES == CHAINS) };
    let e = s.eight();
    let mut sums = [[0.0; CHAINS * CHAINS]; N];
    for first in (0..CHAINS).step_by(K) {
        let mut acc = [[e.splat(0.0); K]; N];
        let mut at = 0;
        while at < d {
            let count = CHAINS.min(d - at);
            stream.fetch(s, K * CHAINS * size_of::<E>());
            // SAFETY: the caller's contract; partial loads end with the row.
            unsafe {
                let mut queries = [e.splat(0.0); N];
                for n in 0..N {
                    queries[n] = load(e, state.q.add(n * state.q_row + at).cast_const(), count);
                }
                for k in 0..K {
                    // Scores of rows that do not exist are those of the last, and nobody's.
                    let keys = load(e, rows[(first + k).min(rows.len() - 1)].add(at), count);
                    for n in 0..N {
                        acc[n][k] = e.fma(queries[n], keys, acc[n][k]);
                    }
                }
            }
            at += CHAINS;
        }
        for n in 0..N {
            for k in 0..K {
                // SAFETY: each query has a row of chains for each key.
                unsafe { e.store(sums[n][(first + k) * CHAINS..].as_mut_ptr(), acc[n][k]) };
            }
        }
    }
    for n in 0..N {
        let mut keys = [std::ptr::null(); CHAINS];
        for k in 0..CHAINS {
            keys[k] = sums[n][k * CHAINS..].as_ptr();
        }
        // SAFETY: the caller's contract; each key has a chain for each lane.
        unsafe {
            let chains = e.load_transposed(&keys, 0, CHAINS);
            let mut total = chains.as_ref()[0];
            for c in 1..CHAINS {
                total = e.add(total, chains.as_ref()[c]);
            }
            e.store(state.scores.add(n * KEY_TILE), total);
        }
    }
}

/// `count` elements, at most [`CHAINS`], as f32, and zeros.
///
/// # Safety
/// They are readable at `p`.
#[inline(always)]
unsafe fn load<S: Simd, E: Stored>(s: S, p: *const E, count: usize) -> S::V {
    // SAFETY: the caller's contract.
    unsafe { if count == CHAINS { E::load(s, p) } else { E::load_partial(s, p, count) } }
}

/// The product `scores` of up to [`BLOCK_ROWS`] queries and a transposed tile of keys, `vectors` vectors wide, over `d` elements in chains.
///
/// # Safety
/// As [`Product::rows`].
#[inline(always)]
pub unsafe fn chained_rows<S: Simd>(s: S, scores: Product, rows: usize, vectors: usize, d: usize) {
    s.call(Chained { scores, rows, vectors, d });
}

struct Chained {
    scores: Product,
    rows: usize,
    vectors: usize,
    d: usize,
}

impl Kernel for Chained {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in (0..self.rows).step_by(ROWS) {
            let scores = self.scores.after(row);
            let mut v = 0;
            while v < self.vectors {
                let (column, width) = (v * S::LANES, (self.vectors - v).min(S::TILE_VECTORS));
                // SAFETY: the contract of `chained_rows`, the only maker of this kernel.
                unsafe {
                    match (self.rows - row, width) {
                        (1, 1) => block::<S, 1, 1>(s, scores, column, self.d),
                        (1, 2) if S::TILE_VECTORS >= 2 => block::<S, 1, 2>(s, scores, column, self.d),
                        (1, 3) if S::TILE_VECTORS >= 3 => block::<S, 1, 3>(s, scores, column, self.d),
                        (1, _) if S::TILE_VECTORS >= 4 => block::<S, 1, 4>(s, scores, column, self.d),
                        (_, 2) if S::TILE_VECTORS >= 2 => block::<S, ROWS, 2>(s, scores, column, self.d),
                        (_, 3) if S::TILE_VECTORS >= 3 => block::<S, ROWS, 3>(s, scores, column, self.d),
                        (_, 4) if S::TILE_VECTORS >= 4 => block::<S, ROWS, 4>(s, scores, column, self.d),
                        _ => block::<S, ROWS, 1>(s, scores, column, self.d),
                    }
                }
                v += width;
            }
        }
    }
}

/// `R` rows by `W` vectors of scores from column `column` on.
///
/// # Safety
/// They and what they are computed from are inside live allocations.
#[inline(always)]
unsafe fn block<S: Simd, const R: usize, const W: usize>(s: S, scores: Product, column: usize, d: usize) {
    let mut total = [[s.splat(0.0); W]; R];
    for chain in 0..CHAINS.min(d) {
        let mut acc = [[s.splat(0.0); W]; R];
        for k in (chain..d).step_by(CHAINS) {
            // SAFETY: the caller's contract.
            unsafe {
                let mut keys = [s.splat(0.0); W];
                for w in 0..W {
                    keys[w] = s.load(scores.b.add(k * scores.b_k + column + w * S::LANES));
                }
                for r in 0..R {
                    let query = s.splat(*scores.a.add(r * scores.a_row + k * scores.a_k));
                    for w in 0..W {
                        acc[r][w] = s.fma(query, keys[w], acc[r][w]);
                    }
                }
            }
        }
        for r in 0..R {
            for w in 0..W {
                total[r][w] = if chain == 0 { acc[r][w] } else { s.add(total[r][w], acc[r][w]) };
            }
        }
    }
    // SAFETY: the caller's contract.
    unsafe { scores.end(s, column, Start::Zero, &total) };
}
