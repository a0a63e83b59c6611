//! Tiles of pairs of bf16 values, as [`Simd::dot_pairs`] multiplies them: keys and queries in pairs along a head's elements, values in
//! pairs of keys.
#![allow(unsafe_code)]

use super::load::transpose_tile;
use super::tile::{KEY_TILE, PAD, Product, Start, padded};
use crate::kernels::vector::Simd;

/// Writes the transpose of bf16 rows (`width` elements each) to `dst`: row i has [`KEY_TILE`] words, one per source row, with the
/// elements 2i and 2i + 1; 0 past an odd width. Sources beyond `rows.len()` as in [`transpose_tile`].
///
/// # Safety
/// `width` elements are readable at each pointer; `dst` holds `width.div_ceil(2) · KEY_TILE` words.
#[inline(always)]
pub unsafe fn transpose_pairs<S: Simd>(s: S, rows: &[*const u16], width: usize, dst: *mut f32) {
    let mut words = [std::ptr::null::<f32>(); KEY_TILE];
    for (word, row) in words.iter_mut().zip(rows) {
        *word = row.cast();
    }
    // SAFETY: the caller's contract; a word is two elements, and loads need no alignment.
    unsafe {
        transpose_tile::<_, _, KEY_TILE>(s, &words[..rows.len()], width / 2, dst);
        if width % 2 == 1 {
            let last = dst.add(width / 2 * KEY_TILE);
            for i in 0..rows.len().next_multiple_of(S::LANES) {
                let bits = if i < rows.len() { u32::from(rows[i].add(width - 1).read_unaligned()) } else { 0 };
                *last.add(i) = f32::from_bits(bits);
            }
        }
    }
}

/// Writes rows (`width` elements each) in pairs to `dst`, which has rows of [`padded`]`(width)` words: word c of row i holds element c of rows 2i
/// and 2i + 1; 0 past the width and past an odd number of rows.
///
/// # Safety
/// `width` elements are readable at each pointer; `dst` holds `rows.len().div_ceil(2)` rows.
#[inline(always)]
pub unsafe fn zip_rows<S: Simd>(s: S, rows: &[*const u16], width: usize, dst: *mut f32) {
    for (i, pair) in rows.chunks(2).enumerate() {
        let mut at = 0;
        while at < padded(width) {
            let count = S::LANES.min(width.saturating_sub(at));
            // SAFETY: the caller's contract; the copies hold PAD elements, as many as the widest vector has lanes.
            unsafe {
                let words = if count == S::LANES && pair.len() == 2 {
                    s.zip_bf16(pair[0].add(at), pair[1].add(at))
                } else {
                    let mut copies = [[0; PAD]; 2];
                    for (copy, row) in copies.iter_mut().zip(pair) {
                        std::ptr::copy_nonoverlapping(row.wrapping_add(at), copy.as_mut_ptr(), count);
                    }
                    s.zip_bf16(copies[0].as_ptr(), copies[1].as_ptr())
                };
                s.store(dst.add(i * padded(width) + at), words);
            }
            at += S::LANES;
        }
    }
}

/// Writes `width` elements times `factor`, rounded to bf16, as `width.div_ceil(2)` words; 0 past an odd width.
///
/// # Safety
/// `width` elements are readable at `src`, and the words writable at `dst`.
#[inline(always)]
pub unsafe fn narrow_row<S: Simd>(s: S, src: *const f32, width: usize, factor: f32, dst: *mut f32) {
    let factor = s.splat(factor);
    let mut at = 0;
    while at < width {
        let count = (2 * S::LANES).min(width - at);
        let first = count.min(S::LANES);
        // SAFETY: the caller's contract; partial accesses end with the row.
        unsafe {
            let a = s.mul(s.load_partial(src.add(at), first), factor);
            let b = s.mul(s.load_partial(src.wrapping_add(at + first), count - first), factor);
            s.store_partial(dst.add(at / 2), s.narrow(a, b), count.div_ceil(2));
        }
        at += count;
    }
}

/// Copies the early elements of `words` pairs; 0 for the late ones.
///
/// # Safety
/// `words` words are readable at `src` and writable at `dst`.
#[inline(always)]
unsafe fn keep_early(src: *const f32, words: usize, dst: *mut f32) {
    for i in 0..words {
        // SAFETY: the caller's contract.
        unsafe { *dst.add(i) = f32::from_bits((*src.add(i)).to_bits() & 0xffff) };
    }
}

/// What is left of one row's sum over pairs of keys, from pair `from` to key `limit`. Of a pair that is cut the later values are not
/// multiplied, not even by zero: they may be anything; `last` is room for a row of pairs.
///
/// # Safety
/// `sums` is the product of one row whose operands hold the pairs up to the limit; `last` has `width` vectors.
#[inline(always)]
pub unsafe fn sum_last_pairs<S: Simd>(
    s: S,
    last: *mut f32,
    sums: Product,
    width: usize,
    (from, limit): (usize, usize),
) {
    // SAFETY: the caller's contract.
    unsafe {
        if limit / 2 > from {
            sums.pair_rows(s, 1, width, (from, limit / 2), Start::Keep);
        }
        if limit % 2 == 1 {
            let at = limit / 2;
            keep_early(sums.b.add(at * sums.b_k), width * S::LANES, last);
            let one = Product { a: sums.a.add(at), b: last, ..sums };
            one.pair_rows(s, 1, width, (0, 1), Start::Keep);
        }
    }
}

/// Vectors of columns that [`sum_zipped`] goes through at once.
pub const ZIPPED_VECTORS: usize = 4;

/// Adds to `sums.c`, of `N` rows of [`ZIPPED_VECTORS`] vectors from column `column` on, the products of pairs of probabilities at `sums.a` and of
/// the bf16 rows `values`, which are zipped in registers: the chains of a product over [`zip_rows`], where zeros follow an odd last row.
/// `each` is done beside each pair; `sums.b` is not read.
///
/// # Safety
/// Every row in `values` holds these columns; `sums` addresses `N` rows of them and of as many pairs as the values make.
#[inline(always)]
pub unsafe fn sum_zipped<S: Simd, const N: usize>(
    s: S,
    values: &[*const u16],
    sums: Product,
    column: usize,
    start: Start,
    each: &mut impl FnMut(),
) {
    // SAFETY: the caller's contract; the zeros are as many as lanes of any vector.
    unsafe {
        let mut acc = sums.begin::<S, N, ZIPPED_VECTORS>(s, column, start);
        let zeros = [0u16; PAD];
        for pair in 0..values.len().div_ceil(2) {
            each();
            for w in 0..ZIPPED_VECTORS {
                let at = column + w * S::LANES;
                let late = values.get(2 * pair + 1).map_or(zeros.as_ptr(), |row| row.wrapping_add(at));
                let words = s.zip_bf16(values[2 * pair].wrapping_add(at), late);
                for (n, acc) in acc.iter_mut().enumerate() {
                    acc[w] = s.dot_pairs(s.splat(*sums.a.add(n * sums.a_row + pair)), words, acc[w]);
                }
            }
        }
        sums.end(s, column, start, &acc);
    }
}
