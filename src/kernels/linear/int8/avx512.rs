//! AVX-512, with VNNI or with 16-bit multiply-adds.
#![allow(unsafe_code)]

use super::add_minima_avx512;
use super::minima::{self, SPAN};
use super::minima_avx512::OfPanel;
use super::weights_avx512::{quants, scale};
use super::{LAYOUTS, ROW_BLOCK_BYTES, RowBlock, STREAM_AHEAD, by_layout};
use crate::kernels::linear::float::avx512::Rows;
use crate::kernels::linear::layout::{BLOCK, Layout};
use crate::kernels::linear::{Ahead, Kernel, ROWS_AT_MEMORY_SPEED, Sums, kernels_by_rows};
use std::arch::x86_64::*;

/// The kernel for `rows` rows (1 to 12 with VNNI, else 1 to 4).
pub(super) fn kernel(layout: Layout, rows: usize, vnni: bool) -> Kernel {
    macro_rules! table {
        ($code:literal) => {
            if vnni {
                if rows <= 6 {
                    kernels_by_rows!([1, 2, 3, 4, 5, 6], multiply_vnni, [2, $code])[rows - 1]
                } else {
                    kernels_by_rows!([7, 8, 9, 10, 11, 12], multiply_vnni, [1, $code])[rows - 7]
                }
            } else {
                kernels_by_rows!([1, 2, 3, 4], multiply_wide, [2, $code])[rows - 1]
            }
        };
    }
    by_layout!(layout, table)
}

