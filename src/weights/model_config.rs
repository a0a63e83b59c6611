//! What a checkpoint says about its model: which spec, with which dimensions and constants.

use crate::error::{Error, Result};
use std::path::Path;

/// Model family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Radford et al., 2019.
    Gpt2,
    /// Touvron et al., 2023, and the models that share its graph.
    Llama,
}

impl Family {
    /// Name of the family's graph spec, and of its architecture in GGUF and `config.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Gpt2 => "gpt2",
            Family::Llama => "llama",
        }
    }

    /// Name of the token embedding, which a tied head shares.
    pub const fn embedding(self) -> &'static str {
        match self {
            Family::Gpt2 => "wte.weight",
            Family::Llama => "model.embed_tokens.weight",
        }
    }
}

/// Value of a spec constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ConstValue {
    /// Real number.
    Float(f64),
    /// Truth value.
    Bool(bool),
}

/// Dimensions and constants of one model, under the names its graph spec uses.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Model family.
    pub family: Family,
    /// Name of the graph spec: `gpt2` or `llama`.
    pub spec: &'static str,
    /// `V T C H L F`, and for Llama `KV` (key/value heads) and `D` (head size).
    pub dims: Vec<(String, i64)>,
    /// `eps` (of the norms), `tied` (the head is the embedding), and for Llama `rope_theta`.
    pub consts: Vec<(String, ConstValue)>,
    /// Token that starts a sequence, when the checkpoint names one.
    pub bos: Option<u32>,
    /// Tokens that end a sequence; empty when the checkpoint names none.
    pub eos: Vec<u32>,
    /// Token whose embedding gets no gradient from being read, as `pad_token_id` says for the Llama family in transformers.
    pub pad: Option<u32>,
}

/// No dimension may exceed this: products of two then fit any integer used here.
const MAX_DIM: i64 = i32::MAX as i64;
/// No model has more layers; a larger number is a damaged header, and listing its tensors would take the memory of the machine.
const MAX_LAYERS: i64 = 10_000;

impl ModelConfig {
    /// A GPT-2 model; `dims` are V, T, C, H, L, F.
    pub fn gpt2(dims: [i64; 6], eps: f64, tied: bool) -> Self {
        let [v, t, c, h, l, f] = dims;
        ModelConfig {
            family: Family::Gpt2,
            spec: Family::Gpt2.name(),
            dims: named([("V", v), ("T", t), ("C", c), ("H", h), ("L", l), ("F", f)]),
            consts: named([("eps", ConstValue::Float(eps)), ("tied", ConstValue::Bool(tied))]),
            bos: None,
            eos: Vec::new(),
            pad: None,
        }
    }

    /// A Llama model; `dims` are V, T, C, H, KV, D, L, F.
    pub fn llama(dims: [i64; 8], eps: f64, rope_theta: f64, tied: bool) -> Self {
        let [v, t, c, h, kv, d, l, f] = dims;
        ModelConfig {
            family: Family::Llama,
            spec: Family::Llama.name(),
            dims: named([("V", v), ("T", t), ("C", c), ("H", h), ("KV", kv), ("D", d), ("L", l), ("F", f)]),
            consts: named([
                ("eps", ConstValue::Float(eps)),
                ("rope_theta", ConstValue::Float(rope_theta)),
                ("tied", ConstValue::Bool(tied)),
            ]),
            bos: None,
            eos: Vec::new(),
            pad: None,
        }
    }

    /// The dimension called `name`.
    pub fn dim(&self, name: &str) -> Result<usize> {
        self.dims
            .iter()
            .find(|(n, _)| n == name)
            .and_then(|(_, v)| usize::try_from(*v).ok())
            .ok_or_else(|| Error::Weights(format!("a {} model needs dimension {name}", self.spec)))
    }

    /// The real-valued constant called `name`.
    pub fn float(&self, name: &str) -> Result<f64> {
        match self.consts.iter().find(|(n, _)| n == name) {
            Some((_, ConstValue::Float(x))) => Ok(*x),
            _ => Err(Error::Weights(format!("a {} model needs constant {name}", self.spec))),
        }
    }

    /// Whether the head is the token embedding.
    pub fn tied(&self) -> bool {
        self.consts.iter().any(|(n, v)| n == "tied" && *v == ConstValue::Bool(true))
    }

    /// Says whether the head is the token embedding.
    pub fn set_tied(&mut self, tied: bool) {
        for (_, v) in self.consts.iter_mut().filter(|(n, _)| n == "tied") {
            *v = ConstValue::Bool(tied);
        }
    }

