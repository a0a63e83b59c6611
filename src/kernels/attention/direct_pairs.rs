//! Scores of a few queries in pairs of bf16 values straight from the key rows of a tile, which are transposed in registers only.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "accumulators and queries run in step")]

use super::ahead::Stream;
use super::online_softmax::State;
use super::tile::KEY_TILE;
use crate::kernels::vector::Simd;

/// Scores of the first `n` vectors of `state`, at most four, against up to a vector of keys `rows` of `words` pairs each, the chain that
/// [`super::tile::Product`] makes over a transposed tile. On the way it asks for what comes on the `stream`.
///
/// # Safety
/// `words` words are readable at each pointer of `rows`; the state holds `n` vectors of pairs, its scores a vector at the start of `n` rows.
#[inline(always)]
pub unsafe fn direct_pairs<S: Simd, E>(
    s: S,
    rows: &[*const f32],
    stream: &mut Stream<E>,
    words: usize,
    n: usize,
    state: State,
) {
    // SAFETY: the caller's contract.
    unsafe {
        match n {
            1 => scores::<S, E, 1>(s, rows, stream, words, state),
            2 => scores::<S, E, 2>(s, rows, stream, words, state),
            3 => scores::<S, E, 3>(s, rows, stream, words, state),
            _ => scores::<S, E, 4>(s, rows, stream, words, state),
        }
    }
}

/// # Safety
/// As [`direct_pairs`] for `N` vectors.
#[inline(always)]
unsafe fn scores<S: Simd, E, const N: usize>(
    s: S,
    rows: &[*const f32],
    stream: &mut Stream<E>,
    words: usize,
    state: State,
) {
    let quarter = (S::LANES * S::LANES).max(64);
    let mut acc = [s.splat(0.0); N];
    let mut word = 0;
    while word < words {
        let count = S::LANES.min(words - word);
        stream.fetch(s, quarter);
        // SAFETY: the caller's contract.
        unsafe {
            let keys = s.load_transposed(rows, word, count);
            if count == S::LANES {
                for j in 0..S::LANES {
                    if j > 0 && 4 * j % S::LANES == 0 {
                        stream.fetch(s, quarter);
                    }
                    add_word::<S, N>(s, state, word + j, keys.as_ref()[j], &mut acc);
                }
            } else {
                for j in 0..count {
                    add_word::<S, N>(s, state, word + j, keys.as_ref()[j], &mut acc);
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
unsafe fn add_word<S: Simd, const N: usize>(s: S, state: State, word: usize, keys: S::V, sums: &mut [S::V; N]) {
    for n in 0..N {
        // SAFETY: the caller's contract.
        let query = unsafe { *state.q.wrapping_add(n * state.q_row).add(word) };
        sums[n] = s.dot_pairs(s.splat(query), keys, sums[n]);
    }
}
