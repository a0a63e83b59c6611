//! Packing weight matrices into panels.

use super::blocks;
use super::layout::{BLOCK, Layout, PANEL, panel_bytes};
use crate::error::{Error, Result};
use crate::kernels::quant;
use crate::kernels::view::View;
use crate::tensor::DType;
use half::{bf16, f16};
use std::ops::Range;

/// Where weights come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// `n` rows of `k` values (`[out, in]`).
    OutIn(View<'a, f32>),
    /// `k` rows of `n` values (`[in, out]`, the Conv1D of GPT-2).
    InOut(View<'a, f32>),
    /// Writes the `k` values of output `n`.
    Rows(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
    /// `n` rows of stored values or GGUF blocks, back to back, little-endian, of any alignment. They keep their type.
    Stored(&'a [u8]),
}

/// Packs panels `panels` of a matrix of `n` outputs and `k` inputs as `dtype` into `dst`, which holds just these panels
/// (disjoint ranges can be packed in parallel).
///
/// # Errors
/// As [`panel_bytes`]; when the source or `dst` has another size; or when values should be rounded to a type without a
/// quantiser (see [`quant::can_quantize`]).
pub fn pack(dtype: DType, n: usize, k: usize, source: &Source, panels: Range<usize>, dst: &mut [u8]) -> Result<()> {
    let panel_size = panel_bytes(dtype, k)?;
    let layout = Layout::of(dtype).expect("panel_bytes checked the type");
    let wrong = |what: String| Err(Error::Weights(format!("packing {n} × {k} as {dtype}: {what}")));
    if panels.end > n.div_ceil(PANEL) || dst.len() != panels.len() * panel_size {
        return wrong(format!("panels {panels:?} of {panel_size} bytes do not fit {} bytes", dst.len()));
    }
    match source {
        Source::Stored(bytes) => {
            let expected = dtype.bytes_for(k).and_then(|row| row.checked_mul(n));
            if expected != Some(bytes.len()) {
                return wrong(format!("the source has {} bytes, not {}", bytes.len(), expected.unwrap_or(0)));
            }
        }
        _ if !quant::can_quantize(dtype) => {
            return wrong("values cannot be rounded to this type; use f32, f16, bf16, q8_0, q4_0 or q4_1".into());
        }
        Source::OutIn(view) if (view.rows(), view.width()) != (n, k) => {
            return wrong(format!("the source is {} × {}", view.rows(), view.width()));
        }
        Source::InOut(view) if (view.rows(), view.width()) != (k, n) => {
            return wrong(format!("the source is {} × {}, inputs first", view.rows(), view.width()));
        }
        _ => {}
    }
    for (panel, dst) in panels.zip(dst.chunks_exact_mut(panel_size)) {
        let outputs = panel * PANEL..n.min((panel + 1) * PANEL);
        dst.fill(0);
        match source {
            Source::Stored(bytes) => {
                let row_bytes = bytes.len() / n;
                for (lane, output) in outputs.enumerate() {
                    store_row(dtype, layout, &bytes[output * row_bytes..][..row_bytes], lane, dst);
                }
            }
            Source::InOut(view) => pack_columns(dtype, view, outputs, dst),
            Source::OutIn(view) => {
                for (lane, output) in outputs.enumerate() {
                    put_values(dtype, view.row(output), 0, lane, dst);
                }
            }
            Source::Rows(fill) => {
                let mut values = vec![0.0; k];
                for (lane, output) in outputs.enumerate() {
                    fill(output, &mut values);
                    put_values(dtype, &values, 0, lane, dst);
                }
            }
        }
    }
    Ok(())
}

/// Bytes of the largest block of 32 values that has a quantiser.
const MAX_BLOCK_BYTES: usize = 34;

/// Reads the source along its rows, a block of inputs at a time.
fn pack_columns(dtype: DType, view: &View<f32>, outputs: Range<usize>, dst: &mut [u8]) {
    let mut block = [[0f32; BLOCK]; PANEL];
    for first in (0..view.rows()).step_by(BLOCK) {
        let inputs = BLOCK.min(view.rows() - first);
        for i in 0..inputs {
            for (values, &v) in block.iter_mut().zip(&view.row(first + i)[outputs.clone()]) {
                values[i] = v;
            }
        }
        for (lane, values) in block[..outputs.len()].iter().enumerate() {
            put_values(dtype, &values[..inputs], first, lane, dst);
        }
    }
}

/// Rounds `values`, inputs `first ..` (a multiple of 32) of output `lane`, into the panel.
fn put_values(dtype: DType, values: &[f32], first: usize, lane: usize, panel: &mut [u8]) {
    let layout = Layout::of(dtype).expect("a weight type");
    match layout {
        Layout::F32 => {
            for (v, at) in values.iter().zip(panel[first * 4 * PANEL..].chunks_exact_mut(4 * PANEL)) {
                at[4 * lane..][..4].copy_from_slice(&v.to_le_bytes());
            }
        }
        Layout::F16 => {
            for (i, v) in values.iter().enumerate() {
                put_f16(f16::from_f32(*v).to_le_bytes(), first + i, lane, panel);
            }
        }
        Layout::Bf16 => {
            for (i, v) in values.iter().enumerate() {
                put_bf16(bf16::from_f32(*v).to_le_bytes(), first + i, lane, panel);
            }
        }
        _ => {
            let mut bytes = [0; MAX_BLOCK_BYTES];
            let bytes = &mut bytes[..dtype.block_bytes()];
            for (b, values) in values.chunks_exact(BLOCK).enumerate() {
                quant::quantize(dtype, values, bytes);
                blocks::write(layout, panel, first / BLOCK + b, lane, &blocks::read(dtype, bytes, 0));
            }
        }
    }
}

/// Copies one stored row of output `lane` into the panel, value by value, without rounding.
fn store_row(dtype: DType, layout: Layout, row: &[u8], lane: usize, panel: &mut [u8]) {
    match layout {
        Layout::F32 => {
            for (v, at) in row.chunks_exact(4).zip(panel.chunks_exact_mut(4 * PANEL)) {
                at[4 * lane..][..4].copy_from_slice(v);
            }
        }
        Layout::F16 => {
            for (i, v) in row.chunks_exact(2).enumerate() {
                put_f16([v[0], v[1]], i, lane, panel);
            }
        }
        Layout::Bf16 => {
            for (i, v) in row.chunks_exact(2).enumerate() {
                put_bf16([v[0], v[1]], i, lane, panel);
            }
        }
        _ => {
            let blocks = row.len() / dtype.block_bytes() * (dtype.block_len() / BLOCK);
            for b in 0..blocks {
                blocks::write(layout, panel, b, lane, &blocks::read(dtype, row, b));
            }
        }
    }
}

fn put_f16(bits: [u8; 2], input: usize, lane: usize, panel: &mut [u8]) {
    panel[(input * PANEL + lane) * 2..][..2].copy_from_slice(&bits);
}

fn put_bf16(bits: [u8; 2], input: usize, lane: usize, panel: &mut [u8]) {
    panel[(input / 2 * 2 * PANEL + lane * 2 + input % 2) * 2..][..2].copy_from_slice(&bits);
}
