//! Rows side by side: `[rows][k]` becomes `[k][rows]`, the order in which product kernels read their operands.
//!
//! A word is one f32, or a pair of bf16 values that belong to two consecutive inputs.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
mod lines;

#[cfg(target_arch = "x86_64")]
pub(super) use lines::{lines, turned_lines};

use super::isa::Isa;
use super::view::View;
use half::bf16;

/// What a word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// One f32.
    F32,
    /// Two values of consecutive inputs rounded to bf16, the earlier one in the low half; zero past the end of an odd row.
    Bf16Pair,
}

impl Word {
    /// Words in a row of `k` values.
    pub(super) const fn count(self, k: usize) -> usize {
        match self {
            Word::F32 => k,
            Word::Bf16Pair => k.div_ceil(2),
        }
    }

    fn make<V: Value>(self, early: V, late: Option<V>) -> u32 {
        match self {
            Word::F32 => early.wide().to_bits(),
            Word::Bf16Pair => pair(early.wide(), late.map_or(0.0, V::wide)),
        }
    }
}

/// A type in which rows are stored: f32, or bf16, which is exact in both kinds of words.
pub(super) trait Value: Copy {
    /// The value.
    fn wide(self) -> f32;

    /// [`interleave`] with AVX-512.
    ///
    /// # Safety
    /// As [`avx512::interleave`].
    #[cfg(target_arch = "x86_64")]
    unsafe fn interleave(isa: Isa, word: Word, rows: &[&[Self]], dst: *mut u32, pitch: usize);

    /// [`spread`] with AVX-512.
    ///
    /// # Safety
    /// As [`avx512::spread`].
    #[cfg(target_arch = "x86_64")]
    unsafe fn spread(isa: Isa, word: Word, stored: &View<Self>, blocks: &[Block], dst: *mut u32);

    /// [`lines`] without checks.
    ///
    /// # Safety
    /// As [`lines::lines_f32`].
    #[cfg(target_arch = "x86_64")]
    unsafe fn lines(stored: &View<Self>, block: Block, dst: *mut u32);

    /// [`turned_lines`] without checks.
    ///
    /// # Safety
    /// As [`lines::turned_f32`].
    #[cfg(target_arch = "x86_64")]
    unsafe fn turned_lines(stored: &View<Self>, blocks: &[Block], dst: *mut u32);
}

