//! The tiles of a block of query rows, one after the other: scores, softmax and sums of values.
#![allow(unsafe_code)]

use super::call::AttentionInput;
use super::direct::direct_scores;
use super::online_softmax::{State, scale_row};
use super::pairs::{narrow_row, sum_last_pairs, transpose_pairs, zip_rows};
use super::tile::{
    Ahead, BLOCK_ROWS, KEY_TILE, PAD, Product, SPAN, Start, block_rows, copy_row, padded, row_pointers, transpose_tile,
};
use crate::kernels::vector::stored::Stored;
use crate::kernels::vector::{Kernel, Simd};
use crate::kernels::view::ViewMut;

/// A call of [`attention_forward_heads`](super::attention_forward_heads), whose shapes fit and whose scratch is large enough.
pub struct Forward<'a, 'o, 'l, E> {
    pub input: &'a AttentionInput<'a, E>,
    pub out: &'a mut ViewMut<'o, f32>,
    pub log_sum_exp: Option<&'a mut ViewMut<'l, f32>>,
    pub scratch: &'a mut [f32],
    pub kv_heads: usize,
    pub group: usize,
    pub keys_needed: usize,
}

/// Rows of one tile, keys and values, of all heads of the call.
struct TileRows<E> {
    first: usize,
    count: usize,
    keys: [*const E; KEY_TILE],
    values: [*const E; KEY_TILE],
}

/// One tile of one key-value head, ready for the products.
struct Tile<'a, E> {
    /// Absolute position of its first key.
    first: usize,
    /// Whether scores are computed from the key rows instead of the transposed tile.
    direct: bool,
    keys: [*const E; KEY_TILE],
    count: usize,
    /// Value rows as f32 or in pairs, padded to whole vectors.
    values: *const f32,
    value_stride: usize,
    ahead: Ahead<'a, E>,
}

impl<E: Stored> Kernel for Forward<'_, '_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let vectors = self.input.positions.len() * self.group;
        let state = self.cut::<S>();
        // SAFETY: `attention_forward_heads` checked every shape; `cut` keeps the parts inside the scratch.
        unsafe {
            self.load_queries(s, state);
            let mut first = 0;
            let mut rows = self.tile_rows(0);
            while first < self.keys_needed {
                let next = self.tile_rows(first + KEY_TILE);
                for head in 0..self.kv_heads {
                    let tile = self.load_tile(s, state, head, &rows, &next);
                    let head_state = state.after(head * vectors, self.input.head_dim);
                    let mut v = 0;
                    while v < vectors {
                        let n = SPAN.min(vectors - v);
                        self.span(s, head_state, v, n, &tile);
                        v += n;
                    }
                }
                first += KEY_TILE;
                rows = next;
            }
            self.finish(s, state);
        }
    }
}

