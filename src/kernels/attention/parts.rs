//! Attention of a single query row whose tiles of keys are shared among workers: each tile's part by itself, then all merged in their order.
//!
//! The parts are those of [`attention_forward_heads`](super::attention_forward_heads), which merges each as soon as it has it, so the bits are the
//! same. Workers that share the keys and not the heads read whole rows of memory, each its own: where they read a piece of every row, what the
//! CPU fetches ahead on its own is mostly what the other one wants. Known as Flash-Decoding (Dao et al., 2023).
#![allow(unsafe_code)]

use super::call::{AttentionInput, attention_forward_scratch};
use super::forward::{Forward, Output};
use super::online_softmax::{Part, State, part_floats};
use super::tile::{BLOCK_ROWS, KEY_TILE, PAD, SPAN, padded};
use crate::kernels::isa::Isa;
use crate::kernels::vector::stored::Stored;
use crate::kernels::vector::{Kernel, Simd, dispatch, dispatch_pairs};
use crate::kernels::view::{View, ViewMut};
use std::ops::Range;

/// Floats that a tile gives `heads` query heads.
pub const fn attention_part_floats(heads: usize, head_dim: usize) -> usize {
    heads * part_floats(head_dim)
}

/// Most key-value heads of a call of [`attention_parts`]; 0 where its kernel does not have such heads.
pub const fn parts_heads(group: usize, head_dim: usize) -> usize {
    if group <= BLOCK_ROWS && head_dim.is_multiple_of(2) { SPAN / group } else { 0 }
}

/// What tiles `tiles` of [`KEY_TILE`] keys give the only query row of `input`, of at most [`parts_heads`] key-value heads. `parts` has a row of
/// [`attention_part_floats`] for each tile; the result is for [`merge_attention_parts`]. `scratch` is as for
/// [`attention_forward_heads`](super::attention_forward_heads).
///
/// # Panics
/// When a shape does not fit, or a tile has no keys up to the row's position.
pub fn attention_parts<E: Stored>(
    isa: Isa,
    input: &AttentionInput<E>,
    tiles: Range<usize>,
    parts: &mut ViewMut<f32>,
    scratch: &mut [f32],
) {
    let (kv_heads, group) = input.heads();
    let d = input.head_dim;
    assert!(input.q.rows() == 1 && kv_heads <= parts_heads(group, d), "parts of {kv_heads} heads of {d}");
    assert!(parts.rows() == tiles.len() && parts.width() == attention_part_floats(kv_heads * group, d), "parts shape");
    let needed = attention_forward_scratch(1, kv_heads * group, d);
    assert!(scratch.len() >= needed, "attention scratch of {} floats, {needed} needed", scratch.len());
    let keys_needed = input.keys_needed();
    assert!(tiles.end <= keys_needed.div_ceil(KEY_TILE), "tiles {tiles:?} of {keys_needed} keys");
    let kernel = Forward { input, scratch, kv_heads, group, keys_needed, tiles, output: Output::Parts(parts) };
    if E::IS_BF16 { dispatch_pairs(isa, kernel) } else { dispatch(isa, kernel) }
}

/// Floats of scratch of [`merge_attention_parts`].
pub const fn merge_scratch(head_dim: usize) -> usize {
    SPAN * (padded(head_dim) + PAD + 1)
}

/// Merges the `parts` of all tiles, a row for each from the first on, and writes the query row's result, `head_dim` elements for each head, and the
/// log of the sum of e^score of each head. `scratch` has [`merge_scratch`] floats.
///
/// # Panics
/// When a shape does not fit, or there are no parts.
pub fn merge_attention_parts(
    isa: Isa,
    parts: &View<f32>,
    head_dim: usize,
    out: &mut ViewMut<f32>,
    log_sum_exp: Option<&mut ViewMut<f32>>,
    scratch: &mut [f32],
) {
    let heads = out.width() / head_dim;
    assert!(out.rows() == 1 && out.width().is_multiple_of(head_dim) && parts.rows() > 0, "parts have one row");
    assert!(parts.width() == attention_part_floats(heads, head_dim) && parts.is_contiguous(), "parts shape");
    assert!(log_sum_exp.as_ref().is_none_or(|l| l.rows() == 1 && l.width() == heads), "log-sum-exp shape");
    let needed = merge_scratch(head_dim);
    assert!(scratch.len() >= needed, "attention scratch of {} floats, {needed} needed", scratch.len());
    dispatch(isa, Merge { parts, head_dim, out, log_sum_exp, scratch });
}

struct Merge<'a, 'o, 'l> {
    parts: &'a View<'a, f32>,
    head_dim: usize,
    out: &'a mut ViewMut<'o, f32>,
    log_sum_exp: Option<&'a mut ViewMut<'l, f32>>,
    scratch: &'a mut [f32],
}

