//! Rounding activations to int8 blocks: of 32 inputs x of a row, with m the largest magnitude, s = m / 127 rounded up to [`SCALE_BITS`] bits
//! behind the leading one, and q = x / s rounded to nearest, ties to even. Where s is below the normal numbers, block and scale are 0; where x is
//! not finite, the scale is NaN. The body is plain Rust, also compiled for AVX2.
#![allow(unsafe_code)]

use super::{ROW_BLOCK_BYTES, SCALE_BITS, ZERO, ZERO_EXPONENT, exponent, minima, nearest, row_bytes};
use crate::kernels::interleave::MOST_ROWS;
use crate::kernels::isa::Isa;
use crate::kernels::linear::layout::BLOCK;
use crate::kernels::view::View;
use std::ops::Range;

/// Writes the prepared form of `rows` of `x` as one row block, `for_tiles` or not.
pub(in crate::kernels::linear) fn prepare(
    isa: Isa,
    x: &View<f32>,
    rows: Range<usize>,
    for_tiles: bool,
    dst: &mut [u8],
) {
    let count = rows.len();
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        let mut slices: [&[f32]; MOST_ROWS] = [&[]; MOST_ROWS];
        for (slice, row) in slices[..count].iter_mut().zip(rows) {
            *slice = x.row(row);
        }
        assert_eq!(dst.len(), row_bytes(x.width()) * count);
        // SAFETY: an `Isa` is only handed out when the CPU has it; the size was checked above.
        return unsafe { super::prepare_avx512::prepare(&slices[..count], for_tiles, dst) };
    }
    assert!(!for_tiles, "tiles come with AVX-512");
    for (r, row) in rows.enumerate() {
        let row = x.row(row);
        match isa {
            // SAFETY: an `Isa` is only handed out when the CPU has it.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { prepare_avx2(row, r, count, dst) },
            _ => prepare_row(row, r, count, dst),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn prepare_avx2(row: &[f32], r: usize, count: usize, dst: &mut [u8]) {
    prepare_row(row, r, count, dst);
}

/// The scale from `scale` on that has [`SCALE_BITS`] bits behind the leading one; 0 below the normal numbers, and NaN for what is not finite.
#[inline(always)]
fn round_up(scale: f32) -> f32 {
    const REST: u32 = (1 << (23 - SCALE_BITS)) - 1;
    if scale < f32::MIN_POSITIVE {
        return 0.0;
    }
    if scale < f32::INFINITY { f32::from_bits((scale.to_bits() + REST) & !REST) } else { f32::NAN }
}

#[inline(always)]
fn prepare_row(row: &[f32], r: usize, count: usize, dst: &mut [u8]) {
    let blocks = row.len() / BLOCK;
    let mut sums = [0f32; minima::SPAN];
    for (b, x) in row.chunks_exact(BLOCK).enumerate() {
        let x: &[f32; BLOCK] = x.try_into().expect("a whole block");
        // Compared as integers, magnitudes order like floats and NaN is above all: it ends up in the scale.
        let largest = x.iter().fold(0u32, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
        let scale = round_up(f32::from_bits(largest) / 127.0);
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let mut q = [0i8; BLOCK];
        for (q, v) in q.iter_mut().zip(x) {
            *q = nearest(v * inverse) as i8;
        }
        let sum: i32 = q.iter().map(|&q| i32::from(q)).sum();
        let late: i32 = q[16..].iter().map(|&q| i32::from(q)).sum();
        let here = &mut dst[b * ROW_BLOCK_BYTES * count..][..ROW_BLOCK_BYTES * count];
        let (quants, rest) = here.split_at_mut(BLOCK * count);
        for (group, q) in q.chunks_exact(4).enumerate() {
            let at = (group * count + r) * 4;
            quants[at..at + 4].copy_from_slice(bytemuck::cast_slice(q));
        }
        let words: [[u8; 4]; 4] = [
            scale.to_ne_bytes(),
            (-ZERO * sum).to_ne_bytes(),
            (-ZERO * late).to_ne_bytes(),
            exponent(scale, ZERO_EXPONENT).to_ne_bytes(),
        ];
        for (i, word) in words.iter().enumerate() {
            rest[(i * count + r) * 4..][..4].copy_from_slice(word);
        }
        sums[b % minima::SPAN] = scale * sum as f32;
        if (b + 1).is_multiple_of(minima::SPAN) || b + 1 == blocks {
            let first = b / minima::SPAN * minima::SPAN;
            let at = minima::place(blocks, first) * count;
            minima::write_sums(&sums[..b + 1 - first], r, count, &mut dst[at..]);
        }
    }
}
