//! Products of [minima](super::minima) and sums of activations with AVX-512.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "minima, units and sums run in step")]

use super::avx512::dot_wide;
use super::minima::{IN_WORD, WORDS_BEHIND};
use super::minima_avx512::{Ends, Minima, OfPanel, Unit};
use crate::kernels::linear::layout::PANEL;
use std::arch::x86_64::*;

/// Adds to `sums`, of `R` rows and half `half` of the outputs, the products of `minima` and the sums of one span of `blocks` blocks, which are
/// at `x`.
///
/// # Safety
/// The CPU has AVX-512 F, BW and VNNI; `minima` and the sums of `R` rows at `x`, aligned to 4 bytes, were written for so many blocks.
#[inline(always)]
pub(super) unsafe fn add<const R: usize>(
    sums: &mut [[__m512; 1]; R],
    minima: *const Minima,
    half: usize,
    blocks: usize,
    x: *const u8,
) {
    // SAFETY: the caller's.
    unsafe { add_words(sums, &Written { minima, half }, blocks.div_ceil(IN_WORD), x) }
}

/// Adds to `sums`, of `R` rows and `H × 16` outputs, the products of the minima of a panel, whose ends are `ends`, and the sums of their span,
/// which are at `x`.
///
/// # Safety
/// The CPU has AVX-512 F and BW, and VNNI where `VNNI` says so; the panel has the blocks, and [`OfPanel::widen`] went through all of them; the sums
/// of `R` rows at `x`, aligned to 4 bytes, were written for so many blocks.
#[inline(always)]
pub(super) unsafe fn add_of_panel<const R: usize, const H: usize, const LAYOUT: usize, const VNNI: bool>(
    sums: &mut [[__m512; H]; R],
    minima: [OfPanel<LAYOUT>; H],
    ends: [Ends; H],
    x: *const u8,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut units = [OfPanel::<LAYOUT>::unit(ends[0]); H];
        for h in 1..H {
            units[h] = OfPanel::<LAYOUT>::unit(ends[h]);
        }
        let made = Made::<LAYOUT, H, VNNI> { minima, units };
        add_words(sums, &made, minima[0].blocks.div_ceil(IN_WORD), x);
    }
}

/// Minima as bytes M + 128, of some halves of the outputs of a panel. Methods, not closures: these would not have the instructions.
trait Words {
    const VNNI: bool;
    /// Those of four blocks.
    unsafe fn words(&self, word: usize, h: usize) -> __m512i;
    /// Exponents e − 6.
    unsafe fn exponents(&self, h: usize) -> __m512;
    /// Middles c.
    unsafe fn middles(&self, h: usize) -> __m512;
}

/// Those that [`write`](super::minima_avx512::write) wrote, of half `half` of the outputs.
struct Written {
    minima: *const Minima,
    half: usize,
}

impl Words for Written {
    const VNNI: bool = true;
    #[inline(always)]
    unsafe fn words(&self, word: usize, _: usize) -> __m512i {
        // SAFETY: 16 of the words of four blocks.
        unsafe {
            let at = (&raw const (*self.minima).words).cast::<i32>().add(word * PANEL + self.half * 16);
            _mm512_load_si512(at.cast())
        }
    }
    #[inline(always)]
    unsafe fn exponents(&self, _: usize) -> __m512 {
        // SAFETY: 16 of the exponents.
        unsafe { _mm512_load_ps((&raw const (*self.minima).exponents).cast::<f32>().add(self.half * 16)) }
    }
    #[inline(always)]
    unsafe fn middles(&self, _: usize) -> __m512 {
        // SAFETY: 16 of the middles.
        unsafe { _mm512_load_ps((&raw const (*self.minima).middles).cast::<f32>().add(self.half * 16)) }
    }
}

/// Those of a panel, made when they are wanted.
struct Made<const LAYOUT: usize, const H: usize, const VNNI: bool> {
    minima: [OfPanel<LAYOUT>; H],
    units: [Unit; H],
}

