//! Attention of a block of query rows over the keys before each.
#![allow(unsafe_code)]

use super::tile::{
    BLOCK_ROWS, KEY_TILE, PAD, Product, Start, copy_row, direct_scores, padded, row_pointers, transpose_tile,
};
use crate::kernels::isa::Isa;
use crate::kernels::vector::math::exp;
use crate::kernels::vector::stored::Stored;
use crate::kernels::vector::{Kernel, Simd, dispatch};
use crate::kernels::view::{View, ViewMut};

/// Floats of scratch that [`attention_forward`] needs for up to `rows` query rows of `group` heads.
pub const fn attention_forward_scratch(rows: usize, group: usize, head_dim: usize) -> usize {
    let vectors = rows * group;
    vectors * (head_dim + padded(head_dim) + PAD + 1) + KEY_TILE * (head_dim + padded(head_dim)) + BLOCK_ROWS * KEY_TILE
}

/// Attention of query rows over one key-value head.
///
/// * `q`, `out`: rows of `group · D`, the group's heads side by side; `positions[i]` is the position of row i in its slot.
/// * `keys`, `values`: D elements per row, row p belongs to position p. Rows after a query's position are never used: they may
///   be uninitialised or NaN.
/// * `scale` multiplies the scores (1/√D).
/// * `log_sum_exp`: rows of `group`, log of the sum of e^score, for the backward pass.
/// * `scratch`: [`attention_forward_scratch`] floats, of any content.
///
/// # Panics
/// When a shape does not fit, or a position has no key row.
#[expect(clippy::too_many_arguments, reason = "the operands of one node")]
pub fn attention_forward<E: Stored>(
    isa: Isa,
    q: &View<f32>,
    positions: &[u32],
    keys: &View<E>,
    values: &View<E>,
    scale: f32,
    out: &mut ViewMut<f32>,
    log_sum_exp: Option<&mut ViewMut<f32>>,
    scratch: &mut [f32],
) {
    let (rows, head_dim) = (q.rows(), keys.width());
    assert!(
        head_dim > 0 && q.width().is_multiple_of(head_dim),
        "attention rows of {} for heads of {head_dim}",
        q.width()
    );
    let group = q.width() / head_dim;
    assert!(out.rows() == rows && positions.len() == rows && out.width() == q.width(), "attention rows differ");
    assert!(values.width() == head_dim, "attention keys and values differ in width");
    assert!(log_sum_exp.as_ref().is_none_or(|l| l.rows() == rows && l.width() == group), "log-sum-exp shape");
    let keys_needed = positions.iter().max().map_or(0, |&p| p as usize + 1);
    assert!(keys_needed <= keys.rows() && keys_needed <= values.rows(), "attention to {keys_needed} keys");
    let needed = attention_forward_scratch(rows, group, head_dim);
    assert!(scratch.len() >= needed, "attention scratch of {} floats, {needed} needed", scratch.len());
    dispatch(isa, Forward { q, positions, keys, values, scale, out, log_sum_exp, scratch, group, keys_needed });
}

struct Forward<'a, 'o, 'l, E> {
    q: &'a View<'a, f32>,
    positions: &'a [u32],
    keys: &'a View<'a, E>,
    values: &'a View<'a, E>,
    scale: f32,
    out: &'a mut ViewMut<'o, f32>,
    log_sum_exp: Option<&'a mut ViewMut<'l, f32>>,
    scratch: &'a mut [f32],
    group: usize,
    keys_needed: usize,
}

/// The scratch of one call, cut up. "Vector" is one head of one query row.
#[derive(Clone, Copy)]
struct Parts {
    /// Scaled queries: D per vector.
    q: *mut f32,
    /// Running outputs: padded(D) per vector.
    o: *mut f32,
    /// Running sums of exponentials: PAD lanes per vector.
    sums: *mut f32,
    /// Running maxima: one per vector.
    maxima: *mut f32,
    /// Transposed keys of the tile.
    keys: *mut f32,
    /// Values of the tile, where they are copied.
    values: *mut f32,
    /// Scores, then probabilities, of a block of vectors.
    scores: *mut f32,
}

/// Where the rows of one tile are.
struct Tile<E> {
    /// Absolute position of its first key.
    first: usize,
    /// Keys in it.
    count: usize,
    /// Whether scores are computed from the key rows instead of the transposed tile.
    direct_keys: bool,
    keys: [*const E; KEY_TILE],
    /// Key rows of the next tile (this one's where there are none): wanted in the cache soon.
    next: [*const E; KEY_TILE],
    /// Value rows as f32, padded to whole vectors.
    values: *const f32,
    value_stride: usize,
}

