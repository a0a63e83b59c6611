//! Minima of weights as [integers](super::minima), with AVX-512.
#![allow(unsafe_code)]

use super::minima::{MINIMUM_EXPONENT, NO_EXPONENT, SPAN};
use super::weights_avx512::minimum;
use super::{LAYOUTS, ROUND, by_layout};
use crate::kernels::linear::layout::{Layout, PANEL};
use std::arch::x86_64::*;

/// Minima of a panel and one span as integers.
#[repr(C, align(64))]
pub(super) struct Minima {
    /// Two blocks a word: `[SPAN / 2][32]`.
    pub(super) words: [[i32; PANEL]; SPAN / 2],
    /// Exponents e − 13.
    pub(super) exponents: [f32; PANEL],
}

type Write = unsafe fn(*const u8, usize, *mut Minima);

/// Writes the minima of `blocks` blocks, one span, of a panel of `layout` from `panel` on.
///
/// # Safety
/// The CPU has AVX-512 F and BW; the layout has minima; `panel` holds so many blocks, 1 to [`SPAN`], from the start of the panel or of 256 inputs
/// on; `minima` can be written.
pub(super) unsafe fn write(layout: Layout, panel: *const u8, blocks: usize, minima: *mut Minima) {
    macro_rules! table {
        ($code:literal) => {
            if const { LAYOUTS[$code].has_min() } { write_layout::<$code> as Write } else { unreachable!("no minima") }
        };
    }
    // SAFETY: the caller's.
    unsafe { by_layout!(layout, table)(panel, blocks, minima) }
}

/// # Safety
/// As [`write`], for layout `LAYOUT`.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn write_layout<const LAYOUT: usize>(panel: *const u8, blocks: usize, minima: *mut Minima) {
    for half in 0..2 {
        // SAFETY: the caller's, for blocks below `blocks`, and 16 of the words of a pair and of the exponents.
        unsafe {
            let of = OfPanel::<LAYOUT> { panel, blocks, half };
            let largest = (0..blocks).fold(_mm512_setzero_si512(), |largest, b| of.grow(largest, b));
            let e = exponents_of::<LAYOUT>(largest);
            let factor = factor(e);
            for pair in 0..blocks.div_ceil(2) {
                let to = (&raw mut (*minima).words).cast::<i32>().add(pair * PANEL + half * 16);
                _mm512_store_si512(to.cast(), of.words(pair, factor));
            }
            _mm512_store_ps((&raw mut (*minima).exponents).cast::<f32>().add(half * 16), e);
        }
    }
}

/// Minima of 16 outputs of a panel, from the start of the panel or of 256 inputs on, in one span.
#[derive(Clone, Copy)]
pub(super) struct OfPanel<const LAYOUT: usize> {
    pub panel: *const u8,
    pub blocks: usize,
    pub half: usize,
}

impl<const LAYOUT: usize> OfPanel<LAYOUT> {
    const LAYOUT: Layout = LAYOUTS[LAYOUT];

    /// The minima of block `b`.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW; the panel has the block.
    #[inline(always)]
    unsafe fn minimum(self, b: usize) -> __m512 {
        let (at, header) = Self::LAYOUT.block_offset(b);
        // SAFETY: the caller's.
        unsafe {
            minimum(self.panel.add(at + Self::LAYOUT.quant_bytes()), self.panel.add(header), Self::LAYOUT, self.half)
        }
    }

    /// The larger of the magnitudes in `largest` (zero at first) and those of block `b`, in a form of the layout; NaN is above all.
    ///
    /// # Safety
    /// As [`OfPanel::minimum`], and AVX2.
    #[inline(always)]
    pub unsafe fn grow(self, largest: __m512i, b: usize) -> __m512i {
        // Compared as integers, magnitudes order like floats.
        // SAFETY: the caller's; minima that are f16 lie behind the scales.
        unsafe {
            if Self::LAYOUT.is_super() {
                let magnitude = _mm512_and_si512(_mm512_castps_si512(self.minimum(b)), _mm512_set1_epi32(0x7fff_ffff));
                return _mm512_max_epi32(largest, magnitude);
            }
            let at = Self::LAYOUT.block_offset(b).0 + Self::LAYOUT.quant_bytes() + 2 * PANEL + self.half * 32;
            let halves = _mm256_loadu_si256(self.panel.add(at).cast());
            let magnitude = _mm256_and_si256(halves, _mm256_set1_epi16(0x7fff));
            _mm512_castsi256_si512(_mm256_max_epu16(_mm512_castsi512_si256(largest), magnitude))
        }
    }

    /// The minima of blocks `2 · pair` and the next, if there is one, as integers.
    ///
    /// # Safety
    /// As [`OfPanel::minimum`].
    #[inline(always)]
    pub unsafe fn words(self, pair: usize, factor: __m512) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let mut late = _mm512_setzero_si512();
            if 2 * pair + 1 < self.blocks {
                late = _mm512_slli_epi32::<16>(self.whole(2 * pair + 1, factor));
            }
            _mm512_mask_blend_epi16(0xaaaa_aaaa, self.whole(2 * pair, factor), late)
        }
    }

    /// The minima of block `b` as integers, in the low 16 bits.
    ///
    /// # Safety
    /// As [`OfPanel::minimum`].
    #[inline(always)]
    unsafe fn whole(self, b: usize, factor: __m512) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_castps_si512(_mm512_fmadd_ps(self.minimum(b), factor, _mm512_set1_ps(ROUND))) }
    }
}

/// Exponents e − 13 of what [`OfPanel::grow`] found.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exponents_of<const LAYOUT: usize>(largest: __m512i) -> __m512 {
    let largest = if const { LAYOUTS[LAYOUT].is_super() } {
        largest
    } else {
        _mm512_castps_si512(_mm512_cvtph_ps(_mm512_castsi512_si256(largest)))
    };
    _mm512_sub_ps(exponents(largest), _mm512_set1_ps(MINIMUM_EXPONENT))
}

/// What minima are multiplied with to become integers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn factor(e: __m512) -> __m512 {
    _mm512_scalef_ps(_mm512_set1_ps(1.0), _mm512_sub_ps(_mm512_setzero_ps(), e))
}

/// Exponents of two of magnitudes, given as bits: [`NO_EXPONENT`] of zero, NaN where they are not finite. None is subnormal.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exponents(magnitudes: __m512i) -> __m512 {
    let e = _mm512_getexp_ps(_mm512_castsi512_ps(magnitudes));
    let zero = _mm512_cmpeq_epi32_mask(magnitudes, _mm512_setzero_si512());
    let e = _mm512_mask_mov_ps(e, zero, _mm512_set1_ps(NO_EXPONENT));
    let finite = _mm512_cmplt_epi32_mask(magnitudes, _mm512_set1_epi32(f32::INFINITY.to_bits() as i32));
    _mm512_mask_blend_ps(finite, _mm512_set1_ps(f32::NAN), e)
}
