//! AVX2 with FMA and F16C: six rows by 16 outputs at a time.
#![allow(unsafe_code)]

use crate::kernels::linear::layout::{Layout, PANEL};
use crate::kernels::linear::{Ahead, Kernel, Sums, kernels_by_rows};
use std::arch::x86_64::*;

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// The kernel for `rows` rows (1 to 6).
pub(super) fn kernel(layout: Layout, rows: usize) -> Kernel {
    match layout {
        Layout::F32 => kernels_by_rows!([1, 2, 3, 4, 5, 6], multiply, [F32])[rows - 1],
        Layout::F16 => kernels_by_rows!([1, 2, 3, 4, 5, 6], multiply, [F16])[rows - 1],
        _ => kernels_by_rows!([1, 2, 3, 4, 5, 6], multiply, [BF16])[rows - 1],
    }
}

/// # Safety
/// The CPU has AVX2, FMA and F16C; `panel` holds the panel of `k` inputs that the layout prescribes, `x` a prepared block of `R` rows,
/// `out` addresses `R` rows of `PANEL` values.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<const R: usize, const TYPE: u8>(panel: *const u8, x: *const u8, k: usize, out: Sums, _: Ahead) {
    let bytes = if TYPE == F32 { 4 * PANEL } else { 2 * PANEL } * if TYPE == BF16 { 2 } else { 1 };
    let steps = if TYPE == BF16 { k.div_ceil(2) } else { k };
    // A single row reads each weight once, so it takes both halves in one pass over the panel.
    for half in 0..2 {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        if !out.fresh {
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: 16 of the 32 values of row `r`.
                *sums = unsafe { [0, 8].map(|i| _mm256_loadu_ps(out.value(r, half * 16 + i))) };
            }
        }
        let mut w = panel.wrapping_add(half * bytes / 2);
        let mut v = x.cast::<f32>();
        for _ in 0..steps {
            // SAFETY: `w` walks the `steps` rows of the panel and reads its half of one row, `v` walks the block of `steps × R` words.
            unsafe {
                if TYPE == BF16 {
                    let pairs = [_mm256_loadu_si256(w.cast()), _mm256_loadu_si256(w.add(32).cast())];
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = _mm256_castps_si256(_mm256_broadcast_ss(&*v.add(r)));
                        for (s, &p) in sums.iter_mut().zip(&pairs) {
                            *s = _mm256_fmadd_ps(odd(a), odd(p), *s);
                            *s = _mm256_fmadd_ps(even(a), even(p), *s);
                        }
                    }
                } else {
                    let b = if TYPE == F32 {
                        [_mm256_loadu_ps(w.cast()), _mm256_loadu_ps(w.add(32).cast())]
                    } else {
                        [_mm256_cvtph_ps(_mm_loadu_si128(w.cast())), _mm256_cvtph_ps(_mm_loadu_si128(w.add(16).cast()))]
                    };
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = _mm256_broadcast_ss(&*v.add(r));
                        sums[0] = _mm256_fmadd_ps(a, b[0], sums[0]);
                        sums[1] = _mm256_fmadd_ps(a, b[1], sums[1]);
                    }
                }
            }
            w = w.wrapping_add(bytes);
            v = v.wrapping_add(R);
        }
        for (r, sums) in sums.iter().enumerate() {
            // SAFETY: 16 of the 32 values of row `r`.
            unsafe {
                _mm256_storeu_ps(out.value(r, half * 16), sums[0]);
                _mm256_storeu_ps(out.value(r, half * 16 + 8), sums[1]);
            }
        }
    }
}

/// The bf16 values at odd positions of the pairs, widened.
#[inline]
#[target_feature(enable = "avx2")]
fn odd(pairs: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32)))
}

/// The bf16 values at even positions of the pairs, widened.
#[inline]
#[target_feature(enable = "avx2")]
fn even(pairs: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs))
}
