//! Attention of a single query row whose tiles of keys are shared among workers: each tile's part by itself, then all merged in their order.
//!
//! The parts are those of [`attention_forward_heads`](super::attention_forward_heads), which merges each as soon as it has it, so the bits are the
//! same. Workers that share the keys and not the heads read whole rows of memory, each its own (of more than [`parts_heads`] heads half rows and
//! less): where they read a piece of every row, what the CPU fetches ahead on its own is mostly what the other one wants. Known as Flash-Decoding
//! (Dao et al., 2023).
#![allow(unsafe_code)]

use super::call::AttentionInput;
use super::forward::{Around, Forward, Output};
use super::running::{Part, Running, part_floats, running_floats};
use super::tile::{BLOCK_ROWS, KEY_TILE, SPAN, padded};
use crate::kernels::isa::Isa;
use crate::kernels::vector::stored::Stored;
use crate::kernels::vector::{Kernel, Simd, dispatch};
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
/// [`attention_forward_heads`](super::attention_forward_heads). It asks for memory as `around` tells.
///
/// # Panics
/// When a shape does not fit, a tile has no keys up to the row's position, or keys that follow have no width.
pub fn attention_parts<E: Stored>(
    isa: Isa,
    input: &AttentionInput<E>,
    tiles: Range<usize>,
    around: Around<View<E>>,
    parts: &mut ViewMut<f32>,
    scratch: &mut [f32],
) {
    let (kv_heads, group) = input.heads();
    let d = input.head_dim;
    assert!(input.q.rows() == 1 && kv_heads <= parts_heads(group, d), "parts of {kv_heads} heads of {d}");
    assert!(parts.rows() == tiles.len() && parts.width() == attention_part_floats(kv_heads * group, d), "parts shape");
    assert!(around.then.is_none_or(|keys| keys.width() > 0), "keys without a width");
    let keys_needed = input.keys_needed();
    assert!(tiles.end <= keys_needed.div_ceil(KEY_TILE), "tiles {tiles:?} of {keys_needed} keys");
    Forward { input, scratch, kv_heads, group, keys_needed, tiles, around, output: Output::Parts(parts) }.dispatch(isa);
}

/// Most query heads of a call of [`merge_attention_parts`].
pub const MERGED_HEADS: usize = SPAN;

/// Floats of scratch of [`merge_attention_parts`].
pub const fn merge_scratch(head_dim: usize) -> usize {
    MERGED_HEADS * running_floats(head_dim)
}

/// Merges the `parts` of all tiles, a row for each from the first on, and writes the query row's result, `head_dim` elements for each of at most
/// [`MERGED_HEADS`] heads. `scratch` has [`merge_scratch`] floats.
///
/// # Panics
/// When a shape does not fit, or there are no parts.
pub fn merge_attention_parts(
    isa: Isa,
    parts: &View<f32>,
    head_dim: usize,
    out: &mut ViewMut<f32>,
    scratch: &mut [f32],
) {
    let heads = out.width() / head_dim;
    assert!(out.rows() == 1 && out.width().is_multiple_of(head_dim) && parts.rows() > 0, "parts have one row");
    assert!(heads <= MERGED_HEADS, "parts of {heads} heads at once");
    assert!(parts.width() == attention_part_floats(heads, head_dim) && parts.is_contiguous(), "parts shape");
    let needed = merge_scratch(head_dim);
    assert!(scratch.len() >= needed, "attention scratch of {} floats, {needed} needed", scratch.len());
    dispatch(isa, Merge { parts, heads, head_dim, out, scratch });
}

struct Merge<'a, 'o> {
    parts: &'a View<'a, f32>,
    heads: usize,
    head_dim: usize,
    out: &'a mut ViewMut<'o, f32>,
    scratch: &'a mut [f32],
}

