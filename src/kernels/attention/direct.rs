//! A tile of keys and values for so few query vectors that reading it takes the time: all heads of the call side by side, a few rows at a time, so
//! that memory is read in order and what follows is in a cache when its turn comes.
#![allow(unsafe_code)]

use super::ahead::{RowList, Stream};
use super::chains::{CHAINS, direct_chains};
use super::direct_pairs::direct_pairs;
use super::forward::Forward;
use super::load::{TileRows, row_pointers};
use super::online_softmax::State;
use super::pairs::{ZIPPED_VECTORS, sum_zipped};
use super::tile::{BLOCK_ROWS, KEY_TILE, PAD, Product, SPAN, Start, least, most, padded};
use crate::kernels::vector::Simd;
use crate::kernels::vector::stored::Stored;
use crate::kernels::view::View;

/// Rows of values that are read of one head before those of the next: few, as what comes is asked for row by row and the CPU follows the rows on
/// its own.
const STEP: usize = 4;
/// The same of values in bf16 pairs, whose sums cost more to take up again.
const PAIR_STEP: usize = 16;
/// Bytes between what is read and what is asked for, in rows of keys or of values.
const BYTES_AHEAD: usize = 24 << 10;
/// Fewest rows of them: what is read of one head before the next.
const FEWEST_ROWS_AHEAD: usize = 16;
const _: () = assert!(STEP <= FEWEST_ROWS_AHEAD && PAIR_STEP <= FEWEST_ROWS_AHEAD && CHAINS <= FEWEST_ROWS_AHEAD);

