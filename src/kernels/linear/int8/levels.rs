//! One panel by many rows on VNNI, where scaling by a power of two takes no slot of a multiplier: instead of multiplying the scale of each weight
//! block with that of each activation block, a kernel takes it from the products with all [`LEVELS`] and sets the exponent. The bits are the
//! same: either way the product of both scales, which level by level is exact, is rounded once.
#![allow(unsafe_code)]

use super::levels_avx512::kernel;
use super::minima::{self, SPAN};
use super::minima_avx512::{self, Minima};
use super::weights_avx512::write_levels;
use super::{LEVELS, ROW_BLOCK_BYTES, block_rows, by_layout, has_levels};
use crate::kernels::linear::layout::{BLOCK, Layout, PANEL};
use crate::kernels::linear::{PackedMatrix, Place, Prepared, Shares, Sums};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Blocks of 32 inputs of which there are levels at a time: a span of minima, behind which a kernel adds these. With what they are multiplied
/// with they fit into the second-level cache.
const CHUNK: usize = SPAN;

/// Row blocks from which on levels cost less than they save.
const FEWEST: usize = 3;

/// Fewest rows of a row block for which there is a kernel: the least that the smallest of [`FEWEST`] blocks have.
pub(super) const FEWEST_ROWS: usize = 8;

/// What is made of [`CHUNK`] blocks of a panel for many row blocks.
#[repr(C, align(64))]
pub(super) struct Tables {
    /// Scales times each level: `[block][2][LEVELS][16]`.
    levels: [f32; CHUNK * LEVELS * PANEL],
    minima: Minima,
}

impl Tables {
    /// The scales of half `half` of the outputs of block `block` times level `level`.
    #[inline(always)]
    pub(super) fn level(tables: *const Tables, block: usize, half: usize, level: usize) -> *const f32 {
        tables.cast::<f32>().wrapping_add(((block * 2 + half) * LEVELS + level) * 16)
    }

    /// The minima.
    #[inline(always)]
    pub(super) fn minima(tables: *const Tables) -> *const Minima {
        tables.wrapping_byte_add(std::mem::offset_of!(Tables, minima)).cast()
    }
}

/// Whether row blocks `blocks` of `x` are better off with levels.
pub(super) fn pay(layout: Layout, x: &Prepared, blocks: &Range<usize>) -> bool {
    blocks.len() >= FEWEST && fit(layout, x)
}

/// Whether there are levels of the layout, and kernels for row blocks of `x`.
pub(super) fn fit(layout: Layout, x: &Prepared) -> bool {
    let isa = x.blocks().isa();
    let sizes = x.blocks().sizes();
    has_levels(isa, layout) && *sizes.start() >= FEWEST_ROWS && *sizes.end() <= block_rows(isa)
}

/// Multiplies panel `panel` of `weights` with row blocks `blocks`, which become `[rows][PANEL]` at `sums`; the outputs of each block, where
/// `place` tells, are prefetched meanwhile.
///
/// # Safety
/// `x` is as wide as `weights`, and it and its layout [`fit`]; `sums` has room for [`PANEL`] sums of each row of `blocks`.
pub(super) unsafe fn multiply(
    weights: &PackedMatrix,
    panel: usize,
    x: &Prepared,
    blocks: Range<usize>,
    mut place: impl FnMut(usize) -> Place,
    sums: *mut f32,
) {
    let (layout, k_blocks) = (weights.layout(), weights.k() / BLOCK);
    macro_rules! table {
        (3) => {
            unreachable!("scales of 16 inputs have no levels")
        };
        ($code:literal) => {
            write_levels::<$code>
        };
    }
    let write = by_layout!(layout, table);
    let mut tables = MaybeUninit::<Tables>::uninit();
    let tables = tables.as_mut_ptr();
    // While the row blocks pass by, the next panel comes into the second-level cache bit by bit.
    let follows = Shares::new(weights.panel((panel + 1).min(weights.panels() - 1)), k_blocks * blocks.len());
    // Row blocks of all of `x` differ by a row at most. Only additions are left between calls: what a kernel needs first must not come late.
    let most = *x.blocks().sizes().end();
    let kernels = [kernel(layout, most), kernel(layout, (most - 1).max(FEWEST_ROWS))];
    for first in (0..k_blocks).step_by(CHUNK) {
        let count = CHUNK.min(k_blocks - first);
        let at = weights.panel(panel)[layout.block_offset(first).0 - layout.super_header_bytes()..].as_ptr();
        // SAFETY: the panel has these blocks, and there is room for what is made of so many.
        unsafe {
            write(at, count, (&raw mut (*tables).levels).cast());
            if layout.has_min() {
                minima_avx512::write(layout, at, count, &raw mut (*tables).minima);
            }
        }
        let mut sums = sums;
        for block in blocks.clone() {
            let rows = x.blocks().rows_of(block).len();
            let x = x.block(block);
            let values = x[first * ROW_BLOCK_BYTES * rows..][..count * ROW_BLOCK_BYTES * rows].as_ptr();
            let y = x[minima::place(k_blocks, first) * rows..][..minima::row_bytes(count) * rows].as_ptr();
            let ahead = follows.after(first * blocks.len() + (block - blocks.start) * count);
            let next = if first + count == k_blocks { place(block) } else { Place::NOWHERE };
            let out = Sums { at: sums, stride: PANEL, fresh: first == 0, next };
            // SAFETY: panel and row block hold so many blocks, whose tables were written; the sums are the caller's.
            unsafe { kernels[most - rows](at, tables, (values, y), count * BLOCK, out, ahead) };
            sums = sums.wrapping_add(rows * PANEL);
        }
    }
}