impl<E: Stored> Forward<'_, '_, '_, E> {
    /// Whether products are dot products of bf16 pairs; else keys and values are widened.
    #[inline(always)]
    const fn pairs<S: Simd>() -> bool {
        E::IS_BF16 && S::BF16_DOTS
    }

    #[inline(always)]
    fn cut<S: Simd>(&mut self) -> State {
        let d = self.input.head_dim;
        let n = self.input.positions.len() * self.group * self.kv_heads;
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
            o: take(n * padded(d)),
            sums: take(n * PAD),
            q: take(n * d),
            q_row: if Self::pairs::<S>() { d.div_ceil(2) } else { d },
            maxima: take(n),
        }
    }

    /// Scales the queries and clears the running state.
    #[inline(always)]
    unsafe fn load_queries<S: Simd>(&self, s: S, state: State) {
        let (d, rows) = (self.input.head_dim, self.input.positions.len());
        let scale = self.input.scale * std::f32::consts::LOG2_E;
        let n = rows * self.group * self.kv_heads;
        // SAFETY: the state holds n vectors; a query row holds kv_heads · group · d elements.
        unsafe {
            for row in 0..rows {
                for head in 0..self.kv_heads {
                    for i in 0..self.group {
                        let src = self.input.q.row_ptr(row).add((head * self.group + i) * d);
                        let dst = state.q.add(((head * rows + row) * self.group + i) * state.q_row);
                        if Self::pairs::<S>() {
                            narrow_row(s, src, d, scale, dst);
                        } else {
                            scale_row(s, src, d, scale, dst);
                        }
                    }
                }
            }
            std::slice::from_raw_parts_mut(state.o, n * padded(d)).fill(0.0);
            std::slice::from_raw_parts_mut(state.sums, n * PAD).fill(0.0);
            std::slice::from_raw_parts_mut(state.maxima, n).fill(f32::NEG_INFINITY);
        }
    }

    /// The rows from position `first` on; none beyond the last key.
    #[inline(always)]
    fn tile_rows(&self, first: usize) -> TileRows<E> {
        let count = KEY_TILE.min(self.keys_needed.saturating_sub(first));
        let keys = row_pointers(&self.input.keys, first, count);
        TileRows { first, count, keys, values: row_pointers(&self.input.values, first, count) }
    }

    /// One head's part of a tile; for more than one block of vectors its keys are transposed and its values brought together.
    #[inline(always)]
    unsafe fn load_tile<'a, S: Simd>(
        &self,
        s: S,
        state: State,
        head: usize,
        rows: &TileRows<E>,
        next: &'a TileRows<E>,
    ) -> Tile<'a, E> {
        let (d, column) = (self.input.head_dim, head * self.input.head_dim);
        let whole_words = !E::IS_BF16 || d.is_multiple_of(2);
        let direct = self.input.positions.len() * self.group <= BLOCK_ROWS && whole_words;
        let direct_values = direct && E::IS_F32 && self.input.values.is_contiguous() && d.is_multiple_of(PAD);
        let keys = rows.keys.map(|p| p.wrapping_add(column));
        let mut tile = Tile {
            first: rows.first,
            direct,
            keys,
            count: rows.count,
            values: rows.values[0].wrapping_add(column).cast(),
            value_stride: self.input.values.stride(),
            ahead: Ahead::NONE,
        };
        // SAFETY: the pointers are of rows that hold d elements from `column` on, and the state holds a tile.
        unsafe {
            if direct {
                // Each head asks for its share of the next rows, which are of all heads: memory is fastest in order.
                let share = next.count * head / self.kv_heads..next.count * (head + 1) / self.kv_heads;
                let width = self.input.keys.width();
                tile.ahead = Ahead { rows: [&next.keys[share.clone()], &next.values[share]], column: 0, width };
            } else {
                let next_rows = [&next.keys[..next.count], &next.values[..next.count]];
                tile.ahead = Ahead { rows: next_rows, column, width: d };
                if Self::pairs::<S>() {
                    transpose_pairs(s, &keys.map(<*const E>::cast)[..rows.count], d, state.keys);
                } else {
                    transpose_tile(s, &keys[..rows.count], d, state.keys);
                }
            }
            if Self::pairs::<S>() {
                let values = rows.values.map(|p| p.wrapping_add(column).cast());
                zip_rows(s, &values[..rows.count], d, state.values);
                (tile.values, tile.value_stride) = (state.values.cast_const(), padded(d));
            } else if !direct_values {
                for (i, &row) in rows.values[..rows.count].iter().enumerate() {
                    copy_row(s, row.add(column), d, 1.0, state.values.add(i * padded(d)));
                }
                (tile.values, tile.value_stride) = (state.values.cast_const(), padded(d));
            }
        }
        tile
    }

    /// One tile for `n` ≤ SPAN vectors from vector `v` of a head on.
    #[inline(always)]
    unsafe fn span<S: Simd>(&self, s: S, state: State, v: usize, n: usize, tile: &Tile<E>) {
        let d = self.input.head_dim;
        let mut limits = [0; SPAN];
        for (i, limit) in limits[..n].iter_mut().enumerate() {
            let position = self.input.positions[(v + i) / self.group] as usize;
            *limit = (position + 1).saturating_sub(tile.first).min(KEY_TILE);
        }
        let limits = &limits[..n];
        if most(limits) == 0 {
            return;
        }
        let vectors = self.input.positions.len() * self.group;
        let state = state.after(v, d);
        // SAFETY: the state holds the vectors and the tile; products end at the limits, which are within the tile.
        unsafe {
            if tile.direct {
                let most = most(limits);
                let count = most.min(tile.count);
                if E::IS_BF16 {
                    let pairs = tile.keys.map(<*const E>::cast::<f32>);
                    direct_scores::<S, f32, E, true>(s, &pairs[..count], &tile.ahead, d / 2, n, state);
                } else {
                    direct_scores::<S, E, E, false>(s, &tile.keys[..count], &tile.ahead, d, n, state);
                }
            } else {
                tile.ahead.fetch(s, v / SPAN, vectors.div_ceil(SPAN));
                let (a, b, c) = (state.q, state.keys.cast_const(), state.scores);
                let scores = Product { a, a_row: state.q_row, a_k: 1, b, b_k: KEY_TILE, c, c_row: KEY_TILE };
                for (block, limits) in limits.chunks(BLOCK_ROWS).enumerate() {
                    let width = most(limits).div_ceil(S::LANES);
                    let scores = scores.after(block * BLOCK_ROWS);
                    if Self::pairs::<S>() {
                        scores.pair_rows(s, limits.len(), width, (0, state.q_row), Start::Zero);
                    } else {
                        scores.rows(s, limits.len(), width, (0, d), Start::Zero);
                    }
                }
            }
            let mut factors = [1.0; SPAN];
            if Self::pairs::<S>() {
                state.softmax::<S, true>(s, limits, &mut factors);
            } else {
                state.softmax::<S, false>(s, limits, &mut factors);
            }
            let (a, b, c) = (state.scores.cast_const(), tile.values, state.o);
            let sums = Product { a, a_row: KEY_TILE, a_k: 1, b, b_k: tile.value_stride, c, c_row: padded(d) };
            let width = padded(d) / S::LANES;
            let mut next = 0;
            while next < limits.len() {
                let first = next;
                let rows = block_rows::<S>(width, limits.len() - first);
                // Rows whose limits differ are better off in small blocks.
                let equal = limits[first..first + rows].iter().all(|&l| l == limits[first]);
                next += if equal { rows } else { rows.min(BLOCK_ROWS) };
                let limits = &limits[first..next];
                let sums = sums.after(first);
                let least = limits.iter().copied().fold(KEY_TILE, usize::min);
                let start = Start::Scaled(factors[first..].as_ptr());
                if Self::pairs::<S>() {
                    sums.pair_rows(s, limits.len(), width, (0, least / 2), start);
                    for (i, &limit) in limits.iter().enumerate() {
                        sum_last_pairs(s, state.last, sums.after(i), width, (least / 2, limit));
                    }
                    continue;
                }
                sums.rows(s, limits.len(), width, (0, least), start);
                for (i, &limit) in limits.iter().enumerate() {
                    if limit > least {
                        sums.after(i).rows(s, 1, width, (least, limit), Start::Keep);
                    }
                }
            }
        }
    }

    /// Divides by the sums and writes the results.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&mut self, s: S, state: State) {
        let (d, rows) = (self.input.head_dim, self.input.positions.len());
        for row in 0..rows {
            for column in 0..self.kv_heads * self.group {
                let v = ((column / self.group) * rows + row) * self.group + column % self.group;
                // SAFETY: the state holds vector v; the output row holds one head of d elements per column.
                unsafe {
                    let vector = state.after(v, d);
                    let log_sum_exp = vector.write(s, d, self.out.row_ptr(row).add(column * d));
                    if let Some(saved) = &mut self.log_sum_exp {
                        saved.row_mut(row)[column] = log_sum_exp;
                    }
                }
            }
        }
    }
}

/// The largest limit.
#[inline(always)]
fn most(limits: &[usize]) -> usize {
    limits.iter().copied().fold(0, usize::max)
}
