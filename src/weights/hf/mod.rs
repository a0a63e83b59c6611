//! Hugging Face checkpoints: `config.json` and `model.safetensors`, whole or in shards.

mod header;

use super::files::read_json;
use super::format::{Format, Parts};
use super::json_config::{parse_config, read_config};
use super::model_config::{Family, ModelConfig};
use super::tensors::{Entry, Orientation, RowOrder, TensorInfo};
use super::tokenizer_source::TokenizerSource;
use crate::disk::MappedFile;
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape};
pub(super) use header::is_safetensors;
use header::{StoredTensor, read_header};
use safetensors::Dtype;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Opens a model directory.
pub(super) fn open_directory(directory: &Path) -> Result<Parts> {
    let whole = directory.join("model.safetensors");
    let index = directory.join("model.safetensors.index.json");
    let files = if whole.is_file() {
        vec![MappedFile::open(&whole)?]
    } else if index.is_file() {
        return open_shards(directory, &index);
    } else {
        let message = "no model.safetensors and no model.safetensors.index.json in this directory; \
                       a Hugging Face model directory has one of them beside config.json";
        return Err(Error::file(directory, message));
    };
    assemble(directory, files, None)
}

/// Opens one safetensors file with the `config.json` beside it.
pub(super) fn open_file(file: MappedFile) -> Result<Parts> {
    let directory = match file.path().parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    };
    assemble(&directory, vec![file], None)
}

fn open_shards(directory: &Path, index: &Path) -> Result<Parts> {
    let json = read_json(index)?;
    let Some(map) = json.get("weight_map").and_then(|m| m.as_object()) else {
        return Err(Error::file(index, "weight_map, the object from tensor names to shard files, is missing"));
    };
    let mut shards = BTreeSet::new();
    for (tensor, shard) in map {
        match shard.as_str() {
            // A shard lies in the directory itself: anything else in an index is a mistake or an attack.
            Some(s) if Path::new(s).file_name() == Some(std::ffi::OsStr::new(s)) => shards.insert(s),
            _ => return Err(Error::file(index, format!("'{tensor}' is mapped to {shard}, which is not a file name"))),
        };
    }
    if shards.is_empty() {
        return Err(Error::file(index, "weight_map is empty"));
    }
    let files = shards.iter().map(|s| MappedFile::open(&directory.join(s))).collect::<Result<Vec<_>>>()?;
    assemble(directory, files, Some((index, map)))
}

/// The index of a sharded model: its path and its map from tensor to file name.
type ShardIndex<'a> = (&'a Path, &'a serde_json::Map<String, serde_json::Value>);

fn assemble(directory: &Path, files: Vec<MappedFile>, index: Option<ShardIndex<'_>>) -> Result<Parts> {
    let config_path = directory.join("config.json");
    let config = read_config(&config_path)?;
    config.validate(&config_path)?;
    from_files(config, tokenizer(directory), files, index)
}

/// A model whose `config.json` is the text `config`, without tokenizer files.
pub(super) fn from_memory(name: &Path, config: &str, weights: MappedFile) -> Result<Parts> {
    let config = parse_config(name, config)?;
    config.validate(name)?;
    from_files(config, TokenizerSource::None, vec![weights], None)
}

fn from_files(
    config: ModelConfig,
    tokenizer: TokenizerSource,
    files: Vec<MappedFile>,
    index: Option<ShardIndex<'_>>,
) -> Result<Parts> {
    let mut entries = Vec::new();
    let mut stored_names = BTreeSet::new();
    for (i, file) in files.iter().enumerate() {
        for stored in read_header(file)? {
            if let Some(entry) = entry(&config, file, i, &stored)? {
                entries.push(entry);
            }
            stored_names.insert((i, stored.name));
        }
    }
    if let Some((index, map)) = index {
        let shard = |name: &str| files.iter().position(|f| f.path().file_name() == Some(std::ffi::OsStr::new(name)));
        for (tensor, file) in map {
            let file = file.as_str().unwrap_or_default();
            if !shard(file).is_some_and(|i| stored_names.contains(&(i, tensor.clone()))) {
                return Err(Error::file(
                    index,
                    format!("'{tensor}' is not in '{file}'; a shard is missing or damaged"),
                ));
            }
        }
    }
    Ok(Parts { format: Format::HuggingFace, config, tokenizer, files, entries })
}

/// Buffers that checkpoints carry beside the weights: causal masks and rotary frequencies, which are computed here.
fn is_buffer(family: Family, name: &str) -> bool {
    match family {
        Family::Gpt2 => name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"),
        Family::Llama => name.ends_with(".rotary_emb.inv_freq"),
    }
}

fn entry(config: &ModelConfig, file: &MappedFile, index: usize, stored: &StoredTensor) -> Result<Option<Entry>> {
    if is_buffer(config.family, &stored.name) {
        return Ok(None);
    }
    let name = match config.family {
        Family::Gpt2 => stored.name.strip_prefix("transformer.").unwrap_or(&stored.name),
        Family::Llama => &stored.name,
    };
    let dtype = match stored.info.dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => {
            let message = format!("'{}' has type {other}; F32, F16 and BF16 are read", stored.name);
            return Err(Error::file(file.path(), message));
        }
    };
    let info = TensorInfo {
        name: name.to_string(),
        dtype,
        shape: Shape::new(stored.info.shape.clone()),
        orientation: orientation(config.family, name, stored.info.shape.len()),
    };
    let (start, len) = (stored.start, stored.info.data_offsets.1 - stored.info.data_offsets.0);
    Ok(Some(Entry { info, file: index, start, len, rows: RowOrder::Plain }))
}

/// How Hugging Face stores the linear weight `name`, or none for anything else.
fn orientation(family: Family, name: &str, rank: usize) -> Option<Orientation> {
    let embedding = name == family.embedding() || name == "wpe.weight";
    match family {
        _ if rank != 2 || embedding || !name.ends_with(".weight") => None,
        Family::Gpt2 if name.starts_with("h.") => Some(Orientation::InOut),
        _ => Some(Orientation::OutIn),
    }
}

fn tokenizer(directory: &Path) -> TokenizerSource {
    let json = directory.join("tokenizer.json");
    let (vocabulary, merges) = (directory.join("vocab.json"), directory.join("merges.txt"));
    let directory = directory.to_path_buf();
    if json.is_file() {
        TokenizerSource::Json { directory, path: json }
    } else if vocabulary.is_file() && merges.is_file() {
        TokenizerSource::VocabularyAndMerges { directory, vocabulary, merges }
    } else {
        TokenizerSource::None
    }
}
