//! Gradients of attention over one slot, in tiles, with the probabilities recomputed from the saved log-sum-exp.
//!
//! With P = e^(scale q·k − lse), dP = d_out·v and dS = P (dP − Σ d_out·out): `d_v = Pᵀ d_out`, `d_q = scale dS k`,
//! `d_k = scale dSᵀ q`. Sums over keys and over query rows run in ascending order, those over the heads of a group from its
//! first head on, so the bits are the same however the work is split.
#![allow(unsafe_code)]

use super::ahead::Ahead;
use super::backward_rows::store_row;
use super::backward_scratch::{Parts, SPAN_BLOCKS, TILE};
use super::load::row_pointers;
use super::tile::{Product, Start, block_rows, padded};
use crate::kernels::isa::Isa;
use crate::kernels::vector::math::exp2_falling;
use crate::kernels::vector::{Kernel, Simd, dispatch};
use crate::kernels::view::{View, ViewMut};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// What the forward pass of one key-value head saw and saved, and the gradient of its result. Row i is position i.
#[derive(Clone, Copy)]
pub struct AttentionSaved<'a> {
    /// Rows of `group · D`.
    pub q: View<'a, f32>,
    /// Rows of D.
    pub keys: View<'a, f32>,
    /// Rows of D.
    pub values: View<'a, f32>,
    /// Result of the forward pass: rows of `group · D`.
    pub out: View<'a, f32>,
    /// Saved by the forward pass: rows of `group`.
    pub log_sum_exp: View<'a, f32>,
    /// Gradient of `out`.
    pub d_out: View<'a, f32>,
    /// Factor on the scores.
    pub scale: f32,
}

/// Which part of the gradients a call computes. `Queries` over all blocks and `Keys` over all tiles give the bits of `All`, at
/// 7/5 of its work: for more workers than key-value heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionPart {
    /// Everything.
    All,
    /// `d_q` of the block of [`GRADIENT_TILE`](super::GRADIENT_TILE) rows with this number.
    Queries(usize),
    /// `d_keys` and `d_values` of the tile of [`GRADIENT_TILE`](super::GRADIENT_TILE) rows with this number.
    Keys(usize),
}

/// Overwrites the gradients of queries, keys and values (those of `part`).
///
/// `scratch`: [`attention_backward_scratch`](super::attention_backward_scratch) floats, of any content.
///
/// # Panics
/// When a shape does not fit.
pub fn attention_backward(
    isa: Isa,
    saved: &AttentionSaved,
    part: AttentionPart,
    d_q: &mut ViewMut<f32>,
    d_keys: &mut ViewMut<f32>,
    d_values: &mut ViewMut<f32>,
    scratch: &mut [f32],
) {
    let (rows, d, width) = (saved.q.rows(), saved.keys.width(), saved.q.width());
    assert!(d > 0 && width.is_multiple_of(d), "attention rows of {width} for heads of {d}");
    let same = |view: &View<f32>, width| view.rows() == rows && view.width() == width;
    assert!(
        same(&saved.keys, d)
            && same(&saved.values, d)
            && same(&saved.out, width)
            && same(&saved.d_out, width)
            && same(&saved.log_sum_exp, width / d),
        "attention gradient operands of different shapes"
    );
    let same = |view: &ViewMut<f32>, width| view.rows() == rows && view.width() == width;
    assert!(
        (matches!(part, AttentionPart::Keys(_)) || same(d_q, width))
            && (matches!(part, AttentionPart::Queries(_)) || same(d_keys, d) && same(d_values, d)),
        "attention gradients of different shapes"
    );
    dispatch(isa, Backward { saved, part, d_q, d_keys, d_values, scratch, d, group: width / d });
}

/// A call of [`attention_backward`], whose shapes fit.
pub struct Backward<'a, 'q, 'k, 'v> {
    pub saved: &'a AttentionSaved<'a>,
    part: AttentionPart,
    pub d_q: &'a mut ViewMut<'q, f32>,
    pub d_keys: &'a mut ViewMut<'k, f32>,
    pub d_values: &'a mut ViewMut<'v, f32>,
    scratch: &'a mut [f32],
    /// Elements of a head.
    pub d: usize,
    group: usize,
}

