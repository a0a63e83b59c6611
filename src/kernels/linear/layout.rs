//! How each element type is laid out in packed panels.

use crate::error::{Error, Result};
use crate::tensor::DType;

/// Outputs in one panel. The last panel is padded with zero weights.
pub const PANEL: usize = 32;

/// Layout of one panel (`[…][32]` runs over the outputs of the panel). Every panel starts at a multiple of 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[k][32]` f32.
    F32,
    /// `[k][32]` f16, padded with one row when `k` is odd.
    F16,
    /// `[k / 2][32][2]` bf16, odd `k` padded with zero.
    Bf16,
    /// Per 32 inputs: quants, f16 scale `[32]`; value = (q − 128)·d. Holds Q8_0 and Q5_0.
    Byte,
    /// Per 32 inputs: quants, f16 scale `[32]`, f16 minimum `[32]`; value = q·d + m. Holds Q5_1.
    ByteMin,
    /// Per 256 inputs: f16 d `[32]`, f16 dmin `[32]`, then 8 × { quants, u8 scale `[32]`, u8 minimum `[32]` };
    /// value = q·(d·scale) − dmin·minimum. Holds Q5_K.
    ByteK,
    /// Per 256 inputs: f16 d `[32]`, then 8 × { quants, i8 scale `[2][32]` }, a scale for each 16 inputs;
    /// value = (q − 32)·(d·scale). Holds Q6_K.
    Byte16,
    /// Per 32 inputs: nibbles, f16 scale `[32]`; value = (q − 8)·d. Holds Q4_0.
    Nibble,
    /// Per 32 inputs: nibbles, f16 scale `[32]`, f16 minimum `[32]`; value = q·d + m. Holds Q4_1.
    NibbleMin,
    /// As [`Layout::ByteK`] with nibbles. Holds Q4_K.
    NibbleK,
}

/// The form that activations take for a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// f32 values.
    F32,
    /// Pairs of bf16 values.
    Bf16,
    /// Blocks of 32 int8 values with an f32 scale and sums.
    Int8,
}

/// Inputs in one block of quantised activations, as in the smaller blocks of weights.
pub(super) const BLOCK: usize = DType::Q8_0.block_len();

impl Layout {
    /// The layout that holds weights of `dtype` exactly; `None` for types that are not weights.
    pub const fn of(dtype: DType) -> Option<Layout> {
        Some(match dtype {
            DType::F32 => Layout::F32,
            DType::F16 => Layout::F16,
            DType::BF16 => Layout::Bf16,
            DType::Q8_0 | DType::Q5_0 => Layout::Byte,
            DType::Q5_1 => Layout::ByteMin,
            DType::Q5K => Layout::ByteK,
            DType::Q6K => Layout::Byte16,
            DType::Q4_0 => Layout::Nibble,
            DType::Q4_1 => Layout::NibbleMin,
            DType::Q4K => Layout::NibbleK,
            DType::I32 | DType::U8 => return None,
        })
    }

    /// Whether quants are 4 bits wide.
    ///
    /// Quants of 32 inputs as bytes: `[8 groups][32 outputs][4 inputs]`, group `g` holding inputs `4g .. 4g + 4`. As nibbles:
    /// `[4][32 outputs][4 inputs]`, low nibbles for groups 0-3, high nibbles for groups 4-7.
    pub(super) const fn is_nibble(self) -> bool {
        matches!(self, Layout::Nibble | Layout::NibbleMin | Layout::NibbleK)
    }

    /// Whether blocks add a minimum.
    pub(super) const fn has_min(self) -> bool {
        matches!(self, Layout::ByteMin | Layout::NibbleMin | Layout::ByteK | Layout::NibbleK)
    }

    /// Whether scales come in two levels, per 256 and per 32 or 16 inputs.
    pub(super) const fn is_super(self) -> bool {
        matches!(self, Layout::ByteK | Layout::NibbleK | Layout::Byte16)
    }

