//! The tiles of a block of query rows, one after the other: scores, softmax and sums of values.
#![allow(unsafe_code)]

use super::ahead::Ahead;
use super::call::{AttentionInput, attention_forward_scratch};
use super::chains::chained_rows;
use super::load::{TileRows, copy_row, transpose_tile};
use super::online_softmax::State;
use super::pairs::{sum_last_pairs, transpose_pairs, zip_rows};
use super::running::{Part, Running, part_floats, running_floats};
use super::tile::{BLOCK_ROWS, KEY_TILE, Product, SPAN, Start, block_rows, least, most, padded};
use crate::kernels::isa::Isa;
use crate::kernels::vector::stored::Stored;
use crate::kernels::vector::{Kernel, Simd, dispatch, dispatch_pairs};
use crate::kernels::view::{View, ViewMut};
use std::ops::Range;

/// A call of [`attention_forward_heads`](super::attention_forward_heads) or [`attention_parts`](super::attention_parts), whose shapes fit and whose
/// scratch is large enough.
pub struct Forward<'a, 'o, 'l, E> {
    pub input: &'a AttentionInput<'a, E>,
    pub scratch: &'a mut [f32],
    pub kv_heads: usize,
    pub group: usize,
    pub keys_needed: usize,
    /// Tiles of keys.
    pub tiles: Range<usize>,
    pub around: Around<View<'a, E>>,
    pub output: Output<'a, 'o, 'l>,
}

/// Where a call stands among those of its worker: it asks for memory accordingly.
pub struct Around<K> {
    /// Whether no call before has asked for the keys with which this one begins.
    pub begins: bool,
    /// Keys that the worker's next call probably reads first.
    pub then: Option<K>,
}

/// What a call writes.
pub enum Output<'a, 'o, 'l> {
    /// The results of rows, and the log of the sum of e^score of each head where it is wanted.
    Rows(&'a mut ViewMut<'o, f32>, Option<&'a mut ViewMut<'l, f32>>),
    /// What each tile gives, a row for each, of the only query row of a direct call.
    Parts(&'a mut ViewMut<'o, f32>),
}

impl<E: Stored> Kernel for Forward<'_, '_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (state, direct) = (self.cut::<S>(), self.is_direct());
        // SAFETY: who made the call checked every shape; `cut` keeps its pieces inside the scratch.
        unsafe {
            let mut rows = TileRows::of(self.input, self.tiles.start * KEY_TILE, self.keys_needed);
            if direct && self.around.begins {
                self.fetch_first(s, &rows);
            }
            self.load_queries(s, state);
            for (i, tile) in self.tiles.clone().enumerate() {
                let next = TileRows::of(self.input, (tile + 1) * KEY_TILE, self.keys_needed);
                if let Output::Parts(parts) = &mut self.output {
                    debug_assert!(direct, "parts of a call that is not direct");
                    let part = Part { at: parts.row_ptr(i), ..state.part };
                    self.direct_tile(s, State { part, ..state }, &rows);
                } else if direct {
                    self.direct_tile(s, state, &rows);
                    state.running.merge(s, state.part, self.vectors() * self.kv_heads);
                } else {
                    self.transposed_tile(s, state, &rows, &next);
                }
                rows = next;
            }
            self.finish(s, state);
        }
    }
}

