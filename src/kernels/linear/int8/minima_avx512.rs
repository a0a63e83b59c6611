//! Minima of weights as [integers](super::minima), with AVX-512.
#![allow(unsafe_code)]

use super::minima::{EXPONENT, IN_WORD, MARGIN, NO_EXPONENT, SPAN, ZERO_BYTE};
use super::weights_avx512::minimum;
use super::{LAYOUTS, ROUND, by_layout};
use crate::kernels::linear::layout::{Layout, PANEL};
use std::arch::x86_64::*;

/// Minima of a panel and one span as integers.
#[repr(C, align(64))]
pub(super) struct Minima {
    /// Four blocks a word, M + [`ZERO_BYTE`] as bytes: `[SPAN / 4][32]`.
    pub(super) words: [[i32; PANEL]; SPAN / IN_WORD],
    /// Exponents e − 6.
    pub(super) exponents: [f32; PANEL],
    /// Middles c.
    pub(super) middles: [f32; PANEL],
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
        // SAFETY: the caller's, for blocks below `blocks`, and 16 of the words of four blocks, of the exponents and of the middles.
        unsafe {
            let of = OfPanel::<LAYOUT> { panel, blocks, half };
            let ends = (0..blocks).fold(OfPanel::<LAYOUT>::no_ends(), |ends, b| of.widen(ends, b));
            let unit = OfPanel::<LAYOUT>::unit(ends);
            for word in 0..blocks.div_ceil(IN_WORD) {
                let to = (&raw mut (*minima).words).cast::<i32>().add(word * PANEL + half * 16);
                _mm512_store_si512(to.cast(), of.words(word, &unit));
            }
            _mm512_store_ps((&raw mut (*minima).exponents).cast::<f32>().add(half * 16), unit.exponents);
            _mm512_store_ps((&raw mut (*minima).middles).cast::<f32>().add(half * 16), unit.middles);
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

/// The least and the most of some minima of 16 outputs, ordered as integers in a form of the layout.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    least: __m512i,
    most: __m512i,
}

/// What minima of 16 outputs are integers of.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    /// Exponents e − 6.
    pub exponents: __m512,
    /// Middles c.
    pub middles: __m512,
    /// 2^(6 − e)
    factors: __m512,
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

    /// Those of no minima.
    ///
    /// # Safety
    /// The CPU has AVX-512 F.
    #[inline(always)]
    pub unsafe fn no_ends() -> Ends {
        // SAFETY: the caller's.
        unsafe {
            let most = if Self::LAYOUT.is_super() { i32::MIN } else { i32::from_ne_bytes([0, 0x80, 0, 0x80]) };
            Ends { least: _mm512_set1_epi32(!most), most: _mm512_set1_epi32(most) }
        }
    }

    /// `ends`, with the minima of block `b`; NaN is above or below all.
    ///
    /// # Safety
    /// As [`OfPanel::minimum`], and AVX2.
    #[inline(always)]
    pub unsafe fn widen(self, ends: Ends, b: usize) -> Ends {
        // SAFETY: the caller's; minima that are f16 lie behind the scales.
        unsafe {
            if Self::LAYOUT.is_super() {
                let ordered = ordered(_mm512_castps_si512(self.minimum(b)));
                return Ends {
                    least: _mm512_min_epi32(ends.least, ordered),
                    most: _mm512_max_epi32(ends.most, ordered),
                };
            }
            let at = Self::LAYOUT.block_offset(b).0 + Self::LAYOUT.quant_bytes() + 2 * PANEL + self.half * 32;
            let ordered = ordered_halves(_mm256_loadu_si256(self.panel.add(at).cast()));
            let [least, most] = [ends.least, ends.most].map(|ends| _mm512_castsi512_si256(ends));
            Ends {
                least: _mm512_castsi256_si512(_mm256_min_epi16(least, ordered)),
                most: _mm512_castsi256_si512(_mm256_max_epi16(most, ordered)),
            }
        }
    }

