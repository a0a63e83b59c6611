//! Rounding activations to int8 blocks with AVX-512: 64 inputs of up to 16 rows at a time. What there is one of per row (the largest magnitude,
//! scale, sums) is computed for all rows at once, a row a lane.
#![allow(unsafe_code)]

use super::minima::{self, IN_WORD, SPAN, ZERO_BYTE};
use super::minima_avx512::unit;
use super::{ROW_BLOCK_BYTES, SCALE_BITS, ZERO, ZERO_EXPONENT};
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
    let mut sums = [_mm512_setzero_ps(); SPAN];
    for first in (0..blocks).step_by(2) {
        let in_span = first % SPAN;
        let sums_here: &mut [__m512; 2] = (&mut sums[in_span..in_span + 2]).try_into().expect("a span is even");
        let here = (blocks - first).min(2);
        let out = dst[first * ROW_BLOCK_BYTES * count..][..here * ROW_BLOCK_BYTES * count].as_mut_ptr();
        // SAFETY: the rows hold these blocks, and `dst` has room for them.
        unsafe {
            match (here, count) {
                (2, 12) => prepare_blocks::<2, 12>(rows, first, for_tiles, out, sums_here),
                (2, 11) => prepare_blocks::<2, 11>(rows, first, for_tiles, out, sums_here),
                (2, _) => prepare_blocks::<2, 0>(rows, first, for_tiles, out, sums_here),
                _ => prepare_blocks::<1, 0>(rows, first, for_tiles, out, sums_here),
            }
        }
        if in_span + 2 == SPAN || first + 2 >= blocks {
            let to = &mut dst[minima::place(blocks, first - in_span) * count..];
            let sums = &sums[..in_span + here];
            assert!(to.len() >= minima::row_bytes(sums.len()) * count);
            // SAFETY: there is room for the sums of one span, and the features are the caller's.
            unsafe { write_sums(sums, count, to.as_mut_ptr()) }
        }
    }
}

/// Blocks `first` .. `first + N` of the rows, which are `R` if that is not 0: then what there is of each row stays in registers. Scale × sum
/// of each row and block goes to `sums_of`.
///
/// # Safety
/// As [`prepare`], for `out` with room for these blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn prepare_blocks<const N: usize, const R: usize>(
    rows: &[&[f32]],
    first: usize,
    for_tiles: bool,
    out: *mut u8,
    sums_of: &mut [__m512; 2],
) {
    let count = if R > 0 { R } else { rows.len() };
    let rows = &rows[..count];
    let mut inverses = [[0f32; MOST_ROWS]; N];
    let mut scales = [_mm512_setzero_ps(); N];
    for b in 0..N {
        let mut largest = [_mm512_setzero_si512(); MOST_ROWS];
        for (row, largest) in rows.iter().zip(&mut largest) {
            let x = &row[(first + b) * BLOCK..][..BLOCK];
            // SAFETY: a block has 32 values.
            let (low, high) =
                unsafe { (_mm512_loadu_si512(x.as_ptr().cast()), _mm512_loadu_si512(x.as_ptr().add(16).cast())) };
            // Compared as integers, magnitudes order like floats and NaN is above all.
            let magnitude = _mm512_set1_epi32(0x7fff_ffff);
            *largest = _mm512_max_epi32(_mm512_and_si512(low, magnitude), _mm512_and_si512(high, magnitude));
        }
        let largest = _mm512_castsi512_ps(largest_of_each(largest));
        scales[b] = round_up(_mm512_div_ps(largest, _mm512_set1_ps(127.0)));
        // NaN is unequal to zero, and the result NaN.
        let some = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(scales[b], _mm512_setzero_ps());
        let inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(1.0), scales[b]);
        // SAFETY: room for 16 values.
        unsafe { _mm512_storeu_ps(inverses[b].as_mut_ptr(), inverse) }
    }
    let mut words = [_mm512_setzero_si512(); MOST_ROWS];
    for (r, (row, words)) in rows.iter().zip(&mut words).enumerate() {
        let mut rounded = [_mm512_setzero_si512(); 4];
        for b in 0..N {
            let inverse = _mm512_set1_ps(inverses[b][r]);
            for half in 0..2 {
                let x = &row[(first + b) * BLOCK + 16 * half..][..16];
                // SAFETY: 16 values.
                let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
                rounded[2 * b + half] = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
            }
        }
        // Words of four values, of all four vectors in turn; brought into their order.
        let shorts = [_mm512_packs_epi32(rounded[0], rounded[1]), _mm512_packs_epi32(rounded[2], rounded[3])];
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        *words = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(shorts[0], shorts[1]));
        if for_tiles {
            for b in 0..N {
                let q = if b == 0 { _mm512_castsi512_si256(*words) } else { _mm512_extracti64x4_epi64::<1>(*words) };
                // SAFETY: the 32 values of row `r` of block `b`, inside `out`.
                unsafe { _mm256_storeu_si256(out.add(b * ROW_BLOCK_BYTES * count + BLOCK * r).cast(), q) }
            }
        }
    }
    let groups = transpose(words);
    for (b, &scale) in scales.iter().enumerate() {
        let at = out.wrapping_add(b * ROW_BLOCK_BYTES * count);
        let groups = &groups[8 * b..8 * b + 8];
        let [early, late] = [sums(&groups[..4]), sums(&groups[4..])];
        let minus = |sum| _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<{ ZERO.ilog2() }>(sum));
        let sum = _mm512_add_epi32(early, late);
        sums_of[b] = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum));
        let bits = |values: __m512| _mm512_castps_si512(values);
        // −∞ of zero becomes finite; of NaN the second operand stays.
        let exponent = _mm512_max_ps(_mm512_set1_ps(ZERO_EXPONENT), _mm512_getexp_ps(scale));
        let after = [bits(scale), minus(sum), minus(late), bits(exponent)];
        for (i, &words) in after.iter().enumerate() {
            // SAFETY: a word of each row, which the mask selects, behind the values of the block.
            unsafe { _mm512_mask_storeu_epi32(at.add((BLOCK + 4 * i) * count).cast(), mask(count), words) }
        }
        if for_tiles {
            continue;
        }
        for (g, &words) in groups.iter().enumerate() {
            // SAFETY: four values of each row, which the mask selects, inside the block.
            unsafe { _mm512_mask_storeu_epi32(at.add(4 * g * count).cast(), mask(count), words) }
        }
    }
}