impl<const LAYOUT: usize, const H: usize, const VNNI: bool> Words for Made<LAYOUT, H, VNNI> {
    const VNNI: bool = VNNI;
    #[inline(always)]
    unsafe fn words(&self, word: usize, h: usize) -> __m512i {
        // SAFETY: the panel has the blocks.
        unsafe { self.minima[h].words(word, &self.units[h]) }
    }
    #[inline(always)]
    unsafe fn exponents(&self, h: usize) -> __m512 {
        self.units[h].exponents
    }
    #[inline(always)]
    unsafe fn middles(&self, h: usize) -> __m512 {
        self.units[h].middles
    }
}

/// Adds to `sums`, of `R` rows and `H × 16` outputs, the products of minima of `words` words of blocks and the sums of their span at `x`.
///
/// # Safety
/// The CPU has AVX-512 F and BW, and VNNI where `W` says so; there are minima of so many words and `H` halves, and at `x`, aligned to 4 bytes,
/// the sums of so many words and `R` rows.
#[inline(always)]
unsafe fn add_words<const R: usize, const H: usize, W: Words>(
    sums: &mut [[__m512; H]; R],
    minima: &W,
    words: usize,
    x: *const u8,
) {
    let x = x.cast::<i32>();
    // SAFETY: the caller's: `r < R`, and words below those of the span and [`WORDS_BEHIND`] more.
    unsafe {
        let [f, zeros, totals] = std::array::from_fn::<_, WORDS_BEHIND, _>(|i| x.add((words + i) * R));
        let mut dots = [[_mm512_setzero_si512(); H]; R];
        for (r, dots) in dots.iter_mut().enumerate() {
            *dots = [_mm512_set1_epi32(*zeros.add(r)); H];
        }
        for word in 0..words {
            let mut m = [_mm512_setzero_si512(); H];
            for (h, m) in m.iter_mut().enumerate() {
                *m = minima.words(word, h);
            }
            for (r, dots) in dots.iter_mut().enumerate() {
                let y = _mm512_set1_epi32(*x.add(word * R + r));
                for (dot, &m) in dots.iter_mut().zip(&m) {
                    *dot = if W::VNNI { _mm512_dpbusd_epi32(*dot, m, y) } else { dot_wide(*dot, m, y) };
                }
            }
        }
        for h in 0..H {
            let (e, c) = (minima.exponents(h), minima.middles(h));
            for r in 0..R {
                let f = _mm512_set1_ps(*f.add(r).cast::<f32>());
                let product = _mm512_scalef_ps(_mm512_cvtepi32_ps(dots[r][h]), _mm512_add_ps(e, f));
                let of_middle = _mm512_mul_ps(c, _mm512_set1_ps(*totals.add(r).cast::<f32>()));
                sums[r][h] = _mm512_add_ps(sums[r][h], _mm512_add_ps(product, of_middle));
            }
        }
    }
}

/// As [`add`] for any number of rows from 8 to 16 and all outputs, to `[rows][32]` at `sums`.
///
/// # Safety
/// As [`add`]; `sums` holds so many.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn add_rows(rows: usize, minima: *const Minima, blocks: usize, x: *const u8, sums: *mut f32) {
    type Add = unsafe fn(*const Minima, usize, *const u8, *mut f32);
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn some<const R: usize>(minima: *const Minima, blocks: usize, x: *const u8, to: *mut f32) {
        for half in 0..2 {
            let at = |r: usize| to.wrapping_add(r * PANEL + half * 16);
            // SAFETY: the caller's.
            unsafe {
                let mut sums: [[__m512; 1]; R] = std::array::from_fn(|r| [_mm512_loadu_ps(at(r))]);
                add::<R>(&mut sums, minima, half, blocks, x);
                for (r, &[sums]) in sums.iter().enumerate() {
                    _mm512_storeu_ps(at(r), sums);
                }
            }
        }
    }
    const KERNELS: [Add; 9] =
        [some::<8>, some::<9>, some::<10>, some::<11>, some::<12>, some::<13>, some::<14>, some::<15>, some::<16>];
    // SAFETY: the caller's.
    unsafe { KERNELS[rows - 8](minima, blocks, x, sums) }
}
