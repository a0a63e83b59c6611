//! Writing past the caches: what is large and not read soon neither has to be read before it is written nor pushes out what is, and what
//! another core still holds is taken from it by the write itself ([`Isa::takes_lines_back_slowly`]).
#![allow(unsafe_code)]

use super::isa::Isa;
use super::linear::PANEL;
use super::view::ViewMut;
use std::ops::Range;

/// Whether rows of [`PANEL`] values from `at` on, `stride` values apart, can be written so: they are whole cache lines.
pub(super) fn fits(isa: Isa, at: *const f32, stride: usize) -> bool {
    isa.has_avx512() && at.addr().is_multiple_of(64) && stride.is_multiple_of(16)
}

/// Writes rows of [`PANEL`] values that lie side by side in `values` to rows `stride` values apart.
///
/// # Safety
/// As many rows can be written at `at`, nobody else uses them before [`end`], and [`fits`] holds.
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
    // SAFETY: the caller's; where rows fit there is AVX-512.
    unsafe { stream(values, at, stride) }
}

/// Copies `from` to `to`, whole cache lines past the caches where the instruction set can.
///
/// # Panics
/// When the lengths differ.
#[cfg(target_arch = "x86_64")]
pub fn copy(isa: Isa, from: &[u8], to: &mut [u8]) {
    use std::arch::x86_64::*;
    #[target_feature(enable = "avx512f")]
    fn stream(from: &[u8], to: &mut [__m512i]) {
        for (from, to) in from.chunks_exact(64).zip(to) {
            // SAFETY: 64 bytes are read from a chunk of 64, and written to a vector, which is aligned.
            unsafe { _mm512_stream_si512(to, _mm512_loadu_si512(from.as_ptr().cast())) }
        }
    }
    assert_eq!(from.len(), to.len(), "lengths of a copy");
    if !isa.has_avx512() {
        return to.copy_from_slice(from);
    }
    // SAFETY: every value of 64 bytes is a vector.
    let (head, lines, tail) = unsafe { to.align_to_mut::<__m512i>() };
    let (first, rest) = from.split_at(head.len());
    let (middle, last) = rest.split_at(64 * lines.len());
    head.copy_from_slice(first);
    tail.copy_from_slice(last);
    // SAFETY: the instruction set was detected before an `Isa` was handed out.
    unsafe { stream(middle, lines) }
    end();
}

/// Takes the cache lines of rows `rows` of `out` from every core, so that writing them is not slowed by those that have read them
/// ([`Isa::takes_lines_back_slowly`]). Values stay as they are; they have to be read from memory again.
#[cfg(target_arch = "x86_64")]
pub fn take_back(out: &mut ViewMut<f32>, rows: Range<usize>) {
    assert!(rows.end <= out.rows(), "rows {rows:?} of {}", out.rows());
    if !super::isa::flushes_lines() {
        return;
    }
    let bytes = 4 * out.width();
    for row in rows {
        let first = out.row_ptr(row).cast::<u8>();
        for at in (0..bytes).step_by(64).chain(bytes.checked_sub(1)) {
            // SAFETY: a byte of the row; the CPU has the instruction, which changes no value.
            unsafe {
                std::arch::asm!("clflushopt [{}]", in(reg) first.wrapping_add(at), options(nostack, preserves_flags));
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub fn take_back(_out: &mut ViewMut<f32>, _rows: Range<usize>) {}

/// Makes what was written visible to other threads in the order in which this one goes on.
#[cfg(target_arch = "x86_64")]
pub(super) fn end() {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { std::arch::x86_64::_mm_sfence() }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn rows(_values: &[f32], _at: *mut f32, _stride: usize) {
    unreachable!("only with AVX-512");
}

#[cfg(not(target_arch = "x86_64"))]
pub fn copy(_isa: Isa, from: &[u8], to: &mut [u8]) {
    to.copy_from_slice(from);
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn end() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_taken_back_keep_their_values() {
        for (start, rows, stride, width) in [(0, 3, 64, 64), (5, 4, 37, 20), (1, 1, 1, 1), (2, 2, 9, 0), (0, 0, 8, 8)] {
            let before: Vec<f32> = (0..200).map(|i| i as f32).collect();
            let mut values = before.clone();
            take_back(&mut ViewMut::new(&mut values[start..], rows, stride, width), 0..rows);
            assert_eq!(values, before);
        }
    }

    #[test]
    fn copies_are_whole_wherever_they_begin_and_end() {
        let from: Vec<u8> = (0..1000).map(|i| (i * 7 % 251) as u8).collect();
        for isa in Isa::available() {
            for (start, length) in [(0, 640), (1, 64), (3, 500), (60, 4), (64, 0), (5, 130)] {
                let mut to = vec![255u8; 1000];
                copy(isa, &from[start..start + length], &mut to[start + 9..start + 9 + length]);
                assert_eq!(to[start + 9..start + 9 + length], from[start..start + length], "{}", isa.name());
                assert!(to[..start + 9].iter().chain(&to[start + 9 + length..]).all(|&b| b == 255), "{}", isa.name());
            }
        }
    }
}
