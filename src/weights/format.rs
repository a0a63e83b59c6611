//! Which reader a checkpoint's content calls for.

use super::model_config::ModelConfig;
use super::tensors::Entry;
use super::tokenizer_source::TokenizerSource;
use super::{gguf, hf, llmc, raw};
use crate::disk::MappedFile;
use crate::error::{Error, Result};
use std::path::Path;

/// What kind of checkpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Hugging Face: safetensors and `config.json`.
    HuggingFace,
    /// GGUF v3.
    Gguf,
    /// llm.c model, versions 3 and 5.
    Llmc,
    /// Headerless f32 in the C++ ancestor's order.
    Raw,
}

/// What a format's reader found.
pub(super) struct Parts {
    pub format: Format,
    pub config: ModelConfig,
    pub tokenizer: TokenizerSource,
    pub files: Vec<MappedFile>,
    pub entries: Vec<Entry>,
}

/// llm.c files that are not models, by the first number of their header.
const OTHER_LLMC: [(u32, &str); 5] = [
    (20240327, "an llm.c debug state"),
    (20240328, "an llm.c tokenizer"),
    (20240520, "an llm.c token file"),
    (20240801, "an llm.c token file"),
    (20240522, "an llm.c multiple-choice eval"),
];

/// Reads the head of a file by the format that its first bytes show.
pub(super) fn open_file(path: &Path, overrides: &[(String, String)]) -> Result<Parts> {
    let file = MappedFile::open(path)?;
    let bytes = file.bytes();
    let magic = bytes.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
    if bytes.starts_with(b"GGUF") {
        return gguf::open(file);
    }
    if magic == llmc::MAGIC {
        return llmc::open(file);
    }
    if let Some((_, what)) = OTHER_LLMC.iter().find(|(m, _)| *m == magic) {
        return Err(Error::file_at(path, 0, format!("{what}, not a model; give the model's checkpoint")));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        let message = "a PyTorch pickle, which is not read; save the model with safetensors (save_pretrained does)";
        return Err(Error::file_at(path, 0, message));
    }
    if hf::is_safetensors(bytes) {
        return hf::open_file(file);
    }
    raw::open(file, overrides)
}
