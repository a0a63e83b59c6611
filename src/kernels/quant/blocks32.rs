//! Blocks of 32 values: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 (layouts in ggml's `ggml-common.h`).
//!
//! In the 4- and 5-bit formats the low nibbles are values 0..16 of a block and the high nibbles values 16..32.

use super::scale;
use crate::tensor::DType;
use half::f16;

/// Values of a block.
const N: usize = DType::Q8_0.block_len();

/// Calls `f(block bytes, its 32 values)` for every block of `SIZE` bytes.
#[inline(always)]
fn blocks<const SIZE: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn(&[u8; SIZE], &mut [f32; N])) {
    for (block, values) in bytes.as_chunks::<SIZE>().0.iter().zip(out.as_chunks_mut::<N>().0) {
        f(block, values);
    }
}

/// Value = q·d with q an i8.
pub(super) fn dequantize_q8_0(bytes: &[u8], out: &mut [f32]) {
    blocks::<34>(bytes, out, |block, values| {
        let d = scale(block, 0);
        for (v, &q) in values.iter_mut().zip(&block[2..]) {
            *v = f32::from(q as i8) * d;
        }
    });
}

/// Value = (q − 8)·d.
pub(super) fn dequantize_q4_0(bytes: &[u8], out: &mut [f32]) {
    blocks::<18>(bytes, out, |block, values| {
        let d = scale(block, 0);
        let (low, high) = values.split_at_mut(N / 2);
        for ((l, h), &q) in low.iter_mut().zip(high).zip(&block[2..]) {
            *l = (i32::from(q & 15) - 8) as f32 * d;
            *h = (i32::from(q >> 4) - 8) as f32 * d;
        }
    });
}

/// Value = q·d + m.
pub(super) fn dequantize_q4_1(bytes: &[u8], out: &mut [f32]) {
    blocks::<20>(bytes, out, |block, values| {
        let (d, m) = (scale(block, 0), scale(block, 2));
        let (low, high) = values.split_at_mut(N / 2);
        for ((l, h), &q) in low.iter_mut().zip(high).zip(&block[4..]) {
            *l = f32::from(q & 15) * d + m;
            *h = f32::from(q >> 4) * d + m;
        }
    });
}

/// The fifth bits of a block: bit `i` belongs to value `i`.
#[inline]
fn fifth_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Value = (q − 16)·d.
pub(super) fn dequantize_q5_0(bytes: &[u8], out: &mut [f32]) {
    blocks::<22>(bytes, out, |block, values| {
        let (d, fifth) = (scale(block, 0), fifth_bits(block, 2));
        let (low, high) = values.split_at_mut(N / 2);
        for (i, ((l, h), &q)) in low.iter_mut().zip(high).zip(&block[6..]).enumerate() {
            let (a, b) = (u32::from(q & 15) | (fifth >> i & 1) << 4, u32::from(q >> 4) | (fifth >> (i + 16) & 1) << 4);
            *l = (a as i32 - 16) as f32 * d;
            *h = (b as i32 - 16) as f32 * d;
        }
    });
}

/// Value = q·d + m.
pub(super) fn dequantize_q5_1(bytes: &[u8], out: &mut [f32]) {
    blocks::<24>(bytes, out, |block, values| {
        let (d, m, fifth) = (scale(block, 0), scale(block, 2), fifth_bits(block, 4));
        let (low, high) = values.split_at_mut(N / 2);
        for (i, ((l, h), &q)) in low.iter_mut().zip(high).zip(&block[8..]).enumerate() {
            let (a, b) = (u32::from(q & 15) | (fifth >> i & 1) << 4, u32::from(q >> 4) | (fifth >> (i + 16) & 1) << 4);
            *l = a as i32 as f32 * d + m;
            *h = b as i32 as f32 * d + m;
        }
    });
}

/// 1/d, or 0 for a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Half-away-from-zero rounding, as C's `roundf`, in a form that vectorises: the constant is the largest f32 below ½.
#[inline]
fn round_half_away(x: f32) -> i32 {
    (x + 0.499_999_97_f32.copysign(x)) as i32
}

/// d = largest magnitude / 127.
pub(super) fn quantize_q8_0(values: &[f32], out: &mut [u8]) {
    for (v, block) in values.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<34>().0) {
        let largest = v.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        let d = largest / 127.0;
        let id = inverse(d);
        block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        for (q, x) in block[2..].iter_mut().zip(v) {
            *q = round_half_away(x * id) as i8 as u8;
        }
    }
}

/// d = (the value of largest magnitude, the first of equals) / −8.
pub(super) fn quantize_q4_0(values: &[f32], out: &mut [u8]) {
    for (v, block) in values.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<18>().0) {
        let extreme = v.iter().fold(0.0f32, |a, &x| if a.abs() < x.abs() { x } else { a });
        let d = extreme / -8.0;
        let id = inverse(d);
        block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        for (i, q) in block[2..].iter_mut().enumerate() {
            let low = ((v[i] * id + 8.5) as i32).min(15) as u8;
            let high = ((v[i + N / 2] * id + 8.5) as i32).min(15) as u8;
            *q = low | high << 4;
        }
    }
}

/// d = (max − min) / 15, m = min.
pub(super) fn quantize_q4_1(values: &[f32], out: &mut [u8]) {
    for (v, block) in values.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<20>().0) {
        let (min, max) = v.iter().fold((f32::MAX, -f32::MAX), |(lo, hi), &x| (lo.min(x), hi.max(x)));
        let d = (max - min) / 15.0;
        let id = inverse(d);
        block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(min).to_le_bytes());
        for (i, q) in block[4..].iter_mut().enumerate() {
            let low = (((v[i] - min) * id + 0.5) as i32).min(15) as u8;
            let high = (((v[i + N / 2] - min) * id + 0.5) as i32).min(15) as u8;
            *q = low | high << 4;
        }
    }
}