impl Kernel for Merge<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (d, n) = (self.head_dim, self.heads);
        let running = Running::new(self.scratch.as_mut_ptr(), n, d);
        // SAFETY: `merge_attention_parts` checked the shapes, and that the scratch holds so many vectors.
        unsafe {
            running.clear(n);
            for tile in 0..self.parts.rows() {
                running.merge(s, Part { at: self.parts.row_ptr(tile).cast_mut(), width: padded(d) }, n);
            }
            for i in 0..n {
                running.after(i).write(s, d, self.out.row_ptr(0).add(i * d));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;
    use super::super::{attention_forward_heads, attention_forward_scratch};
    use super::*;
    use half::{bf16, f16};

    /// One row with each tile's part by itself, `heads_at_once` key-value heads in a call, and tiles in the order of `tiles`.
    fn in_parts<E: Stored>(
        isa: Isa,
        input: &AttentionInput<E>,
        heads_at_once: usize,
        tiles: &[Range<usize>],
    ) -> Vec<f32> {
        let (d, (kv_heads, group)) = (input.head_dim, input.heads());
        let (heads, count) = (kv_heads * group, tiles.iter().map(|t| t.end).max().expect("some tiles"));
        let floats = attention_part_floats(1, d);
        let mut parts = vec![f32::NAN; count * heads * floats];
        let mut scratch = vec![f32::NAN; attention_forward_scratch(1, heads, d)];
        for tiles in tiles {
            for first in (0..kv_heads).step_by(heads_at_once) {
                let n = heads_at_once.min(kv_heads - first);
                let rows = &mut parts[tiles.start * heads * floats..];
                let mut rows = ViewMut::new(rows, tiles.len(), heads * floats, heads * floats);
                let mut rows = rows.columns(first * group * floats, n * group * floats);
                // Keys that are asked for may be any, of any width.
                let then = (first > 0).then(|| input.keys.slice_rows(0..input.keys.rows() / 2).columns(0, first * d));
                let around = Around { begins: first == 0, then };
                attention_parts(isa, &some_heads(input, first, n), tiles.clone(), around, &mut rows, &mut scratch);
            }
        }
        let mut out = vec![f32::NAN; heads * d];
        let parts = View::new(&parts, count, heads * floats, heads * floats);
        let mut scratch = vec![f32::NAN; merge_scratch(d)];
        for first in (0..heads).step_by(MERGED_HEADS) {
            let n = MERGED_HEADS.min(heads - first);
            let mut row = ViewMut::new(&mut out, 1, heads * d, heads * d);
            let (parts, mut row) = (parts.columns(first * floats, n * floats), row.columns(first * d, n * d));
            merge_attention_parts(isa, &parts, d, &mut row, &mut scratch);
        }
        out
    }

    fn some_heads<'a, E>(input: &AttentionInput<'a, E>, first: usize, n: usize) -> AttentionInput<'a, E> {
        let (d, group) = (input.head_dim, input.q.width() / input.keys.width());
        AttentionInput {
            q: input.q.columns(first * group * d, n * group * d),
            keys: input.keys.columns(first * d, n * d),
            values: input.values.columns(first * d, n * d),
            ..*input
        }
    }

    fn check<E: Stored>(narrow: fn(f32) -> E) {
        for isa in Isa::available() {
            for (d, group, kv_heads, position, infinite) in [
                (64, 1, 12, 4 * KEY_TILE - 1, None),
                (64, 3, 3, 4 * KEY_TILE - 6, None),
                (64, 1, 20, 2 * KEY_TILE + 2, None),
                (20, 2, 4, KEY_TILE, Some(KEY_TILE)),
                (128, 4, 2, 3 * KEY_TILE + 7, None),
                (6, 1, 5, KEY_TILE - 1, None),
                (64, 1, 2, 2 * KEY_TILE, Some(2 * KEY_TILE)),
            ] {
                // Rows after the position are not numbers, and rows have a gap.
                let (t, heads, stride) = (position + 70, kv_heads * group, kv_heads * d + 2);
                let kept = |seed, infinite: Option<usize>| {
                    let mut x = values(t * stride, seed);
                    x[(position + 1) * stride..].fill(f32::NAN);
                    if let Some(row) = infinite {
                        x[row * stride..][..kv_heads * d].fill(f32::NEG_INFINITY);
                    }
                    x.into_iter().map(narrow).collect::<Vec<E>>()
                };
                let q: Vec<f32> = values(heads * d, 1).into_iter().map(|x| x.abs() + 0.1).collect();
                let (k, v) = (kept(2, infinite), kept(3, None));
                let input = AttentionInput {
                    q: View::new(&q, 1, heads * d, heads * d),
                    positions: &[position as u32],
                    keys: View::new(&k, t, stride, kv_heads * d),
                    values: View::new(&v, t, stride, kv_heads * d),
                    head_dim: d,
                    scale: 0.3,
                };
                let mut out = vec![f32::NAN; heads * d];
                let mut scratch = vec![f32::NAN; attention_forward_scratch(1, group, d)];
                for head in 0..kv_heads {
                    let mut row = ViewMut::new(&mut out, 1, heads * d, heads * d);
                    let mut row = row.columns(head * group * d, group * d);
                    attention_forward_heads(isa, &some_heads(&input, head, 1), &mut row, None, &mut scratch);
                }
                assert!(out.iter().all(|x| x.is_finite()), "{isa:?}, {d} {group} {kv_heads}");
                let (count, most) = ((position + 1).div_ceil(KEY_TILE), parts_heads(group, d));
                let backwards: Vec<Range<usize>> = (0..count).rev().map(|tile| tile..tile + 1).collect();
                let halves = vec![0..count / 2, count / 2..count];
                for (heads_at_once, tiles) in [(most, halves.clone()), (1, backwards), (2, halves)] {
                    let tiles: Vec<Range<usize>> = tiles.into_iter().filter(|t| !t.is_empty()).collect();
                    let got = in_parts(isa, &input, heads_at_once.min(kv_heads), &tiles);
                    assert_eq!(got, out, "{isa:?}, {d} {group} {kv_heads}, {tiles:?}");
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
