//! Rows of operands and gradients on their way to the scratch of [`attention_backward`](super::attention_backward) and back.
#![allow(unsafe_code)]

use super::backward::Backward;
use super::backward_scratch::{Parts, TILE};
use super::load::{copy_row, row_pointers, transpose_tile};
use super::tile::padded;
use crate::kernels::reduce::row_sums;
use crate::kernels::vector::Simd;
use crate::kernels::vector::map::LaneFn;

struct DotTerms;
impl LaneFn<2, 1> for DotTerms {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [a, b]: [S::V; 2]) -> [S::V; 1] {
        [s.mul(a, b)]
    }
}

impl Backward<'_, '_, '_, '_> {
    /// First row and number of rows of a tile.
    #[inline(always)]
    pub fn extent(&self, tile: usize) -> (usize, usize) {
        let first = tile * TILE;
        (first, TILE.min(self.saved.q.rows() - first))
    }

    /// Keys and values of a tile, in the layouts that the products read.
    ///
    /// # Safety
    /// The parts hold a tile.
    #[inline(always)]
    pub unsafe fn load_keys<S: Simd>(&self, s: S, parts: Parts, tile: usize) {
        let (first, count) = self.extent(tile);
        let keys = row_pointers(&self.saved.keys, first, count);
        let values = row_pointers(&self.saved.values, first, count);
        // SAFETY: the rows hold d elements, the parts a tile.
        unsafe {
            transpose_tile::<_, _, TILE>(s, &keys[..count], self.d, parts.keys_transposed);
            transpose_tile::<_, _, TILE>(s, &values[..count], self.d, parts.values_transposed);
            for (i, &key) in keys[..count].iter().enumerate() {
                copy_row(s, key, self.d, self.saved.scale, parts.keys.add(i * padded(self.d)));
            }
        }
    }

    /// Queries, upstream gradients and statistics of one head of a block.
    ///
    /// # Safety
    /// The parts hold a tile.
    #[inline(always)]
    pub unsafe fn load_queries<S: Simd>(&self, s: S, parts: Parts, head: usize, block: usize) {
        let (first, count) = self.extent(block);
        let (d, stride) = (self.d, padded(self.d));
        // SAFETY: rows of the views hold group · d elements, the parts a tile.
        unsafe {
            for i in 0..count {
                let row = first + i;
                let d_out = self.saved.d_out.row_ptr(row).add(head * d);
                copy_row(s, self.saved.q.row_ptr(row).add(head * d), d, self.saved.scale, parts.q.add(i * stride));
                copy_row(s, d_out, d, 1.0, parts.d_out.add(i * stride));
                let [delta] = row_sums(s, &DotTerms, [d_out, self.saved.out.row_ptr(row).add(head * d)], d);
                *parts.delta.add(i) = delta;
                *parts.log_sum_exp.add(i) = self.saved.log_sum_exp.row(row)[head];
            }
        }
    }

    /// The gradients of a tile of keys and values so far: none when it is `fresh`.
    ///
    /// # Safety
    /// The parts hold a tile, which has been written unless it is `fresh`.
    #[inline(always)]
    pub unsafe fn load_key_gradients<S: Simd>(&mut self, s: S, parts: Parts, tile: usize, fresh: bool) {
        let (first, count) = self.extent(tile);
        let stride = padded(self.d);
        // SAFETY: the parts hold a tile; rows of a tile that is not fresh have been written by `span`.
        unsafe {
            if fresh {
                std::slice::from_raw_parts_mut(parts.d_keys, TILE * stride).fill(0.0);
                std::slice::from_raw_parts_mut(parts.d_values, TILE * stride).fill(0.0);
                return;
            }
            for i in 0..count {
                let (d_keys, d_values) = (self.d_keys.row_ptr(first + i), self.d_values.row_ptr(first + i));
                copy_row(s, d_keys.cast_const(), self.d, 1.0, parts.d_keys.add(i * stride));
                copy_row(s, d_values.cast_const(), self.d, 1.0, parts.d_values.add(i * stride));
            }
        }
    }

    /// Writes the gradients of the queries of one head of a block.
    ///
    /// # Safety
    /// The parts hold a tile.
    #[inline(always)]
    pub unsafe fn store_d_q<S: Simd>(&mut self, s: S, parts: Parts, head: usize, block: usize) {
        let (first, count) = self.extent(block);
        for i in 0..count {
            // SAFETY: as `load_queries`.
            unsafe {
                let row = self.d_q.row_ptr(first + i).add(head * self.d);
                store_row(s, parts.d_q.add(i * padded(self.d)), self.d, row);
            }
        }
    }
}

/// Writes the first `width` elements of a padded row.
///
/// # Safety
/// The source is padded to whole vectors; `width` elements are writable at `dst`.
#[inline(always)]
pub unsafe fn store_row<S: Simd>(s: S, src: *const f32, width: usize, dst: *mut f32) {
    let mut i = 0;
    while i < width {
        let count = S::LANES.min(width - i);
        // SAFETY: the source is padded to whole vectors; `count` elements fit the destination.
        unsafe { s.store_partial(dst.add(i), s.load(src.add(i)), count) };
        i += count;
    }
}
