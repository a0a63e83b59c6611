//! Scores of a few queries straight from the key rows of a tile, which are transposed in registers only.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "accumulators and queries run in step")]

use super::ahead::Stream;
use super::online_softmax::State;
use super::tile::{KEY_TILE, multiply_add};
use crate::kernels::vector::Simd;
use crate::kernels::vector::stored::Stored;

/// Scores of the first `n` vectors of `state`, at most four, against up to a vector of keys `rows`, each the chain that
/// [`super::tile::Product`] makes over a transposed tile. On the way it asks for what comes on the `stream`.
///
/// A row is of `words` words: elements, or with `PAIRS` pairs of bf16 values; queries then are of pairs too where [`Simd::BF16_DOTS`], else of
/// two floats for each.
///
/// # Safety
/// `words` words are readable at each pointer of `rows`; the state holds `n` vectors, its scores a vector at the start of `n` rows.
#[inline(always)]
pub unsafe fn direct_scores<S: Simd, W: Stored, E, const PAIRS: bool>(
    s: S,
    rows: &[*const W],
    stream: &mut Stream<E>,
    words: usize,
    n: usize,
    state: State,
) {
    // SAFETY: the caller's contract.
    unsafe {
        match n {
            1 => scores::<S, W, E, PAIRS, 1>(s, rows, stream, words, state),
            2 => scores::<S, W, E, PAIRS, 2>(s, rows, stream, words, state),
            3 => scores::<S, W, E, PAIRS, 3>(s, rows, stream, words, state),
            _ => scores::<S, W, E, PAIRS, 4>(s, rows, stream, words, state),
        }
    }
}

/// # Safety
/// As [`direct_scores`] for `N` vectors.
#[inline(always)]
unsafe fn scores<S: Simd, W: Stored, E, const PAIRS: bool, const N: usize>(
    s: S,
    rows: &[*const W],
    stream: &mut Stream<E>,
    words: usize,
    state: State,
) {
    let mut acc = [s.splat(0.0); N];
    let mut word = 0;
    while word < words {
        let count = S::LANES.min(words - word);
        stream.fetch(s);
        // SAFETY: the caller's contract.
        unsafe {
            let keys = s.load_transposed(rows, word, count);
            if count == S::LANES {
                for j in 0..S::LANES {
                    if j > 0 && 4 * j % S::LANES == 0 {
                        stream.fetch(s);
                    }
                    add_word::<S, PAIRS, N>(s, state, word + j, keys.as_ref()[j], &mut acc);
                }
            } else {
                for j in 0..count {
                    add_word::<S, PAIRS, N>(s, state, word + j, keys.as_ref()[j], &mut acc);
                }
            }
        }
        word += count;
    }
    for n in 0..N {
        // SAFETY: the caller's contract.
        unsafe { s.store(state.scores.add(n * KEY_TILE), acc[n]) };
    }
}

/// Adds the products of word `word` of `N` queries and of the keys.
///
/// # Safety
/// The state holds `N` vectors of more than `word` words.
#[inline(always)]
unsafe fn add_word<S: Simd, const PAIRS: bool, const N: usize>(
    s: S,
    state: State,
    word: usize,
    keys: S::V,
    sums: &mut [S::V; N],
) {
    let widened = PAIRS && !S::BF16_DOTS;
    let [early, late] = if widened { s.halves(keys) } else { [keys; 2] };
    for n in 0..N {
        let query = state.q.wrapping_add(n * state.q_row);
        // SAFETY: the caller's contract.
        unsafe {
            if widened {
                sums[n] = s.fma(s.splat(*query.add(2 * word)), early, sums[n]);
                sums[n] = s.fma(s.splat(*query.add(2 * word + 1)), late, sums[n]);
            } else {
                sums[n] = multiply_add::<S, PAIRS>(s, s.splat(*query.add(word)), keys, sums[n]);
            }
        }
    }
}
