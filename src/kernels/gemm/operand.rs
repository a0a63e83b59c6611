//! Operands of a product and how they are packed.

use crate::kernels::interleave::{Block, MOST_ROWS, Word, interleave, spread};
use crate::kernels::isa::Isa;
use crate::kernels::view::View;
use std::ops::Range;

/// A matrix operand: a stored matrix, or its transpose.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    stored: View<'a, f32>,
    transposed: bool,
}

impl<'a> Operand<'a> {
    /// The matrix as stored.
    pub fn plain(stored: View<'a, f32>) -> Self {
        Operand { stored, transposed: false }
    }

    /// The transpose of the stored matrix.
    pub fn transposed(stored: View<'a, f32>) -> Self {
        Operand { stored, transposed: true }
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
    /// `dst[first × words + w × count + r]`. Rows past the end of `rows` become zero.
    pub(super) fn pack(&self, isa: Isa, word: Word, rows: Range<usize>, blocks: &[Block], dst: &mut [u32]) {
        if blocks.iter().any(|block| block.first + block.count > rows.len()) {
            dst.fill(0);
        }
        if self.transposed {
            return spread(isa, word, &self.stored.columns(rows.start, rows.len()), blocks, dst);
        }
        let words = word.count(self.stored.width());
        for &Block { first, count } in blocks {
            let dst = &mut dst[first * words..][..count * words];
            let end = count.min(rows.len() - first);
            for i in (0..end).step_by(MOST_ROWS) {
                let here = MOST_ROWS.min(end - i);
                let mut slices: [&[f32]; MOST_ROWS] = [&[]; MOST_ROWS];
                for (r, slice) in slices[..here].iter_mut().enumerate() {
                    *slice = self.stored.row(rows.start + first + i + r);
                }
                interleave(isa, word, &slices[..here], &mut dst[i..], count);
            }
        }
    }

    /// Address where rows `rows` begin, and how far (bytes) to step to walk over them two cache lines at a time.
    pub(super) fn walk(&self, rows: Range<usize>) -> (*const u8, usize) {
        if rows.is_empty() || self.columns() == 0 {
            return (std::ptr::null(), 0);
        }
        if self.transposed {
            (self.stored.row(0)[rows.start..].as_ptr().cast(), 4 * self.stored.stride())
        } else {
            (self.stored.row_ptr(rows.start).cast(), 128)
        }
    }
}
