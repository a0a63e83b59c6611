//! AVX-512 products of one to four rows, which run at the speed of memory: several panels at once.
//!
//! A core that reads one stream waits for memory more often than one that reads a few: hardware prefetching starts anew in every page of 4 KB,
//! and the two accumulators of a row and a panel take one step after the other. So up to four panels are read side by side, each asked for
//! [`DISTANCE`] bytes ahead. Every output remains one chain over ascending `k`, the same as in [`super::avx512`].
#![allow(unsafe_code)]

use crate::kernels::linear::few_rows::{Panels, PanelsKernel};
use crate::kernels::linear::layout::{Layout, PANEL};
use std::arch::x86_64::*;

pub(super) const F32: u8 = 0;
pub(super) const F16: u8 = 1;
pub(super) const BF16: u8 = 2;

/// Bytes of a panel between what is multiplied and what is asked for.
const DISTANCE: usize = 2 << 10;

/// Expands `$table!(kernel, type)` for the kernel and type that multiply a layout.
macro_rules! by_type {
    ($layout:expr, $bf16_dots:expr, $table:ident) => {
        match $layout {
            Layout::F32 => $table!(multiply, F32),
            Layout::F16 => $table!(multiply, F16),
            _ if $bf16_dots => $table!(multiply_dots, BF16),
            _ => $table!(multiply, BF16),
        }
    };
}
pub(super) use by_type;

/// Bytes of the weights of one step of a panel: an input, or a pair of inputs in bf16.
pub(super) const fn step_bytes(of_type: u8) -> usize {
    if of_type == F16 { 2 * PANEL } else { 4 * PANEL }
}

/// Steps of `k` inputs.
pub(super) const fn steps(of_type: u8, k: usize) -> usize {
    if of_type == BF16 { k.div_ceil(2) } else { k }
}

/// The kernels for `rows` rows by number of panels, as many as leave room for sums and operands in the registers; `bf16` says whether the CPU
/// has bf16 dot products to use.
pub(super) fn kernels(layout: Layout, rows: usize, bf16: bool) -> &'static [PanelsKernel] {
    macro_rules! table {
        ($kernel:ident, $type:expr) => {
            match rows {
                1 => &[$kernel::<1, 1, $type>, $kernel::<1, 2, $type>, $kernel::<1, 3, $type>, $kernel::<1, 4, $type>],
                2 => &[$kernel::<2, 1, $type>, $kernel::<2, 2, $type>, $kernel::<2, 3, $type>, $kernel::<2, 4, $type>],
                3 => &[$kernel::<3, 1, $type>, $kernel::<3, 2, $type>],
                4 => &[$kernel::<4, 1, $type>, $kernel::<4, 2, $type>],
                _ => &[],
            }
        };
    }
    by_type!(layout, bf16, table)
}

/// Defines a kernel of `R` rows and `P` panels with the given features and way to multiply pairs of bf16.
macro_rules! define {
    ($name:ident, $features:literal, $pairs:ident) => {
        /// # Safety
        /// The CPU has the features; `panels` are `P` panels of `k` inputs of the layout, `x` is a prepared block of `R` rows (aligned to 4
        /// bytes), `out` has room for `P × R × PANEL` sums.
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const P: usize, const TYPE: u8>(
            panels: Panels,
            x: *const u8,
            k: usize,
            out: *mut f32,
        ) {
            let (bytes, steps) = (const { step_bytes(TYPE) }, steps(TYPE, k));
            let mut sums = [[[_mm512_setzero_ps(); 2]; R]; P];
            let (mut w, mut v) = (panels.at, x.cast::<f32>());
            // Until here the bytes asked for are in the same panels, from here on in those that follow.
            let turn = steps.saturating_sub(DISTANCE / bytes);
            let mut ahead = panels.at.wrapping_add((steps - turn) * bytes);
            for (part, count) in [turn, steps - turn].into_iter().enumerate() {
                if part == 1 {
                    ahead = panels.next;
                }
                for _ in 0..count {
                    let mut a = [_mm512_setzero_ps(); R];
                    for (r, a) in a.iter_mut().enumerate() {
                        // SAFETY: `v` walks the block of `steps × R` words.
                        *a = _mm512_set1_ps(unsafe { *v.add(r) });
                    }
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let fetched = ahead.wrapping_add(p * panels.stride);
                        _mm_prefetch::<_MM_HINT_T0>(fetched.cast());
                        if TYPE != F16 {
                            _mm_prefetch::<_MM_HINT_T0>(fetched.wrapping_add(64).cast());
                        }
                        let w = w.wrapping_add(p * panels.stride);
                        // SAFETY: `w` walks the `steps` rows of panel `p`.
                        let b = unsafe { step::<TYPE>(w) };
                        for (sums, &a) in sums.iter_mut().zip(&a) {
                            for (sum, &b) in sums.iter_mut().zip(&b) {
                                *sum = if TYPE == BF16 { $pairs(a, b, *sum) } else { _mm512_fmadd_ps(a, b, *sum) };
                            }
                        }
                    }
                    w = w.wrapping_add(bytes);
                    v = v.wrapping_add(R);
                    ahead = ahead.wrapping_add(bytes);
                }
            }
            for (i, sums) in sums.as_flattened().iter().enumerate() {
                // SAFETY: row `i % R` of panel `i / R`.
                unsafe {
                    _mm512_storeu_ps(out.add(i * PANEL), sums[0]);
                    _mm512_storeu_ps(out.add(i * PANEL + 16), sums[1]);
                }
            }
        }
    };
}

define!(multiply, "avx512f,avx512bw", widened);
define!(multiply_dots, "avx512f,avx512bw,avx512bf16", dots);

/// The weights of one step, f16 widened.
///
/// # Safety
/// A step of the type is at `w`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn step<const TYPE: u8>(w: *const u8) -> [__m512; 2] {
    // SAFETY: the caller's.
    unsafe {
        if TYPE == F16 {
            [_mm512_cvtph_ps(_mm256_loadu_si256(w.cast())), _mm512_cvtph_ps(_mm256_loadu_si256(w.add(32).cast()))]
        } else {
            [_mm512_loadu_ps(w.cast()), _mm512_loadu_ps(w.add(64).cast())]
        }
    }
}

/// Adds the products of bf16 pairs, odd then even, as widened multiply-adds.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn widened(a: __m512, b: __m512, sum: __m512) -> __m512 {
    let sum = _mm512_fmadd_ps(odd(a), odd(b), sum);
    _mm512_fmadd_ps(even(a), even(b), sum)
}

/// Adds the products of bf16 pairs in one instruction.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn dots(a: __m512, b: __m512, sum: __m512) -> __m512 {
    // SAFETY: all are 64 bytes without invalid values.
    unsafe {
        _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn odd(pairs: __m512) -> __m512 {
    super::widened::odd(_mm512_castps_si512(pairs))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn even(pairs: __m512) -> __m512 {
    super::widened::even(_mm512_castps_si512(pairs))
}