impl<E: Stored> Forward<'_, '_, '_, E> {
    /// Runs the call.
    ///
    /// # Panics
    /// When the scratch is too small.
    pub fn dispatch(self, isa: Isa) {
        let heads = self.kv_heads * self.group;
        let needed = attention_forward_scratch(self.input.q.rows(), heads, self.input.head_dim);
        assert!(self.scratch.len() >= needed, "attention scratch of {} floats, {needed} needed", self.scratch.len());
        if E::IS_BF16 { dispatch_pairs(isa, self) } else { dispatch(isa, self) }
    }

    /// Query vectors of one key-value head.
    #[inline(always)]
    pub(super) fn vectors(&self) -> usize {
        self.input.positions.len() * self.group
    }

    /// Whether products are dot products of bf16 pairs; else keys and values are widened.
    #[inline(always)]
    pub(super) const fn pairs<S: Simd>() -> bool {
        E::IS_BF16 && S::BF16_DOTS
    }

    #[inline(always)]
    fn cut<S: Simd>(&mut self) -> State {
        let d = self.input.head_dim;
        let n = self.vectors() * self.kv_heads;
        let mut rest = self.scratch.as_mut_ptr();
        // The total is `attention_forward_scratch`, which the scratch holds.
        let mut take = |len: usize| {
            let part = rest;
            rest = rest.wrapping_add(len);
            part
        };
        State {
            keys: take(d * KEY_TILE),
            values: take(KEY_TILE * padded(d)),
            scores: take(SPAN * KEY_TILE),
            last: take(padded(d)),
            part: Part { at: take(SPAN * part_floats(d)), width: padded(d) },
            q: take(n * d),
            q_row: if Self::pairs::<S>() { d.div_ceil(2) } else { d },
            running: Running::new(take(n * running_floats(d)), n, d),
        }
    }

    /// One tile, head by head, its keys transposed for the products.
    #[inline(always)]
    unsafe fn transposed_tile<S: Simd>(&self, s: S, state: State, rows: &TileRows<E>, next: &TileRows<E>) {
        let vectors = self.vectors();
        let d = self.input.head_dim;
        for head in 0..self.kv_heads {
            let column = head * d;
            let next_rows = [&next.keys[..next.count], &next.values[..next.count]];
            let ahead = Ahead { rows: next_rows, column, width: d };
            let keys = rows.keys.map(|p| p.wrapping_add(column));
            // SAFETY: the pointers are of rows that hold d elements from `column` on, and the state holds a tile and the head's vectors.
            unsafe {
                if Self::pairs::<S>() {
                    transpose_pairs(s, &keys.map(<*const E>::cast)[..rows.count], d, state.keys);
                } else {
                    transpose_tile::<_, _, KEY_TILE>(s, &keys[..rows.count], d, state.keys);
                }
                self.load_values(s, state, head, rows);
                let mut v = 0;
                while v < vectors {
                    let n = SPAN.min(vectors - v);
                    self.span(s, state.after(head * vectors), v..v + n, rows.first, &ahead);
                    v += n;
                }
            }
        }
    }

    /// Brings the values of one head and tile together: as f32 or in pairs, padded to whole vectors.
    #[inline(always)]
    pub(super) unsafe fn load_values<S: Simd>(&self, s: S, state: State, head: usize, rows: &TileRows<E>) {
        let d = self.input.head_dim;
        let values = rows.values.map(|p| p.wrapping_add(head * d));
        // SAFETY: the rows hold d elements of each head, and the state holds a tile.
        unsafe {
            if Self::pairs::<S>() {
                zip_rows(s, &values.map(<*const E>::cast)[..rows.count], d, state.values);
            } else {
                for (i, &row) in values[..rows.count].iter().enumerate() {
                    copy_row(s, row, d, 1.0, state.values.add(i * padded(d)));
                }
            }
        }
    }

    /// Keys in a tile, counted from its first, that each of some vectors of a head from vector `v` on sees.
    #[inline(always)]
    pub(super) fn limits(&self, first: usize, v: usize, limits: &mut [usize]) {
        let (mut row, mut head) = (v / self.group, v % self.group);
        for limit in limits {
            let position = self.input.positions[row] as usize;
            *limit = (position + 1).saturating_sub(first).min(KEY_TILE);
            head += 1;
            if head == self.group {
                (row, head) = (row + 1, 0);
            }
        }
    }

    /// The tile from key `first` on for up to SPAN vectors `span` of a head.
    #[inline(always)]
    unsafe fn span<S: Simd>(&self, s: S, state: State, span: Range<usize>, first: usize, ahead: &Ahead<E>) {
        let d = self.input.head_dim;
        let mut limits = [0; SPAN];
        let limits = &mut limits[..span.len()];
        self.limits(first, span.start, limits);
        let limits = &*limits;
        if most(limits) == 0 {
            return;
        }
        let vectors = self.vectors();
        let state = state.after(span.start);
        // SAFETY: the state holds the vectors and the tile; products end at the limits, which are within the tile. `softmax` writes the maxima and
        // sums of the part; its factors outlive the products, and running results lie apart from scores and values.
        unsafe {
            ahead.fetch(s, span.start / SPAN, vectors.div_ceil(SPAN));
            let (a, b, c) = (state.q, state.keys.cast_const(), state.scores);
            let scores = Product { a, a_row: state.q_row, a_k: 1, b, b_k: KEY_TILE, c, c_row: KEY_TILE };
            for (block, limits) in limits.chunks(BLOCK_ROWS).enumerate() {
                let width = most(limits).div_ceil(S::LANES);
                let scores = scores.after(block * BLOCK_ROWS);
                if Self::pairs::<S>() {
                    scores.pair_rows(s, limits.len(), width, (0, state.q_row), Start::Zero);
                } else {
                    chained_rows(s, scores, limits.len(), width, d);
                }
            }
            self.softmax(s, state, limits);
            let (running, part) = (state.running, state.part);
            let factors = running.take_maxima(s, part, limits.len());
            running.merge_sums(s, part, &factors, limits.len());
            let (a, b, c) = (state.scores.cast_const(), state.values.cast_const(), part.at);
            let sums = Product { a, a_row: KEY_TILE, a_k: 1, b, b_k: padded(d), c, c_row: part.row() };
            let width = padded(d) / S::LANES;
            let mut next = 0;
            while next < limits.len() {
                let first = next;
                let rows = block_rows::<S>(width, limits.len() - first);
                // Rows whose limits differ are better off in small blocks.
                let equal = limits[first..first + rows].iter().all(|&l| l == limits[first]);
                next += if equal { rows } else { rows.min(BLOCK_ROWS) };
                let (block, limits) = (first..next, &limits[first..next]);
                let whole = equal && limits[0] == KEY_TILE;
                let merging = if whole { running.merging(sums, part, &factors, block.clone()) } else { None };
                if let Some((merging, start)) = merging {
                    self.sum_values(s, state, merging, limits, start);
                } else {
                    self.sum_values(s, state, sums.after(first), limits, Start::Zero);
                    running.merge_results(s, part, &factors, block);
                }
            }
        }
    }

    /// [`State::softmax`] as the products over values want it.
    #[inline(always)]
    pub(super) unsafe fn softmax<S: Simd>(&self, s: S, state: State, limits: &[usize]) {
        // SAFETY: the caller's.
        unsafe {
            if Self::pairs::<S>() {
                state.softmax::<S, true>(s, limits);
            } else {
                state.softmax::<S, false>(s, limits);
            }
        }
    }

    /// The product `sums` of a block of rows over the values that were brought together, each row up to its limit. To be merged, all rows have to
    /// see the whole tile.
    #[inline(always)]
    pub(super) unsafe fn sum_values<S: Simd>(&self, s: S, state: State, sums: Product, limits: &[usize], start: Start) {
        let width = padded(self.input.head_dim) / S::LANES;
        let least = least(limits);
        debug_assert!(least == KEY_TILE || !matches!(start, Start::Merge { .. }), "what is added after merging");
        // SAFETY: the caller's; products end at the limits, which are within the tile.
        unsafe {
            if Self::pairs::<S>() {
                sums.pair_rows(s, limits.len(), width, (0, least / 2), start);
                for (i, &limit) in limits.iter().enumerate() {
                    sum_last_pairs(s, state.last, sums.after(i), width, (least / 2, limit));
                }
            } else {
                sums.rows(s, limits.len(), width, (0, least), start);
                sums.last_rows(s, width, least, limits);
            }
        }
    }
}
