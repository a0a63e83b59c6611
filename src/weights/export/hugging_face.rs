//! Hugging Face directories: `model.safetensors`, tokenizer files, `generation_config.json`, `config.json`.

use super::super::model_config::{Family, ModelConfig};
use super::super::tensors::Orientation;
use super::super::tokenizer_json;
use super::super::tokenizer_source::TokenizerSource;
use super::{Export, PieceWriter, ReadRows};
use crate::disk::{make_directory, write_atomically};
use crate::error::{Error, Result};
use crate::tensor::DType;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Tokenizer files that are copied when the source directory has them.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// Writes the directory. `config.json`, without which nothing loads it, comes last.
pub(super) fn write(export: &Export<'_>, path: &Path, read: &mut ReadRows<'_>) -> Result<()> {
    make_directory(path)?;
    write_weights(export, &path.join("model.safetensors"), read)?;
    write_tokenizer(export, path)?;
    let eos = match export.config.eos.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    };
    let generation = json!({"bos_token_id": export.config.bos, "eos_token_id": eos});
    write_json(&path.join("generation_config.json"), &generation)?;
    write_json(&path.join("config.json"), &config_json(export.config, export.dtype, &eos)?)
}

/// A safetensors file's name of a type that Hugging Face files are written with.
pub(super) fn stored_type(dtype: DType) -> Dtype {
    match dtype {
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    }
}

/// What a safetensors file with these tensors, in this order, begins with.
pub(super) fn header(path: &Path, infos: Vec<(String, TensorInfo)>) -> Result<Vec<u8>> {
    let described = |e: &dyn std::fmt::Display| Error::file(path, format!("cannot be described: {e}"));
    // transformers refuses files that do not say which framework's orientation they are in.
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(format), infos).map_err(|e| described(&e))?;
    let json = serde_json::to_vec(&metadata).map_err(|e| described(&e))?;
    let length = json.len().next_multiple_of(8);
    let mut header = (length as u64).to_le_bytes().to_vec();
    header.extend(json);
    header.resize(8 + length, b' ');
    Ok(header)
}

fn write_weights(export: &Export<'_>, path: &Path, read: &mut ReadRows<'_>) -> Result<()> {
    let parameters = export.parameters()?;
    let dtype = stored_type(export.dtype);
    let prefix = if export.config.family == Family::Gpt2 { "transformer." } else { "" };
    let mut end = 0usize;
    let mut infos = Vec::with_capacity(parameters.len());
    for p in &parameters {
        let begin = end;
        let bytes = p.shape.checked_elements().and_then(|n| export.dtype.bytes_for(n));
        end = bytes
            .and_then(|n| begin.checked_add(n))
            .ok_or_else(|| Error::Weights(format!("'{}' is larger than memory can be", p.name)))?;
        let name = if p.name == "lm_head.weight" { p.name.clone() } else { format!("{prefix}{}", p.name) };
        infos.push((name, TensorInfo { dtype, shape: p.shape.dims().to_vec(), data_offsets: (begin, end) }));
    }
    let header = header(path, infos)?;
    write_atomically(path, |w| {
        w.put(&header)?;
        let mut pieces = PieceWriter::default();
        for p in &parameters {
            let orientation = p.orientation.unwrap_or(Orientation::OutIn);
            pieces.write(w, p, (export.dtype, orientation, None), read)?;
        }
        Ok(())
    })
}

fn config_json(config: &ModelConfig, dtype: DType, eos: &Value) -> Result<Value> {
    let dim = |name: &str| config.dim(name).map(Value::from);
    let torch_dtype = match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    };
    let mut fields: Vec<(&str, Value)> = vec![
        ("model_type", json!(config.family.name())),
        ("torch_dtype", json!(torch_dtype)),
        ("bos_token_id", json!(config.bos)),
        ("eos_token_id", eos.clone()),
        ("tie_word_embeddings", json!(config.tied())),
        ("vocab_size", dim("V")?),
    ];
    let eps = json!(config.float("eps")?);
    match config.family {
        Family::Gpt2 => fields.extend([
            ("architectures", json!(["GPT2LMHeadModel"])),
            ("activation_function", json!("gelu_new")),
            ("layer_norm_epsilon", eps),
            ("n_positions", dim("T")?),
            ("n_embd", dim("C")?),
            ("n_head", dim("H")?),
            ("n_layer", dim("L")?),
            ("n_inner", dim("F")?),
        ]),
        Family::Llama => {
            fields.extend(config.pad.map(|id| ("pad_token_id", json!(id))));
            let theta = config.float("rope_theta")?;
            fields.extend([
                ("architectures", json!(["LlamaForCausalLM"])),
                ("hidden_act", json!("silu")),
                ("attention_bias", json!(false)),
                ("mlp_bias", json!(false)),
                ("rms_norm_eps", eps),
                ("max_position_embeddings", dim("T")?),
                ("hidden_size", dim("C")?),
                ("num_attention_heads", dim("H")?),
                ("num_key_value_heads", dim("KV")?),
                ("head_dim", dim("D")?),
                ("num_hidden_layers", dim("L")?),
                ("intermediate_size", dim("F")?),
                // The older and the newer place.
                ("rope_theta", json!(theta)),
                ("rope_parameters", json!({"rope_theta": theta, "rope_type": "default"})),
            ]);
        }
    }
    Ok(Value::Object(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect::<Map<_, _>>()))
}

fn write_tokenizer(export: &Export<'_>, path: &Path) -> Result<()> {
    match export.tokenizer {
        TokenizerSource::None => Ok(()),
        TokenizerSource::Json { directory, .. } | TokenizerSource::VocabularyAndMerges { directory, .. } => {
            for name in TOKENIZER_FILES {
                let from = directory.join(name);
                if from.is_file() {
                    let bytes = std::fs::read(&from).map_err(|e| Error::io(&from, "read", e))?;
                    let to = path.join(name);
                    write_atomically(&to, |w| w.put(&bytes))?;
                }
            }
            Ok(())
        }
        TokenizerSource::Gguf(tokenizer) => {
            let (json, settings) = tokenizer_json::from_gguf(tokenizer, export.config.dim("T")?)?;
            write_json(&path.join("tokenizer.json"), &json)?;
            write_json(&path.join("tokenizer_config.json"), &settings)
        }
    }
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| Error::file(path, format!("not JSON: {e}")))?;
    text.push(b'\n');
    write_atomically(path, |w| w.put(&text))
}
