//! AVX2 with FMA and F16C: up to four rows by 8 outputs at a time.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "sums and weights of a quarter run in step")]

use super::minima::{self, EXPONENT, IN_WORD, MARGIN, NO_EXPONENT, SPAN};
use super::{LAYOUTS, ROW_BLOCK_BYTES, RowBlock, by_layout};
use crate::kernels::linear::layout::{BLOCK, Layout, PANEL};
use crate::kernels::linear::{Ahead, Kernel, Sums, kernels_by_rows};
use std::arch::x86_64::*;
use std::ops::Range;

/// The kernel for `rows` rows (1 to 4).
pub(super) fn kernel(layout: Layout, rows: usize) -> Kernel {
    macro_rules! table {
        ($code:literal) => {
            kernels_by_rows!([1, 2, 3, 4], multiply, [$code])[rows - 1]
        };
    }
    by_layout!(layout, table)
}

/// # Safety
/// The CPU has AVX2, FMA and F16C; `panel` holds the panel of `k` inputs that the layout prescribes, `x` a prepared block of `R` rows
/// (aligned to 4 bytes), `out` addresses `R` rows of `PANEL` values.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<const R: usize, const LAYOUT: usize>(panel: *const u8, x: *const u8, k: usize, out: Sums, _: Ahead) {
    let layout = const { LAYOUTS[LAYOUT] };
    let mut sums = [[_mm256_setzero_ps(); 4]; R];
    if !out.fresh {
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the 32 values of row `r`.
            *sums = unsafe { [0, 8, 16, 24].map(|i| _mm256_loadu_ps(out.value(r, i))) };
        }
    }
    let k_blocks = k / BLOCK;
    for b in 0..k_blocks {
        let (at, header) = layout.block_offset(b);
        let block = panel.wrapping_add(at);
        let scales = block.wrapping_add(layout.quant_bytes());
        let rows = RowBlock::<R>(x.wrapping_add(b * ROW_BLOCK_BYTES * R));
        let parts = if layout == Layout::Byte16 { 2 } else { 1 };
        for quarter in 0..4 {
            for part in 0..parts {
                let mut dots = [_mm256_setzero_si256(); R];
                for group in part * 8 / parts..(part + 1) * 8 / parts {
                    // SAFETY: inside the quants of the block, whose groups have 32 outputs.
                    let w = unsafe { quants(block, layout, group, quarter) };
                    let (even, odd) = (_mm256_and_si256(w, _mm256_set1_epi16(255)), _mm256_srli_epi16::<8>(w));
                    for (r, dot) in dots.iter_mut().enumerate() {
                        // SAFETY: row `r` of the prepared block.
                        let a = _mm256_set1_epi32(unsafe { *rows.values(group, r) });
                        *dot = add_products(*dot, even, odd, a);
                    }
                }
                // SAFETY: the scales of the block and the header of its 256 inputs; row `r` of the prepared block.
                unsafe {
                    let d = scale(scales, panel.wrapping_add(header), layout, part, quarter);
                    for r in 0..R {
                        let minus = match (parts, part) {
                            (1, _) => *rows.minus_sum(r),
                            (_, 0) => *rows.minus_sum(r) - *rows.minus_late_sum(r),
                            _ => *rows.minus_late_sum(r),
                        };
                        let zero = if layout.has_min() { 0 } else { minus >> (7 - layout.zero_shift()) };
                        let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(dots[r], _mm256_set1_epi32(zero)));
                        let d = _mm256_mul_ps(d, _mm256_set1_ps(*rows.scale(r)));
                        sums[r][quarter] = _mm256_fmadd_ps(dot, d, sums[r][quarter]);
                    }
                }
            }
        }
        if layout.has_min() && ((b + 1) % SPAN == 0 || b + 1 == k_blocks) {
            let first = b / SPAN * SPAN;
            // SAFETY: the panel has these blocks, and the prepared block the sums of their span.
            unsafe { add_minima(&mut sums, panel, layout, first..b + 1, minima::sums_of(x, k_blocks, R, first)) }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (quarter, &sums) in sums.iter().enumerate() {
            // SAFETY: 8 of the 32 values of row `r`.
            unsafe { _mm256_storeu_ps(out.value(r, quarter * 8), sums) }
        }
    }
}

