//! Block formats of GGUF and the 16-bit float types: conversion from and to f32.
//!
//! Bit-exact with the reference code of ggml (`dequantize_row_*`, `quantize_row_*_ref`): every product is rounded on its own,
//! nothing is contracted into a fused multiply-add. Bytes may be unaligned, as they come from a mapped file.

mod blocks256;
mod blocks32;
mod floats;

use crate::tensor::DType;

/// Whether [`quantize`] writes `dtype`.
pub const fn can_quantize(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::Q8_0 | DType::Q4_0 | DType::Q4_1)
}

/// Widens `bytes`, values of `dtype` in whole blocks, to f32.
///
/// # Panics
/// When `bytes` is not exactly what `out.len()` values take, or `dtype` is i32 or u8, which are no types of weights.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(dtype.bytes_for(out.len()), Some(bytes.len()), "{} values of {dtype}", out.len());
    match dtype {
        DType::F32 => floats::read_f32(bytes, out),
        DType::F16 => floats::widen_f16(bytes, out),
        DType::BF16 => floats::widen_bf16(bytes, out),
        DType::Q8_0 => blocks32::dequantize_q8_0(bytes, out),
        DType::Q4_0 => blocks32::dequantize_q4_0(bytes, out),
        DType::Q4_1 => blocks32::dequantize_q4_1(bytes, out),
        DType::Q5_0 => blocks32::dequantize_q5_0(bytes, out),
        DType::Q5_1 => blocks32::dequantize_q5_1(bytes, out),
        DType::Q4K => blocks256::dequantize_q4_k(bytes, out),
        DType::Q5K => blocks256::dequantize_q5_k(bytes, out),
        DType::Q6K => blocks256::dequantize_q6_k(bytes, out),
        DType::I32 | DType::U8 => panic!("{dtype} is not a type of weights"),
    }
}

/// Narrows `values` to `dtype`: 16-bit floats to nearest even, blocks as ggml's reference quantiser does.
///
/// # Panics
/// When `out` is not exactly what the values take, or `dtype` cannot be written (see [`can_quantize`]).
pub fn quantize(dtype: DType, values: &[f32], out: &mut [u8]) {
    assert_eq!(dtype.bytes_for(values.len()), Some(out.len()), "{} values of {dtype}", values.len());
    match dtype {
        DType::F32 => floats::write_f32(values, out),
        DType::F16 => floats::narrow_f16(values, out),
        DType::BF16 => floats::narrow_bf16(values, out),
        DType::Q8_0 => blocks32::quantize_q8_0(values, out),
        DType::Q4_0 => blocks32::quantize_q4_0(values, out),
        DType::Q4_1 => blocks32::quantize_q4_1(values, out),
        _ => panic!("no quantiser to {dtype}"),
    }
}

/// The f16 at byte `at` of a block.
#[inline]
fn scale(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests;
