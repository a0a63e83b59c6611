//! Operands of a product and how they are packed.

use crate::kernels::interleave::{MOST_ROWS, Word, interleave, pair_rows};
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

    /// Writes rows `rows` of the operand side by side: word `w` of row `r` goes to `dst[w × pitch + r]`; places between the rows and
    /// `pitch` become zero.
    pub(super) fn pack(&self, isa: Isa, word: Word, rows: Range<usize>, dst: &mut [u32], pitch: usize) {
        let count = rows.len();
        if count < pitch {
            dst.fill(0);
        }
        if self.transposed {
            self.pack_stored_rows(isa, word, rows, dst, pitch);
        } else {
            for first in (0..count).step_by(MOST_ROWS) {
                let here = MOST_ROWS.min(count - first);
                let mut slices: [&[f32]; MOST_ROWS] = [&[]; MOST_ROWS];
                for (i, slice) in slices[..here].iter_mut().enumerate() {
                    *slice = self.stored.row(rows.start + first + i);
                }
                interleave(isa, word, &slices[..here], &mut dst[first..], pitch);
            }
        }
    }

    /// Packs columns `columns` of the stored matrix, whose rows lie in the order wanted already.
    fn pack_stored_rows(&self, isa: Isa, word: Word, columns: Range<usize>, dst: &mut [u32], pitch: usize) {
        let k = self.stored.rows();
        match word {
            Word::F32 => {
                for (i, dst) in dst.chunks_exact_mut(pitch).enumerate().take(k) {
                    copy(&self.stored.row(i)[columns.clone()], dst);
                }
            }
            Word::Bf16Pair => {
                for (w, dst) in dst.chunks_exact_mut(pitch).enumerate().take(k.div_ceil(2)) {
                    let late = (2 * w + 1 < k).then(|| &self.stored.row(2 * w + 1)[columns.clone()]);
                    pair_rows(isa, &self.stored.row(2 * w)[columns.clone()], late, dst);
                }
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

/// Copies values as words. The lengths of full blocks and panels are known to the compiler.
#[inline]
fn copy(values: &[f32], dst: &mut [u32]) {
    fn fixed<const N: usize>(values: &[f32], dst: &mut [u32]) -> bool {
        match (<&[f32; N]>::try_from(values), dst.first_chunk_mut::<N>()) {
            (Ok(values), Some(dst)) => {
                *dst = values.map(f32::to_bits);
                true
            }
            _ => false,
        }
    }
    if !(fixed::<32>(values, dst) || fixed::<12>(values, dst) || fixed::<11>(values, dst) || fixed::<6>(values, dst)) {
        for (d, v) in dst.iter_mut().zip(values) {
            *d = v.to_bits();
        }
    }
}