impl<E: Stored> Kernel for Forward<'_, '_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let vectors = self.positions.len() * self.group;
        let parts = self.cut();
        // SAFETY: `attention_forward` checked every shape; `cut` keeps the parts inside the scratch.
        unsafe {
            self.load_queries(s, parts);
            let mut first_key = 0;
            while first_key < self.keys_needed {
                let count = KEY_TILE.min(self.keys_needed - first_key);
                let tile = self.load_tile(s, parts, first_key, count, vectors);
                let mut v = 0;
                while v < vectors {
                    let n = BLOCK_ROWS.min(vectors - v);
                    self.block(s, parts, v, n, &tile);
                    v += n;
                }
                first_key += KEY_TILE;
            }
            self.finish(s, parts);
        }
    }
}

impl<E: Stored> Forward<'_, '_, '_, E> {
    #[inline(always)]
    fn head_dim(&self) -> usize {
        self.keys.width()
    }

    #[inline(always)]
    fn cut(&mut self) -> Parts {
        let (n, d) = (self.positions.len() * self.group, self.head_dim());
        let mut rest = self.scratch.as_mut_ptr();
        // The total is `attention_forward_scratch`, which the scratch holds.
        let mut take = |len: usize| {
            let part = rest;
            rest = rest.wrapping_add(len);
            part
        };
        Parts {
            keys: take(d * KEY_TILE),
            values: take(KEY_TILE * padded(d)),
            scores: take(BLOCK_ROWS * KEY_TILE),
            o: take(n * padded(d)),
            sums: take(n * PAD),
            q: take(n * d),
            maxima: take(n),
        }
    }

    /// Scales the queries and clears the running state.
    #[inline(always)]
    unsafe fn load_queries<S: Simd>(&self, s: S, parts: Parts) {
        let d = self.head_dim();
        let n = self.positions.len() * self.group;
        // SAFETY: the parts hold n vectors; a query row holds group · d elements.
        unsafe {
            for row in 0..self.positions.len() {
                let (src, dst) = (self.q.row_ptr(row), parts.q.add(row * self.group * d));
                let (len, scale) = (self.group * d, s.splat(self.scale));
                let mut i = 0;
                while i < len {
                    let count = S::LANES.min(len - i);
                    s.store_partial(dst.add(i), s.mul(s.load_partial(src.add(i), count), scale), count);
                    i += count;
                }
            }
            std::slice::from_raw_parts_mut(parts.o, n * padded(d)).fill(0.0);
            std::slice::from_raw_parts_mut(parts.sums, n * PAD).fill(0.0);
            std::slice::from_raw_parts_mut(parts.maxima, n).fill(f32::NEG_INFINITY);
        }
    }

    /// Finds the rows of a tile, and for more than one block of vectors transposes the keys and brings the values together.
    #[inline(always)]
    unsafe fn load_tile<S: Simd>(&self, s: S, parts: Parts, first: usize, count: usize, vectors: usize) -> Tile<E> {
        let d = self.head_dim();
        let keys = row_pointers(self.keys, first, count);
        let value_rows = row_pointers(self.values, first, count);
        let direct_keys = vectors <= BLOCK_ROWS;
        let mut next = keys;
        if direct_keys && first + KEY_TILE < self.keys_needed {
            let known = KEY_TILE.min(self.keys_needed - first - KEY_TILE);
            next[..known].copy_from_slice(&row_pointers(self.keys, first + KEY_TILE, known)[..known]);
        }
        // SAFETY: the pointers are of rows of d elements, and the parts hold a tile.
        unsafe {
            if !direct_keys {
                transpose_tile(s, &keys[..count], d, parts.keys);
            }
            let direct_values = E::IS_F32 && direct_keys && self.values.is_contiguous() && d.is_multiple_of(PAD);
            let (values, value_stride) = if direct_values {
                (value_rows[0].cast(), self.values.stride())
            } else {
                for (i, &row) in value_rows[..count].iter().enumerate() {
                    copy_row(s, row, d, 1.0, parts.values.add(i * padded(d)));
                }
                (parts.values.cast_const(), padded(d))
            };
            Tile { first, count, direct_keys, keys, next, values, value_stride }
        }
    }

    /// One tile for `n` ≤ BLOCK_ROWS vectors from vector `v` on.
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, s: S, parts: Parts, v: usize, n: usize, tile: &Tile<E>) {
        let d = self.head_dim();
        let mut limits = [0; BLOCK_ROWS];
        for (i, limit) in limits[..n].iter_mut().enumerate() {
            let position = self.positions[(v + i) / self.group] as usize;
            *limit = (position + 1).saturating_sub(tile.first).min(KEY_TILE);
        }
        let most = limits[..n].iter().copied().fold(0, usize::max);
        let least = limits[..n].iter().copied().fold(KEY_TILE, usize::min);
        if most == 0 {
            return;
        }
        // SAFETY: the parts hold the vectors and the tile; products end at the limits, which are within the tile.
        unsafe {
            let q = parts.q.add(v * d);
            if tile.direct_keys {
                let (rows, ahead) = (&tile.keys[..most.min(tile.count)], &tile.next[..]);
                match n {
                    1 => direct_scores::<S, E, 1>(s, rows, ahead, d, q, parts.scores),
                    2 => direct_scores::<S, E, 2>(s, rows, ahead, d, q, parts.scores),
                    3 => direct_scores::<S, E, 3>(s, rows, ahead, d, q, parts.scores),
                    _ => direct_scores::<S, E, 4>(s, rows, ahead, d, q, parts.scores),
                }
            } else {
                let (b, c) = (parts.keys.cast_const(), parts.scores);
                let scores = Product { a: q, a_row: d, a_k: 1, b, b_k: KEY_TILE, c, c_row: KEY_TILE };
                scores.rows(s, n, most.div_ceil(S::LANES), (0, d), Start::Zero);
            }
            let mut factors = [1.0; PAD];
            softmax_block(s, parts, v, &limits[..n], &mut factors);
            let sums = Product {
                a: parts.scores,
                a_row: KEY_TILE,
                a_k: 1,
                b: tile.values,
                b_k: tile.value_stride,
                c: parts.o.add(v * padded(d)),
                c_row: padded(d),
            };
            let width = padded(d) / S::LANES;
            sums.rows(s, n, width, (0, least), Start::Scaled(factors.as_ptr()));
            for (i, &limit) in limits[..n].iter().enumerate() {
                if limit > least {
                    sums.after(i).rows(s, 1, width, (least, limit), Start::Keep);
                }
            }
        }
    }

    /// Divides by the sums and writes the results.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&mut self, s: S, parts: Parts) {
        let d = self.head_dim();
        for row in 0..self.positions.len() {
            for head in 0..self.group {
                let v = row * self.group + head;
                // SAFETY: the parts hold vector v; the output row holds group · d elements.
                unsafe {
                    let sum = s.reduce_add(s.load(parts.sums.add(v * PAD)));
                    let inverse = s.splat(1.0 / sum);
                    let (src, dst) = (parts.o.add(v * padded(d)), self.out.row_ptr(row).add(head * d));
                    let mut i = 0;
                    while i < d {
                        let count = S::LANES.min(d - i);
                        s.store_partial(dst.add(i), s.mul(s.load(src.add(i)), inverse), count);
                        i += count;
                    }
                    if let Some(saved) = &mut self.log_sum_exp {
                        saved.row_mut(row)[head] = *parts.maxima.add(v) + sum.ln();
                    }
                }
            }
        }
    }
}