impl Kernel for Backward<'_, '_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let all = self.saved.q.rows().div_ceil(TILE);
        let parts = Parts::new(self.scratch, self.d);
        let spans = |from: usize| (from..all).step_by(SPAN_BLOCKS).map(|first| first..all.min(first + SPAN_BLOCKS));
        for head in 0..self.group {
            // SAFETY: `attention_backward` checked every shape; the parts are inside the scratch.
            unsafe {
                match self.part {
                    AttentionPart::All => {
                        for blocks in spans(0) {
                            self.span::<S, true, true>(s, parts, head, blocks.clone(), 0..blocks.end);
                        }
                    }
                    AttentionPart::Keys(tile) => {
                        for blocks in spans(tile) {
                            self.span::<S, false, true>(s, parts, head, blocks, tile..tile + 1);
                        }
                    }
                    AttentionPart::Queries(block) => {
                        self.span::<S, true, false>(s, parts, head, block..block + 1, 0..block + 1);
                    }
                }
            }
        }
    }
}

impl Backward<'_, '_, '_, '_> {
    /// What the query `blocks` of a head, at most [`SPAN_BLOCKS`], and the key `tiles` contribute to each other's gradients:
    /// with `QUERIES` all of `d_q`, with `KEYS` one more term of `d_keys` and `d_values`.
    #[inline(always)]
    unsafe fn span<S: Simd, const QUERIES: bool, const KEYS: bool>(
        &mut self,
        s: S,
        parts: Parts,
        head: usize,
        blocks: Range<usize>,
        tiles: Range<usize>,
    ) {
        let stride = padded(self.d);
        let of = |block: usize| parts.of_block(block - blocks.start, stride);
        // SAFETY: the parts hold a tile each, those of queries SPAN_BLOCKS; rows of the views hold d elements.
        unsafe {
            for block in blocks.clone() {
                self.load_queries(s, of(block), head, block);
                if QUERIES {
                    std::slice::from_raw_parts_mut(of(block).d_q, TILE * stride).fill(0.0);
                }
            }
            for tile in tiles.clone() {
                self.load_keys(s, parts, tile);
                if KEYS {
                    // The block on the diagonal of the first head is the first that reaches a tile.
                    self.load_key_gradients(s, parts, tile, head == 0 && blocks.start <= tile);
                }
                let (first, count) = if tile + 1 < tiles.end { self.extent(tile + 1) } else { (0, 0) };
                let keys = row_pointers(&self.saved.keys, first, count);
                let values = row_pointers(&self.saved.values, first, count);
                let ahead = Ahead { rows: [&keys[..count], &values[..count]], column: 0, width: self.d };
                let start = blocks.start.max(tile);
                for block in start..blocks.end {
                    let turn = (block - start, blocks.end - start);
                    self.pair::<S, QUERIES, KEYS>(s, of(block), block, tile, &ahead, turn);
                }
                if KEYS {
                    let (first, count) = self.extent(tile);
                    for i in 0..count {
                        store_row(s, parts.d_keys.add(i * stride), self.d, self.d_keys.row_ptr(first + i));
                        store_row(s, parts.d_values.add(i * stride), self.d, self.d_values.row_ptr(first + i));
                    }
                }
            }
            if QUERIES {
                for block in blocks.clone() {
                    self.store_d_q(s, of(block), head, block);
                }
            }
        }
    }