    /// What minima with these `ends` are integers of.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and AVX2.
    #[inline(always)]
    pub unsafe fn unit(ends: Ends) -> Unit {
        // SAFETY: the caller's.
        unsafe {
            let [least, most] = [ends.least, ends.most].map(|end| {
                if Self::LAYOUT.is_super() {
                    _mm512_castsi512_ps(ordered(end))
                } else {
                    _mm512_cvtph_ps(ordered_halves(_mm512_castsi512_si256(end)))
                }
            });
            let half = _mm512_set1_ps(0.5);
            let e = unit(_mm512_mul_ps(_mm512_sub_ps(most, least), half));
            Unit {
                exponents: e,
                middles: _mm512_mul_ps(_mm512_add_ps(least, most), half),
                factors: _mm512_scalef_ps(_mm512_set1_ps(1.0), _mm512_sub_ps(_mm512_setzero_ps(), e)),
            }
        }
    }

    /// The minima of blocks `4 · word ..`, as far as there are such, as bytes M + [`ZERO_BYTE`].
    ///
    /// # Safety
    /// As [`OfPanel::minimum`].
    #[inline(always)]
    pub unsafe fn words(self, word: usize, unit: &Unit) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let mut bytes = [_mm512_setzero_si512(); IN_WORD];
            for (i, bytes) in bytes.iter_mut().enumerate() {
                let b = word * IN_WORD + i;
                if b < self.blocks {
                    let round = _mm512_set1_ps(ROUND + ZERO_BYTE as f32);
                    let from_middle = _mm512_sub_ps(self.minimum(b), unit.middles);
                    *bytes = _mm512_castps_si512(_mm512_fmadd_ps(from_middle, unit.factors, round));
                }
            }
            // What lies above the lowest byte of each is left out.
            let byte = 0x8888_8888_8888_8888;
            let low = _mm512_mask_mov_epi8(bytes[0], byte >> 2, _mm512_slli_epi32::<8>(bytes[1]));
            let high = _mm512_slli_epi32::<16>(bytes[2]);
            let high = _mm512_mask_mov_epi8(high, byte, _mm512_slli_epi32::<24>(bytes[3]));
            _mm512_mask_mov_epi16(low, 0xaaaa_aaaa, high)
        }
    }
}

/// Floats, given as bits, in an order of integers; its own inverse.
#[inline]
#[target_feature(enable = "avx512f")]
fn ordered(bits: __m512i) -> __m512i {
    let below = _mm512_and_si512(_mm512_srai_epi32::<31>(bits), _mm512_set1_epi32(i32::MAX));
    _mm512_xor_si512(bits, below)
}

/// As [`ordered`], of f16.
#[inline]
#[target_feature(enable = "avx2")]
fn ordered_halves(bits: __m256i) -> __m256i {
    let below = _mm256_and_si256(_mm256_srai_epi16::<15>(bits), _mm256_set1_epi16(i16::MAX));
    _mm256_xor_si256(bits, below)
}

/// As [`super::minima::unit`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn unit(largest: __m512) -> __m512 {
    let e = exponents(_mm512_castps_si512(_mm512_mul_ps(largest, _mm512_set1_ps(MARGIN))));
    _mm512_sub_ps(e, _mm512_set1_ps(EXPONENT))
}

/// Exponents of two of magnitudes, given as bits: [`NO_EXPONENT`] of zero, NaN where they are not finite. None is subnormal.
#[inline]
#[target_feature(enable = "avx512f")]
fn exponents(magnitudes: __m512i) -> __m512 {
    let e = _mm512_getexp_ps(_mm512_castsi512_ps(magnitudes));
    let zero = _mm512_cmpeq_epi32_mask(magnitudes, _mm512_setzero_si512());
    let e = _mm512_mask_mov_ps(e, zero, _mm512_set1_ps(NO_EXPONENT));
    let finite = _mm512_cmplt_epu32_mask(magnitudes, _mm512_set1_epi32(f32::INFINITY.to_bits() as i32));
    _mm512_mask_blend_ps(finite, _mm512_set1_ps(f32::NAN), e)
}
