//! AVX-512: up to twelve rows by 32 outputs in 24 accumulators.
#![allow(unsafe_code)]

use crate::kernels::linear::layout::{Layout, PANEL};
use crate::kernels::linear::{AHEAD_INPUTS, Ahead, Kernel, ROWS_AT_MEMORY_SPEED, Sums, kernels_by_rows};
use std::arch::x86_64::*;

const F32: u8 = 0;
const F16: u8 = 1;

/// The kernel for `rows` rows (1 to 12). `dots`: with dot products of bf16 pairs, which the CPU then has.
pub(super) fn kernel(layout: Layout, rows: usize, dots: bool) -> Kernel {
    match layout {
        Layout::F32 => kernels_by_rows!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], multiply, [F32])[rows - 1],
        Layout::F16 => kernels_by_rows!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], multiply, [F16])[rows - 1],
        _ if dots => kernels_by_rows!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], multiply_bf16, [])[rows - 1],
        _ => super::widened::kernel(rows),
    }
}

/// So many steps before its end a kernel of many rows asks for the lines that sums go to: what streams through the first-level cache meanwhile
/// pushes out what was there at its start.
pub(super) const STEPS_BEFORE_SUMS: usize = 24;

/// Steps in a row without a counter or a branch, which took a tenth of the time of a step.
const UNROLLED: usize = 4;

/// So many bytes ahead a kernel of many rows asks the first-level cache for its row block, which follows the one before it in memory. Its panel it
/// asks for [`AHEAD_INPUTS`] inputs ahead, at the end for the beginning, which the next row block reads. Hardware prefetching alone leaves a
/// twentieth of the time waiting for the second level.
const NEAR_BYTES: usize = 1024;

/// Before its end a kernel of many rows asks for the lines that sums go to, some rows of them at each of so many prefetches: all at once they
/// would hold up what streams through the caches.
const PREFETCHES_OF_SUMS: usize = 3;

/// # Safety
/// The CPU has AVX-512 F and BW; `panel` holds the panel of `k` inputs that the layout prescribes, `x` a prepared block of `R` rows,
/// `out` addresses `R` rows of `PANEL` values.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn multiply<const R: usize, const TYPE: u8>(panel: *const u8, x: *const u8, k: usize, out: Sums, ahead: Ahead) {
    let bytes = if TYPE == F16 { 2 * PANEL } else { 4 * PANEL };
    // SAFETY: `out` addresses `R` rows.
    let mut sums = unsafe { load::<R>(&out) };
    let mut ahead = ahead;
    let mut next = Rows::<R>::after(&out, k, AHEAD_INPUTS);
    // Sums of adjacent rows are in scratch, which the caches hold.
    let far = out.stride != PANEL;
    let mut w = panel;
    let mut v = x.cast::<f32>();
    let mut left = k;
    while left > 0 {
        if R > ROWS_AT_MEMORY_SPEED {
            ahead.fetch();
            next.fetch();
            if far {
                let prefetches = left.div_ceil(AHEAD_INPUTS);
                if prefetches <= PREFETCHES_OF_SUMS {
                    let (part, rows) = (PREFETCHES_OF_SUMS - prefetches, R.div_ceil(PREFETCHES_OF_SUMS));
                    (part * rows..R.min((part + 1) * rows)).for_each(|row| expect_row(&out, row));
                }
            }
        }
        if left >= AHEAD_INPUTS {
            let after = w.wrapping_add(AHEAD_INPUTS * bytes);
            let mut near = if left > AHEAD_INPUTS { after } else { panel };
            for _ in 0..AHEAD_INPUTS / UNROLLED {
                for _ in 0..UNROLLED {
                    if R > ROWS_AT_MEMORY_SPEED {
                        expect_inputs(near, bytes);
                        expect_inputs(v.cast::<u8>().wrapping_add(NEAR_BYTES), 4 * R);
                        near = near.wrapping_add(bytes);
                    }
                    // SAFETY: `w` walks the `k` rows of the panel, `v` the block of `k × R` words.
                    unsafe { step::<R, TYPE>(w, v, &mut sums) };
                    w = w.wrapping_add(bytes);
                    v = v.wrapping_add(R);
                }
            }
        } else {
            for _ in 0..left {
                // SAFETY: as above.
                unsafe { step::<R, TYPE>(w, v, &mut sums) };
                w = w.wrapping_add(bytes);
                v = v.wrapping_add(R);
            }
        }
        left -= left.min(AHEAD_INPUTS);
    }
    // SAFETY: `out` addresses `R` rows.
    unsafe { store(&sums, &out) }
}

