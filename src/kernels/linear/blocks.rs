//! Blocks of quantised weights: reading GGUF's, writing them into a panel, reading them back from a panel.

use super::layout::{BLOCK, Layout, PANEL};
use crate::tensor::DType;
use half::f16;

/// 32 quants of one output and what their values need; unused fields are zero. Scales are kept in the bits of the source.
#[derive(Clone, Copy, Default)]
pub(super) struct Block {
    /// Quants as the layout stores them, each in a byte.
    pub quants: [u8; BLOCK],
    /// d and m or dmin, as f16 bits.
    pub scale: [u16; 2],
    /// Second-level scale and minimum, or the two i8 scales of [`Layout::Byte16`].
    pub sub: [u8; 2],
}

/// Block `b` (32 inputs) of a row of GGUF blocks of `dtype`.
pub(super) fn read(dtype: DType, row: &[u8], b: usize) -> Block {
    let per = dtype.block_len() / BLOCK;
    let bytes = &row[b / per * dtype.block_bytes()..][..dtype.block_bytes()];
    let sub = b % per;
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let mut out = Block::default();
    match dtype {
        DType::Q8_0 => {
            out.scale[0] = half(0);
            for (q, &s) in out.quants.iter_mut().zip(&bytes[2..]) {
                *q = s ^ 0x80;
            }
        }
        DType::Q4_0 | DType::Q4_1 => {
            out.scale[0] = half(0);
            if dtype == DType::Q4_1 {
                out.scale[1] = half(2);
            }
            nibbles(&mut out.quants, &bytes[bytes.len() - 16..]);
        }
        DType::Q5_0 | DType::Q5_1 => {
            out.scale[0] = half(0);
            let header = if dtype == DType::Q5_1 { 4 } else { 2 };
            if dtype == DType::Q5_1 {
                out.scale[1] = half(2);
            }
            nibbles(&mut out.quants, &bytes[header + 4..]);
            for (i, q) in out.quants.iter_mut().enumerate() {
                *q |= (bytes[header + i / 8] >> (i % 8) & 1) << 4;
                if dtype == DType::Q5_0 {
                    *q += 128 - 16; // the zero point of the byte layout
                }
            }
        }
        DType::Q4K | DType::Q5K => {
            out.scale = [half(0), half(2)];
            out.sub = six_bit_scales(&bytes[4..16], sub);
            let low = &bytes[bytes.len() - 128 + sub / 2 * 32..][..32];
            for (q, &l) in out.quants.iter_mut().zip(low) {
                *q = if sub.is_multiple_of(2) { l & 15 } else { l >> 4 };
            }
            if dtype == DType::Q5K {
                for (q, &h) in out.quants.iter_mut().zip(&bytes[16..48]) {
                    *q |= (h >> sub & 1) << 4;
                }
            }
        }
        DType::Q6K => {
            let (side, quarter) = (sub / 4, sub % 4);
            let low = &bytes[side * 64 + quarter % 2 * 32..][..32];
            let high = &bytes[128 + side * 32..][..32];
            for ((q, &l), &h) in out.quants.iter_mut().zip(low).zip(high) {
                *q = (if quarter < 2 { l & 15 } else { l >> 4 }) | (h >> (2 * quarter) & 3) << 4;
            }
            out.scale[0] = half(208);
            out.sub = [bytes[192 + 2 * sub], bytes[192 + 2 * sub + 1]];
        }
        _ => unreachable!("{dtype} is not a block type"),
    }
    out
}

/// Low nibbles are the first 16 values, high nibbles the last 16.
fn nibbles(quants: &mut [u8; BLOCK], bytes: &[u8]) {
    for (i, &b) in bytes[..16].iter().enumerate() {
        quants[i] = b & 15;
        quants[i + 16] = b >> 4;
    }
}

/// Scale and minimum `j` of the eight 6-bit pairs that k-quants keep in 12 bytes (layout of ggml's `get_scale_min_k4`).
fn six_bit_scales(s: &[u8], j: usize) -> [u8; 2] {
    if j < 4 {
        [s[j] & 63, s[j + 4] & 63]
    } else {
        [s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4]
    }
}

/// Where quant `i` of output `lane` lies in the quants of a block: byte, and shift of a nibble.
fn quant_position(layout: Layout, lane: usize, i: usize) -> (usize, u32) {
    let (group, byte) = (i / 4, lane * 4 + i % 4);
    if layout.is_nibble() {
        (group % 4 * 4 * PANEL + byte, if group < 4 { 0 } else { 4 })
    } else {
        (group * 4 * PANEL + byte, 0)
    }
}

/// Writes block `b` of output `lane` into a panel that was zero there.
pub(super) fn write(layout: Layout, panel: &mut [u8], b: usize, lane: usize, block: &Block) {
    let (at, header) = layout.block_offset(b);
    for (i, &q) in block.quants.iter().enumerate() {
        let (byte, shift) = quant_position(layout, lane, i);
        panel[at + byte] |= q << shift;
    }
    let scales = at + layout.quant_bytes();
    let mut put = |at: usize, bits: u16| panel[at..at + 2].copy_from_slice(&bits.to_le_bytes());
    if layout.is_super() {
        put(header + 2 * lane, block.scale[0]);
        if layout.has_min() {
            put(header + 2 * PANEL + 2 * lane, block.scale[1]);
        }
        panel[scales + lane] = block.sub[0];
        panel[scales + PANEL + lane] = block.sub[1];
    } else {
        put(scales + 2 * lane, block.scale[0]);
        if layout.has_min() {
            put(scales + 2 * PANEL + 2 * lane, block.scale[1]);
        }
    }
}

/// Scales of the two halves of block `b` of output `lane`, and its minimum, as the products use them.
pub(super) fn scales(layout: Layout, panel: &[u8], b: usize, lane: usize) -> ([f32; 2], f32) {
    let (at, header) = layout.block_offset(b);
    let at = at + layout.quant_bytes();
    let get = |at: usize| f16::from_le_bytes([panel[at], panel[at + 1]]).to_f32();
    if layout == Layout::Byte16 {
        let d = get(header + 2 * lane);
        ([d * f32::from(panel[at + lane] as i8), d * f32::from(panel[at + PANEL + lane] as i8)], 0.0)
    } else if layout.is_super() {
        let d = get(header + 2 * lane) * f32::from(panel[at + lane]);
        let minimum = get(header + 2 * PANEL + 2 * lane) * f32::from(panel[at + PANEL + lane]);
        ([d, d], -minimum)
    } else {
        let d = get(at + 2 * lane);
        ([d, d], if layout.has_min() { get(at + 2 * PANEL + 2 * lane) } else { 0.0 })
    }
}

/// The 32 values of block `b` of output `lane`.
pub(super) fn unpack(layout: Layout, panel: &[u8], b: usize, lane: usize, out: &mut [f32]) {
    let (d, m) = scales(layout, panel, b, lane);
    let quants = &panel[layout.block_offset(b).0..][..layout.quant_bytes()];
    let zero = if layout.has_min() { 0 } else { 1 << layout.zero_shift() };
    let mask = if layout.is_nibble() { 15 } else { 255 };
    // Quants of four inputs of an output lie together.
    for (group, out) in out.chunks_exact_mut(4).enumerate() {
        let (at, shift) = quant_position(layout, lane, 4 * group);
        for (o, &bits) in out.iter_mut().zip(&quants[at..at + 4]) {
            *o = d[group / 4] * (i32::from(bits >> shift & mask) - zero) as f32 + m;
        }
    }
}
