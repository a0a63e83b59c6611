//! GGUF v3 for llama.cpp: names, row order of q and k, element types and tokenizer as its converter writes them.

use super::super::gguf::names;
use super::super::layout::Parameter;
use super::super::model_config::{Family, ModelConfig};
use super::super::tensors::Orientation;
use super::super::tokenizer_json;
use super::super::tokenizer_source::{GgufTokenizer, TokenizerSource};
use super::gguf_writer::{GgufWriter, padding};
use super::{Export, PieceWriter, ReadRows};
use crate::disk::write_atomically;
use crate::error::{Error, Result};
use crate::tensor::DType;
use std::path::Path;

/// `general.quantization_version` of the block formats as they are today.
const QUANTIZATION_VERSION: u32 = 2;
/// Type of a token that nothing produces.
const UNUSED: i32 = 5;

/// Writes the file.
pub(super) fn write(export: &Export<'_>, path: &Path, read: &mut ReadRows<'_>) -> Result<()> {
    let config = export.config;
    let mut writer = GgufWriter::default();
    write_config(&mut writer, config, export.dtype)?;
    write_tokenizer(&mut writer, config, export.tokenizer, path)?;
    let parameters = export.parameters()?;
    for p in &parameters {
        let (name, dtype) = (gguf_name(config, p)?, dtype_of(export, p));
        let shape = p.shape_as(Orientation::OutIn);
        let bytes = shape.checked_elements().and_then(|n| dtype.bytes_for(n));
        let bytes = bytes.ok_or_else(|| Error::Weights(format!("'{}' is larger than memory can be", p.name)))?;
        writer.tensor(&name, shape.dims(), dtype, bytes);
    }
    write_atomically(path, |w| {
        w.put(&writer.header())?;
        let mut pieces = PieceWriter::default();
        for p in &parameters {
            let head = names::is_rotated(&p.name).then(|| config.dim("D")).transpose()?;
            let written = pieces.write(w, p, (dtype_of(export, p), Orientation::OutIn, head), read)?;
            w.put(&vec![0; padding(written)])?;
        }
        Ok(())
    })
}

/// Vectors and positions stay f32; matrices whose rows are not whole blocks are f16, as llama.cpp's converter does.
fn dtype_of(export: &Export<'_>, p: &Parameter) -> DType {
    match *p.shape_as(Orientation::OutIn).dims() {
        _ if p.name == "wpe.weight" => DType::F32,
        [_, row] if row.is_multiple_of(export.dtype.block_len()) => export.dtype,
        [_, _] => DType::F16,
        _ => DType::F32,
    }
}

fn gguf_name(config: &ModelConfig, p: &Parameter) -> Result<String> {
    names::gguf(config.family, &p.name).ok_or_else(|| Error::Weights(format!("GGUF has no name for '{}'", p.name)))
}

/// `general.file_type` of a file whose matrices are mostly `dtype`, from `llama.h`.
fn file_type(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::BF16 => 32,
        _ => 0,
    }
}

fn write_config(writer: &mut GgufWriter, config: &ModelConfig, dtype: DType) -> Result<()> {
    let architecture = config.family.name();
    writer.text("general.architecture", architecture);
    writer.text("general.type", "model");
    writer.text("general.name", architecture);
    writer.u32("general.file_type", file_type(dtype));
    writer.u32("general.quantization_version", QUANTIZATION_VERSION);
    let dim = |name: &str| config.dim(name).map(|v| v as u32);
    let key = |name: &str| format!("{architecture}.{name}");
    for (name, value) in [
        ("vocab_size", "V"),
        ("context_length", "T"),
        ("embedding_length", "C"),
        ("block_count", "L"),
        ("feed_forward_length", "F"),
        ("attention.head_count", "H"),
    ] {
        writer.u32(&key(name), dim(value)?);
    }
    let eps = config.float("eps")? as f32;
    match config.family {
        Family::Gpt2 => writer.f32(&key("attention.layer_norm_epsilon"), eps),
        Family::Llama => {
            writer.f32(&key("attention.layer_norm_rms_epsilon"), eps);
            writer.u32(&key("attention.head_count_kv"), dim("KV")?);
            writer.u32(&key("attention.key_length"), dim("D")?);
            writer.u32(&key("attention.value_length"), dim("D")?);
            writer.u32(&key("rope.dimension_count"), dim("D")?);
            writer.f32(&key("rope.freq_base"), config.float("rope_theta")? as f32);
        }
    }
    Ok(())
}

fn write_tokenizer(writer: &mut GgufWriter, config: &ModelConfig, source: &TokenizerSource, path: &Path) -> Result<()> {
    let Some(tokenizer) = tokenizer_json::as_gguf(source, config)? else {
        // llama.cpp's name for a model that is fed token ids only.
        writer.text("tokenizer.ggml.model", "none");
        return Ok(());
    };
    let GgufTokenizer { model, pre, mut tokens, mut token_types, mut scores, .. } = tokenizer.clone();
    let v = config.dim("V")?;
    if tokens.len() > v {
        let message = format!("the tokenizer has {} tokens, the model's vocabulary is {v}", tokens.len());
        return Err(Error::file(path, message));
    }
    if token_types.is_empty() {
        token_types = vec![1; tokens.len()];
    }
    for id in tokens.len()..v {
        tokens.push(format!("[PAD{id}]"));
    }
    token_types.resize(v, UNUSED);
    writer.text("tokenizer.ggml.model", &model);
    if let Some(pre) = pre {
        writer.text("tokenizer.ggml.pre", &pre);
    }
    writer.texts("tokenizer.ggml.tokens", &tokens);
    writer.i32s("tokenizer.ggml.token_type", &token_types);
    if !scores.is_empty() {
        scores.resize(v, 0.0);
        writer.f32s("tokenizer.ggml.scores", &scores);
    }
    if model == "gpt2" || !tokenizer.merges.is_empty() {
        writer.texts("tokenizer.ggml.merges", &tokenizer.merges);
    }
    for (key, id) in [
        ("bos", tokenizer.bos),
        ("eos", tokenizer.eos),
        ("eot", tokenizer.end_of_turn),
        ("eom", tokenizer.end_of_message),
        ("unknown", tokenizer.unknown),
        ("padding", tokenizer.padding),
    ] {
        if let Some(id) = id {
            writer.u32(&format!("tokenizer.ggml.{key}_token_id"), id);
        }
    }
    if let Some(add) = tokenizer.add_bos {
        writer.bool("tokenizer.ggml.add_bos_token", add);
    }
    if let Some(add) = tokenizer.add_space_prefix {
        writer.bool("tokenizer.ggml.add_space_prefix", add);
    }
    if let Some(template) = &tokenizer.chat_template {
        writer.text("tokenizer.chat_template", template);
    }
    Ok(())
}
