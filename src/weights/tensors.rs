//! One tensor of a checkpoint: what it is, where its bytes are, and how to read them.

use crate::kernels::quant;
use crate::tensor::{DType, Shape};
use rayon::prelude::*;
use std::borrow::Cow;

/// How a two-dimensional linear weight lies in memory (row-major).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// `[in, out]`, y = x·W: Hugging Face's GPT-2 (`Conv1D`).
    InOut,
    /// `[out, in]`, y = x·Wᵀ: everything else.
    OutIn,
}

/// Name, type and shape of a stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Hugging Face name without `transformer.`: `h.0.attn.c_attn.weight`, `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Stored element type.
    pub dtype: DType,
    /// Stored shape, row-major.
    pub shape: Shape,
    /// For the weights of linear layers. Embeddings (`[rows, C]`), norms and biases have none.
    pub orientation: Option<Orientation>,
}

impl TensorInfo {
    /// The shape in orientation `wanted` (only linear weights have a choice).
    pub fn shape_as(&self, wanted: Orientation) -> Shape {
        match self.orientation {
            Some(o) if o != wanted => transposed(&self.shape),
            _ => self.shape.clone(),
        }
    }

    /// Bytes of the stored values.
    pub fn bytes(&self) -> usize {
        self.dtype.bytes_for(self.shape.elements()).expect("sizes are checked when a checkpoint is opened")
    }
}

/// The shape with its two dimensions exchanged.
pub(super) fn transposed(shape: &Shape) -> Shape {
    Shape::new(shape.dims().iter().rev().copied().collect::<Vec<_>>())
}

/// A tensor with its bytes.
pub struct NamedTensor<'a> {
    /// Name, type, shape and orientation.
    pub info: &'a TensorInfo,
    /// Stored bytes, maybe unaligned; owned when rows had to be reordered.
    pub data: Cow<'a, [u8]>,
}

impl NamedTensor<'_> {
    /// Dequantises to `out` in stored order.
    ///
    /// # Panics
    /// When `out` has another number of values.
    pub fn read_f32(&self, out: &mut [f32]) {
        read_f32(self.info.dtype, &self.data, out);
    }
}

/// Values that one task dequantises: whole blocks of every type.
const TASK_VALUES: usize = 1 << 16;

fn read_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(dtype.bytes_for(out.len()), Some(bytes.len()), "{} values of {dtype}", out.len());
    let task_bytes = TASK_VALUES / dtype.block_len() * dtype.block_bytes();
    out.par_chunks_mut(TASK_VALUES).zip(bytes.par_chunks(task_bytes)).for_each(|(o, b)| quant::dequantize(dtype, b, o));
}

/// In which order the rows of a stored matrix are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As the name's owner expects.
    Plain,
    /// Query or key rows of a GGUF Llama: within each head of `head` rows, row `2j + s` is row `s·head/2 + j` of the
    /// Hugging Face tensor, so that rotation pairs are adjacent instead of half a head apart.
    AdjacentPairs {
        /// Rows of a head.
        head: usize,
    },
}

impl RowOrder {
    /// The stored row that is row `row` of the Hugging Face tensor.
    pub fn stored_row(self, row: usize) -> usize {
        match self {
            RowOrder::Plain => row,
            RowOrder::AdjacentPairs { head } => {
                let within = row % head;
                row - within + 2 * (within % (head / 2)) + within / (head / 2)
            }
        }
    }
}

/// Where the bytes of a tensor are.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub info: TensorInfo,
    /// Which of the checkpoint's files.
    pub file: usize,
    /// First byte in the file.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
    pub rows: RowOrder,
}

/// Undoes [`RowOrder::AdjacentPairs`] on rows of `row_bytes`.
pub(super) fn split_pairs(stored: &[u8], row_bytes: usize, head: usize) -> Vec<u8> {
    let order = RowOrder::AdjacentPairs { head };
    let rows = 0..stored.len() / row_bytes;
    rows.flat_map(|row| &stored[order.stored_row(row) * row_bytes..][..row_bytes]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_split() {
        // Two heads of four rows of two bytes; adjacent pairs (0, 2) and (1, 3) of each head.
        let stored = [0, 0, 2, 2, 1, 1, 3, 3, 4, 4, 6, 6, 5, 5, 7, 7];
        let plain = split_pairs(&stored, 2, 4);
        assert_eq!(plain, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]);
    }

    #[test]
    fn a_wide_tensor_reads_the_same_in_tasks() {
        let values: Vec<f32> = (0..TASK_VALUES + 64).map(|i| (i as f32).sin()).collect();
        let mut bytes = vec![0; DType::Q8_0.bytes_for(values.len()).unwrap()];
        quant::quantize(DType::Q8_0, &values, &mut bytes);
        let (mut whole, mut tasks) = (values.clone(), values.clone());
        quant::dequantize(DType::Q8_0, &bytes, &mut whole);
        read_f32(DType::Q8_0, &bytes, &mut tasks);
        assert_eq!(whole, tasks);
    }
}
