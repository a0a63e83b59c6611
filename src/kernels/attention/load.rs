//! Rows of keys and values, and how they are brought into tiles.
#![allow(unsafe_code)]

use super::call::AttentionInput;
use super::tile::{KEY_TILE, padded};
use crate::kernels::vector::Simd;
use crate::kernels::vector::stored::Stored;
use crate::kernels::view::View;

/// Rows of one tile, keys and values, of all heads of the call.
pub struct TileRows<E> {
    pub first: usize,
    pub count: usize,
    pub keys: [*const E; KEY_TILE],
    pub values: [*const E; KEY_TILE],
}

impl<E> TileRows<E> {
    /// Those from position `first` on; none from `end` on.
    #[inline(always)]
    pub fn of(input: &AttentionInput<E>, first: usize, end: usize) -> Self {
        let count = KEY_TILE.min(end.saturating_sub(first));
        let keys = row_pointers(&input.keys, first, count);
        TileRows { first, count, keys, values: row_pointers(&input.values, first, count) }
    }
}

/// Pointers to the first element of up to [`KEY_TILE`] rows from row `first` on.
#[inline(always)]
pub fn row_pointers<E>(rows: &View<E>, first: usize, count: usize) -> [*const E; KEY_TILE] {
    let mut pointers = [std::ptr::null(); KEY_TILE];
    if rows.is_contiguous() && count > 0 {
        let (start, stride) = (rows.row_ptr(first), rows.stride());
        assert!(first + count <= rows.rows());
        for (i, pointer) in pointers.iter_mut().enumerate() {
            *pointer = start.wrapping_add(i.min(count - 1) * stride);
        }
    } else {
        for (i, pointer) in pointers[..count].iter_mut().enumerate() {
            *pointer = rows.row_ptr(first + i);
        }
    }
    pointers
}

/// Writes the transpose of `rows` (`width` elements each) to `dst`: row d has `TILE` floats, one per source row. Sources beyond
/// `rows.len()` read as zero up to the next multiple of the vector and are not written after it.
///
/// # Safety
/// `width` elements are readable at each pointer; `dst` holds `width · TILE` floats; there are at most `TILE` rows, and `TILE` is a
/// multiple of the lanes.
#[inline(always)]
pub unsafe fn transpose_tile<S: Simd, E: Stored, const TILE: usize>(
    s: S,
    rows: &[*const E],
    width: usize,
    dst: *mut f32,
) {
    let mut first = 0;
    while first < rows.len() {
        let group = &rows[first..rows.len().min(first + S::LANES)];
        let mut column = 0;
        while column < width {
            let count = S::LANES.min(width - column);
            // SAFETY: the caller's contract; first + LANES ≤ TILE as LANES divides it.
            unsafe {
                let block = s.load_transposed(group, column, count);
                let to = dst.add(column * TILE + first);
                if count == S::LANES {
                    for j in 0..S::LANES {
                        s.store(to.add(j * TILE), block.as_ref()[j]);
                    }
                } else {
                    for j in 0..count {
                        s.store(to.add(j * TILE), block.as_ref()[j]);
                    }
                }
            }
            column += count;
        }
        first += S::LANES;
    }
}

/// Copies one row of `width` elements to f32 times `factor`, and zeroes the padding up to [`padded`]`(width)`.
///
/// # Safety
/// `width` elements are readable at `src`; `padded(width)` floats writable at `dst`.
#[inline(always)]
pub unsafe fn copy_row<S: Simd, E: Stored>(s: S, src: *const E, width: usize, factor: f32, dst: *mut f32) {
    let factor = s.splat(factor);
    let mut i = 0;
    // SAFETY: the caller's contract; LANES divides the padding.
    unsafe {
        while i < padded(width) {
            let v = match width.saturating_sub(i) {
                0 => s.splat(0.0),
                n if n >= S::LANES => E::load(s, src.add(i)),
                n => E::load_partial(s, src.add(i), n),
            };
            s.store(dst.add(i), s.mul(v, factor));
            i += S::LANES;
        }
    }
}
