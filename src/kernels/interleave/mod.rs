//! Rows side by side: `[rows][k]` becomes `[k][rows]`, the order in which product kernels read their operands.
//!
//! A word is one f32, or a pair of bf16 values that belong to two consecutive inputs.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
mod lines;
#[cfg(target_arch = "x86_64")]
pub(super) mod words_avx512;

#[cfg(target_arch = "x86_64")]
pub(super) use lines::{lines, turned_lines};

use super::isa::Isa;
use super::view::View;
use half::bf16;

/// Inputs in bf16 of one row of a tile register ([`crate::kernels::tiles`]); on tile registers products sum so many before they add to what they
/// have.
pub(super) const LINE: usize = 32;

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
mod tests;