impl<E: Stored> Forward<'_, '_, '_, E> {
    /// Whether keys and values are read where they are.
    #[inline(always)]
    pub(super) fn is_direct(&self) -> bool {
        let vectors = self.vectors();
        let whole_words = !E::IS_BF16 || self.input.head_dim.is_multiple_of(2);
        vectors <= BLOCK_ROWS && vectors * self.kv_heads <= SPAN && whole_words
    }

    /// What one tile gives the vectors of all heads, at most SPAN.
    ///
    /// # Safety
    /// The call is direct; the rows are the call's, and the state is of its vectors.
    #[inline(always)]
    pub(super) unsafe fn direct_tile<S: Simd>(&self, s: S, state: State, rows: &TileRows<E>) {
        let vectors = self.vectors();
        let mut limits = [0; SPAN];
        for head in 0..self.kv_heads {
            self.limits(rows.first, 0, &mut limits[head * vectors..][..vectors]);
        }
        let limits = &limits[..self.kv_heads * vectors];
        let count = most(limits).min(rows.count);
        debug_assert!(count > 0, "a tile that no vector sees");
        let (width, ahead) = (self.input.keys.width(), self.rows_ahead());
        let next;
        let mut then = RowList { rows: &[], width };
        if let Some(keys) = self.keys_after(rows) {
            // As many bytes as so many rows of this call have.
            let count = (ahead * width / keys.width()).min(keys.rows()).min(KEY_TILE);
            next = row_pointers(&keys, 0, count);
            then = RowList { rows: &next[..count], width: keys.width() };
        }
        let mut stream = Stream::new([
            RowList { rows: &rows.keys[ahead.min(rows.count)..rows.count], width },
            RowList { rows: &rows.values[..rows.count], width },
            then,
        ]);
        // SAFETY: the caller's; keys and values end at the limits, which are within the tile.
        unsafe {
            self.direct_keys(s, state, &rows.keys[..count], &mut stream);
            self.softmax(s, state, limits);
            self.direct_values(s, state, rows, &limits[..vectors], &mut stream);
        }
    }

    /// Rows between what is read and what is asked for.
    #[inline(always)]
    fn rows_ahead(&self) -> usize {
        (BYTES_AHEAD / (self.input.keys.width() * size_of::<E>())).clamp(FEWEST_ROWS_AHEAD, KEY_TILE)
    }

    /// Asks for the rows with which the call begins, all at once: there is nothing yet that they could hold up.
    #[inline(always)]
    pub(super) fn fetch_first<S: Simd>(&self, s: S, rows: &TileRows<E>) {
        let rows = &rows.keys[..self.rows_ahead().min(rows.count)];
        RowList { rows, width: self.input.keys.width() }.fetch(s);
    }

    /// The keys that are read after those of a tile: of the next tile or of the next call.
    #[inline(always)]
    fn keys_after(&self, rows: &TileRows<E>) -> Option<View<'_, E>> {
        let next = rows.first + KEY_TILE;
        if next == self.tiles.end * KEY_TILE {
            return self.around.then;
        }
        Some(self.input.keys.slice_rows(next..self.keys_needed))
    }

    /// Scores of all vectors against the rows `keys`.
    #[inline(always)]
    unsafe fn direct_keys<S: Simd>(&self, s: S, state: State, keys: &[*const E], stream: &mut Stream<E>) {
        let d = self.input.head_dim;
        let vectors = self.vectors();
        let lanes = if Self::pairs::<S>() { S::LANES } else { CHAINS };
        for (part, rows) in keys.chunks(lanes).enumerate() {
            for head in 0..self.kv_heads {
                let mut at = [std::ptr::null(); PAD];
                for (at, row) in at.iter_mut().zip(rows) {
                    *at = row.wrapping_add(head * d);
                }
                let scores = state.scores.wrapping_add(head * vectors * KEY_TILE + part * lanes);
                let state = State { scores, ..state.after(head * vectors) };
                // SAFETY: each row holds d elements of each head; the scores have SPAN rows of KEY_TILE, which LANES and CHAINS divide.
                unsafe {
                    if Self::pairs::<S>() {
                        let pairs = at.map(<*const E>::cast::<f32>);
                        direct_pairs(s, &pairs[..rows.len()], stream, d / 2, vectors, state);
                    } else {
                        direct_chains(s, &at[..rows.len()], stream, d, vectors, state);
                    }
                }
            }
        }
    }

    /// Sums the values of the tile, those of each vector of a head up to its limit.
    #[inline(always)]
    unsafe fn direct_values<S: Simd>(
        &self,
        s: S,
        state: State,
        rows: &TileRows<E>,
        limits: &[usize],
        stream: &mut Stream<E>,
    ) {
        let d = self.input.head_dim;
        let (vectors, width) = (limits.len(), padded(d) / S::LANES);
        let in_place = E::IS_F32 && self.input.values.is_contiguous() && d.is_multiple_of(PAD);
        let sums = |head: usize, b: *const f32, b_k: usize| {
            let (a, c) = (state.scores.cast_const(), state.part.at);
            Product { a, a_row: KEY_TILE, a_k: 1, b, b_k, c, c_row: state.part.row() }.after(head * vectors)
        };
        // SAFETY: the caller's; f32 values are read where they are, others where `load_values` puts them.
        unsafe {
            let whole = d.is_multiple_of(ZIPPED_VECTORS * S::LANES) && limits.iter().all(|&l| l == limits[0]);
            if Self::pairs::<S>() && whole {
                return self.zipped_values(s, sums(0, state.scores, 0), rows, limits, stream);
            }
            if !in_place {
                for head in 0..self.kv_heads {
                    // As much of what follows as is read of this head.
                    (0..rows.count).for_each(|_| stream.fetch(s, d * size_of::<E>()));
                    self.load_values(s, state, head, rows);
                    self.sum_values(s, state, sums(head, state.values, padded(d)), limits, Start::Zero);
                }
                return;
            }
            let product = |head: usize| {
                let values = rows.values[0].wrapping_add(head * d);
                sums(head, values.cast(), self.input.values.stride())
            };
            // What a step of a block of columns reads.
            let row_bytes = S::TILE_VECTORS * S::LANES * size_of::<f32>();
            let least = least(limits);
            let mut first = 0;
            while first == 0 || first < least {
                let end = least.min(first + STEP);
                for head in 0..self.kv_heads {
                    let start = if first == 0 { Start::Zero } else { Start::Keep };
                    product(head).rows_beside(s, vectors, width, (first, end), start, || stream.fetch(s, row_bytes));
                }
                first += STEP;
            }
            for head in 0..self.kv_heads {
                product(head).last_rows(s, width, least, limits);
            }
        }
    }

    /// [`Forward::direct_values`] of bf16 pairs that are read where they are, where all vectors end at the same row. `sums` is the product of the
    /// first head.
    #[inline(always)]
    unsafe fn zipped_values<S: Simd>(
        &self,
        s: S,
        sums: Product,
        rows: &TileRows<E>,
        limits: &[usize],
        stream: &mut Stream<E>,
    ) {
        let (d, vectors, limit) = (self.input.head_dim, limits.len(), limits[0]);
        let pair_bytes = 2 * ZIPPED_VECTORS * S::LANES * size_of::<E>();
        let mut first = 0;
        while first == 0 || first < limit {
            let end = limit.min(first + PAIR_STEP);
            for head in 0..self.kv_heads {
                let mut values = [std::ptr::null::<u16>(); PAIR_STEP];
                for (value, row) in values.iter_mut().zip(&rows.values[first..end]) {
                    *value = row.wrapping_add(head * d).cast();
                }
                let values = &values[..end - first];
                let sums = sums.after(head * vectors);
                let sums = Product { a: sums.a.wrapping_add(first / 2), ..sums };
                let start = if first == 0 { Start::Zero } else { Start::Keep };
                for column in (0..d).step_by(ZIPPED_VECTORS * S::LANES) {
                    // SAFETY: the caller's; `PAIR_STEP` is even, and rows end at the limit.
                    unsafe {
                        let each = &mut || stream.fetch(s, pair_bytes);
                        match vectors {
                            1 => sum_zipped::<S, 1>(s, values, sums, column, start, each),
                            2 => sum_zipped::<S, 2>(s, values, sums, column, start, each),
                            3 => sum_zipped::<S, 3>(s, values, sums, column, start, each),
                            _ => sum_zipped::<S, 4>(s, values, sums, column, start, each),
                        }
                    }
                }
            }
            first += PAIR_STEP;
        }
    }
}
