//! Checkpoints out: Hugging Face directories, GGUF v3, llm.c models.
//!
//! Every file is an [`AtomicFile`], so that a failure at any moment leaves the previous file or none.
//! Parameters are asked for in order, a piece at a time.

mod adapter;
mod gguf;
mod gguf_writer;
mod hugging_face;
mod llmc;

use super::layout::{Parameter, parameters};
use super::model_config::ModelConfig;
use super::rows::ParameterRows;
use super::tensors::{Orientation, RowOrder};
use super::tokenizer_source::TokenizerSource;
use crate::disk::AtomicFile;
use crate::error::{Error, Result};
use crate::kernels::quant;
use crate::tensor::DType;
pub use adapter::{AdapterExport, AdapterMatrix};
use std::path::Path;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A directory that `transformers` loads.
    HuggingFace,
    /// A file that llama.cpp loads.
    Gguf,
    /// A model file of llm.c (GPT-2 only).
    Llmc,
}

impl ExportFormat {
    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            ExportFormat::HuggingFace => "hf",
            ExportFormat::Gguf => "gguf",
            ExportFormat::Llmc => "llmc",
        }
    }

    /// Element types that the format is written with.
    pub const fn dtypes(self) -> &'static [DType] {
        match self {
            ExportFormat::HuggingFace => &[DType::F32, DType::F16, DType::BF16],
            ExportFormat::Gguf => &[DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1],
            ExportFormat::Llmc => &[DType::F32, DType::BF16],
        }
    }
}

/// A model to write.
pub struct Export<'a> {
    /// Family, dimensions, constants and special tokens.
    pub config: &'a ModelConfig,
    /// Tokenizer to write along.
    pub tokenizer: &'a TokenizerSource,
    /// Format to write.
    pub format: ExportFormat,
    /// Element type of the matrices; one of [`ExportFormat::dtypes`].
    pub dtype: DType,
}

/// Fills the slice with the values of rows of a parameter, in the orientation that they are wanted in.
pub type ReadRows<'a> = dyn FnMut(&ParameterRows<'_>, &mut [f32]) -> Result<()> + 'a;

impl Export<'_> {
    /// Writes to `path` (a directory for Hugging Face), asking `read` for each row of each parameter once.
    pub fn write(&self, path: &Path, read: &mut ReadRows<'_>) -> Result<()> {
        if !self.format.dtypes().contains(&self.dtype) {
            let known: Vec<&str> = self.format.dtypes().iter().map(|d| d.name()).collect();
            let (format, dtype) = (self.format.name(), self.dtype);
            return Err(Error::Usage(format!(
                "{format} is not written as {dtype}; choose one of {}",
                known.join(", ")
            )));
        }
        self.config.validate(path)?;
        match self.format {
            ExportFormat::HuggingFace => hugging_face::write(self, path, read),
            ExportFormat::Gguf => gguf::write(self, path, read),
            ExportFormat::Llmc => llmc::write(self, path, read),
        }
    }

    fn parameters(&self) -> Result<Vec<Parameter>> {
        parameters(self.config)
    }
}

/// Writes parameters piece by piece; its buffers are all that an export holds of the weights.
#[derive(Default)]
struct PieceWriter {
    values: Vec<f32>,
    ordered: Vec<f32>,
    bytes: Vec<u8>,
}

impl PieceWriter {
    /// Writes `parameter` as `dtype` in `orientation` and returns the bytes. `head` is the number of rows that
    /// [`RowOrder::AdjacentPairs`] reorders together, for a parameter that is stored so.
    fn write(
        &mut self,
        out: &mut AtomicFile,
        parameter: &Parameter,
        (dtype, orientation, head): (DType, Orientation, Option<usize>),
        read: &mut ReadRows<'_>,
    ) -> Result<usize> {
        let mut written = 0;
        for piece in parameter.pieces(orientation, head.unwrap_or(1)) {
            let elements = piece.elements().len();
            self.values.resize(elements, 0.0);
            read(&piece, &mut self.values)?;
            let values = match head {
                None => &self.values,
                Some(head) => {
                    self.ordered.resize(elements, 0.0);
                    let order = RowOrder::AdjacentPairs { head };
                    let columns = elements / piece.rows.len();
                    for (row, values) in self.values.chunks(columns).enumerate() {
                        self.ordered[order.stored_row(row) * columns..][..columns].copy_from_slice(values);
                    }
                    &self.ordered
                }
            };
            let bytes = dtype.bytes_for(elements).expect("rows are whole blocks of the type chosen for them");
            self.bytes.resize(bytes, 0);
            quant::quantize(dtype, values, &mut self.bytes);
            out.put(&self.bytes)?;
            written += bytes;
        }
        Ok(written)
    }
}
