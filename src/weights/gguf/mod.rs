//! GGUF v3 (llama.cpp): typed metadata, tensor table, aligned data. Specification: `docs/gguf.md` of the ggml project.

mod config;
pub(super) mod header;
pub(super) mod names;
mod reader;
pub(super) mod value;

use super::format::{Format, Parts};
use super::model_config::Family;
use super::tensors::{Entry, Orientation, RowOrder, TensorInfo};
use super::tokenizer_source::TokenizerSource;
use crate::disk::MappedFile;
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape};
use header::{Header, StoredTensor};

/// Type numbers of GGUF tensors that are read, from `ggml.h`.
pub(super) const TYPES: [(u32, DType); 11] = [
    (0, DType::F32),
    (1, DType::F16),
    (2, DType::Q4_0),
    (3, DType::Q4_1),
    (6, DType::Q5_0),
    (7, DType::Q5_1),
    (8, DType::Q8_0),
    (12, DType::Q4K),
    (13, DType::Q5K),
    (14, DType::Q6K),
    (30, DType::BF16),
];

/// Reads metadata and tensor table.
pub(super) fn open(file: MappedFile) -> Result<Parts> {
    let header = Header::read(&file)?;
    let (config, tokenizer) = config::read(&header, file.path())?;
    config.validate(file.path())?;
    let head = match config.family {
        Family::Llama => config.dim("D")?,
        Family::Gpt2 => 0,
    };
    let layers = config.dim("L")?;
    let mut entries = Vec::with_capacity(header.tensors.len());
    for stored in &header.tensors {
        entries.push(entry(stored, config.family, layers, head).map_err(|m| {
            let message = format!("tensor '{}' {m}", stored.name);
            Error::file_at(file.path(), stored.described_at as u64, message)
        })?);
    }
    let tokenizer = tokenizer.map_or(TokenizerSource::None, |t| TokenizerSource::Gguf(Box::new(t)));
    Ok(Parts { format: Format::Gguf, config, tokenizer, files: vec![file], entries })
}

fn entry(stored: &StoredTensor, family: Family, layers: usize, head: usize) -> Result<Entry, String> {
    let Some(name) = names::hugging_face(family, &stored.name, layers) else {
        return Err(format!("has no place in a {} model of {layers} layers", family.name()));
    };
    let linear = stored.shape.len() == 2 && names::is_linear(family, &name);
    let mut rows = RowOrder::Plain;
    if names::is_rotated(&name) {
        if stored.shape.len() != 2 || !stored.shape[0].is_multiple_of(head) {
            return Err(format!("of shape {:?} does not divide into heads of {head} rows", stored.shape));
        }
        rows = RowOrder::AdjacentPairs { head };
    }
    let info = TensorInfo {
        name,
        dtype: stored.dtype,
        shape: Shape::new(stored.shape.clone()),
        orientation: linear.then_some(Orientation::OutIn),
    };
    Ok(Entry { info, file: 0, start: stored.start, len: stored.len, rows })
}