    /// Adds what a query block and a key tile contribute to each other's gradients, and asks for its part of the rows `ahead`:
    /// the pair is number `turn.0` of `turn.1` that share them.
    #[inline(always)]
    unsafe fn pair<S: Simd, const QUERIES: bool, const KEYS: bool>(
        &self,
        s: S,
        parts: Parts,
        block: usize,
        tile: usize,
        ahead: &Ahead<f32>,
        turn: (usize, usize),
    ) {
        let (rows, keys) = (self.extent(block).1, self.extent(tile).1);
        let diagonal = block == tile;
        let (d, stride) = (self.d, padded(self.d));
        let width = stride / S::LANES;
        let forward = |a, b, c| Product { a, a_row: stride, a_k: 1, b, b_k: TILE, c, c_row: TILE };
        let scores = forward(parts.q.cast_const(), parts.keys_transposed.cast_const(), parts.probabilities);
        let d_scores = forward(parts.d_out.cast_const(), parts.values_transposed.cast_const(), parts.d_scores);
        let d_q =
            Product { a: parts.d_scores, a_row: TILE, a_k: 1, b: parts.keys, b_k: stride, c: parts.d_q, c_row: stride };
        // SAFETY: every part holds a tile, of which `rows` and `keys` rows are set; products stay within them.
        unsafe {
            // One product after the other, so that the tile that all its rows read stays in the first-level cache.
            let limit = |row: usize| if diagonal { keys.min(row + ROWS) } else { keys };
            for row in (0..rows).step_by(ROWS) {
                let blocks = rows.div_ceil(ROWS);
                ahead.fetch(s, turn.0 * blocks + row / ROWS, turn.1 * blocks);
                scores.after(row).rows(s, ROWS.min(rows - row), limit(row).div_ceil(S::LANES), (0, d), Start::Zero);
            }
            for row in (0..rows).step_by(ROWS) {
                d_scores.after(row).rows(s, ROWS.min(rows - row), limit(row).div_ceil(S::LANES), (0, d), Start::Zero);
            }
            for row in 0..rows {
                differentiate_row(s, parts, row, if diagonal { row + 1 } else { keys });
            }
            // On the diagonal blocks are small, so that they end with the keys that their rows see.
            let wide = if diagonal { usize::MAX } else { width };
            if QUERIES {
                let mut row = 0;
                while row < rows {
                    let block = block_rows::<S>(wide, rows - row);
                    d_q.after(row).rows(s, block, width, (0, limit(row)), Start::Keep);
                    row += block;
                }
            }
            if KEYS {
                let transposed = |a, b, c| Product { a, a_row: 1, a_k: TILE, b, b_k: stride, c, c_row: stride };
                let d_values = transposed(parts.probabilities.cast_const(), parts.d_out.cast_const(), parts.d_values);
                let d_keys = transposed(parts.d_scores.cast_const(), parts.q.cast_const(), parts.d_keys);
                for product in [d_values, d_keys] {
                    let mut key = 0;
                    while key < keys {
                        // On the diagonal no row before the key has seen it.
                        let (block, from) = (block_rows::<S>(wide, keys - key), if diagonal { key } else { 0 });
                        product.after(key).rows(s, block, width, (from, rows), Start::Keep);
                        key += block;
                    }
                }
            }
        }
    }
}

/// Rows of a product block.
const ROWS: usize = super::tile::BLOCK_ROWS;

/// Turns row `i` of scores and dP into probabilities and dS; both are zero from `limit` on.
#[inline(always)]
unsafe fn differentiate_row<S: Simd>(s: S, parts: Parts, i: usize, limit: usize) {
    let zero = s.splat(0.0);
    // SAFETY: the parts hold TILE rows of TILE, a multiple of LANES.
    unsafe {
        let (p, ds) = (parts.probabilities.add(i * TILE), parts.d_scores.add(i * TILE));
        let (less, delta) = (s.splat(-LOG2_E * *parts.log_sum_exp.add(i)), s.splat(*parts.delta.add(i)));
        let mut at = 0;
        while at < limit {
            let power = s.fma(s.load(p.add(at)), s.splat(LOG2_E), less);
            let mut probability = exp2_falling::<S, false>(s, power);
            let mut gradient = s.mul(probability, s.sub(s.load(ds.add(at)), delta));
            if limit - at < S::LANES {
                probability = s.keep_first(probability, limit - at, zero);
                gradient = s.keep_first(gradient, limit - at, zero);
            }
            s.store(p.add(at), probability);
            s.store(ds.add(at), gradient);
            at += S::LANES;
        }
        while at < TILE {
            s.store(p.add(at), zero);
            s.store(ds.add(at), zero);
            at += S::LANES;
        }
    }
}
