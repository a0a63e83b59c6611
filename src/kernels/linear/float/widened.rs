//! AVX-512 without dot products: bf16 values are widened to f32 and multiplied by fused multiply-adds.
//!
//! All vector instructions share the two ports of the multiply-adds. Widening weights takes four of them beside the `4 × R` multiply-adds of a
//! pair of inputs; activations as broadcast vectors would take `2 × R` more. So they are widened as words, before they are broadcast: a few
//! pairs ahead of their use, by way of the first-level cache, which broadcasts on loading.
#![allow(unsafe_code)]

use super::avx512::{Rows, STEPS_BEFORE_SUMS, expect, load, store};
use crate::kernels::linear::layout::PANEL;
use crate::kernels::linear::{AHEAD_INPUTS, Ahead, Kernel, ROWS_AT_MEMORY_SPEED, Sums, kernels_by_rows};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// The kernel for `rows` rows (1 to 12).
pub(super) fn kernel(rows: usize) -> Kernel {
    kernels_by_rows!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], multiply, [])[rows - 1]
}

/// Pairs of inputs between the widening of activations and their use: time for stores to reach the cache.
const LEAD: usize = 8;

/// One pair of inputs of `R` activation rows, widened: the odd values, then the even ones.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Wide<const R: usize>([[f32; R]; 2]);

/// Pairs widened and not yet used.
struct Ring<const R: usize>([MaybeUninit<Wide<R>>; 2 * LEAD]);

impl<const R: usize> Ring<R> {
    fn pair(&mut self, i: usize) -> &mut MaybeUninit<Wide<R>> {
        &mut self.0[i % (2 * LEAD)]
    }
}

/// # Safety
/// The CPU has AVX-512 F and BW; `panel` holds the panel of `k` bf16 inputs that the layout prescribes, `x` a prepared block of `R` rows,
/// `out` addresses `R` rows of `PANEL` values.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn multiply<const R: usize>(panel: *const u8, x: *const u8, k: usize, out: Sums, ahead: Ahead) {
    // SAFETY: `out` addresses `R` rows.
    let mut sums = unsafe { load::<R>(&out) };
    let (steps, every) = (k.div_ceil(2), AHEAD_INPUTS / 2);
    let mut ahead = ahead;
    let mut next = Rows::<R>::after(&out, steps, every);
    let mut ring = Ring::<R>([MaybeUninit::uninit(); 2 * LEAD]);
    let mut w = panel;
    let mut v = x.cast::<u32>();
    for i in 0..LEAD.min(steps) {
        // SAFETY: the block has `steps` pairs of `R` words.
        unsafe { widen::<R>(v, ring.pair(i)) };
        v = v.wrapping_add(R);
    }
    for i in 0..steps {
        if R > ROWS_AT_MEMORY_SPEED && i % every == 0 {
            ahead.fetch();
            next.fetch();
        }
        if R > ROWS_AT_MEMORY_SPEED && i + STEPS_BEFORE_SUMS == steps {
            expect::<R>(&out);
        }
        if i + LEAD < steps {
            // SAFETY: as above.
            unsafe { widen::<R>(v, ring.pair(i + LEAD)) };
            v = v.wrapping_add(R);
        }
        // SAFETY: `w` walks the `steps` rows of the panel; pair `i` was widened before the loop or `LEAD` steps ago.
        unsafe {
            let [p, q] = [_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(64).cast())];
            let Wide(a) = ring.pair(i).assume_init_ref();
            for (a, b) in a.iter().zip([[odd(p), odd(q)], [even(p), even(q)]]) {
                for (a, sums) in a.iter().zip(&mut sums) {
                    let a = _mm512_set1_ps(*a);
                    sums[0] = _mm512_fmadd_ps(a, b[0], sums[0]);
                    sums[1] = _mm512_fmadd_ps(a, b[1], sums[1]);
                }
            }
        }
        w = w.wrapping_add(4 * PANEL);
    }
    // SAFETY: `out` addresses `R` rows.
    unsafe { store(&sums, &out) }
}

/// Widens `R` words of two bf16 values, two words at a time.
///
/// # Safety
/// `R` words are readable at `words`.
#[inline(always)]
unsafe fn widen<const R: usize>(words: *const u32, wide: &mut MaybeUninit<Wide<R>>) {
    const HIGH: u64 = 0xffff_0000_ffff_0000;
    let odd = wide.as_mut_ptr().cast::<u32>();
    let even = odd.wrapping_add(R);
    for r in (0..R & !1).step_by(2) {
        // SAFETY: two of the `R` words and of the `R` odd and `R` even values; neither is taken to be aligned.
        unsafe {
            let two = words.add(r).cast::<u64>().read_unaligned();
            odd.add(r).cast::<u64>().write_unaligned(two & HIGH);
            even.add(r).cast::<u64>().write_unaligned(two << 16 & HIGH);
        }
    }
    if R % 2 == 1 {
        // SAFETY: the last of the words and values.
        unsafe {
            let one = *words.add(R - 1);
            *odd.add(R - 1) = one & 0xffff_0000;
            *even.add(R - 1) = one << 16;
        }
    }
}

/// The bf16 values at odd positions of the pairs, widened.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn odd(pairs: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
}

/// The bf16 values at even positions of the pairs, widened.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn even(pairs: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))
}
