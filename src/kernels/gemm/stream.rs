//! Writing past the caches: what is large and not read soon neither has to be read before it is written nor pushes out what is.
#![allow(unsafe_code)]

use crate::kernels::linear::PANEL;

/// Whether rows of [`PANEL`] values from `at` on, `stride` values apart, can be written so: they are whole cache lines.
pub(super) fn fits(at: *const f32, stride: usize) -> bool {
    at.addr().is_multiple_of(64) && stride.is_multiple_of(16)
}

/// Writes rows of [`PANEL`] values that lie side by side in `values` to rows `stride` values apart.
///
/// # Safety
/// The CPU has AVX-512 F; as many rows can be written at `at`, nobody else uses them before [`end`], and [`fits`] holds.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn rows(values: &[f32], at: *mut f32, stride: usize) {
    use std::arch::x86_64::*;
    #[target_feature(enable = "avx512f")]
    unsafe fn stream(values: &[f32], at: *mut f32, stride: usize) {
        for (i, row) in values.chunks_exact(PANEL).enumerate() {
            let to = at.wrapping_add(i * stride);
            // SAFETY: two cache lines of the row.
            unsafe {
                _mm512_stream_ps(to, _mm512_loadu_ps(row.as_ptr()));
                _mm512_stream_ps(to.add(16), _mm512_loadu_ps(row.as_ptr().add(16)));
            }
        }
    }
    // SAFETY: the caller's.
    unsafe { stream(values, at, stride) }
}

/// Makes what was written visible to other threads in the order in which this one goes on.
#[cfg(target_arch = "x86_64")]
pub(super) fn end() {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { std::arch::x86_64::_mm_sfence() }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn rows(_values: &[f32], _at: *mut f32, _stride: usize) {
    unreachable!("only on tile registers");
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn end() {}
