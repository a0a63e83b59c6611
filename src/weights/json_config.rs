//! Hugging Face's `config.json` and `generation_config.json`.
//!
//! Options that change what the model computes and that the graph specs do not implement are refused by name.

use super::files::read_json;
use super::model_config::{Family, ModelConfig};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Reads `config.json` and, when it is there, the `generation_config.json` beside it. The dimensions are not validated yet.
pub fn read_config(path: &Path) -> Result<ModelConfig> {
    let mut config = config_of(&ConfigFile::open(path)?)?;
    let generation = path.with_file_name("generation_config.json");
    if generation.is_file() {
        let eos = ConfigFile::open(&generation)?.tokens("eos_token_id")?;
        if !eos.is_empty() {
            config.eos = eos;
        }
    }
    Ok(config)
}

/// As [`read_config`] from the text of a `config.json`; `path` is for messages.
pub fn parse_config(path: &Path, text: &str) -> Result<ModelConfig> {
    let value = serde_json::from_str(text).map_err(|e| Error::file(path, format!("not valid JSON: {e}")))?;
    config_of(&ConfigFile::new(path, value)?)
}

fn config_of(file: &ConfigFile) -> Result<ModelConfig> {
    let family = match file.string("model_type")? {
        Some("gpt2") => Family::Gpt2,
        Some("llama") => Family::Llama,
        Some(other) => return file.refuse(format!("model_type \"{other}\" is not implemented (gpt2 and llama are)")),
        None => return file.refuse("model_type is missing (gpt2 and llama are implemented)"),
    };
    file.only("quantization_config", &Value::Null)?;
    let mut config = match family {
        Family::Gpt2 => gpt2(file)?,
        Family::Llama => llama(file)?,
    };
    config.bos = file.tokens("bos_token_id")?.first().copied();
    config.eos = file.tokens("eos_token_id")?;
    Ok(config)
}

fn gpt2(file: &ConfigFile) -> Result<ModelConfig> {
    for option in ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"] {
        file.only(option, &Value::Bool(false))?;
    }
    file.only("scale_attn_weights", &Value::Bool(true))?;
    match file.string("activation_function")? {
        // Two names of the tanh approximation.
        None | Some("gelu_new" | "gelu_pytorch_tanh") => {}
        Some(other) => return file.refuse(format!("activation_function \"{other}\" is not implemented (gelu_new is)")),
    }
    let positions = match file.integer("n_positions")? {
        Some(n) => n,
        None => file.required("n_ctx")?,
    };
    let c = file.required("n_embd")?;
    let f = file.integer("n_inner")?.unwrap_or(c.saturating_mul(4));
    let eps = file.float("layer_norm_epsilon")?.unwrap_or(1e-5);
    let tied = file.boolean("tie_word_embeddings")?.unwrap_or(true);
    let (v, h, l) = (file.required("vocab_size")?, file.required("n_head")?, file.required("n_layer")?);
    Ok(ModelConfig::gpt2([v, positions, c, h, l, f], eps, tied))
}

fn llama(file: &ConfigFile) -> Result<ModelConfig> {
    for option in ["attention_bias", "mlp_bias"] {
        file.only(option, &Value::Bool(false))?;
    }
    match file.string("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => return file.refuse(format!("hidden_act \"{other}\" is not implemented (silu is)")),
    }
    file.only("sliding_window", &Value::Null)?;
    file.only("partial_rotary_factor", &Value::from(1.0))?;
    let mut theta = file.float("rope_theta")?;
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(rope) = file.object(key)? else { continue };
        let kind = rope.string("rope_type")?.or(rope.string("type")?).unwrap_or("default");
        if kind != "default" {
            return file.refuse(format!("{key} of type \"{kind}\" is not implemented (default is)"));
        }
        rope.only("partial_rotary_factor", &Value::from(1.0))?;
        theta = rope.float("rope_theta")?.or(theta);
    }
    let (c, h) = (file.required("hidden_size")?, file.required("num_attention_heads")?);
    let d = match file.integer("head_dim")? {
        Some(d) => d,
        None if h > 0 && c % h == 0 => c / h,
        None => return file.refuse(format!("hidden_size {c} does not divide into {h} heads and head_dim is missing")),
    };
    let dims = [
        file.required("vocab_size")?,
        file.required("max_position_embeddings")?,
        c,
        h,
        file.integer("num_key_value_heads")?.unwrap_or(h),
        d,
        file.required("num_hidden_layers")?,
        file.required("intermediate_size")?,
    ];
    let eps = file.float("rms_norm_eps")?.unwrap_or(1e-6);
    let tied = file.boolean("tie_word_embeddings")?.unwrap_or(false);
    let mut config = ModelConfig::llama(dims, eps, theta.unwrap_or(10_000.0), tied);
    // Negative ids count from the end of the table, as PyTorch's `padding_idx` does.
    let pad = file.integer("pad_token_id")?.map(|id| if id < 0 { id.saturating_add(dims[0]) } else { id });
    config.pad = pad.filter(|id| (0..dims[0]).contains(id)).and_then(|id| u32::try_from(id).ok());
    Ok(config)
}

/// A JSON object with the file and the key it came from.
struct ConfigFile {
    path: PathBuf,
    prefix: String,
    map: Map<String, Value>,
}

impl ConfigFile {
    fn open(path: &Path) -> Result<Self> {
        Self::new(path, read_json(path)?)
    }

    fn new(path: &Path, value: Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(ConfigFile { path: path.to_path_buf(), prefix: String::new(), map }),
            _ => Err(Error::file(path, "not a JSON object")),
        }
    }

    fn refuse<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error::file(&self.path, message))
    }

    fn wrong<T>(&self, key: &str, kind: &str) -> Result<T> {
        self.refuse(format!("{}{key} must be {kind}, found {}", self.prefix, self.map[key]))
    }

    /// The value, unless it is absent or null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn integer(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key).map(Value::as_i64) {
            Some(None) => self.wrong(key, "an integer"),
            value => Ok(value.flatten()),
        }
    }

    fn required(&self, key: &str) -> Result<i64> {
        match self.integer(key)? {
            Some(v) => Ok(v),
            None => self.refuse(format!("{}{key} is missing", self.prefix)),
        }
    }

    fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key).map(Value::as_f64) {
            Some(None) => self.wrong(key, "a number"),
            value => Ok(value.flatten()),
        }
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key).map(Value::as_bool) {
            Some(None) => self.wrong(key, "true or false"),
            value => Ok(value.flatten()),
        }
    }

    fn string(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key).map(Value::as_str) {
            Some(None) => self.wrong(key, "a string"),
            value => Ok(value.flatten()),
        }
    }

    fn object(&self, key: &str) -> Result<Option<ConfigFile>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(ConfigFile { path: self.path.clone(), prefix: format!("{key}."), map: map.clone() }))
            }
            Some(_) => self.wrong(key, "an object"),
        }
    }

    /// Token ids under `key`: a number, a list, or nothing.
    fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let one = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(one).collect(),
            one_id => one(one_id).map(|v| vec![v]),
        };
        match ids {
            Some(ids) => Ok(ids),
            None => self.wrong(key, "a token id or a list of them"),
        }
    }

    /// Refuses any value of `key` but the `implemented` one.
    fn only(&self, key: &str, implemented: &Value) -> Result<()> {
        match self.get(key) {
            Some(v) if v != implemented && v.as_f64().is_none_or(|x| Some(x) != implemented.as_f64()) => {
                self.refuse(format!("{}{key} = {v} is not implemented", self.prefix))
            }
            _ => Ok(()),
        }
    }
}