/// Defines a kernel of `R` rows by `H × 16` outputs at a time, with the given features and dot product of four bytes.
macro_rules! define {
    ($name:ident, $features:literal, $dot:ident, $vnni:literal) => {
        /// # Safety
        /// The CPU has the features; `panel` holds the panel of `k` inputs that the layout prescribes, `x` a prepared block of `R`
        /// rows (aligned to 4 bytes), `out` addresses `R` rows of `PANEL` values.
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const H: usize, const LAYOUT: usize>(
            panel: *const u8,
            x: *const u8,
            k: usize,
            out: Sums,
            mut ahead: Ahead,
        ) {
            let layout = const { LAYOUTS[LAYOUT] };
            let k_blocks = k / BLOCK;
            let mut next = Rows::<R>::after(&out, k_blocks, 1);
            for first in (0..2).step_by(H) {
                let mut sums = [[_mm512_setzero_ps(); H]; R];
                if !out.fresh {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (h, sums) in sums.iter_mut().enumerate() {
                            // SAFETY: 16 of the 32 values of row `r`.
                            *sums = unsafe { _mm512_loadu_ps(out.value(r, (first + h) * 16)) };
                        }
                    }
                }
                let span = if layout.has_min() { SPAN } else { k_blocks.max(1) };
                for start in (0..k_blocks).step_by(span) {
                    let end = k_blocks.min(start + span);
                    let panel_here = panel.wrapping_add(layout.block_offset(start).0 - layout.super_header_bytes());
                    let mut minima = [OfPanel::<LAYOUT> { panel: panel_here, blocks: end - start, half: first }; H];
                    minima.iter_mut().enumerate().for_each(|(h, minima)| minima.half += h);
                    // SAFETY: the CPU has the features.
                    let mut ends = [unsafe { OfPanel::<LAYOUT>::no_ends() }; H];
                    for b in start..end {
                        let (at, header) = layout.block_offset(b);
                        let block = panel.wrapping_add(at);
                        let scales = block.wrapping_add(layout.quant_bytes());
                        let rows = RowBlock::<R>(x.wrapping_add(b * ROW_BLOCK_BYTES * R));
                        if R > ROWS_AT_MEMORY_SPEED {
                            ahead.fetch();
                            next.fetch();
                        }
                        let mut dots = [[_mm512_setzero_si512(); H]; R];
                        let parts = if layout == Layout::Byte16 { 2 } else { 1 };
                        for part in 0..parts {
                            for r in 0..R {
                                let zero = if layout.has_min() {
                                    _mm512_setzero_si512()
                                } else {
                                    // SAFETY: row `r` of the prepared block.
                                    let minus = unsafe {
                                        match (parts, part) {
                                            (1, _) => *rows.minus_sum(r),
                                            (_, 0) => *rows.minus_sum(r) - *rows.minus_late_sum(r),
                                            _ => *rows.minus_late_sum(r),
                                        }
                                    };
                                    _mm512_set1_epi32(if layout == Layout::Byte16 { minus >> 2 } else { minus })
                                };
                                dots[r] = [zero; H];
                            }
                            for group in part * 8 / parts..(part + 1) * 8 / parts {
                                if R <= ROWS_AT_MEMORY_SPEED {
                                    stream(block, layout, group);
                                }
                                let mut w = [_mm512_setzero_si512(); H];
                                for (h, w) in w.iter_mut().enumerate() {
                                    // SAFETY: inside the quants of the block.
                                    *w = unsafe { quants(block, layout, group, first + h) };
                                }
                                for r in 0..R {
                                    // SAFETY: row `r` of the prepared block.
                                    let a = _mm512_set1_epi32(unsafe { *rows.values(group, r) });
                                    for h in 0..H {
                                        dots[r][h] = $dot(dots[r][h], w[h], a);
                                    }
                                }
                            }
                            for h in 0..H {
                                // SAFETY: the scales of the block and the header of its 256 inputs.
                                let d = unsafe { scale(scales, panel.wrapping_add(header), layout, part, first + h) };
                                for r in 0..R {
                                    // SAFETY: row `r` of the prepared block.
                                    let d = _mm512_mul_ps(d, _mm512_set1_ps(unsafe { *rows.scale(r) }));
                                    sums[r][h] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][h]), d, sums[r][h]);
                                }
                            }
                        }
                        if layout.has_min() {
                            for h in 0..H {
                                // SAFETY: a block of the panel.
                                ends[h] = unsafe { minima[h].widen(ends[h], b - start) };
                            }
                        }
                    }
                    if layout.has_min() {
                        let y = minima::sums_of(x, k_blocks, R, start);
                        // SAFETY: the panel has these blocks, through which `widen` went, and prepared activations their sums.
                        unsafe { add_minima_avx512::add_of_panel::<R, H, LAYOUT, $vnni>(&mut sums, minima, ends, y) }
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    for (h, &sums) in sums.iter().enumerate() {
                        // SAFETY: 16 of the 32 values of row `r`.
                        unsafe { _mm512_storeu_ps(out.value(r, (first + h) * 16), sums) }
                    }
                }
            }
        }
    };
}

define!(multiply_vnni, "avx512f,avx512bw,avx512vnni", dot_vnni, true);
define!(multiply_wide, "avx512f,avx512bw", dot_wide, false);

/// Asks for the share of group `group` of the block [`STREAM_AHEAD`] bytes after `block`.
#[inline(always)]
fn stream(block: *const u8, layout: Layout, group: usize) {
    let lines = layout.block_bytes().div_ceil(64);
    for line in group * lines / 8..(group + 1) * lines / 8 {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(STREAM_AHEAD + 64 * line).cast()) }
    }
}

/// Adds the dot products of four unsigned and four signed bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_vnni(sum: __m512i, w: __m512i, a: __m512i) -> __m512i {
    _mm512_dpbusd_epi32(sum, w, a)
}

/// As [`dot_vnni`], exactly, on 16-bit multiply-adds of the even and the odd bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn dot_wide(sum: __m512i, w: __m512i, a: __m512i) -> __m512i {
    let even = _mm512_madd_epi16(
        _mm512_and_si512(w, _mm512_set1_epi16(255)),
        _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(a)),
    );
    let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(w), _mm512_srai_epi16::<8>(a));
    _mm512_add_epi32(sum, _mm512_add_epi32(even, odd))
}