    /// log2 of the quant that stands for zero, where the value is (q − zero)·scale.
    pub(super) const fn zero_shift(self) -> u32 {
        match self {
            Layout::Byte => 7,
            Layout::Byte16 => 5,
            _ => 3,
        }
    }

    /// Bytes of the quants of one block of 32 inputs in a panel.
    pub(super) const fn quant_bytes(self) -> usize {
        if self.is_nibble() { BLOCK * PANEL / 2 } else { BLOCK * PANEL }
    }

    /// Bytes of one block of 32 inputs in a panel, scales of that block included.
    pub(super) const fn block_bytes(self) -> usize {
        self.quant_bytes()
            + match self {
                Layout::Byte | Layout::Nibble => 2 * PANEL,
                Layout::ByteMin | Layout::NibbleMin => 4 * PANEL,
                _ => 2 * PANEL,
            }
    }

    /// Bytes in a panel before the blocks of each 256 inputs.
    pub(super) const fn super_header_bytes(self) -> usize {
        match self {
            Layout::ByteK | Layout::NibbleK => 4 * PANEL,
            Layout::Byte16 => 2 * PANEL,
            _ => 0,
        }
    }

    /// Offset in a panel of block `b` of 32 inputs, and of the header of its 256 inputs.
    pub(super) const fn block_offset(self, b: usize) -> (usize, usize) {
        if self.is_super() {
            let header = b / 8 * (self.super_header_bytes() + 8 * self.block_bytes());
            (header + self.super_header_bytes() + b % 8 * self.block_bytes(), header)
        } else {
            (b * self.block_bytes(), 0)
        }
    }

    /// `k` must be a multiple of this.
    pub(super) const fn k_multiple(self) -> usize {
        match self {
            Layout::F32 | Layout::F16 | Layout::Bf16 => 1,
            _ if self.is_super() => 256,
            _ => BLOCK,
        }
    }

    /// Bytes of one panel, or `None` on overflow. `k` is a multiple of [`Layout::k_multiple`].
    pub(super) fn panel_bytes(self, k: usize) -> Option<usize> {
        match self {
            Layout::F32 => k.checked_mul(4 * PANEL),
            Layout::F16 | Layout::Bf16 => k.div_ceil(2).checked_mul(4 * PANEL),
            _ if self.is_super() => (k / 256).checked_mul(self.super_header_bytes() + 8 * self.block_bytes()),
            _ => (k / BLOCK).checked_mul(self.block_bytes()),
        }
    }

    /// The form of the activations that the product wants.
    pub(super) const fn form(self) -> Form {
        match self {
            Layout::F32 | Layout::F16 => Form::F32,
            Layout::Bf16 => Form::Bf16,
            _ => Form::Int8,
        }
    }
}

/// Bytes of one packed panel of [`PANEL`] outputs of `k` inputs.
///
/// # Errors
/// When `dtype` is not a weight type, `k` is zero or not a whole number of its blocks, or the size overflows.
pub fn panel_bytes(dtype: DType, k: usize) -> Result<usize> {
    let Some(layout) = Layout::of(dtype) else {
        return Err(Error::Weights(format!("{dtype} is not a weight type; use f32, f16, bf16 or a quantised type")));
    };
    if k == 0 || !k.is_multiple_of(layout.k_multiple()) {
        return Err(Error::Weights(format!(
            "{k} inputs are not a multiple of {}, the block of {dtype}; keep this matrix as f32, f16 or bf16",
            layout.k_multiple()
        )));
    }
    layout
        .panel_bytes(k)
        .ok_or_else(|| Error::Weights(format!("a {dtype} panel of {k} inputs overflows the address space")))
}

/// Bytes of a packed matrix of `n` outputs and `k` inputs.
///
/// # Errors
/// As [`panel_bytes`].
pub fn packed_bytes(dtype: DType, n: usize, k: usize) -> Result<usize> {
    let panel = panel_bytes(dtype, k)?;
    n.div_ceil(PANEL)
        .checked_mul(panel)
        .ok_or_else(|| Error::Weights(format!("a {dtype} matrix of {n} × {k} overflows the address space")))
}