impl Value for f32 {
    fn wide(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn interleave(isa: Isa, word: Word, rows: &[&[f32]], dst: *mut u32, pitch: usize) {
        // SAFETY: the caller's.
        unsafe { avx512::interleave(isa.has_bf16_conversions(), word, rows, dst, pitch) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn spread(isa: Isa, word: Word, stored: &View<f32>, blocks: &[Block], dst: *mut u32) {
        // SAFETY: the caller's.
        unsafe { avx512::spread(isa.has_bf16_conversions(), word, stored, blocks, dst) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn lines(stored: &View<f32>, block: Block, dst: *mut u32) {
        // SAFETY: the caller's.
        unsafe { lines::lines_f32(stored, block, dst) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn turned_lines(stored: &View<f32>, blocks: &[Block], dst: *mut u32) {
        // SAFETY: the caller's.
        unsafe { lines::turned_f32(stored, blocks, dst) }
    }
}

impl Value for bf16 {
    fn wide(self) -> f32 {
        self.to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn interleave(_isa: Isa, word: Word, rows: &[&[bf16]], dst: *mut u32, pitch: usize) {
        // SAFETY: the caller's.
        unsafe { avx512::interleave_bf16(word, rows, dst, pitch) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn spread(_isa: Isa, word: Word, stored: &View<bf16>, blocks: &[Block], dst: *mut u32) {
        // SAFETY: the caller's.
        unsafe { avx512::spread_bf16(word, stored, blocks, dst) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn lines(stored: &View<bf16>, block: Block, dst: *mut u32) {
        // SAFETY: the caller's.
        unsafe { lines::lines_bf16(stored, block, dst) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn turned_lines(stored: &View<bf16>, blocks: &[Block], dst: *mut u32) {
        // SAFETY: the caller's.
        unsafe { lines::turned_bf16(stored, blocks, dst) }
    }
}

/// Two values rounded to bf16 in one word.
#[inline]
pub(super) fn pair(early: f32, late: f32) -> u32 {
    u32::from(bf16::from_f32(early).to_bits()) | u32::from(bf16::from_f32(late).to_bits()) << 16
}

/// Most rows of one call.
pub(super) const MOST_ROWS: usize = 16;

/// Writes word `w` of row `r` to `dst[w × pitch + r]`. Places between the rows and `pitch` may be overwritten.
///
/// # Panics
/// When there are more than [`MOST_ROWS`] rows or more than `pitch`, their lengths differ, or `dst` is too short.
pub(super) fn interleave<V: Value>(isa: Isa, word: Word, rows: &[&[V]], dst: &mut [u32], pitch: usize) {
    let Some(first) = rows.first() else { return };
    let words = word.count(first.len());
    assert!(rows.len() <= MOST_ROWS.min(pitch) && rows.iter().all(|row| row.len() == first.len()));
    assert!(words == 0 || dst.len() >= (words - 1) * pitch + rows.len(), "{words} words of pitch {pitch}");
    match isa {
        // SAFETY: an `Isa` is only handed out when the CPU has it; the sizes were checked above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe { V::interleave(isa, word, rows, dst.as_mut_ptr(), pitch) },
        _ => {
            let per_word = if word == Word::F32 { 1 } else { 2 };
            for (r, row) in rows.iter().enumerate() {
                for (values, at) in row.chunks(per_word).zip(dst.chunks_mut(pitch)) {
                    at[r] = word.make(values[0], values.get(1).copied());
                }
            }
        }
    }
}

/// A block of rows or columns: `first ..`, `count` of them, packed from word `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub first: usize,
    pub count: usize,
    pub start: usize,
}

/// Spreads stored rows, whose columns are wanted side by side already, over blocks of columns: word `w` of column `c` of a block (row `w`, or
/// the pair of rows `2w` and `2w + 1` for bf16) goes to `dst[start + w × count + c]`. Columns past the end of the rows are left out.
///
/// # Panics
/// When `dst` is too short.
pub(super) fn spread<V: Value>(isa: Isa, word: Word, stored: &View<V>, blocks: &[Block], dst: &mut [u32]) {
    let (k, words) = (stored.rows(), word.count(stored.rows()));
    assert!(blocks.iter().all(|block| dst.len() >= block.start + block.count * words), "{words} words");
    match isa {
        // SAFETY: an `Isa` is only handed out when the CPU has it; the sizes were checked above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe { V::spread(isa, word, stored, blocks, dst.as_mut_ptr()) },
        _ => {
            for w in 0..words {
                for &Block { first, count, start } in blocks {
                    let columns = first..stored.width().min(first + count);
                    let dst = &mut dst[start + w * count..][..columns.len()];
                    for (d, c) in dst.iter_mut().zip(columns) {
                        let first = if word == Word::F32 { w } else { 2 * w };
                        *d = word.make(stored.row(first)[c], (first + 1 < k).then(|| stored.row(first + 1)[c]));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_any_count_and_remainder_land_in_place() {
        for isa in Isa::available() {
            for word in [Word::F32, Word::Bf16Pair] {
                for k in [0, 1, 2, 15, 16, 17, 31, 33, 64, 67] {
                    for rows in [1, 2, 7, 12, 16] {
                        let values: Vec<Vec<f32>> =
                            (0..rows).map(|r| (0..k).map(|i| (r * 1000 + i) as f32 * 1.001 - 70.0).collect()).collect();
                        let rows: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
                        let pitch = rows.len() + 3;
                        let mut dst = vec![7; word.count(k) * pitch + 5];
                        interleave(isa, word, &rows, &mut dst, pitch);
                        for (i, d) in dst.iter().enumerate() {
                            let (w, r) = (i / pitch, i % pitch);
                            let expected = match word {
                                _ if w + 1 < word.count(k) && r >= rows.len() => continue,
                                _ if r >= rows.len() || w >= word.count(k) => 7,
                                Word::F32 => rows[r][w].to_bits(),
                                Word::Bf16Pair => pair(rows[r][2 * w], rows[r].get(2 * w + 1).copied().unwrap_or(0.0)),
                            };
                            assert_eq!(*d, expected, "{} {word:?} k={k} rows={} at {i}", isa.name(), rows.len());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn stored_rows_spread_over_blocks() {
        let blocks = [(0, 12), (12, 11), (23, 11), (34, 32)];
        let n = 50;
        for k in [1, 2, 5, 24, 31] {
            let values: Vec<f32> = (0..k * (n + 1)).map(|i| i as f32 * 1.01 - 300.0).collect();
            let stored = View::new(&values, k, n + 1, n);
            for (isa, word) in Isa::available().into_iter().flat_map(|isa| [(isa, Word::F32), (isa, Word::Bf16Pair)]) {
                let words = word.count(k);
                let mut dst = vec![7; words * 66 + 3];
                // A gap after the first block.
                let blocks = blocks.map(|(first, count)| Block {
                    first,
                    count,
                    start: first * words + if first > 0 { 3 } else { 0 },
                });
                spread(isa, word, &stored, &blocks, &mut dst);
                for Block { first, count, start } in blocks {
                    for (i, d) in dst[start..][..count * words].iter().enumerate() {
                        let (w, c) = (i / count, first + i % count);
                        let expected = match word {
                            _ if c >= n => 7,
                            Word::F32 => stored.row(w)[c].to_bits(),
                            Word::Bf16Pair if 2 * w + 1 < k => pair(stored.row(2 * w)[c], stored.row(2 * w + 1)[c]),
                            Word::Bf16Pair => pair(stored.row(2 * w)[c], 0.0),
                        };
                        assert_eq!(*d, expected, "{} {word:?} k={k} word {w} column {c}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_bf16_give_the_words_of_what_they_stand_for() {
        let blocks = [(0, 12), (12, 11), (23, 32)];
        for (k, n) in [(1, 50), (5, 50), (24, 55), (37, 55)] {
            let narrow: Vec<bf16> = (0..k * n).map(|i| bf16::from_f32(i as f32 * 0.37 - 300.0)).collect();
            let wide: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
            for (isa, word) in Isa::available().into_iter().flat_map(|isa| [(isa, Word::F32), (isa, Word::Bf16Pair)]) {
                let blocks = blocks.map(|(first, count)| Block { first, count, start: first * word.count(k) });
                let mut dst = [(); 2].map(|()| vec![0; word.count(k) * 55]);
                spread(isa, word, &View::new(&narrow, k, n, n), &blocks, &mut dst[0]);
                spread(isa, word, &View::new(&wide, k, n, n), &blocks, &mut dst[1]);
                assert_eq!(dst[0], dst[1], "{} {word:?} spread {k} × {n}", isa.name());
                let rows = k.min(12);
                let mut dst = [(); 2].map(|()| vec![0; word.count(n) * rows]);
                let narrow: Vec<&[bf16]> = narrow.chunks(n).take(rows).collect();
                let wide: Vec<&[f32]> = wide.chunks(n).take(rows).collect();
                interleave(isa, word, &narrow, &mut dst[0], rows);
                interleave(isa, word, &wide, &mut dst[1], rows);
                assert_eq!(dst[0], dst[1], "{} {word:?} interleaved {k} × {n}", isa.name());
            }
        }
    }

    #[test]
    fn rounding_is_to_nearest_even_and_keeps_nan() {
        let tie = 1.0 / 256.0;
        let values = [1.0, 1.0 + tie, 1.0 + 3.0 * tie, -3.389e38, f32::INFINITY, f32::NAN, 0.0, -0.0, 1.004];
        for isa in Isa::available() {
            let mut dst = [0; 5];
            interleave(isa, Word::Bf16Pair, &[&values], &mut dst, 1);
            for (i, v) in values.iter().enumerate() {
                let got = bf16::from_bits((dst[i / 2] >> (16 * (i % 2))) as u16);
                assert!(got == bf16::from_f32(*v) || got.is_nan() && v.is_nan(), "{}: {v} became {got}", isa.name());
            }
        }
    }
}
