//! Activations as the rows of tiles: `[k / 32][rows][32]` bf16, `k` padded with zeros to a multiple of 32.

use crate::kernels::interleave::LINE;
#[cfg(target_arch = "x86_64")]
use crate::kernels::interleave::{Block, lines};
#[cfg(target_arch = "x86_64")]
use crate::kernels::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::kernels::view::View;
#[cfg(target_arch = "x86_64")]
use std::ops::Range;

/// Bytes of one prepared row of `k` values.
pub(in crate::kernels) const fn row_bytes(k: usize) -> usize {
    2 * k.next_multiple_of(LINE)
}

/// Prepares rows `rows` of `x`, rounded to nearest even. Only for [`Isa::Amx`].
///
/// # Panics
/// When `dst` has another size than [`row_bytes`] of each row, or is not aligned to 4 bytes.
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) fn prepare(x: &View<f32>, rows: Range<usize>, dst: &mut [u8]) {
    assert_eq!(dst.len(), rows.len() * row_bytes(x.width()), "prepared size");
    let block = Block { first: 0, count: rows.len(), start: 0 };
    lines(Isa::Amx, &x.slice_rows(rows), &[block], bytemuck::cast_slice_mut(dst));
}
