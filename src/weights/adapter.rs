//! Low-rank adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors` with
//! `base_model.model.PATH.lora_A.weight` [rank, in] and `base_model.model.PATH.lora_B.weight` [out, rank].

use super::layout::Parameter;
use super::nearest::nearest;
use super::rows::ParameterRows;
use super::tensors::Orientation;
use crate::error::{Error, Result};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Config {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
}

/// A matrix of an adapter, row by row.
struct Matrix {
    dims: [usize; 2],
    values: Vec<f32>,
}

/// Products to add to the weights of linears.
pub struct Adapter {
    path: PathBuf,
    rank: usize,
    scale: f64,
    /// A and B by the path of the linear.
    parts: BTreeMap<String, [Option<Matrix>; 2]>,
}

impl Adapter {
    /// Reads an adapter's directory.
    ///
    /// # Errors
    /// Missing or malformed files, kinds of adapters that are more than a product, halves of a product.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("adapter_config.json");
        let text = std::fs::read(&path).map_err(|e| Error::io(&path, "read", e))?;
        let config: Config = serde_json::from_slice(&text)
            .map_err(|e| Error::file(&path, format!("is no adapter's configuration: {e}")))?;
        let plain = config.rank_pattern.is_empty() && config.alpha_pattern.is_empty() && !config.use_dora;
        if config.peft_type != "LORA" || !plain || config.r == 0 {
            let message = "only LORA adapters with one rank and alpha for all linears, without DoRA, are read";
            return Err(Error::file(&path, message));
        }
        let rank = config.r as f64;
        let scale = config.lora_alpha / if config.use_rslora { rank.sqrt() } else { rank };
        let path = directory.join("adapter_model.safetensors");
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, "read", e))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| Error::file(&path, format!("is not a safetensors file: {e}")))?;
        let mut parts: BTreeMap<String, [Option<Matrix>; 2]> = BTreeMap::new();
        for (name, view) in file.iter() {
            let short = name.strip_prefix("base_model.model.").unwrap_or(name);
            let short = short.strip_prefix("transformer.").unwrap_or(short);
            let half = [".lora_A.weight", ".lora_B.weight"].iter().position(|s| short.ends_with(s));
            let Some(half) = half else {
                return Err(Error::file(&path, format!("'{name}' is neither lora_A nor lora_B of a linear")));
            };
            let &[rows, columns] = view.shape() else {
                return Err(Error::file(&path, format!("'{name}' has shape {:?}, not two dimensions", view.shape())));
            };
            let values = floats(view.dtype(), view.data()).ok_or_else(|| {
                Error::file(&path, format!("'{name}' is {:?}; F32, F16 or BF16 is read", view.dtype()))
            })?;
            let linear = short[..short.len() - ".lora_A.weight".len()].to_string();
            let matrix = Matrix { dims: [rows, columns], values };
            if parts.entry(linear).or_default()[half].replace(matrix).is_some() {
                return Err(Error::file(&path, format!("'{name}' is there twice, with and without the base's prefix")));
            }
        }
        if parts.is_empty() {
            return Err(Error::file(&path, "holds no lora_A and lora_B; it adapts nothing"));
        }
        Ok(Adapter { path, rank: config.r, scale, parts })
    }

    /// Checks that every product has a linear of its shape among `parameters`.
    ///
    /// # Errors
    /// A linear that the model does not have, with the nearest; shapes that do not fit, with both.
    pub fn check(&self, parameters: &[Parameter]) -> Result<()> {
        for (linear, [a, b]) in &self.parts {
            let refuse = |message: String| Error::file(&self.path, message);
            let (Some(a), Some(b)) = (a, b) else {
                return Err(refuse(format!("'{linear}' has only one of lora_A and lora_B")));
            };
            let linears = || parameters.iter().filter(|p| p.orientation.is_some());
            let path = |p: &Parameter| p.name.strip_suffix(".weight").map(str::to_string);
            let Some(p) = linears().find(|p| path(p).as_ref() == Some(linear)) else {
                let names: Vec<String> = linears().filter_map(path).collect();
                let hint = nearest(linear, names.iter().map(String::as_str));
                let hint = hint.map(|n| format!("; the nearest is '{n}'")).unwrap_or_default();
                return Err(refuse(format!("the model has no linear '{linear}'{hint}")));
            };
            let shape = p.shape_as(Orientation::OutIn);
            let &[outputs, inputs] = shape.dims() else { unreachable!("weights of linears have two dimensions") };
            if a.dims != [self.rank, inputs] || b.dims != [outputs, self.rank] {
                return Err(refuse(format!(
                    "'{linear}' has A {:?} and B {:?}; rank {} and the model need [{}, {inputs}] and [{outputs}, {}]",
                    a.dims, b.dims, self.rank, self.rank, self.rank
                )));
            }
        }
        Ok(())
    }

    /// Adds the product for a parameter, if there is one, to the values of some of its rows: W + scale · B·A. [`Adapter::check`] comes
    /// first.
    pub fn add_to(&self, part: &ParameterRows<'_>, values: &mut [f32]) {
        let product = part.parameter.name.strip_suffix(".weight").and_then(|linear| self.parts.get(linear));
        let Some([Some(a), Some(b)]) = product else { return };
        let (_, columns) = part.parameter.extent_as(part.orientation);
        let inputs = a.dims[1];
        for (row, values) in part.rows.clone().zip(values.chunks_mut(columns)) {
            for (column, value) in values.iter_mut().enumerate() {
                let (o, i) = if part.orientation == Orientation::InOut { (column, row) } else { (row, column) };
                let product: f64 = (0..self.rank)
                    .map(|r| f64::from(b.values[o * self.rank + r]) * f64::from(a.values[r * inputs + i]))
                    .sum();
                *value = (f64::from(*value) + self.scale * product) as f32;
            }
        }
    }

    /// Number of linears that the adapter changes.
    pub fn linears(&self) -> usize {
        self.parts.len()
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    Some(match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    fn adapter(scale: f64) -> Adapter {
        let a = Matrix { dims: [1, 2], values: vec![1.0, 10.0] };
        let b = Matrix { dims: [3, 1], values: vec![1.0, 2.0, 3.0] };
        Adapter { path: "a".into(), rank: 1, scale, parts: BTreeMap::from([("x.q".into(), [Some(a), Some(b)])]) }
    }

    fn linear(name: &str, shape: [usize; 2], orientation: Orientation) -> Parameter {
        Parameter { name: name.into(), shape: Shape::new(shape), orientation: Some(orientation) }
    }

    fn rows(parameter: &Parameter, rows: std::ops::Range<usize>) -> ParameterRows<'_> {
        ParameterRows { parameter, orientation: parameter.orientation.unwrap(), rows }
    }

    #[test]
    fn products_are_added_in_either_orientation() {
        let p = linear("x.q.weight", [3, 2], Orientation::OutIn);
        adapter(1.0).check(std::slice::from_ref(&p)).unwrap();
        let mut values = [100.0; 6];
        adapter(0.5).add_to(&rows(&p, 0..3), &mut values);
        assert_eq!(values, [100.5, 105.0, 101.0, 110.0, 101.5, 115.0]);
        let p = linear("x.q.weight", [2, 3], Orientation::InOut);
        adapter(1.0).check(std::slice::from_ref(&p)).unwrap();
        let mut values = [0.0; 6];
        adapter(1.0).add_to(&rows(&p, 0..2), &mut values);
        assert_eq!(values, [1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
        let mut second = [0.0; 3];
        adapter(1.0).add_to(&rows(&p, 1..2), &mut second);
        assert_eq!(second, values[3..]);
        let mut other = [7.0];
        adapter(1.0).add_to(&rows(&linear("x.k.weight", [1, 1], Orientation::OutIn), 0..1), &mut other);
        assert_eq!(other, [7.0]);
    }

    #[test]
    fn files_without_products_or_with_one_twice_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1}"#;
        std::fs::write(directory.path().join("adapter_config.json"), config).unwrap();
        let refused = |names: &[&str]| {
            let view = || safetensors::tensor::TensorView::new(Dtype::F32, vec![1, 1], &[0; 4]).unwrap();
            let path = directory.path().join("adapter_model.safetensors");
            safetensors::serialize_to_file(names.iter().map(|name| (*name, view())), None, &path).unwrap();
            Adapter::open(directory.path()).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(refused(&[]).contains("adapts nothing"));
        let (short, long) = ("h.0.x.lora_A.weight", "base_model.model.transformer.h.0.x.lora_A.weight");
        assert!(refused(&[short, long]).contains("twice"));
        assert_eq!(refused(&[long]), "");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let message = |p: Parameter| adapter(1.0).check(&[p]).unwrap_err().to_string();
        let other = message(linear("x.k.weight", [3, 2], Orientation::OutIn));
        assert!(other.contains("no linear 'x.q'") && other.contains("'x.k'"), "{other}");
        let shape = message(linear("x.q.weight", [3, 4], Orientation::OutIn));
        assert!(shape.contains("[1, 2]") && shape.contains("[1, 4]"), "{shape}");
        let mut half = adapter(1.0);
        half.parts.get_mut("x.q").unwrap()[1] = None;
        let p = linear("x.q.weight", [3, 2], Orientation::OutIn);
        assert!(half.check(&[p]).unwrap_err().to_string().contains("only one of"));
    }
}
