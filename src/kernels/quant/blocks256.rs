//! Blocks of 256 values: Q4_K, Q5_K, Q6_K (layouts in ggml's `ggml-common.h`).

use super::scale;
use crate::tensor::DType;

/// Values of a block.
const N: usize = DType::Q4K.block_len();

/// The eight (scale, minimum) pairs of 6 bits in the 12 bytes of a Q4_K or Q5_K block. Pairs 0..4 are the low six bits of
/// bytes 0..4 and 4..8; pairs 4..8 have their low nibbles in bytes 8..12 and their high two bits on top of bytes 0..8.
fn scales_and_minima(packed: &[u8]) -> [(f32, f32); 8] {
    std::array::from_fn(|i| {
        let (s, m) = if i < 4 {
            (packed[i] & 63, packed[i + 4] & 63)
        } else {
            let both = packed[i + 4];
            ((both & 15) | (packed[i - 4] >> 6) << 4, (both >> 4) | (packed[i] >> 6) << 4)
        };
        (f32::from(s), f32::from(m))
    })
}

/// Each 64 values take 32 bytes: low nibbles the first 32, high nibbles the next. Value = d·s·q − dmin·m.
pub(super) fn dequantize_q4_k(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in bytes.as_chunks::<144>().0.iter().zip(out.as_chunks_mut::<N>().0) {
        let (d, dmin) = (scale(block, 0), scale(block, 2));
        let pairs = scales_and_minima(&block[4..16]);
        for (j, (q, v)) in block[16..].as_chunks::<32>().0.iter().zip(values.as_chunks_mut::<64>().0).enumerate() {
            let (low, high) = v.split_at_mut(32);
            let ((s, m), (s2, m2)) = (pairs[2 * j], pairs[2 * j + 1]);
            let (s, m, s2, m2) = (d * s, dmin * m, d * s2, dmin * m2);
            for ((l, h), &q) in low.iter_mut().zip(high).zip(q) {
                *l = s * f32::from(q & 15) - m;
                *h = s2 * f32::from(q >> 4) - m2;
            }
        }
    }
}

/// As Q4_K; bit `i` of high byte `k` is the fifth bit of value `32·i + k`.
pub(super) fn dequantize_q5_k(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in bytes.as_chunks::<176>().0.iter().zip(out.as_chunks_mut::<N>().0) {
        let (d, dmin) = (scale(block, 0), scale(block, 2));
        let pairs = scales_and_minima(&block[4..16]);
        let (fifth, nibbles) = block[16..].split_at(32);
        for (j, (q, v)) in nibbles.as_chunks::<32>().0.iter().zip(values.as_chunks_mut::<64>().0).enumerate() {
            let (low, high) = v.split_at_mut(32);
            let ((s, m), (s2, m2)) = (pairs[2 * j], pairs[2 * j + 1]);
            let (s, m, s2, m2) = (d * s, dmin * m, d * s2, dmin * m2);
            for (((l, h), &q), &f) in low.iter_mut().zip(high).zip(q).zip(fifth) {
                *l = s * f32::from((q & 15) | (f >> (2 * j) & 1) << 4) - m;
                *h = s2 * f32::from((q >> 4) | (f >> (2 * j + 1) & 1) << 4) - m2;
            }
        }
    }
}

/// Each 128 values take 64 bytes of low nibbles and 32 of high bit pairs; one i8 scale per 16. Value = d·s·(q − 32).
pub(super) fn dequantize_q6_k(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in bytes.as_chunks::<210>().0.iter().zip(out.as_chunks_mut::<N>().0) {
        let d = scale(block, 208);
        for (half, v) in values.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let low = &block[64 * half..][..64];
            let high = &block[128 + 32 * half..][..32];
            let scales = &block[192 + 8 * half..][..8];
            for (quarter, v) in v.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let low = &low[32 * (quarter % 2)..][..32];
                let s = [d * f32::from(scales[2 * quarter] as i8), d * f32::from(scales[2 * quarter + 1] as i8)];
                for (i, v) in v.iter_mut().enumerate() {
                    let q = (low[i] >> (4 * (quarter / 2)) & 15) | (high[i] >> (2 * quarter) & 3) << 4;
                    *v = s[i / 16] * (i32::from(q) - 32) as f32;
                }
            }
        }
    }
}
