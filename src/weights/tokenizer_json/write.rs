//! GGUF metadata as Hugging Face's tokenizer files.

use super::super::tokenizer_source::GgufTokenizer;
use super::{CONTROL, USER_DEFINED, adds_bos, pre_tokenizers};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

/// `tokenizer.json` and `tokenizer_config.json` of a byte-level BPE for a model with `context` positions.
pub fn from_gguf(tokenizer: &GgufTokenizer, context: usize) -> Result<(Value, Value)> {
    let refuse = |why: String| Err(Error::Tokenizer(format!("cannot write a tokenizer.json: {why}")));
    if tokenizer.model != "gpt2" {
        return refuse(format!("tokenizer.ggml.model '{}' is not a byte-level BPE", tokenizer.model));
    }
    let pre = tokenizer.pre.as_deref().unwrap_or("gpt-2");
    let Some(splits) = pre_tokenizers(pre) else {
        return refuse(format!("pre-split '{pre}' is none of gpt-2, smollm and llama-bpe"));
    };
    let vocabulary: Map<String, Value> =
        tokenizer.tokens.iter().enumerate().map(|(id, t)| (t.clone(), json!(id))).collect();
    if vocabulary.len() != tokenizer.tokens.len() {
        return refuse("two tokens have the same text".into());
    }
    let mut merges = Vec::with_capacity(tokenizer.merges.len());
    for m in &tokenizer.merges {
        match m.split_once(' ') {
            Some((left, right)) => merges.push(json!([left, right])),
            None => return refuse(format!("merge '{m}' is not a pair")),
        }
    }
    let added: Vec<Value> = tokenizer
        .token_types
        .iter()
        .zip(&tokenizer.tokens)
        .enumerate()
        .filter(|(_, (kind, _))| [CONTROL, USER_DEFINED].contains(kind))
        .map(|(id, (kind, text))| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": *kind == CONTROL})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
        "post_processor": post_processor(tokenizer, pre),
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre == "llama-bpe", "vocab": vocabulary, "merges": merges,
        },
    });
    Ok((json, settings(tokenizer, context)))
}

fn text_of(tokenizer: &GgufTokenizer, id: Option<u32>) -> Option<&String> {
    id.and_then(|id| tokenizer.tokens.get(id as usize))
}

/// Puts `bos` in front of a text when the metadata, or what its pre-split implies, says so.
fn post_processor(tokenizer: &GgufTokenizer, pre: &str) -> Value {
    match text_of(tokenizer, tokenizer.bos) {
        Some(bos) if tokenizer.add_bos.unwrap_or(adds_bos(pre)) => {
            let mut special = Map::new();
            special.insert(bos.clone(), json!({"id": bos, "ids": [tokenizer.bos], "tokens": [bos]}));
            let piece = |kind: &str, id: &str, type_id: u32| json!({kind: {"id": id, "type_id": type_id}});
            json!({
                "type": "TemplateProcessing",
                "single": [piece("SpecialToken", bos, 0), piece("Sequence", "A", 0)],
                "pair": [piece("SpecialToken", bos, 0), piece("Sequence", "A", 0),
                         piece("SpecialToken", bos, 1), piece("Sequence", "B", 1)],
                "special_tokens": special,
            })
        }
        _ => json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true}),
    }
}

fn settings(tokenizer: &GgufTokenizer, context: usize) -> Value {
    let mut settings = Map::new();
    settings.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    settings.insert("model_max_length".into(), json!(context));
    settings.insert("clean_up_tokenization_spaces".into(), json!(false));
    for (key, id) in [
        ("bos_token", tokenizer.bos),
        ("eos_token", tokenizer.eos),
        ("unk_token", tokenizer.unknown),
        ("pad_token", tokenizer.padding),
    ] {
        if let Some(text) = text_of(tokenizer, id) {
            settings.insert(key.into(), json!(text));
        }
    }
    if let Some(template) = &tokenizer.chat_template {
        settings.insert("chat_template".into(), json!(template));
    }
    Value::Object(settings)
}
