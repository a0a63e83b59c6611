//! Hugging Face's tokenizer files as GGUF metadata.

use super::super::files::read_json;
use super::super::model_config::ModelConfig;
use super::super::tokenizer_source::{GgufTokenizer, TokenizerSource};
use super::{CONTROL, NORMAL, USER_DEFINED, adds_bos, pre_tokenizers};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The tokenizer as GGUF metadata, or nothing when there is none. Special tokens are those of `config`.
pub fn as_gguf(source: &TokenizerSource, config: &ModelConfig) -> Result<Option<GgufTokenizer>> {
    let mut tokenizer = match source {
        TokenizerSource::None => return Ok(None),
        TokenizerSource::Gguf(t) => return Ok(Some((**t).clone())),
        TokenizerSource::Json { path, .. } => from_json(path)?,
        TokenizerSource::VocabularyAndMerges { vocabulary, merges, .. } => from_pair(vocabulary, merges)?,
    };
    let in_vocabulary = |id: &u32| (*id as usize) < tokenizer.tokens.len();
    tokenizer.bos = config.bos.filter(in_vocabulary);
    tokenizer.eos = config.eos.first().copied().filter(in_vocabulary);
    if let TokenizerSource::Json { directory, .. } | TokenizerSource::VocabularyAndMerges { directory, .. } = source {
        apply_settings(&mut tokenizer, directory)?;
    }
    // The pair of files does not say which tokens are special; `tokenizer.json` does.
    if let TokenizerSource::VocabularyAndMerges { .. } = source {
        for id in [tokenizer.bos, tokenizer.eos].into_iter().flatten() {
            tokenizer.token_types[id as usize] = CONTROL;
        }
    }
    Ok(Some(tokenizer))
}

/// `chat_template` and `add_bos_token` of the settings beside the tokenizer.
fn apply_settings(tokenizer: &mut GgufTokenizer, directory: &Path) -> Result<()> {
    let path = directory.join("tokenizer_config.json");
    if path.is_file() {
        let settings = read_json(&path)?;
        if let Some(add) = settings.get("add_bos_token").and_then(Value::as_bool) {
            tokenizer.add_bos = Some(add);
        }
        tokenizer.chat_template = settings.get("chat_template").and_then(Value::as_str).map(String::from);
    }
    let template = directory.join("chat_template.jinja");
    if template.is_file() {
        let text = std::fs::read_to_string(&template).map_err(|e| Error::io(&template, "read", e))?;
        tokenizer.chat_template = Some(text);
    }
    Ok(())
}

fn from_json(path: &Path) -> Result<GgufTokenizer> {
    let json = read_json(path)?;
    let refuse = |why: String| Err(Error::file(path, format!("this tokenizer cannot be put into GGUF: {why}")));
    let model = &json["model"];
    let (Some(vocabulary), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        return refuse("it is not a BPE with merges".into());
    };
    if !json["normalizer"].is_null() {
        return refuse("it normalises text".into());
    }
    let Some(pre) = ["gpt-2", "smollm", "llama-bpe"].into_iter().find(|p| splits_like(&json["pre_tokenizer"], p))
    else {
        return refuse("its pre-split is none of gpt-2, smollm and llama-bpe".into());
    };
    let mut tokens = by_id(path, vocabulary)?;
    let mut token_types = vec![NORMAL; tokens.len()];
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(text)) = (added["id"].as_u64(), added["content"].as_str()) else {
            return refuse("an added token has no id or no content".into());
        };
        let id = id as usize;
        if id > tokens.len() {
            return refuse(format!("added token '{text}' has id {id}, beyond the vocabulary of {}", tokens.len()));
        }
        let kind = if added["special"].as_bool() == Some(true) { CONTROL } else { USER_DEFINED };
        if id == tokens.len() {
            tokens.push(text.to_string());
            token_types.push(kind);
        } else {
            tokens[id] = text.to_string();
            token_types[id] = kind;
        }
    }
    let merge = |m: &Value| match m {
        Value::String(s) => Some(s.clone()),
        Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    };
    let Some(merges) = merges.iter().map(merge).collect::<Option<Vec<String>>>() else {
        return refuse("a merge is not a pair of strings".into());
    };
    let add_bos =
        Some(starts_with_special(&json["post_processor"]) || json["post_processor"].is_null() && adds_bos(pre));
    Ok(GgufTokenizer {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens,
        token_types,
        merges,
        add_bos,
        ..GgufTokenizer::default()
    })
}

fn from_pair(vocabulary: &Path, merges: &Path) -> Result<GgufTokenizer> {
    let json = read_json(vocabulary)?;
    let Some(map) = json.as_object() else { return Err(Error::file(vocabulary, "not a JSON object from token to id")) };
    let tokens = by_id(vocabulary, map)?;
    let text = std::fs::read_to_string(merges).map_err(|e| Error::io(merges, "read", e))?;
    let merges = text.lines().filter(|l| !l.is_empty() && !l.starts_with("#version")).map(String::from).collect();
    Ok(GgufTokenizer {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        token_types: vec![NORMAL; tokens.len()],
        tokens,
        merges,
        add_bos: Some(false),
        ..GgufTokenizer::default()
    })
}

/// Tokens by id; ids must be 0, 1, 2, …
fn by_id(path: &Path, vocabulary: &Map<String, Value>) -> Result<Vec<String>> {
    let mut tokens: Vec<Option<String>> = vec![None; vocabulary.len()];
    for (token, id) in vocabulary {
        let slot = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?)).filter(|s| s.is_none());
        match slot {
            Some(slot) => *slot = Some(token.clone()),
            None => {
                let n = vocabulary.len();
                return Err(Error::file(
                    path,
                    format!("token '{token}' has id {id}; {n} tokens have the ids from 0 to {}", n - 1),
                ));
            }
        }
    }
    Ok(tokens.into_iter().flatten().collect())
}

/// Whether a `pre_tokenizer` is what GGUF calls `pre`, whatever it says about offsets.
fn splits_like(found: &Value, pre: &str) -> bool {
    let found = found["pretokenizers"].as_array().map_or_else(|| vec![found], |list| list.iter().collect());
    let wanted = pre_tokenizers(pre).unwrap_or_default();
    let same = |(a, b): (&&Value, &Value)| {
        let field = |key: &str, default: Value| {
            let of = |v: &Value| v.get(key).cloned().unwrap_or(default.clone());
            of(a) == of(b)
        };
        field("type", Value::Null)
            && field("add_prefix_space", Value::Bool(false))
            && field("use_regex", Value::Bool(true))
            && field("individual_digits", Value::Null)
            && field("pattern", Value::Null)
            && field("invert", Value::Bool(false))
            && field("behavior", Value::Null)
    };
    found.len() == wanted.len() && found.iter().zip(&wanted).all(same)
}

/// Whether a `post_processor` puts a special token in front of a text.
fn starts_with_special(processor: &Value) -> bool {
    let first = |p: &Value| p["single"].get(0).is_some_and(|piece| piece.get("SpecialToken").is_some());
    first(processor) || processor["processors"].as_array().is_some_and(|list| list.iter().any(first))
}