/// Adds the products of the [minima] of blocks `blocks`, one span, and the sums of that span at `x`.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C; `panel` holds a panel of the layout with these blocks, `x` the sums of `R` rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_minima<const R: usize>(
    sums: &mut [[__m256; 4]; R],
    panel: *const u8,
    layout: Layout,
    blocks: Range<usize>,
    x: *const u8,
) {
    let words = blocks.len().div_ceil(IN_WORD);
    // SAFETY: a word of row `r < R`, of those of four blocks each or of the three behind them.
    let word = |word: usize, r: usize| unsafe { *x.cast::<i32>().add(word * R + r) };
    for quarter in 0..4 {
        let of = |b: usize| {
            let (at, header) = layout.block_offset(b);
            // SAFETY: a block of the panel, and a quarter of its outputs.
            unsafe { minimum(panel.add(at + layout.quant_bytes()), panel.add(header), layout, quarter) }
        };
        let (mut least, mut most) = (_mm256_set1_epi32(i32::MAX), _mm256_set1_epi32(i32::MIN));
        for b in blocks.clone() {
            let ordered = ordered(_mm256_castps_si256(of(b)));
            (least, most) = (_mm256_min_epi32(least, ordered), _mm256_max_epi32(most, ordered));
        }
        let [least, most] = [least, most].map(|end| _mm256_castsi256_ps(ordered(end)));
        let by_two = |x| _mm256_mul_ps(x, _mm256_set1_ps(0.5));
        let middle = by_two(_mm256_add_ps(least, most));
        let largest = _mm256_mul_ps(by_two(_mm256_sub_ps(most, least)), _mm256_set1_ps(MARGIN));
        // A NaN may have a sign.
        let largest = _mm256_and_si256(_mm256_castps_si256(largest), _mm256_set1_epi32(i32::MAX));
        let e = _mm256_sub_ps(exponents(largest), _mm256_set1_ps(EXPONENT));
        let factor = power(_mm256_sub_ps(_mm256_setzero_ps(), e));
        let whole = |b: usize| match b < blocks.end {
            true => _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_sub_ps(of(b), middle), factor)),
            false => _mm256_setzero_si256(),
        };
        let pair = |b: usize| _mm256_blend_epi16::<0b1010_1010>(whole(b), _mm256_slli_epi32::<16>(whole(b + 2)));
        let mut dots = [_mm256_setzero_si256(); R];
        for i in 0..words {
            let b = blocks.start + i * IN_WORD;
            let (even, odd) = (pair(b), pair(b + 1));
            for (r, dot) in dots.iter_mut().enumerate() {
                let y = _mm256_set1_epi32(word(i, r));
                *dot = add_products(*dot, even, odd, y);
            }
        }
        for r in 0..R {
            let [f, total] = [words, words + 2].map(|i| _mm256_castsi256_ps(_mm256_set1_epi32(word(i, r))));
            let e = _mm256_add_ps(e, f);
            // Half of it at a time, as either power alone may be no normal number.
            let half = _mm256_floor_ps(_mm256_mul_ps(e, _mm256_set1_ps(0.5)));
            let product = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[r]), power(half));
            let product = _mm256_mul_ps(product, power(_mm256_sub_ps(e, half)));
            let product = _mm256_add_ps(product, _mm256_mul_ps(middle, total));
            sums[r][quarter] = _mm256_add_ps(sums[r][quarter], product);
        }
    }
}

/// Adds the products of four numbers and the four signed bytes of `a`: `even` holds the first and the third as words, `odd` the others.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(sum: __m256i, even: __m256i, odd: __m256i, a: __m256i) -> __m256i {
    let e = _mm256_madd_epi16(even, _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(a)));
    let o = _mm256_madd_epi16(odd, _mm256_srai_epi16::<8>(a));
    _mm256_add_epi32(sum, _mm256_add_epi32(e, o))
}

