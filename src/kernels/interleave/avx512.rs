//! AVX-512: 16 × 16 words ([`super::words_avx512`]) are transposed in registers.
#![allow(unsafe_code)]

use super::words_avx512::{
    load_f32, load_native, load_pairs, load_rounded, load_widened, mask, pair_exact, pair_native, pair_rounded, values,
    whole, wide_values,
};
use super::{Block, MOST_ROWS, Word};
use crate::kernels::view::View;
use half::bf16;
use std::arch::x86_64::*;

/// # Safety
/// The CPU has AVX-512 F, BW and VL, and BF16 when `bf16` says so; rows are equally long, at most [`MOST_ROWS`] and at most `pitch`, and
/// `dst` has room up to the last word of the last row.
pub unsafe fn interleave(bf16: bool, word: Word, rows: &[&[f32]], dst: *mut u32, pitch: usize) {
    // SAFETY: the caller's.
    unsafe {
        match (word, bf16) {
            (Word::F32, _) => interleave_f32(rows, dst, pitch),
            (_, true) => interleave_native(rows, dst, pitch),
            _ => interleave_rounded(rows, dst, pitch),
        }
    }
}

/// # Safety
/// The CPU has AVX-512 F, BW and VL, and BF16 when `bf16` says so; `dst` has room for all words of each block.
pub unsafe fn spread(bf16: bool, word: Word, stored: &View<f32>, blocks: &[Block], dst: *mut u32) {
    // SAFETY: the caller's.
    unsafe {
        match (word, bf16) {
            (Word::F32, _) => spread_f32(stored, blocks, dst),
            (_, true) => spread_native(stored, blocks, dst),
            _ => spread_rounded(stored, blocks, dst),
        }
    }
}

/// # Safety
/// As [`interleave`] for rows of bf16 values, whose pairs are stored as they are wanted.
pub unsafe fn interleave_bf16(word: Word, rows: &[&[bf16]], dst: *mut u32, pitch: usize) {
    // SAFETY: the caller's.
    unsafe {
        match word {
            Word::F32 => interleave_widened(rows, dst, pitch),
            Word::Bf16Pair => interleave_pairs(rows, dst, pitch),
        }
    }
}

/// # Safety
/// As [`spread`] for rows of bf16 values.
pub unsafe fn spread_bf16(word: Word, stored: &View<bf16>, blocks: &[Block], dst: *mut u32) {
    // SAFETY: the caller's.
    unsafe {
        match word {
            Word::F32 => spread_widened(stored, blocks, dst),
            Word::Bf16Pair => spread_pairs(stored, blocks, dst),
        }
    }
}

/// Defines an interleaving whose words take `$values` values, made of (up to) 16 words by `$load(row pointer, values left)`.
macro_rules! define {
    ($name:ident, $features:literal, $stored:ty, $values:literal, $load:ident) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(rows: &[&[$stored]], dst: *mut u32, pitch: usize) {
            let k = rows[0].len();
            let words = k.div_ceil($values);
            let end = words.saturating_sub(1) * pitch + rows.len();
            // Lanes without a row repeat the last one.
            let rows: [*const $stored; MOST_ROWS] = std::array::from_fn(|r| rows[r.min(rows.len() - 1)].as_ptr());
            let mut first = 0;
            // While 16 words fit before the end, a plain (faster) store may run into the places of words that are written later.
            while (first + 16) * $values <= k && (first + 15) * pitch + 16 <= end {
                let mut block = [_mm512_setzero_si512(); MOST_ROWS];
                for (row, words) in rows.iter().zip(&mut block) {
                    // SAFETY: 16 whole words are left in every row.
                    *words = unsafe { $load(row.add(first * $values), 16 * $values) };
                }
                for (w, &lane_words) in transpose(block).iter().enumerate() {
                    // SAFETY: ends before the last word does.
                    unsafe { _mm512_storeu_epi32(dst.add((first + w) * pitch).cast(), lane_words) }
                }
                first += 16;
            }
            while first < words {
                let mut block = [_mm512_setzero_si512(); MOST_ROWS];
                for (row, words) in rows.iter().zip(&mut block) {
                    // SAFETY: reads at most the `k - first × $values` values that are left.
                    *words = unsafe { $load(row.add(first * $values), k - first * $values) };
                }
                for (w, &lane_words) in transpose(block).iter().take(words - first).enumerate() {
                    let at = (first + w) * pitch;
                    // SAFETY: the mask ends with the last word.
                    unsafe { _mm512_mask_storeu_epi32(dst.add(at).cast(), mask(end - at), lane_words) }
                }
                first += 16;
            }
        }
    };
}

