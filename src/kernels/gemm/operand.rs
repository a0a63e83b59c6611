//! Operands of a product and how they are packed.

use super::matrix::Matrix;
use crate::kernels::interleave::{Block, MOST_ROWS, Value, Word, interleave, spread};
#[cfg(target_arch = "x86_64")]
use crate::kernels::interleave::{lines, turned_lines};
use crate::kernels::isa::Isa;
use crate::kernels::linear::{Ahead, PAIR};
use crate::kernels::view::View;
use std::ops::Range;

/// A matrix operand: a stored matrix, or its transpose.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    stored: Matrix<'a>,
    transposed: bool,
}

impl<'a> Operand<'a> {
    /// The matrix as stored.
    pub fn plain(stored: impl Into<Matrix<'a>>) -> Self {
        Operand { stored: stored.into(), transposed: false }
    }

    /// The transpose of the stored matrix.
    pub fn transposed(stored: impl Into<Matrix<'a>>) -> Self {
        Operand { stored: stored.into(), transposed: true }
    }

    /// Rows of the operand.
    pub fn rows(&self) -> usize {
        if self.transposed { self.stored.width() } else { self.stored.rows() }
    }

    /// Columns of the operand.
    pub fn columns(&self) -> usize {
        if self.transposed { self.stored.rows() } else { self.stored.width() }
    }

    /// The same matrix the other way round.
    pub(super) fn flipped(self) -> Self {
        Operand { transposed: !self.transposed, ..self }
    }

    /// Packs rows `rows` of the operand in blocks, of rows within `rows`: word `w` of row `r` of a block goes to
    /// `dst[start + w × count + r]`. Rows past the end of `rows` become zero.
    pub(super) fn pack(&self, isa: Isa, word: Word, rows: Range<usize>, blocks: &[Block], dst: &mut [u32]) {
        if blocks.iter().any(|block| block.first + block.count > rows.len()) {
            dst.fill(0);
        }
        match self.stored {
            Matrix::F32(stored) => self.pack_values(isa, word, stored, rows, blocks, dst),
            Matrix::Bf16(stored) => self.pack_values(isa, word, stored, rows, blocks, dst),
        }
    }

    fn pack_values<V: Value>(
        &self,
        isa: Isa,
        word: Word,
        stored: View<V>,
        rows: Range<usize>,
        blocks: &[Block],
        dst: &mut [u32],
    ) {
        if self.transposed {
            return spread(isa, word, &stored.columns(rows.start, rows.len()), blocks, dst);
        }
        let words = word.count(stored.width());
        for &Block { first, count, start } in blocks {
            let end = rows.len().min(first + count);
            let lines = stored.slice_rows(rows.start + first..rows.start + end);
            side_by_side(isa, word, &lines, &mut dst[start..][..count * words], count);
        }
    }

    /// Packs rows `rows` of the operand for tile registers: blocks of lines of 32 inputs, see [`lines`].
    #[cfg(target_arch = "x86_64")]
    pub(super) fn pack_lines(&self, isa: Isa, rows: Range<usize>, blocks: &[Block], dst: &mut [u32]) {
        match (self.stored, self.transposed) {
            (Matrix::F32(stored), false) => lines(isa, &stored.slice_rows(rows), blocks, dst),
            (Matrix::Bf16(stored), false) => lines(isa, &stored.slice_rows(rows), blocks, dst),
            (Matrix::F32(stored), true) => turned_lines(isa, &stored.columns(rows.start, rows.len()), blocks, dst),
            (Matrix::Bf16(stored), true) => turned_lines(isa, &stored.columns(rows.start, rows.len()), blocks, dst),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn pack_lines(&self, _isa: Isa, _rows: Range<usize>, _blocks: &[Block], _dst: &mut [u32]) {
        unreachable!("tile registers are of x86-64");
    }

    /// Columns `columns` of the operand.
    pub(super) fn part(&self, columns: Range<usize>) -> Self {
        let stored = match self.transposed {
            true => self.stored.slice_rows(columns),
            false => self.stored.columns(columns.start, columns.len()),
        };
        Operand { stored, ..*self }
    }

    /// Where rows `rows` are stored, to be prefetched.
    pub(super) fn walk(&self, rows: Range<usize>) -> Walk {
        if rows.is_empty() || self.columns() == 0 {
            return Walk { at: std::ptr::null(), step: 0, lines: 0, pairs: 0 };
        }
        let value = self.stored.value_bytes();
        let (stride, k) = (value * self.stored.stride(), self.columns());
        if self.transposed {
            let at = self.stored.address(0, rows.start);
            Walk { at, step: stride, lines: k, pairs: (value * rows.len()).div_ceil(PAIR) }
        } else if self.stored.stride() == k {
            let lines = (value * rows.len() * k).div_ceil(PAIR);
            Walk { at: self.stored.address(rows.start, 0), step: PAIR, lines, pairs: 1 }
        } else {
            let at = self.stored.address(rows.start, 0);
            Walk { at, step: stride, lines: rows.len(), pairs: (value * k).div_ceil(PAIR) }
        }
    }
}

/// Memory in pairs of cache lines: `pairs` side by side in each of `lines` lines, which are `step` bytes apart. Pairs are counted down the
/// lines first.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    at: *const u8,
    step: usize,
    lines: usize,
    pairs: usize,
}

impl Walk {
    /// Packed memory.
    pub(super) fn over(words: &[u32]) -> Self {
        Walk { at: words.as_ptr().cast(), step: PAIR, lines: (4 * words.len()).div_ceil(PAIR), pairs: 1 }
    }

    /// What to prefetch after `done` pairs of it.
    pub(super) fn ahead(&self, done: usize) -> Ahead {
        if done >= self.lines * self.pairs {
            return Ahead::NOTHING;
        }
        let (pair, line) = (done / self.lines, done % self.lines);
        Ahead { at: self.at.wrapping_add(pair * PAIR + line * self.step), step: self.step, pairs: 1 }
    }
}

/// Word `w` of line `r` goes to `dst[w × count + r]`.
fn side_by_side<V: Value>(isa: Isa, word: Word, lines: &View<V>, dst: &mut [u32], count: usize) {
    for first in (0..lines.rows()).step_by(MOST_ROWS) {
        let here = MOST_ROWS.min(lines.rows() - first);
        let mut slices: [&[V]; MOST_ROWS] = [&[]; MOST_ROWS];
        for (r, slice) in slices[..here].iter_mut().enumerate() {
            *slice = lines.row(first + r);
        }
        interleave(isa, word, &slices[..here], &mut dst[first..], count);
    }
}
