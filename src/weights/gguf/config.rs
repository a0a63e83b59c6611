//! The model's configuration and tokenizer from GGUF metadata.

use super::super::model_config::{Family, ModelConfig, shortest_f64};
use super::super::tokenizer_source::GgufTokenizer;
use super::header::Header;
use super::value::Value;
use crate::error::{Error, Result};
use std::path::Path;

/// Configuration, and the tokenizer when the file brings one.
pub(super) fn read(header: &Header, path: &Path) -> Result<(ModelConfig, Option<GgufTokenizer>)> {
    let metadata = Metadata { header, path };
    let family = match metadata.text("general.architecture")? {
        Some("gpt2") => Family::Gpt2,
        Some("llama") => Family::Llama,
        Some(other) => {
            return metadata
                .refuse(format!("general.architecture \"{other}\" is not implemented (gpt2 and llama are)"));
        }
        None => return metadata.refuse("general.architecture is missing"),
    };
    let mut config = match family {
        Family::Gpt2 => gpt2(&metadata)?,
        Family::Llama => llama(&metadata)?,
    };
    let tokenizer = tokenizer(&metadata)?;
    config.bos = metadata.token("tokenizer.ggml.bos_token_id")?;
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        config.eos.extend(metadata.token(&format!("tokenizer.ggml.{key}"))?);
    }
    Ok((config, tokenizer))
}

fn gpt2(m: &Metadata<'_>) -> Result<ModelConfig> {
    let c = m.required("gpt2.embedding_length")?;
    let f = m.integer("gpt2.feed_forward_length")?.unwrap_or(c.saturating_mul(4));
    let eps = m.required_float("gpt2.attention.layer_norm_epsilon")?;
    let (t, h, l) =
        (m.required("gpt2.context_length")?, m.required("gpt2.attention.head_count")?, m.required("gpt2.block_count")?);
    Ok(ModelConfig::gpt2([m.vocabulary()?, t, c, h, l, f], eps, true))
}

fn llama(m: &Metadata<'_>) -> Result<ModelConfig> {
    match m.text("llama.rope.scaling.type")? {
        None | Some("none") => {}
        Some(other) => return m.refuse(format!("llama.rope.scaling.type \"{other}\" is not implemented")),
    }
    for key in ["llama.expert_count", "llama.attention.sliding_window"] {
        if let Some(n) = m.integer(key)?.filter(|n| *n != 0) {
            return m.refuse(format!("{key} = {n} is not implemented"));
        }
    }
    let (c, h) = (m.required("llama.embedding_length")?, m.required("llama.attention.head_count")?);
    let rotated = m.integer("llama.rope.dimension_count")?;
    let d = match m.integer("llama.attention.key_length")? {
        Some(d) => d,
        None if h > 0 && c % h == 0 => c / h,
        None => {
            return m.refuse(format!(
                "{c} channels do not divide into {h} heads and llama.attention.key_length is missing"
            ));
        }
    };
    for (key, n) in [
        ("llama.rope.dimension_count", rotated),
        ("llama.attention.value_length", m.integer("llama.attention.value_length")?),
    ] {
        if let Some(n) = n.filter(|n| *n != d) {
            return m.refuse(format!("{key} = {n} with heads of {d} is not implemented"));
        }
    }
    let dims = [
        m.vocabulary()?,
        m.required("llama.context_length")?,
        c,
        h,
        m.integer("llama.attention.head_count_kv")?.unwrap_or(h),
        d,
        m.required("llama.block_count")?,
        m.required("llama.feed_forward_length")?,
    ];
    let eps = m.required_float("llama.attention.layer_norm_rms_epsilon")?;
    let theta = m.float("llama.rope.freq_base")?.unwrap_or(10_000.0);
    Ok(ModelConfig::llama(dims, eps, theta, true))
}