/// Floats, given as bits, in an order of integers, NaN above or below all; its own inverse.
#[inline]
#[target_feature(enable = "avx2")]
fn ordered(bits: __m256i) -> __m256i {
    let below = _mm256_and_si256(_mm256_srai_epi32::<31>(bits), _mm256_set1_epi32(i32::MAX));
    _mm256_xor_si256(bits, below)
}

/// Exponents of two of magnitudes, given as bits: [`NO_EXPONENT`] of zero, NaN where they are not finite. None is subnormal.
#[inline]
#[target_feature(enable = "avx2")]
fn exponents(magnitudes: __m256i) -> __m256 {
    let biased = _mm256_srli_epi32::<23>(magnitudes);
    let e = _mm256_cvtepi32_ps(_mm256_sub_epi32(biased, _mm256_set1_epi32(127)));
    let zero = _mm256_castsi256_ps(_mm256_cmpeq_epi32(biased, _mm256_setzero_si256()));
    let infinite = _mm256_castsi256_ps(_mm256_cmpeq_epi32(biased, _mm256_set1_epi32(255)));
    _mm256_or_ps(_mm256_blendv_ps(e, _mm256_set1_ps(NO_EXPONENT), zero), infinite)
}

/// 2^e for whole e between −127 and 128; NaN of NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn power(e: __m256) -> __m256 {
    let bits = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(e), _mm256_set1_epi32(127)));
    _mm256_or_ps(_mm256_castsi256_ps(bits), _mm256_cmp_ps::<_CMP_UNORD_Q>(e, e))
}

/// Quants of group `group` of 8 outputs as bytes.
///
/// # Safety
/// `block` points to a block of the layout.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn quants(block: *const u8, layout: Layout, group: usize, quarter: usize) -> __m256i {
    let at = if layout.is_nibble() { group % 4 } else { group };
    // SAFETY: `at < 4` for nibbles and 8 for bytes, `quarter < 4`.
    let v = unsafe { _mm256_loadu_si256(block.add((at * 4 + quarter) * 32).cast()) };
    if !layout.is_nibble() {
        return v;
    }
    let v = if group < 4 { v } else { _mm256_srli_epi16::<4>(v) };
    _mm256_and_si256(v, _mm256_set1_epi8(15))
}

/// Scales of 8 outputs for part `part` of the block.
///
/// # Safety
/// `scales` points behind the quants of a block of the layout, `header` to the header of its 256 inputs.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn scale(scales: *const u8, header: *const u8, layout: Layout, part: usize, quarter: usize) -> __m256 {
    // SAFETY: 8 values of 32.
    unsafe {
        if !layout.is_super() {
            return halves(scales.add(quarter * 16));
        }
        let bytes = _mm_loadl_epi64(scales.add(part * PANEL + quarter * 8).cast());
        let sub = if layout == Layout::Byte16 { _mm256_cvtepi8_epi32(bytes) } else { _mm256_cvtepu8_epi32(bytes) };
        _mm256_mul_ps(halves(header.add(quarter * 16)), _mm256_cvtepi32_ps(sub))
    }
}

/// Minima of 8 outputs.
///
/// # Safety
/// As [`scale`].
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn minimum(scales: *const u8, header: *const u8, layout: Layout, quarter: usize) -> __m256 {
    // SAFETY: 8 values of 32.
    unsafe {
        if !layout.is_super() {
            return halves(scales.add(2 * PANEL + quarter * 16));
        }
        let sub = _mm256_cvtepu8_epi32(_mm_loadl_epi64(scales.add(PANEL + quarter * 8).cast()));
        let product = _mm256_mul_ps(halves(header.add(2 * PANEL + quarter * 16)), _mm256_cvtepi32_ps(sub));
        _mm256_sub_ps(_mm256_setzero_ps(), product)
    }
}

/// 8 f16 values, widened.
///
/// # Safety
/// 16 bytes can be read.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn halves(at: *const u8) -> __m256 {
    // SAFETY: the caller's.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.cast()) })
}