/// Turns the scores of a block into e^(score − maximum), 0 from each limit on, and updates maxima and sums. `factors[i]` is
/// what vector i's earlier results are to be multiplied by.
#[inline(always)]
unsafe fn softmax_block<S: Simd>(s: S, parts: Parts, v: usize, limits: &[usize], factors: &mut [f32; PAD]) {
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut maxima = [0.0; BLOCK_ROWS];
    // SAFETY: the scores hold BLOCK_ROWS rows of KEY_TILE; LANES divides KEY_TILE and is at most PAD.
    unsafe {
        for (i, &limit) in limits.iter().enumerate() {
            let row = parts.scores.add(i * KEY_TILE);
            let mut most = lowest;
            let mut at = 0;
            while at < limit {
                let mut x = s.load(row.add(at));
                if limit - at < S::LANES {
                    x = s.keep_first(x, limit - at, lowest);
                    s.store(row.add(at), x);
                }
                most = s.max(most, x);
                at += S::LANES;
            }
            let old = parts.maxima.add(v + i);
            maxima[i] = (*old).max(s.reduce_max(most));
            // A vector with no key in this tile keeps its state: factor e^0.
            factors[i] = if limit == 0 { 0.0 } else { *old - maxima[i] };
            *old = maxima[i];
        }
        s.store(factors.as_mut_ptr(), exp(s, s.load(factors.as_ptr())));
        for (i, &limit) in limits.iter().enumerate() {
            let row = parts.scores.add(i * KEY_TILE);
            let shift = s.splat(maxima[i]);
            let mut sum = s.splat(0.0);
            let mut at = 0;
            while at < limit {
                let p = exp(s, s.sub(s.load(row.add(at)), shift));
                s.store(row.add(at), p);
                sum = s.add(sum, p);
                at += S::LANES;
            }
            let total = parts.sums.add((v + i) * PAD);
            s.store(total, s.fma(s.load(total), s.splat(factors[i]), sum));
        }
    }
}