fn tokenizer(m: &Metadata<'_>) -> Result<Option<GgufTokenizer>> {
    let Some(model) = m.text("tokenizer.ggml.model")? else { return Ok(None) };
    let Some(tokens) = m.texts("tokenizer.ggml.tokens")? else { return Ok(None) };
    let token_types = match m.get("tokenizer.ggml.token_type") {
        None => Vec::new(),
        Some(Value::Ints(list)) => list.iter().map(|&t| t as i32).collect(),
        Some(_) => return m.wrong("tokenizer.ggml.token_type", "an array of integers"),
    };
    let scores = match m.get("tokenizer.ggml.scores") {
        None => Vec::new(),
        Some(Value::Floats(list)) => list.clone(),
        Some(_) => return m.wrong("tokenizer.ggml.scores", "an array of numbers"),
    };
    for (key, len) in [("token_type", token_types.len()), ("scores", scores.len())] {
        if len != 0 && len != tokens.len() {
            return m.refuse(format!("tokenizer.ggml.{key} has {len} entries for {} tokens", tokens.len()));
        }
    }
    Ok(Some(GgufTokenizer {
        model: model.to_string(),
        pre: m.text("tokenizer.ggml.pre")?.map(String::from),
        tokens: tokens.to_vec(),
        token_types,
        scores,
        merges: m.texts("tokenizer.ggml.merges")?.unwrap_or_default().to_vec(),
        bos: m.token("tokenizer.ggml.bos_token_id")?,
        eos: m.token("tokenizer.ggml.eos_token_id")?,
        end_of_turn: m.token("tokenizer.ggml.eot_token_id")?,
        end_of_message: m.token("tokenizer.ggml.eom_token_id")?,
        unknown: m.token("tokenizer.ggml.unknown_token_id")?,
        padding: m.token("tokenizer.ggml.padding_token_id")?,
        add_bos: m.boolean("tokenizer.ggml.add_bos_token")?,
        add_space_prefix: m.boolean("tokenizer.ggml.add_space_prefix")?,
        chat_template: m.text("tokenizer.chat_template")?.map(String::from),
    }))
}

/// Typed look-ups that name the key when they fail.
struct Metadata<'a> {
    header: &'a Header,
    path: &'a Path,
}

impl<'a> Metadata<'a> {
    fn refuse<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error::file(self.path, message))
    }

    fn wrong<T>(&self, key: &str, kind: &str) -> Result<T> {
        self.refuse(format!("metadata {key} must be {kind}"))
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.header.metadata.get(key)
    }

    fn integer(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Int(v)) => Ok(Some(*v)),
            Some(_) => self.wrong(key, "an integer"),
        }
    }

    fn required(&self, key: &str) -> Result<i64> {
        self.integer(key)?.map_or_else(|| self.refuse(format!("metadata {key} is missing")), Ok)
    }

    fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(v)) => Ok(Some(shortest_f64(*v))),
            Some(Value::F64(v)) => Ok(Some(*v)),
            Some(_) => self.wrong(key, "a number"),
        }
    }

    fn required_float(&self, key: &str) -> Result<f64> {
        self.float(key)?.map_or_else(|| self.refuse(format!("metadata {key} is missing")), Ok)
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(_) => self.wrong(key, "a boolean"),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(v)) => Ok(Some(v)),
            Some(_) => self.wrong(key, "a string"),
        }
    }

    fn texts(&self, key: &str) -> Result<Option<&'a [String]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Texts(v)) => Ok(Some(v)),
            Some(_) => self.wrong(key, "an array of strings"),
        }
    }

    fn token(&self, key: &str) -> Result<Option<u32>> {
        match self.integer(key)?.map(u32::try_from) {
            None => Ok(None),
            Some(Ok(id)) => Ok(Some(id)),
            Some(Err(_)) => self.wrong(key, "a token id"),
        }
    }

    /// Rows of the token embedding.
    fn vocabulary(&self) -> Result<i64> {
        let embedding = self.header.tensors.iter().find(|t| t.name == "token_embd.weight");
        match embedding.and_then(|t| i64::try_from(t.shape[0]).ok()) {
            Some(rows) => Ok(rows),
            None => self.refuse("tensor 'token_embd.weight' is missing; the file is not a whole model"),
        }
    }
}
