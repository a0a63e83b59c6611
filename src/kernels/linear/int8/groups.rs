//! Row blocks that go through a panel together, because they share what is made of it first.
#![allow(unsafe_code)]

use super::{GROUP, levels, tiles};
use crate::kernels::linear::layout::PANEL;
use crate::kernels::linear::{PackedMatrix, Place, Prepared};
use crate::kernels::tiles::ROWS;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Whether a product of row blocks `blocks` goes in groups.
pub(in crate::kernels::linear) fn in_groups(weights: &PackedMatrix, x: &Prepared, blocks: &Range<usize>) -> bool {
    x.blocks().on_tiles() || levels::pay(weights.layout(), x, blocks)
}

/// Sums of a group of row blocks and one panel.
#[repr(align(64))]
pub(in crate::kernels::linear) struct GroupSums([MaybeUninit<f32>; GROUP * ROWS * PANEL]);

impl GroupSums {
    /// Without sums.
    pub fn new() -> Self {
        GroupSums([const { MaybeUninit::uninit() }; GROUP * ROWS * PANEL])
    }

    /// Multiplies panel `panel` of `weights` with up to [`GROUP`] row blocks of a product that is [`in_groups`] and returns the sums,
    /// `[rows][PANEL]`; on VNNI the outputs of each block, where `place` tells, are prefetched meanwhile.
    ///
    /// # Panics
    /// When `x` was prepared for another width or other weights, the product does not go in groups, or there is no such panel or block.
    pub fn multiply(
        &mut self,
        weights: &PackedMatrix,
        panel: usize,
        x: &Prepared,
        blocks: Range<usize>,
        place: impl FnMut(usize) -> Place,
    ) -> &mut [f32] {
        let all = x.blocks();
        let rows = all.rows_of(blocks.start).start..all.rows_of(blocks.end - 1).end;
        assert!(
            all.k() == weights.k()
                && all.form() == weights.layout().form()
                && (all.on_tiles() || levels::fit(weights.layout(), x))
                && blocks.end <= all.count()
                && rows.len() <= GROUP * ROWS,
            "activations of width {} for {} weights of {} inputs in groups",
            all.k(),
            weights.dtype(),
            weights.k()
        );
        let sums = self.0.as_mut_ptr().cast();
        // SAFETY: rows are prepared for tiles where these are allowed, with which AVX-512 and VNNI come, and levels come with these too; a
        // panel and prepared blocks have the sizes that their layouts prescribe for `k`, and there is room for the sums. They are all written
        // before they are read.
        unsafe {
            if all.on_tiles() {
                tiles::multiply(weights, panel, x, blocks, sums);
            } else {
                levels::multiply(weights, panel, x, blocks, place, sums);
            }
            std::slice::from_raw_parts_mut(sums, rows.len() * PANEL)
        }
    }
}
