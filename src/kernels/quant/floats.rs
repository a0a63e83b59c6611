//! F32, F16 and BF16, little-endian, in bytes of any alignment.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Values converted at a time when the bytes are not aligned for their type.
const CHUNK: usize = 256;

/// Copies little-endian f32.
pub(super) fn read_f32(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *o = f32::from_le_bytes(*b);
    }
}

/// Copies to little-endian f32.
pub(super) fn write_f32(values: &[f32], out: &mut [u8]) {
    for (v, o) in values.iter().zip(out.as_chunks_mut::<4>().0) {
        *o = v.to_le_bytes();
    }
}

/// F16 to f32.
pub(super) fn widen_f16(bytes: &[u8], out: &mut [f32]) {
    let mut aligned = [f16::ZERO; CHUNK];
    for (b, o) in bytes.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)) {
        let part = &mut aligned[..o.len()];
        for (x, b) in part.iter_mut().zip(b.as_chunks::<2>().0) {
            *x = f16::from_le_bytes(*b);
        }
        part.convert_to_f32_slice(o);
    }
}

/// BF16 to f32.
pub(super) fn widen_bf16(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
    }
}

/// F32 to f16, to nearest even.
pub(super) fn narrow_f16(values: &[f32], out: &mut [u8]) {
    let mut narrow = [f16::ZERO; CHUNK];
    for (v, o) in values.chunks(CHUNK).zip(out.chunks_mut(2 * CHUNK)) {
        let part = &mut narrow[..v.len()];
        part.convert_from_f32_slice(v);
        for (x, o) in part.iter().zip(o.as_chunks_mut::<2>().0) {
            *o = x.to_le_bytes();
        }
    }
}

/// F32 to bf16, to nearest even.
pub(super) fn narrow_bf16(values: &[f32], out: &mut [u8]) {
    for (v, o) in values.iter().zip(out.as_chunks_mut::<2>().0) {
        *o = bf16::from_f32(*v).to_le_bytes();
    }
}
