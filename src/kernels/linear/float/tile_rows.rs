//! Activations as the rows of tiles: `[k / 32][rows][32]` bf16, `k` padded with zeros to a multiple of 32.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use crate::kernels::view::View;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "x86_64")]
use std::ops::Range;

/// Values of one row of a tile.
const VALUES: usize = 32;

/// Bytes of one prepared row of `k` values.
pub(in crate::kernels) const fn row_bytes(k: usize) -> usize {
    2 * k.next_multiple_of(VALUES)
}

/// Prepares rows `rows` of `x`, rounded to nearest even. Only for [`Isa::Amx`](crate::kernels::isa::Isa::Amx).
///
/// # Panics
/// When `dst` has another size than [`row_bytes`] of each row.
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) fn prepare(x: &View<f32>, rows: Range<usize>, dst: &mut [u8]) {
    assert_eq!(dst.len(), rows.len() * row_bytes(x.width()), "prepared size");
    let pitch = rows.len() * 2 * VALUES;
    for (r, row) in rows.enumerate() {
        // SAFETY: the CPU has AVX-512 with BF16, as the path requires; the lines of row `r` lie in `dst`, which was measured.
        unsafe { round(x.row(row), dst.as_mut_ptr().wrapping_add(2 * VALUES * r), pitch) }
    }
}

/// Writes `row` rounded to bf16, 32 values every `pitch` bytes.
///
/// # Safety
/// The CPU has the features; 64 bytes can be written at each multiple of `pitch` for each (begun) 32 values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn round(row: &[f32], dst: *mut u8, pitch: usize) {
    for (i, values) in row.chunks(VALUES).enumerate() {
        let mask = |from: usize| (1u32 << values.len().saturating_sub(from).min(16)).wrapping_sub(1) as __mmask16;
        // SAFETY: masked to the values that there are; one line.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask(0), values.as_ptr());
            let high = _mm512_maskz_loadu_ps(mask(16), values.as_ptr().wrapping_add(16));
            let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(dst.add(i * pitch).cast(), rounded);
        }
    }
}
