//! AVX2 with FMA and F16C: eight lanes.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::stored::Stored;
use super::{Kernel, Simd};

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Avx2(())
    }
}

/// Evaluates intrinsics on registers.
macro_rules! cpu {
    ($e:expr) => {
        // SAFETY: the token proves that the CPU has the instructions; they touch no memory.
        unsafe { $e }
    };
}

/// All-ones in the first `n` lanes.
#[inline(always)]
fn first_lanes(n: usize) -> __m256i {
    cpu!(_mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)))
}

/// The lanes rounded to bf16. Half a unit of the last bit kept is added, less one where that bit is even; a NaN stays one.
///
/// # Safety
/// The CPU has the instructions.
#[inline(always)]
unsafe fn round_to_bf16(x: __m256) -> __m256i {
    // SAFETY: the caller vouches for the instructions; they touch no memory.
    unsafe {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(sum, quiet, nan))
    }
}

impl Simd for Avx2 {
    type V = __m256;
    type Block = [__m256; 8];
    type Eight = Self;
    const LANES: usize = 8;
    const TILE_VECTORS: usize = 2;
    const BF16_DOTS: bool = false;

    #[inline(always)]
    fn eight(self) -> Self {
        self
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        cpu!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the caller's contract; the load is unaligned.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> __m256 {
        // SAFETY: masked lanes are not read.
        unsafe { _mm256_maskload_ps(p, first_lanes(n)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: the caller's contract; the store is unaligned.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, v: __m256, n: usize) {
        // SAFETY: masked lanes are not written.
        unsafe { _mm256_maskstore_ps(p, first_lanes(n), v) }
    }
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        cpu!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        cpu!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        cpu!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        cpu!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        cpu!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn fnma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        cpu!(_mm256_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        cpu!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        cpu!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        cpu!(_mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        cpu!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale2(self, a: __m256, n: __m256) -> __m256 {
        cpu!({
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let bias = _mm256_set1_epi32(127);
            let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
            let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias));
            _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second))
        })
    }
    #[inline(always)]
    fn scale2_from(self, a: __m256, n: __m256, x: __m256, least: f32) -> __m256 {
        cpu!({
            // Zero before the product: what is multiplied there may be anything.
            let keep = _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(least));
            let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
            _mm256_mul_ps(_mm256_and_ps(a, keep), _mm256_and_ps(_mm256_castsi256_ps(power), keep))
        })
    }
    #[inline(always)]
    fn select_lt(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        cpu!(_mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }
    #[inline(always)]
    fn keep_first(self, a: __m256, n: usize, fill: __m256) -> __m256 {
        cpu!(_mm256_blendv_ps(fill, a, _mm256_castsi256_ps(first_lanes(n))))
    }
    #[inline(always)]
    fn reduce_add(self, a: __m256) -> f32 {
        cpu!({
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        })
    }
    #[inline(always)]
    fn reduce_max(self, a: __m256) -> f32 {
        cpu!({
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps::<1>(a, a)))
        })
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m256 {
        // SAFETY: the caller's contract; the load is unaligned.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> __m256 {
        // SAFETY: the caller's contract; the load is unaligned.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn lookup_f16(self, table: &[u16; 1 << 16], a: __m256) -> __m256 {
        let mut bits = [0u16; 8];
        // SAFETY: the array holds eight values, and the token proves the instructions.
        unsafe {
            _mm_storeu_si128(bits.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a));
            for b in &mut bits {
                *b = table[*b as usize];
            }
            self.load_f16(bits.as_ptr())
        }
    }

    #[inline(always)]
    fn halves(self, a: __m256) -> [__m256; 2] {
        cpu!({
            let bits = _mm256_castps_si256(a);
            let late = _mm256_and_si256(bits, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)), _mm256_castsi256_ps(late)]
        })
    }
    #[inline(always)]
    fn narrow(self, a: __m256, b: __m256) -> __m256 {
        let (a, b) = cpu!((round_to_bf16(a), round_to_bf16(b)));
        cpu!(_mm256_castsi256_ps(_mm256_permute4x64_epi64::<0xD8>(_mm256_packus_epi32(a, b))))
    }
    #[inline(always)]
    unsafe fn zip_bf16(self, early: *const u16, late: *const u16) -> __m256 {
        // SAFETY: the caller's contract; the loads are unaligned.
        unsafe {
            let early = _mm256_cvtepu16_epi32(_mm_loadu_si128(early.cast()));
            let late = _mm256_cvtepu16_epi32(_mm_loadu_si128(late.cast()));
            _mm256_castsi256_ps(_mm256_or_si256(early, _mm256_slli_epi32::<16>(late)))
        }
    }

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves the features.
        unsafe { super::run_avx2(kernel) }
    }

    #[inline(always)]
    unsafe fn load_transposed<E: Stored>(self, rows: &[*const E], column: usize, count: usize) -> Self::Block {
        let mut r = [self.splat(0.0); 8];
        if rows.len() == 8 && count == 8 {
            for i in 0..8 {
                // SAFETY: the caller's contract.
                r[i] = unsafe { E::load(self, rows[i].add(column)) };
            }
        } else {
            for i in 0..rows.len().min(8) {
                // SAFETY: the caller's contract.
                r[i] = unsafe { E::load_partial(self, rows[i].add(column), count) };
            }
        }
        cpu!({
            let mut a = r;
            for i in 0..4 {
                a[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                a[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for i in [0, 4] {
                r[i] = _mm256_shuffle_ps::<0x44>(a[i], a[i + 2]);
                r[i + 1] = _mm256_shuffle_ps::<0xEE>(a[i], a[i + 2]);
                r[i + 2] = _mm256_shuffle_ps::<0x44>(a[i + 1], a[i + 3]);
                r[i + 3] = _mm256_shuffle_ps::<0xEE>(a[i + 1], a[i + 3]);
            }
            for i in 0..4 {
                a[i] = _mm256_permute2f128_ps::<0x20>(r[i], r[i + 4]);
                a[i + 4] = _mm256_permute2f128_ps::<0x31>(r[i], r[i + 4]);
            }
            r = a;
        });
        r
    }
}
