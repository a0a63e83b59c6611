//! Minima of weights in products: of every [`SPAN`] blocks of 32 inputs, Σ m·y over the blocks, with m a block's minimum and y the sum of its
//! activations (scale × sum of values), is one dot product of 16-bit integers. Two blocks take one multiply-add so, instead of two.
//!
//! With e the exponent of two of the largest |m| of an output in the span, M = m·2^(13 − e) rounded to nearest; with f that of Σ |y| of a row
//! in it, Y = y·2^(14 − f) likewise, at most 32767. Σ M·Y then is exact in 32 bits, as |M| ≤ 2^14 and Σ |Y| ≤ 2^15 + 12. It is rounded to f32,
//! scaled by 2^(e − 13 + f − 14) and added to the sum behind the blocks. M is exact where a minimum of 11 bits is at least an eighth of the
//! largest; Y is off by 2^-15 of Σ |y| at most, far less than rounding activations to int8 moves y.
//!
//! Where a minimum, an activation or Σ |y| is not finite, neither is the sum.

use super::{ROW_BLOCK_BYTES, exponent, nearest};
use crate::kernels::linear::layout::PANEL;

/// Blocks of 32 inputs whose minima are multiplied at once: a multiple of 8, as some scales are of 256 inputs.
pub(super) const SPAN: usize = 24;
const _: () = assert!(SPAN.is_multiple_of(8));

/// The exponent that the largest minimum of an output gets as an integer.
pub(super) const MINIMUM_EXPONENT: f32 = 13.0;
/// The exponent that the sums of a row get together.
pub(super) const SUM_EXPONENT: f32 = 14.0;

/// Stands for the exponent of zero.
pub(super) const NO_EXPONENT: f32 = -100.0;

/// Bytes of the sums of one row of `blocks` blocks.
pub(super) const fn row_bytes(blocks: usize) -> usize {
    4 * (blocks.div_ceil(2) + blocks.div_ceil(SPAN))
}

/// Where a prepared block of `rows` rows of `blocks` blocks has the sums Y of the span that starts with block `first`: two blocks a word,
/// `[blocks / 2][rows]`, then the exponents f − 14, `[rows]`.
pub(super) fn sums_of(x: *const u8, blocks: usize, rows: usize, first: usize) -> *const u8 {
    x.wrapping_add(place(blocks, first) * rows)
}

/// Offset of the sums of the span that starts with block `first` in a prepared row of `blocks` blocks, in bytes.
pub(super) const fn place(blocks: usize, first: usize) -> usize {
    blocks * ROW_BLOCK_BYTES + first / SPAN * row_bytes(SPAN)
}

/// `value · 2^exponent`; NaN when the exponent is.
#[inline(always)]
fn scaled(value: f32, exponent: f32) -> f32 {
    if exponent.is_nan() {
        return exponent;
    }
    // The exponent is a whole number far inside those of f64.
    (f64::from(value) * f64::from_bits(((1023.0 + exponent) as u64) << 52)) as f32
}

/// `value · 2^exponent`, which is less than 2^16, rounded to nearest, ties to even; 0 when the exponent is NaN.
#[inline(always)]
fn whole(value: f32, exponent: f32) -> i32 {
    if exponent.is_nan() {
        return 0;
    }
    nearest(scaled(value, exponent))
}

/// Writes the sums `y` of one span of row `r` of `count` to where that span has its sums.
#[inline(always)]
pub(super) fn write_sums(y: &[f32], r: usize, count: usize, dst: &mut [u8]) {
    let f = exponent(y.iter().fold(0.0, |sum, y| sum + y.abs()), NO_EXPONENT);
    let mut put = |word: usize, bits: u32| dst[(word * count + r) * 4..][..4].copy_from_slice(&bits.to_ne_bytes());
    let bits = |y: f32| whole(y, SUM_EXPONENT - f).min(i32::from(i16::MAX)) as u32 & 0xffff;
    for (pair, y) in y.chunks(2).enumerate() {
        put(pair, bits(y[0]) | y.get(1).map_or(0, |&y| bits(y)) << 16);
    }
    put(y.len().div_ceil(2), (f - SUM_EXPONENT).to_bits());
}

/// Adds to `sums` of row `r` of `count` the product of the minima `m` of one span and the sums `y` of that span, as [`write_sums`] wrote
/// them.
///
/// # Panics
/// When there are not so many.
pub(super) fn add(m: &[[f32; PANEL]], y: &[u32], r: usize, count: usize, sums: &mut [f32; PANEL]) {
    let word = |word: usize| y[word * count + r];
    let shift = f32::from_bits(word(m.len().div_ceil(2)));
    for (lane, sum) in sums.iter_mut().enumerate() {
        // Compared as integers, magnitudes order like floats and NaN is above all.
        let largest = m.iter().fold(0, |most, m| most.max(m[lane].to_bits() & 0x7fff_ffff));
        let e = exponent(f32::from_bits(largest), NO_EXPONENT) - MINIMUM_EXPONENT;
        let product =
            |(b, m): (usize, &[f32; PANEL])| whole(m[lane], -e) * i32::from((word(b / 2) >> (16 * (b % 2))) as i16);
        let dot: i32 = m.iter().enumerate().map(product).sum();
        *sum += scaled(dot as f32, e + shift);
    }
}