/// Adds the products of one input.
///
/// # Safety
/// `w` addresses a row of a panel, `v` the `R` values of an input.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn step<const R: usize, const TYPE: u8>(w: *const u8, v: *const f32, sums: &mut [[__m512; 2]; R]) {
    // SAFETY: the caller's.
    unsafe {
        let b = if TYPE == F32 {
            [_mm512_loadu_ps(w.cast()), _mm512_loadu_ps(w.add(64).cast())]
        } else {
            [_mm512_cvtph_ps(_mm256_loadu_si256(w.cast())), _mm512_cvtph_ps(_mm256_loadu_si256(w.add(32).cast()))]
        };
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = _mm512_set1_ps(*v.add(r));
            sums[0] = _mm512_fmadd_ps(a, b[0], sums[0]);
            sums[1] = _mm512_fmadd_ps(a, b[1], sums[1]);
        }
    }
}

/// As [`multiply`] with hardware dot products of bf16 pairs.
///
/// # Safety
/// As [`multiply`], and the CPU has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply_bf16<const R: usize>(panel: *const u8, x: *const u8, k: usize, out: Sums, ahead: Ahead) {
    // SAFETY: `out` addresses `R` rows.
    let mut sums = unsafe { load::<R>(&out) };
    let (steps, every) = (k.div_ceil(2), AHEAD_INPUTS / 2);
    let mut ahead = ahead;
    let mut next = Rows::<R>::after(&out, steps, every);
    let mut w = panel;
    let mut v = x.cast::<f32>();
    for i in 0..steps {
        if R > ROWS_AT_MEMORY_SPEED && i % every == 0 {
            ahead.fetch();
            next.fetch();
        }
        if R > ROWS_AT_MEMORY_SPEED && i + STEPS_BEFORE_SUMS == steps {
            expect::<R>(&out);
        }
        // SAFETY: `w` walks the `k / 2` rows of the panel, `v` the block of `k / 2 × R` words.
        unsafe {
            let b = [pairs(_mm512_loadu_ps(w.cast())), pairs(_mm512_loadu_ps(w.add(64).cast()))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = pairs(_mm512_set1_ps(*v.add(r)));
                sums[0] = _mm512_dpbf16_ps(sums[0], a, b[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], a, b[1]);
            }
        }
        w = w.wrapping_add(4 * PANEL);
        v = v.wrapping_add(R);
    }
    // SAFETY: `out` addresses `R` rows.
    unsafe { store(&sums, &out) }
}

/// Asks the first-level cache for the lines of `bytes` bytes.
#[inline]
#[target_feature(enable = "avx512f")]
fn expect_inputs(at: *const u8, bytes: usize) {
    _mm_prefetch::<_MM_HINT_T0>(at.cast());
    if bytes > 64 {
        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(64).cast());
    }
}

/// A [`Place`](crate::kernels::linear::Place) of `R` rows that is prefetched a few rows at a time.
pub(in crate::kernels::linear) struct Rows<const R: usize> {
    at: *const f32,
    stride: usize,
    left: usize,
    at_a_time: usize,
}

impl<const R: usize> Rows<R> {
    /// For a kernel of `steps` steps that prefetches at each `every`th.
    #[inline]
    pub(in crate::kernels::linear) fn after(out: &Sums, steps: usize, every: usize) -> Self {
        let times = steps.div_ceil(every).max(1);
        // Divisions would hold up what multiplies next.
        let at_a_time = if times >= R { 1 } else { R.div_ceil(times) };
        let left = if out.next.at.is_null() { 0 } else { R };
        Rows { at: out.next.at, stride: out.next.stride, left, at_a_time }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::kernels::linear) fn fetch(&mut self) {
        for _ in 0..self.at_a_time.min(self.left) {
            _mm_prefetch::<_MM_HINT_T1>(self.at.cast());
            _mm_prefetch::<_MM_HINT_T1>(self.at.wrapping_add(16).cast());
            self.at = self.at.wrapping_add(self.stride);
            self.left -= 1;
        }
    }
}

/// Prefetches the lines that sums of `R` rows go to, in a loop that the compiler unrolls.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn expect<const R: usize>(out: &Sums) {
    for r in 0..R {
        expect_row(out, r);
    }
}

/// Prefetches the lines that the sums of a row go to.
#[inline]
#[target_feature(enable = "avx512f")]
fn expect_row(out: &Sums, row: usize) {
    _mm_prefetch::<_MM_HINT_ET0>(out.value(row, 0).cast());
    _mm_prefetch::<_MM_HINT_ET0>(out.value(row, 16).cast());
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load<const R: usize>(out: &Sums) -> [[__m512; 2]; R] {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    if !out.fresh {
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller has `R` rows.
            *sums = unsafe { [_mm512_loadu_ps(out.value(r, 0)), _mm512_loadu_ps(out.value(r, 16))] };
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(words: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(words) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store<const R: usize>(sums: &[[__m512; 2]; R], out: &Sums) {
    for (r, sums) in sums.iter().enumerate() {
        // SAFETY: the caller has `R` rows.
        unsafe {
            _mm512_storeu_ps(out.value(r, 0), sums[0]);
            _mm512_storeu_ps(out.value(r, 16), sums[1]);
        }
    }
}