    /// Applies `--set NAME=VALUE` to the dimensions and constants this configuration has. Other names are left alone: they
    /// belong to the graph spec, which knows its own and refuses the rest.
    pub fn set(&mut self, overrides: &[(String, String)]) -> Result<()> {
        for (name, text) in overrides {
            let wrong = |kind: &str| Error::Usage(format!("--set {name}={text}: {name} must be {kind}"));
            if let Some((_, v)) = self.dims.iter_mut().find(|(n, _)| n == name) {
                *v = text.parse().ok().filter(|v| *v > 0).ok_or_else(|| wrong("a positive integer"))?;
            } else if let Some((_, v)) = self.consts.iter_mut().find(|(n, _)| n == name) {
                *v = match v {
                    ConstValue::Float(_) => ConstValue::Float(text.parse().map_err(|_| wrong("a number"))?),
                    ConstValue::Bool(_) => ConstValue::Bool(text.parse().map_err(|_| wrong("true or false"))?),
                };
            }
        }
        Ok(())
    }

    /// Refuses dimensions and constants that no model can have; `path` is where they were read.
    pub fn validate(&self, path: &Path) -> Result<()> {
        let refuse = |message: String| Err(Error::file(path, message));
        for (name, v) in &self.dims {
            let limit = if name == "L" { MAX_LAYERS } else { MAX_DIM };
            if !(1..=limit).contains(v) {
                return refuse(format!("dimension {name} is {v}, must be from 1 to {limit}"));
            }
        }
        let (c, h) = (self.dim("C")?, self.dim("H")?);
        match self.family {
            Family::Gpt2 if c % h != 0 => return refuse(format!("{c} channels do not divide into {h} heads")),
            Family::Llama => {
                let (kv, d) = (self.dim("KV")?, self.dim("D")?);
                if h % kv != 0 {
                    return refuse(format!("{h} heads do not divide into {kv} key/value heads"));
                }
                if d % 2 != 0 {
                    return refuse(format!("head size {d} is odd, so its elements cannot be rotated in pairs"));
                }
            }
            Family::Gpt2 => {}
        }
        for (name, v) in &self.consts {
            if let ConstValue::Float(x) = v
                && !(x.is_finite() && *x > 0.0)
            {
                return refuse(format!("{name} is {x}, must be positive and finite"));
            }
        }
        Ok(())
    }
}

fn named<T, const N: usize>(pairs: [(&str, T); N]) -> Vec<(String, T)> {
    pairs.into_iter().map(|(n, v)| (n.to_string(), v)).collect()
}

/// The f64 that prints like `x`: 1e-5 stored as f32 reads back as 1e-5, not as 9.999999747378752e-6.
pub(super) fn shortest_f64(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> ModelConfig {
        ModelConfig::gpt2([97, 32, 64, 4, 2, 256], 1e-5, true)
    }

    #[test]
    fn overrides_change_what_the_model_has_and_nothing_else() {
        let set = |pairs: &[(&str, &str)]| {
            let mut c = tiny();
            c.set(&pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>()).map(|()| c)
        };
        let c = set(&[("T", "16"), ("eps", "1e-6"), ("tied", "false"), ("dropout", "0.1")]).unwrap();
        assert_eq!((c.dim("T").unwrap(), c.float("eps").unwrap(), c.tied()), (16, 1e-6, false));
        assert_eq!(c.dims.len(), 6);
        assert_eq!(set(&[("T", "-1")]).unwrap_err().to_string(), "--set T=-1: T must be a positive integer");
        assert_eq!(set(&[("tied", "maybe")]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn impossible_dimensions_are_refused() {
        let refused = |f: fn(&mut ModelConfig)| {
            let mut c = tiny();
            f(&mut c);
            c.validate(Path::new("p")).unwrap_err().to_string()
        };
        assert!(refused(|c| c.dims[3].1 = 5).contains("64 channels do not divide into 5 heads"));
        assert!(refused(|c| c.dims[4].1 = 1 << 20).contains("dimension L is 1048576"));
        assert!(refused(|c| c.dims[0].1 = 0).contains("dimension V is 0"));
        assert!(refused(|c| c.consts[0].1 = ConstValue::Float(f64::NAN)).contains("eps is NaN"));
        let odd = ModelConfig::llama([8, 8, 6, 2, 1, 3, 1, 8], 1e-5, 1e4, true);
        assert!(odd.validate(Path::new("p")).unwrap_err().to_string().contains("head size 3 is odd"));
    }

    #[test]
    fn f32_constants_keep_their_decimal_value() {
        assert_eq!(shortest_f64(1e-5), 1e-5);
        assert_eq!(shortest_f64(100000.0), 1e5);
    }
}
