//! Rounding activations to int8 blocks with AVX-512: 64 inputs of up to 16 rows at a time, transposed in registers unless
//! tiles take them.
#![allow(unsafe_code)]

use super::{ROW_BLOCK_BYTES, ZERO};
use crate::kernels::interleave::MOST_ROWS;
use crate::kernels::interleave::avx512::transpose;
use crate::kernels::interleave::words_avx512::mask;
use crate::kernels::linear::layout::BLOCK;
use std::arch::x86_64::*;

/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL; the rows are equally long, a whole number of blocks, and at most [`MOST_ROWS`]; `dst` is as
/// long as their prepared form.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn prepare(rows: &[&[f32]], for_tiles: bool, dst: &mut [u8]) {
    let count = rows.len();
    let blocks = rows[0].len() / BLOCK;
    for first in (0..blocks).step_by(2) {
        let here = (blocks - first).min(2);
        let out = dst[first * ROW_BLOCK_BYTES * count..][..here * ROW_BLOCK_BYTES * count].as_mut_ptr();
        let mut words = [_mm512_setzero_si512(); MOST_ROWS];
        for (r, (row, words)) in rows.iter().zip(&mut words).enumerate() {
            let mut halves = [_mm256_setzero_si256(); 2];
            for (b, half) in halves.iter_mut().enumerate().take(here) {
                let x = &row[(first + b) * BLOCK..][..BLOCK];
                // SAFETY: a block has 32 values.
                let (q, scale) = unsafe { quantise(x.as_ptr()) };
                let sums = sums_of_16(q);
                let at = out.wrapping_add(b * ROW_BLOCK_BYTES * count + BLOCK * count + 4 * r);
                let sum = sums[0] + sums[1];
                // SAFETY: the four words of row `r` behind the values of block `b`, inside `dst`.
                unsafe {
                    at.cast::<f32>().write_unaligned(scale);
                    at.add(4 * count).cast::<f32>().write_unaligned(scale * sum as f32);
                    at.add(8 * count).cast::<i32>().write_unaligned(-ZERO * sum);
                    at.add(12 * count).cast::<i32>().write_unaligned(-ZERO * sums[1]);
                }
                if for_tiles {
                    // SAFETY: the 32 values of row `r` of block `b`, inside `dst`.
                    unsafe { _mm256_storeu_si256(out.add(b * ROW_BLOCK_BYTES * count + BLOCK * r).cast(), q) }
                }
                *half = q;
            }
            *words = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(halves[0]), halves[1]);
        }
        if for_tiles {
            continue;
        }
        let groups = transpose(words);
        for (g, &words) in groups.iter().enumerate().take(8 * here) {
            let at = out.wrapping_add(g / 8 * ROW_BLOCK_BYTES * count + g % 8 * 4 * count);
            // SAFETY: four values of each row, which the mask selects, inside `dst`.
            unsafe { _mm512_mask_storeu_epi32(at.cast(), mask(count), words) }
        }
    }
}

/// 32 rounded values and their scale.
///
/// # Safety
/// 32 values can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn quantise(x: *const f32) -> (__m256i, f32) {
    // SAFETY: the caller's.
    let (a, b) = unsafe { (_mm512_loadu_ps(x), _mm512_loadu_ps(x.add(16))) };
    // Compared as integers, magnitudes order like floats and NaN is above all: it ends up in the scale.
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    let largest = _mm512_max_epi32(
        _mm512_and_si512(_mm512_castps_si512(a), magnitude),
        _mm512_and_si512(_mm512_castps_si512(b), magnitude),
    );
    let largest = f32::from_bits(_mm512_reduce_max_epi32(largest) as u32);
    let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
    let inverse = _mm512_set1_ps(inverse);
    let low = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)));
    let high = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, inverse)));
    (_mm256_set_m128i(high, low), largest / 127.0)
}

/// Sums of the first and the last 16 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sums_of_16(q: __m256i) -> [i32; 2] {
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let eights = _mm256_add_epi32(fours, _mm256_shuffle_epi32::<0b01_00_11_10>(fours));
    let all = _mm256_add_epi32(eights, _mm256_shuffle_epi32::<0b10_11_00_01>(eights));
    [_mm256_extract_epi32::<0>(all), _mm256_extract_epi32::<4>(all)]
}
