//! A packed weight matrix.

use super::blocks;
use super::layout::{Layout, PANEL, packed_bytes};
use crate::error::{Error, Result};
use crate::tensor::DType;
use half::{bf16, f16};

/// Packed weights of `n` outputs and `k` inputs, borrowed from the arena or a mapped file.
#[derive(Clone, Copy)]
pub struct PackedMatrix<'a> {
    dtype: DType,
    layout: Layout,
    n: usize,
    k: usize,
    panel_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> PackedMatrix<'a> {
    /// Borrows what [`super::pack`] wrote (64-byte alignment is faster, any alignment works).
    ///
    /// # Errors
    /// As [`packed_bytes`], or when `bytes` has another size.
    pub fn new(dtype: DType, n: usize, k: usize, bytes: &'a [u8]) -> Result<Self> {
        let size = packed_bytes(dtype, n, k)?;
        let (Some(layout), true) = (Layout::of(dtype), size == bytes.len()) else {
            return Err(Error::Weights(format!(
                "a packed {dtype} matrix of {n} × {k} takes {size} bytes, not {}; pack it again",
                bytes.len()
            )));
        };
        Ok(PackedMatrix { dtype, layout, n, k, panel_bytes: size / n.div_ceil(PANEL).max(1), bytes })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Panels of [`PANEL`] outputs.
    pub fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes of panels `panels`.
    pub fn panel_bytes(&self, panels: std::ops::Range<usize>) -> &'a [u8] {
        &self.bytes[panels.start * self.panel_bytes..panels.end * self.panel_bytes]
    }

    /// Outputs of panels `panels`.
    pub(super) fn columns(&self, panels: std::ops::Range<usize>) -> std::ops::Range<usize> {
        panels.start * PANEL..self.n.min(panels.end * PANEL)
    }

    /// Bytes of panel `p`.
    pub(super) fn panel(&self, p: usize) -> &'a [u8] {
        &self.bytes[p * self.panel_bytes..][..self.panel_bytes]
    }

    /// Writes the weights of output `n`, widened to f32, to `out` (the embedding gathers rows of a tied head).
    ///
    /// # Panics
    /// When there is no such output or `out` is not `k` long.
    pub fn row_into(&self, n: usize, out: &mut [f32]) {
        assert!(n < self.n && out.len() == self.k, "output {n} of {} × {}, {} values", self.n, self.k, out.len());
        let panel = self.panel(n / PANEL);
        let lane = n % PANEL;
        match self.layout {
            Layout::F32 => {
                for (o, w) in out.iter_mut().zip(panel.chunks_exact(4 * PANEL)) {
                    *o = f32::from_le_bytes([w[4 * lane], w[4 * lane + 1], w[4 * lane + 2], w[4 * lane + 3]]);
                }
            }
            Layout::F16 => {
                for (o, w) in out.iter_mut().zip(panel.chunks_exact(2 * PANEL)) {
                    *o = f16::from_le_bytes([w[2 * lane], w[2 * lane + 1]]).to_f32();
                }
            }
            Layout::Bf16 => {
                for (o, w) in out.chunks_mut(2).zip(panel.chunks_exact(4 * PANEL)) {
                    for (i, o) in o.iter_mut().enumerate() {
                        let at = 4 * lane + 2 * i;
                        *o = bf16::from_le_bytes([w[at], w[at + 1]]).to_f32();
                    }
                }
            }
            layout => {
                for (b, out) in out.chunks_exact_mut(super::layout::BLOCK).enumerate() {
                    blocks::unpack(layout, panel, b, lane, out);
                }
            }
        }
    }
}
