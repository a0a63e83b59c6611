//! Checkpoints out: Hugging Face directories, GGUF v3, llm.c models.
//!
//! Every file is an [`AtomicFile`](crate::disk::AtomicFile), so that a failure at any moment leaves the previous file or none.
//! Parameters are asked for one at a time.

mod gguf;
mod gguf_writer;
mod hugging_face;
mod llmc;

use super::layout::{Parameter, parameters};
use super::model_config::ModelConfig;
use super::tokenizer_source::TokenizerSource;
use crate::error::{Error, Result};
use crate::kernels::quant;
use crate::tensor::DType;
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

/// Fills the slice with a parameter's values, in the shape and orientation that the [`Parameter`] has.
pub type ReadParameter<'a> = dyn FnMut(&Parameter, &mut [f32]) -> Result<()> + 'a;

impl Export<'_> {
    /// Writes to `path` (a directory for Hugging Face), asking `read` for each parameter once.
    pub fn write(&self, path: &Path, read: &mut ReadParameter<'_>) -> Result<()> {
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

/// The values of `parameter`, in Hugging Face's orientation.
fn values_of(parameter: &Parameter, read: &mut ReadParameter<'_>) -> Result<Vec<f32>> {
    let elements = parameter.shape.checked_elements();
    let n = elements.ok_or_else(|| Error::Weights(format!("'{}' is larger than memory can be", parameter.name)))?;
    let mut values = vec![0.0; n];
    read(parameter, &mut values)?;
    Ok(values)
}

/// `values` as bytes of `dtype`.
fn encode(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; dtype.bytes_for(values.len()).expect("rows are whole blocks of the type chosen for them")];
    quant::quantize(dtype, values, &mut bytes);
    bytes
}
