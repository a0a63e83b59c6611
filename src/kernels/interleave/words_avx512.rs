//! AVX-512: values of rows as words.
#![allow(unsafe_code)]

use half::bf16;
use std::arch::x86_64::*;

/// The first `count` of 16 lanes.
#[inline]
pub fn mask(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

/// # Safety
/// `left` values (at most 16 of them) can be read.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn values(at: *const f32, left: usize) -> __m512 {
    // SAFETY: the caller's.
    unsafe { _mm512_maskz_loadu_ps(mask(left), at) }
}

/// # Safety
/// `left` values (at most 16 of them) can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn wide_values(at: *const bf16, left: usize) -> __m512 {
    // SAFETY: the caller's.
    let stored = unsafe { _mm256_maskz_loadu_epi16(mask(left), at.cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(stored)))
}

/// # Safety
/// As [`values`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load_f32(at: *const f32, left: usize) -> __m512i {
    // SAFETY: the caller's.
    _mm512_castps_si512(unsafe { values(at, left) })
}

/// # Safety
/// As [`wide_values`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn load_widened(at: *const bf16, left: usize) -> __m512i {
    // SAFETY: the caller's.
    _mm512_castps_si512(unsafe { wide_values(at, left) })
}

/// # Safety
/// `left` values (at most 32 of them) can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn load_pairs(at: *const bf16, left: usize) -> __m512i {
    let lanes = if left >= 32 { !0 } else { (1 << left) - 1 };
    // SAFETY: the caller's.
    unsafe { _mm512_maskz_loadu_epi16(lanes, at.cast()) }
}

/// # Safety
/// `left` values (at most 32 of them) can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_two(at: *const f32, left: usize) -> [__m512; 2] {
    // SAFETY: the caller's; a masked read of nothing touches no memory.
    unsafe {
        [
            _mm512_maskz_loadu_ps(mask(left), at),
            _mm512_maskz_loadu_ps(mask(left.saturating_sub(16)), at.wrapping_add(16)),
        ]
    }
}

/// # Safety
/// As [`load_two`].
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn load_native(at: *const f32, left: usize) -> __m512i {
    // SAFETY: the caller's; both types are 64 bytes without invalid values.
    unsafe {
        let [low, high] = load_two(at, left);
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// # Safety
/// As [`load_two`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn load_rounded(at: *const f32, left: usize) -> __m512i {
    // SAFETY: the caller's.
    let [low, high] = unsafe { load_two(at, left) };
    let low = _mm512_cvtepi32_epi16(round(low));
    let high = _mm512_cvtepi32_epi16(round(high));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// Values as they are.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn whole(values: __m512, _: Option<__m512>) -> __m512i {
    _mm512_castps_si512(values)
}

/// Pairs of values rounded to bf16; zero where there is no late value.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn pair_native(early: __m512, late: Option<__m512>) -> __m512i {
    // SAFETY: both types are 64 bytes without invalid values.
    let both = unsafe {
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(late.unwrap_or(_mm512_setzero_ps()), early))
    };
    // Place 2 i takes value i, place 2 i + 1 value 16 + i.
    let places = _mm512_add_epi32(lane_numbers(), _mm512_set1_epi32(0x0010_0000));
    _mm512_permutexvar_epi16(places, both)
}

/// In both halves of word `i`: `i`.
#[inline]
#[target_feature(enable = "avx512f")]
fn lane_numbers() -> __m512i {
    let numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    _mm512_or_si512(numbers, _mm512_slli_epi32::<16>(numbers))
}

/// Pairs of values that are bf16 already; zero where there is no late value.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn pair_exact(early: __m512, late: Option<__m512>) -> __m512i {
    let late = _mm512_castps_si512(late.unwrap_or(_mm512_setzero_ps()));
    _mm512_or_si512(_mm512_srli_epi32::<16>(_mm512_castps_si512(early)), late)
}

/// As [`pair_native`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn pair_rounded(early: __m512, late: Option<__m512>) -> __m512i {
    let late = round(late.unwrap_or(_mm512_setzero_ps()));
    _mm512_or_si512(round(early), _mm512_slli_epi32::<16>(late))
}

/// Rounds to bf16, to nearest even, in the low halves of words.
#[inline]
#[target_feature(enable = "avx512f")]
fn round(v: __m512) -> __m512i {
    let bits = _mm512_castps_si512(v);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(1 << 22));
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
    _mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, rounded, quiet))
}
