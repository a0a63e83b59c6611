//! Element types, shapes and row extents. No data lives here.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Element type of a tensor, block types of GGUF included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// Tokens, targets, counters.
    I32,
    /// Raw bytes.
    U8,
    /// 32 values: f16 d, 32 × i8; value = q·d.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// 32 values: f16 d, 16 bytes of nibbles; value = (q − 8)·d.
    #[serde(rename = "q4_0")]
    Q4_0,
    /// 32 values: f16 d, f16 m, 16 bytes of nibbles; value = q·d + m.
    #[serde(rename = "q4_1")]
    Q4_1,
    /// 32 values: f16 d, 4 bytes of high bits, 16 bytes of nibbles; value = (q − 16)·d.
    #[serde(rename = "q5_0")]
    Q5_0,
    /// 32 values: f16 d, f16 m, 4 bytes of high bits, 16 bytes of nibbles; value = q·d + m.
    #[serde(rename = "q5_1")]
    Q5_1,
    /// 256 values in 144 bytes: f16 d, f16 dmin, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles.
    #[serde(rename = "q4_k")]
    Q4K,
    /// 256 values in 176 bytes: as Q4_K with 32 bytes of high bits.
    #[serde(rename = "q5_k")]
    Q5K,
    /// 256 values in 210 bytes: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 × i8 scales, f16 d.
    #[serde(rename = "q6_k")]
    Q6K,
}

impl DType {
    /// Every type, in the order of declaration.
    pub const ALL: [DType; 13] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::U8,
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
    ];

    /// Values in one block (1 for plain types).
    pub const fn block_len(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::U8 => 1,
            DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 => 32,
            DType::Q4K | DType::Q5K | DType::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 => 1,
            DType::Q8_0 => 34,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q4K => 144,
            DType::Q5K => 176,
            DType::Q6K => 210,
        }
    }

    /// Bytes of `elements` values; `None` when they do not fill whole blocks or the product overflows.
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_len()) {
            return None;
        }
        (elements / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Lower-case name, as GGUF and the command line write it (`f32`, `q4_0`, `q6_k`).
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::Q8_0 => "q8_0",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q4K => "q4_k",
            DType::Q5K => "q5_k",
            DType::Q6K => "q6_k",
        }
    }

    /// Inverse of [`DType::name`].
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Whether values are stored in blocks with scales.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Dimensions of a tensor, outermost first. The rows of an activation are not among them (see [`RowExtent`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// From any list of dimensions.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Shape(dims.into())
    }

    /// Product of the dimensions (1 for a scalar); `None` on overflow.
    pub fn checked_elements(&self) -> Option<usize> {
        self.0.iter().try_fold(1usize, |a, &d| a.checked_mul(d))
    }

    /// Product of the dimensions. Shapes in a verified graph never overflow.
    pub fn elements(&self) -> usize {
        self.checked_elements().expect("a verified shape does not overflow")
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// How many rows (token positions) a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowExtent {
    /// No rows: parameters, their gradients and moments, scalars. The shape is the whole tensor.
    Fixed,
    /// The rows that one call computes (at most the plan's step rows).
    Step,
    /// The rows of one call whose result is wanted (at most the plan's wanted rows).
    Wanted,
    /// Slots × context rows, kept between calls.
    Kept,
}

impl RowExtent {
    /// Word used in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            RowExtent::Fixed => "fixed",
            RowExtent::Step => "step",
            RowExtent::Wanted => "wanted",
            RowExtent::Kept => "kept",
        }
    }
}

/// Type of a tensor: `{dtype, row extent, features}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// How many rows.
    pub extent: RowExtent,
    /// Features of one row, or the whole shape when the extent is [`RowExtent::Fixed`].
    pub shape: Shape,
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.extent {
            RowExtent::Fixed => write!(f, "{}{}", self.dtype, self.shape),
            e => write!(
                f,
                "{}[{} × {}]",
                self.dtype,
                e.name(),
                self.shape.0.iter().map(|d| d.to_string()).collect::<Vec<_>>().join(" × ")
            ),
        }
    }
}
