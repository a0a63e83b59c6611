//! Packing of matrices that are stored as bf16: pieces are widened into a buffer in the first-level cache, then packed as f32.

use crate::kernels::interleave::{self, Block, MOST_ROWS, Word, interleave};
use crate::kernels::isa::Isa;
use crate::kernels::vector::map::{Write, widen};
use crate::kernels::view::View;
use half::bf16;

/// Values of the buffer.
const BUFFER: usize = 4096;
/// Values of a line that are widened at a time; even, so that pairs of bf16 stay together.
const PIECE: usize = BUFFER / MOST_ROWS;

/// Word `w` of line `r` goes to `dst[w × count + r]`.
pub(super) fn side_by_side(isa: Isa, word: Word, lines: &View<bf16>, dst: &mut [u32], count: usize) {
    let mut buffer = [0f32; BUFFER];
    for first in (0..lines.rows()).step_by(MOST_ROWS) {
        let here = MOST_ROWS.min(lines.rows() - first);
        for start in (0..lines.width()).step_by(PIECE) {
            let piece = start..lines.width().min(start + PIECE);
            let mut slices: [&[f32]; MOST_ROWS] = [&[]; MOST_ROWS];
            for (r, (slice, wide)) in slices[..here].iter_mut().zip(buffer.chunks_mut(PIECE)).enumerate() {
                let wide = &mut wide[..piece.len()];
                widen(isa, &lines.row(first + r)[piece.clone()], wide, Write::Overwrite);
                *slice = wide;
            }
            interleave(isa, word, &slices[..here], &mut dst[word.count(start) * count + first..], count);
        }
    }
}

/// As [`interleave::spread`].
pub(super) fn spread(isa: Isa, word: Word, stored: &View<bf16>, blocks: &[Block], dst: &mut [u32]) {
    let words = word.count(stored.rows());
    let mut buffer = [0f32; BUFFER];
    for &Block { first, count } in blocks {
        let dst = &mut dst[first * words..][..count * words];
        let columns = first..stored.width().min(first + count);
        if columns.is_empty() {
            continue;
        }
        // An even number of rows, so that pairs of bf16 stay together.
        let rows_at_a_time = (BUFFER / columns.len() / 2 * 2).max(2);
        for start in (0..stored.rows()).step_by(rows_at_a_time) {
            let rows = start..stored.rows().min(start + rows_at_a_time);
            for (row, wide) in rows.clone().zip(buffer.chunks_mut(columns.len())) {
                widen(isa, &stored.row(row)[columns.clone()], wide, Write::Overwrite);
            }
            let wide = View::new(&buffer, rows.len(), columns.len(), columns.len());
            let at = word.count(start) * count;
            let dst = &mut dst[at..at + word.count(rows.len()) * count];
            interleave::spread(isa, word, &wide, &[Block { first: 0, count }], dst);
        }
    }
}