define!(interleave_f32, "avx512f,avx512bw,avx512vl", f32, 1, load_f32);
define!(interleave_native, "avx512f,avx512bw,avx512vl,avx512bf16", f32, 2, load_native);
define!(interleave_rounded, "avx512f,avx512bw,avx512vl", f32, 2, load_rounded);
define!(interleave_widened, "avx512f,avx512bw,avx512vl", bf16, 1, load_widened);
define!(interleave_pairs, "avx512f,avx512bw,avx512vl", bf16, 2, load_pairs);

/// Rows that go to one block before the next has its turn: blocks, like rows, are far apart, often by a multiple of what the first-level cache is
/// wide, so that lines of many push each other out.
const ROWS_AT_A_TIME: usize = 4;

/// Defines a spreading whose words take `$rows` rows, with the given load of (up to) 16 values of each and conversion to words.
macro_rules! define_spreading {
    ($name:ident, $features:literal, $stored:ty, $rows:literal, $load:ident, $convert:ident) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(stored: &View<$stored>, blocks: &[Block], dst: *mut u32) {
            let (k, width) = (stored.rows(), stored.width());
            let words = k.div_ceil($rows);
            for start in (0..words).step_by(ROWS_AT_A_TIME / $rows) {
                let group = start..words.min(start + ROWS_AT_A_TIME / $rows);
                // Rows past the last repeat it.
                let row = |row: usize| stored.row_ptr(row.min(k - 1));
                let rows: [_; ROWS_AT_A_TIME] = std::array::from_fn(|r| row($rows * start + r));
                // Rows to prefetch.
                let ahead: [_; ROWS_AT_A_TIME] = std::array::from_fn(|r| row($rows * start + 2 * ROWS_AT_A_TIME + r));
                for &Block { first, count, start: base } in blocks {
                    let end = width.min(first + count);
                    let block = dst.wrapping_add(base);
                    for i in (first..end).step_by(16) {
                        for row in ahead {
                            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(i).cast());
                        }
                        for (w, rows) in group.clone().zip(rows.chunks_exact($rows)) {
                            let (early, late) = (rows[0], ($rows == 2 && 2 * w + 1 < k).then(|| rows[$rows - 1]));
                            let at = w * count + (i - first);
                            // A plain (faster) store may run into the places of words that are written later.
                            if i + 16 <= width && end == first + count && at + 16 <= words * count {
                                // SAFETY: 16 values are left in the rows, and as many places in the block.
                                unsafe {
                                    let low = $load(early.add(i), 16);
                                    let high = late.map(|late| $load(late.add(i), 16));
                                    _mm512_storeu_epi32(block.add(at).cast(), $convert(low, high));
                                }
                                continue;
                            }
                            let lanes = mask(end - i);
                            // SAFETY: the mask keeps reads inside the rows and the write inside the block.
                            unsafe {
                                let low = $load(early.add(i), end - i);
                                let high = late.map(|late| $load(late.add(i), end - i));
                                _mm512_mask_storeu_epi32(block.wrapping_add(at).cast(), lanes, $convert(low, high));
                            }
                        }
                    }
                }
            }
        }
    };
}

define_spreading!(spread_f32, "avx512f,avx512bw,avx512vl", f32, 1, values, whole);
define_spreading!(spread_native, "avx512f,avx512bw,avx512vl,avx512bf16", f32, 2, values, pair_native);
define_spreading!(spread_rounded, "avx512f,avx512bw,avx512vl", f32, 2, values, pair_rounded);
define_spreading!(spread_widened, "avx512f,avx512bw,avx512vl", bf16, 1, wide_values, whole);
define_spreading!(spread_pairs, "avx512f,avx512bw,avx512vl", bf16, 2, wide_values, pair_exact);

/// Transposes 16 × 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    let mut pairs = [zero; 16];
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    // Quarter `q` of `fours[4 j + c]` holds column `4 q + c` of rows `4 j .. 4 j + 4`.
    let mut fours = [zero; 16];
    for j in (0..16).step_by(4) {
        fours[j] = _mm512_unpacklo_epi64(pairs[j], pairs[j + 2]);
        fours[j + 1] = _mm512_unpackhi_epi64(pairs[j], pairs[j + 2]);
        fours[j + 2] = _mm512_unpacklo_epi64(pairs[j + 1], pairs[j + 3]);
        fours[j + 3] = _mm512_unpackhi_epi64(pairs[j + 1], pairs[j + 3]);
    }
    let mut columns = [zero; 16];
    for c in 0..4 {
        let even = [0, 8].map(|j| _mm512_shuffle_i32x4::<0x88>(fours[j + c], fours[j + 4 + c]));
        let odd = [0, 8].map(|j| _mm512_shuffle_i32x4::<0xdd>(fours[j + c], fours[j + 4 + c]));
        columns[c] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        columns[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        columns[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        columns[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    columns
}