impl Kernel for Merge<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let d = self.head_dim;
        let heads = self.out.width() / d;
        let (state, mut first) = (State::running(self.scratch.as_mut_ptr(), SPAN, d), 0);
        while first < heads {
            let n = SPAN.min(heads - first);
            // SAFETY: `merge_attention_parts` checked the shapes; the scratch holds the state of SPAN vectors.
            unsafe {
                state.clear(n, d);
                for tile in 0..self.parts.rows() {
                    let part = Part { at: self.parts.row_ptr(tile).cast_mut(), width: padded(d) };
                    state.merge(s, part.after(first), n);
                }
                for i in 0..n {
                    let saved = state.after(i, d).write(s, d, self.out.row_ptr(0).add((first + i) * d));
                    if let Some(log_sum_exp) = &mut self.log_sum_exp {
                        log_sum_exp.row_mut(0)[first + i] = saved;
                    }
                }
            }
            first += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;
    use super::super::{attention_forward_heads, attention_forward_scratch};
    use super::*;
    use half::{bf16, f16};

    /// One row at `position` with each tile's part by itself, `heads_at_once` key-value heads in a call, and tiles in the order of `tiles`.
    fn in_parts<E: Stored>(
        isa: Isa,
        input: &AttentionInput<E>,
        heads_at_once: usize,
        tiles: &[Range<usize>],
    ) -> [Vec<f32>; 2] {
        let (d, (kv_heads, group)) = (input.head_dim, input.heads());
        let (heads, count) = (kv_heads * group, tiles.iter().map(|t| t.end).max().expect("some tiles"));
        let floats = attention_part_floats(1, d);
        let mut parts = vec![f32::NAN; count * heads * floats];
        let mut scratch = vec![f32::NAN; attention_forward_scratch(1, heads, d)];
        for tiles in tiles {
            for first in (0..kv_heads).step_by(heads_at_once) {
                let n = heads_at_once.min(kv_heads - first);
                let here = AttentionInput {
                    q: input.q.columns(first * group * d, n * group * d),
                    keys: input.keys.columns(first * d, n * d),
                    values: input.values.columns(first * d, n * d),
                    ..*input
                };
                let rows = &mut parts[tiles.start * heads * floats..];
                let mut rows = ViewMut::new(rows, tiles.len(), heads * floats, heads * floats);
                let mut rows = rows.columns(first * group * floats, n * group * floats);
                attention_parts(isa, &here, tiles.clone(), &mut rows, &mut scratch);
            }
        }
        let (mut out, mut saved) = (vec![f32::NAN; heads * d], vec![f32::NAN; heads]);
        let parts = View::new(&parts, count, heads * floats, heads * floats);
        let mut rows = ViewMut::new(&mut out, 1, heads * d, heads * d);
        let mut log_sum_exp = ViewMut::new(&mut saved, 1, heads, heads);
        merge_attention_parts(isa, &parts, d, &mut rows, Some(&mut log_sum_exp), &mut vec![f32::NAN; merge_scratch(d)]);
        [out, saved]
    }

    fn check<E: Stored>(narrow: fn(f32) -> E) {
        for isa in Isa::available() {
            for (d, group, kv_heads, position) in
                [(64, 1, 12, 255), (64, 3, 3, 250), (64, 1, 20, 130), (20, 2, 4, 64), (128, 4, 2, 199), (6, 1, 5, 63)]
            {
                let (t, heads) = (position + 1, kv_heads * group);
                let kept = |seed| values(t * kv_heads * d, seed).into_iter().map(narrow).collect::<Vec<E>>();
                let (q, k, v) = (values(heads * d, 1), kept(2), kept(3));
                let input = AttentionInput {
                    q: View::new(&q, 1, heads * d, heads * d),
                    positions: &[position as u32],
                    keys: View::new(&k, t, kv_heads * d, kv_heads * d),
                    values: View::new(&v, t, kv_heads * d, kv_heads * d),
                    head_dim: d,
                    scale: 0.3,
                };
                let (mut out, mut saved) = (vec![f32::NAN; heads * d], vec![f32::NAN; heads]);
                for head in 0..kv_heads {
                    let (mut rows, mut scratch) = (ViewMut::new(&mut out, 1, heads * d, heads * d), vec![0.0; 1 << 16]);
                    let mut saved = ViewMut::new(&mut saved, 1, heads, heads);
                    let here = AttentionInput {
                        q: input.q.columns(head * group * d, group * d),
                        keys: input.keys.columns(head * d, d),
                        values: input.values.columns(head * d, d),
                        ..input
                    };
                    let (mut rows, mut saved) =
                        (rows.columns(head * group * d, group * d), saved.columns(head * group, group));
                    attention_forward_heads(isa, &here, &mut rows, Some(&mut saved), &mut scratch);
                }
                assert!(out.iter().chain(&saved).all(|x| x.is_finite()));
                let (count, most) = (t.div_ceil(KEY_TILE), parts_heads(group, d));
                let backwards: Vec<Range<usize>> = (0..count).rev().map(|tile| tile..tile + 1).collect();
                for (heads_at_once, tiles) in [(most, vec![0..0, 0..count]), (1, backwards), (2, vec![0..1, 1..count])]
                {
                    let tiles: Vec<Range<usize>> = tiles.into_iter().filter(|t| !t.is_empty()).collect();
                    let got = in_parts(isa, &input, heads_at_once.min(kv_heads), &tiles);
                    assert_eq!(got, [out.clone(), saved.clone()], "{isa:?}, {d} {group} {kv_heads}, {tiles:?}");
                }
            }
        }
    }

    #[test]
    fn parts_that_are_merged_give_the_bits_of_one_call() {
        check(|x| x);
        check(f16::from_f32);
        check(bf16::from_f32);
    }
}
