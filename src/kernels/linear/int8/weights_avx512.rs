//! Quants, scales and minima of a panel in AVX-512 registers.
#![allow(unsafe_code)]

use super::{LAYOUTS, LEVELS};
use crate::kernels::linear::layout::{Layout, PANEL};
use std::arch::x86_64::*;

/// Quants of group `group` of 16 outputs as bytes; for [`Layout::Nibble`] 16 times that, so that 128 stands for zero as with bytes.
///
/// # Safety
/// `block` points to a block of the layout.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn quants(block: *const u8, layout: Layout, group: usize, half: usize) -> __m512i {
    let at = if layout.is_nibble() { group % 4 } else { group };
    // SAFETY: `at < 4` for nibbles and 8 for bytes, `half < 2`.
    let v = unsafe { _mm512_loadu_si512(block.add((at * 2 + half) * 64).cast()) };
    if !layout.is_nibble() {
        return v;
    }
    if layout.has_min() {
        let v = if group < 4 { v } else { _mm512_srli_epi16::<4>(v) };
        return _mm512_and_si512(v, _mm512_set1_epi8(15));
    }
    let v = if group < 4 { _mm512_slli_epi16::<4>(v) } else { v };
    _mm512_and_si512(v, _mm512_set1_epi8(-16))
}

/// Scales of 16 outputs for part `part` of the block, in the unit of [`quants`].
///
/// # Safety
/// `scales` points behind the quants of a block of the layout, `header` to the header of its 256 inputs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn scale(scales: *const u8, header: *const u8, layout: Layout, part: usize, half: usize) -> __m512 {
    // SAFETY: 16 values of 32.
    unsafe {
        if layout == Layout::Nibble {
            return _mm512_mul_ps(halves(scales.add(half * 32)), _mm512_set1_ps(1.0 / 16.0));
        }
        if !layout.is_super() {
            return halves(scales.add(half * 32));
        }
        let bytes = _mm_loadu_si128(scales.add(part * PANEL + half * 16).cast());
        let sub = if layout == Layout::Byte16 { _mm512_cvtepi8_epi32(bytes) } else { _mm512_cvtepu8_epi32(bytes) };
        _mm512_mul_ps(halves(header.add(half * 32)), _mm512_cvtepi32_ps(sub))
    }
}

/// Minima of 16 outputs.
///
/// # Safety
/// As [`scale`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn minimum(scales: *const u8, header: *const u8, layout: Layout, half: usize) -> __m512 {
    // SAFETY: 16 values of 32.
    unsafe {
        if !layout.is_super() {
            return halves(scales.add(2 * PANEL + half * 32));
        }
        let sub = _mm512_cvtepu8_epi32(_mm_loadu_si128(scales.add(PANEL + half * 16).cast()));
        let product = _mm512_mul_ps(halves(header.add(2 * PANEL + half * 32)), _mm512_cvtepi32_ps(sub));
        _mm512_sub_ps(_mm512_setzero_ps(), product)
    }
}

/// 16 f16 values, widened.
///
/// # Safety
/// 32 bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller's.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// Writes the scales of `blocks` blocks times each level: `[block][2][LEVELS][16]`.
///
/// # Safety
/// The CPU has the features; `panel` holds so many blocks of the layout, from the start of the panel or of 256 inputs on, and `levels` is
/// aligned to 64 bytes and has room.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn write_levels<const LAYOUT: usize>(panel: *const u8, blocks: usize, levels: *mut f32) {
    let layout = const { LAYOUTS[LAYOUT] };
    for b in 0..blocks {
        let (at, header) = layout.block_offset(b);
        for half in 0..2 {
            // SAFETY: the caller's.
            unsafe {
                let scales = panel.add(at + layout.quant_bytes());
                let d = scale(scales, panel.add(header), layout, 0, half);
                for level in 0..LEVELS {
                    let factor = _mm512_set1_ps(1.0 + level as f32 / LEVELS as f32);
                    _mm512_store_ps(levels.add(((b * 2 + half) * LEVELS + level) * 16), _mm512_mul_ps(d, factor));
                }
            }
        }
    }
}
