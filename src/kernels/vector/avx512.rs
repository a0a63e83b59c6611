//! AVX-512 F, BW, DQ, VL and, where the CPU has it, BF16: sixteen lanes.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::stored::Stored;
use super::{Kernel, Simd};

/// Proof of AVX-512 F, BW, DQ and VL, and with `BF16` of that.
#[derive(Clone, Copy)]
pub struct Avx512<const BF16: bool>(());

impl<const BF16: bool> Avx512<BF16> {
    /// # Safety
    /// The CPU has AVX-512 F, BW, DQ and VL (and BF16 where that is set), AVX2, FMA and F16C.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Avx512(())
    }
}

/// Evaluates intrinsics on registers.
macro_rules! cpu {
    ($e:expr) => {
        // SAFETY: the token proves that the CPU has the instructions; they touch no memory.
        unsafe { $e }
    };
}

/// Mask of the first `n` ≤ 16 lanes.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// The lanes rounded to bf16. Half a unit of the last bit kept is added, less one where that bit is even; a NaN stays one.
///
/// # Safety
/// The CPU has the instructions.
#[inline(always)]
unsafe fn round_to_bf16(x: __m512) -> __m256i {
    // SAFETY: the caller vouches for the instructions; they touch no memory.
    unsafe {
        let bits = _mm512_castps_si512(x);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, sum, quiet)))
    }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    type Block = [__m512; 16];
    type Eight = Avx2;
    const LANES: usize = 16;
    const TILE_VECTORS: usize = 4;
    const BF16_DOTS: bool = BF16;

    #[inline(always)]
    fn eight(self) -> Avx2 {
        // SAFETY: whoever made this token vouched for AVX2, FMA and F16C too.
        unsafe { Avx2::new() }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        cpu!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller's contract; the load is unaligned.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(first_lanes(n), p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller's contract; the store is unaligned.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, v: __m512, n: usize) {
        // SAFETY: masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(p, first_lanes(n), v) }
    }
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        cpu!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        cpu!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        cpu!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        cpu!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale2(self, a: __m512, n: __m512) -> __m512 {
        cpu!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn scale2_from(self, a: __m512, n: __m512, x: __m512, least: f32) -> __m512 {
        cpu!(_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(least)), a, n))
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        cpu!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes))
    }
    #[inline(always)]
    fn keep_first(self, a: __m512, n: usize, fill: __m512) -> __m512 {
        cpu!(_mm512_mask_blend_ps(first_lanes(n), fill, a))
    }
    #[inline(always)]
    fn reduce_add(self, a: __m512) -> f32 {
        cpu!({
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        })
    }
    #[inline(always)]
    fn reduce_max(self, a: __m512) -> f32 {
        cpu!({
            let a = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps::<1>(a, a)))
        })
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m512 {
        // SAFETY: the caller's contract; the load is unaligned.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> __m512 {
        // SAFETY: the caller's contract; the load is unaligned.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn lookup_f16(self, table: &[u16; 1 << 16], a: __m512) -> __m512 {
        let mut bits = [0u16; 16];
        // SAFETY: the array holds sixteen values, and the token proves the instructions.
        unsafe {
            _mm256_storeu_si256(bits.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a));
            for b in &mut bits {
                *b = table[*b as usize];
            }
            self.load_f16(bits.as_ptr())
        }
    }

    #[inline(always)]
    fn halves(self, a: __m512) -> [__m512; 2] {
        cpu!({
            let bits = _mm512_castps_si512(a);
            let late = _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)), _mm512_castsi512_ps(late)]
        })
    }
    #[inline(always)]
    fn dot_pairs(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        if BF16 {
            // SAFETY: the token proves BF16; the casts change no bits.
            return unsafe {
                _mm512_dpbf16_ps(
                    c,
                    std::mem::transmute::<__m512, __m512bh>(a),
                    std::mem::transmute::<__m512, __m512bh>(b),
                )
            };
        }
        let ([a0, a1], [b0, b1]) = (self.halves(a), self.halves(b));
        self.fma(a1, b1, self.fma(a0, b0, c))
    }
    #[inline(always)]
    fn narrow(self, a: __m512, b: __m512) -> __m512 {
        if BF16 {
            // SAFETY: the token proves BF16; the cast changes no bits. The second operand gives the low half.
            return unsafe { std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(b, a)) };
        }
        let (a, b) = cpu!((round_to_bf16(a), round_to_bf16(b)));
        cpu!(_mm512_castsi512_ps(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)))
    }
    #[inline(always)]
    unsafe fn zip_bf16(self, early: *const u16, late: *const u16) -> __m512 {
        // SAFETY: the caller's contract; the loads are unaligned.
        unsafe {
            let early = _mm512_cvtepu16_epi32(_mm256_loadu_si256(early.cast()));
            let late = _mm512_cvtepu16_epi32(_mm256_loadu_si256(late.cast()));
            _mm512_castsi512_ps(_mm512_or_si512(early, _mm512_slli_epi32::<16>(late)))
        }
    }

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves the features.
        unsafe { if BF16 { super::run_avx512_bf16(kernel) } else { super::run_avx512(kernel) } }
    }

    #[inline(always)]
    unsafe fn load_transposed<E: Stored>(self, rows: &[*const E], column: usize, count: usize) -> Self::Block {
        let mut r = [self.splat(0.0); 16];
        if rows.len() == 16 && count == 16 {
            for i in 0..16 {
                // SAFETY: the caller's contract.
                r[i] = unsafe { E::load(self, rows[i].add(column)) };
            }
        } else {
            for i in 0..rows.len().min(16) {
                // SAFETY: the caller's contract.
                r[i] = unsafe { E::load_partial(self, rows[i].add(column), count) };
            }
        }
        cpu!({
            let mut a = r;
            for i in 0..8 {
                a[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                a[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for i in [0, 4, 8, 12] {
                r[i] = _mm512_shuffle_ps::<0x44>(a[i], a[i + 2]);
                r[i + 1] = _mm512_shuffle_ps::<0xEE>(a[i], a[i + 2]);
                r[i + 2] = _mm512_shuffle_ps::<0x44>(a[i + 1], a[i + 3]);
                r[i + 3] = _mm512_shuffle_ps::<0xEE>(a[i + 1], a[i + 3]);
            }
            for i in [0, 1, 2, 3] {
                a[i] = _mm512_shuffle_f32x4::<0x88>(r[i], r[i + 4]);
                a[i + 4] = _mm512_shuffle_f32x4::<0xDD>(r[i], r[i + 4]);
                a[i + 8] = _mm512_shuffle_f32x4::<0x88>(r[i + 8], r[i + 12]);
                a[i + 12] = _mm512_shuffle_f32x4::<0xDD>(r[i + 8], r[i + 12]);
            }
            for i in 0..8 {
                r[i] = _mm512_shuffle_f32x4::<0x88>(a[i], a[i + 8]);
                r[i + 8] = _mm512_shuffle_f32x4::<0xDD>(a[i], a[i + 8]);
            }
        });
        r
    }
}