/// As [`super::prepare::round_up`].
#[inline]
#[target_feature(enable = "avx512f")]
fn round_up(scales: __m512) -> __m512 {
    let rest = _mm512_set1_epi32((1 << (23 - SCALE_BITS)) - 1);
    let bits = _mm512_castps_si512(scales);
    let finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(scales, _mm512_set1_ps(f32::INFINITY));
    let nan = _mm512_set1_epi32(f32::NAN.to_bits() as i32);
    let rounded = _mm512_mask_andnot_epi32(nan, finite, rest, _mm512_add_epi32(bits, rest));
    let counts = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(scales, _mm512_set1_ps(f32::MIN_POSITIVE));
    _mm512_castsi512_ps(_mm512_maskz_mov_epi32(counts, rounded))
}

/// The largest lane of each vector, as integers.
#[inline]
#[target_feature(enable = "avx512f")]
fn largest_of_each(v: [__m512i; MOST_ROWS]) -> __m512i {
    let max = _mm512_max_epi32;
    // Quarters of a result hold the same vectors' lanes: two of each, then one.
    let twos: [__m512i; 8] = std::array::from_fn(|i| {
        let (a, b) = (v[2 * i], v[2 * i + 1]);
        max(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
    });
    let fours: [__m512i; 4] = std::array::from_fn(|i| {
        let (a, b) = (twos[2 * i], twos[2 * i + 1]);
        max(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    });
    // Then quarters are brought together.
    let [low, high] = [0, 2].map(|i| {
        let (a, b) = (fours[i], fours[i + 1]);
        max(_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b))
    });
    max(_mm512_shuffle_i32x4::<0b10_00_10_00>(low, high), _mm512_shuffle_i32x4::<0b11_01_11_01>(low, high))
}

/// Sums of the four bytes of each word, over all vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn sums(words: &[__m512i]) -> __m512i {
    words.iter().fold(_mm512_setzero_si512(), |sum, &words| {
        let pairs = _mm512_maddubs_epi16(_mm512_set1_epi8(1), words);
        _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
    })
}

/// As [`minima::write_sums`] for all rows: writes the sums `y` of one span (a lane a row, `count` of them) to `dst`.
///
/// # Safety
/// The CPU has AVX-512 F and BW; `dst` has room for the sums of one span of `count` rows.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn write_sums(y: &[__m512], count: usize, dst: *mut u8) {
    let (mut largest, mut sum) = (_mm512_setzero_si512(), _mm512_setzero_ps());
    for &y in y {
        // Compared as integers, magnitudes order like floats and NaN is above all.
        largest = _mm512_max_epi32(largest, _mm512_castps_si512(_mm512_abs_ps(y)));
        sum = _mm512_add_ps(sum, y);
    }
    let f = unit(_mm512_castsi512_ps(largest));
    let shift = _mm512_sub_ps(_mm512_setzero_ps(), f);
    let lowest = _mm512_set1_epi32(255);
    // What is no number becomes the least integer, the low bits of which are zero.
    let whole = |y| _mm512_and_si512(_mm512_cvtps_epi32(_mm512_scalef_ps(y, shift)), lowest);
    // SAFETY: a word of each row, which the mask selects, in its place.
    let put =
        |word: usize, words| unsafe { _mm512_mask_storeu_epi32(dst.add(4 * word * count).cast(), mask(count), words) };
    let mut total = _mm512_setzero_si512();
    for (word, y) in y.chunks(IN_WORD).enumerate() {
        let mut bytes = _mm512_setzero_si512();
        for (i, &y) in y.iter().enumerate() {
            let shift = _mm512_set1_epi32(8 * i as i32);
            bytes = _mm512_or_si512(bytes, _mm512_sllv_epi32(whole(y), shift));
        }
        total = _mm512_add_epi32(total, sums(&[bytes]));
        put(word, bytes);
    }
    let words = y.len().div_ceil(IN_WORD);
    put(words, _mm512_castps_si512(f));
    let zero = _mm512_slli_epi32::<{ ZERO_BYTE.ilog2() }>(total);
    put(words + 1, _mm512_sub_epi32(_mm512_setzero_si512(), zero));
    put(words + 2, _mm512_castps_si512(sum));
}
