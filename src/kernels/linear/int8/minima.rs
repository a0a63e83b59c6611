//! Minima of weights in products: of every [`SPAN`] blocks of 32 inputs, Σ m·y over the blocks, with m a block's minimum and y the sum of its
//! activations (scale × sum of values), is c·Σ y, with c the middle of the span's minima, and a dot product of 8-bit integers. Four blocks take
//! one multiply-add so, instead of four.
//!
//! With c = (least + most) / 2 of the minima of an output in the span and e the exponent of two of 1.01 times half their distance,
//! M = (m − c)·2^(6 − e) rounded to nearest, ties to even; with f that of 1.01 times the largest |y| of a row in it, Y = y·2^(6 − f) likewise.
//! Neither is beyond 127. Σ M·Y is less than 2^24, so exact in 32 bits and as f32, and is scaled by 2^(e − 6 + f − 6); c·Σ y is added to it, and the result
//! to the sum behind the blocks.
//!
//! So a minimum is off by 1/126 of half the distance at most, a block's sum by 1/126 of the largest one. Of weights that spread alike in all
//! blocks the minima differ by a few steps of 4-bit quants: m is off by less than a fortieth of a step, which rounding to quants exceeds
//! tenfold. An error of Y is multiplied with m − c only; it is about what rounding activations to int8 costs where one value of a span is far
//! larger than others, and more where all values of one block are large and of one sign.
//!
//! Where a minimum, an activation, c, Σ y, or 1.01 times what exponents are of is not finite, neither is the sum.

use super::{ROW_BLOCK_BYTES, exponent, nearest};
use crate::kernels::linear::layout::PANEL;

/// Blocks of 32 inputs whose minima are multiplied at once: a multiple of 8, as some scales are of 256 inputs.
pub(super) const SPAN: usize = 24;
const _: () = assert!(SPAN.is_multiple_of(8));

/// Blocks of a word: a byte each.
pub(super) const IN_WORD: usize = 4;

/// The exponent that integers get.
pub(super) const EXPONENT: f32 = 6.0;
/// How much larger than the largest magnitude the one is whose exponent counts: integers stay below 128.
pub(super) const MARGIN: f32 = 1.01;

/// Added to M as a byte without a sign.
pub(super) const ZERO_BYTE: i32 = 128;

/// Stands for the exponent of zero.
pub(super) const NO_EXPONENT: f32 = -100.0;

/// Words of one row behind the integers of a span: the exponent f − 6, minus [`ZERO_BYTE`] times ΣY, and Σ y.
pub(super) const WORDS_BEHIND: usize = 3;

/// Bytes of the sums of one row of `blocks` blocks.
pub(super) const fn row_bytes(blocks: usize) -> usize {
    4 * (blocks.div_ceil(IN_WORD) + WORDS_BEHIND * blocks.div_ceil(SPAN))
}

/// Where a prepared block of `rows` rows of `blocks` blocks has the sums Y of the span that starts with block `first`: four blocks a word,
/// `[blocks / 4][rows]`, then [`WORDS_BEHIND`] words, `[3][rows]`.
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

/// `value · 2^exponent`, which is at most 127, rounded to nearest, ties to even; 0 when the exponent is NaN.
#[inline(always)]
fn whole(value: f32, exponent: f32) -> i32 {
    if exponent.is_nan() {
        return 0;
    }
    nearest(scaled(value, exponent))
}

/// The exponent of what becomes 1 of the integers of values of magnitude `largest` at most.
#[inline(always)]
fn unit(largest: f32) -> f32 {
    // A NaN may have a sign.
    exponent((largest * MARGIN).abs(), NO_EXPONENT) - EXPONENT
}

/// Writes the sums `y` of one span of row `r` of `count` to where that span has its sums.
#[inline(always)]
pub(super) fn write_sums(y: &[f32], r: usize, count: usize, dst: &mut [u8]) {
    let mut put = |word: usize, bits: [u8; 4]| dst[(word * count + r) * 4..][..4].copy_from_slice(&bits);
    // Compared as integers, magnitudes order like floats and NaN is above all.
    let largest = y.iter().fold(0, |most, y| most.max(y.to_bits() & 0x7fff_ffff));
    let f = unit(f32::from_bits(largest));
    let mut total = 0;
    for (word, y) in y.chunks(IN_WORD).enumerate() {
        let mut bytes = [0i8; IN_WORD];
        for (byte, &y) in bytes.iter_mut().zip(y) {
            *byte = whole(y, -f) as i8;
            total += i32::from(*byte);
        }
        put(word, bytes.map(|byte| byte as u8));
    }
    let words = y.len().div_ceil(IN_WORD);
    put(words, f.to_ne_bytes());
    put(words + 1, (-ZERO_BYTE * total).to_ne_bytes());
    put(words + 2, y.iter().fold(0.0, |sum, y| sum + y).to_ne_bytes());
}

/// Orders floats by their bits as integers, NaN above or below all; its own inverse.
#[inline(always)]
fn order(bits: i32) -> i32 {
    bits ^ (bits >> 31 & i32::MAX)
}

/// Adds to `sums` of row `r` of `count` the product of the minima `m` of one span and the sums `y` of that span, as [`write_sums`] wrote
/// them.
///
/// # Panics
/// When there are not so many.
pub(super) fn add(m: &[[f32; PANEL]], y: &[u32], r: usize, count: usize, sums: &mut [f32; PANEL]) {
    let word = |word: usize| y[word * count + r];
    let words = m.len().div_ceil(IN_WORD);
    let (f, total) = (f32::from_bits(word(words)), f32::from_bits(word(words + 2)));
    for (lane, sum) in sums.iter_mut().enumerate() {
        let ordered = m.iter().map(|m| order(m[lane].to_bits() as i32));
        let float = |ordered: Option<i32>| f32::from_bits(order(ordered.expect("a span has blocks")) as u32);
        let (least, most) = (float(ordered.clone().min()), float(ordered.max()));
        let (middle, e) = ((least + most) * 0.5, unit((most - least) * 0.5));
        let product = |(b, m): (usize, &[f32; PANEL])| {
            whole(m[lane] - middle, -e) * i32::from(word(b / IN_WORD).to_ne_bytes()[b % IN_WORD] as i8)
        };
        let dot: i32 = m.iter().enumerate().map(product).sum();
        *sum += scaled(dot as f32, e + f) + middle * total;
    }
}
