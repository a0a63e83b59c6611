//! The C++ ancestor's checkpoints: nothing but f32 in PyTorch's order of parameters, GPT-2, linear weights `[in, out]`.
//!
//! Dimensions come from a `config.json` in the same directory, from `--set`, or from both; the size must match exactly.

use super::format::{Format, Parts};
use super::json_config::read_config;
use super::layout::parameters;
use super::model_config::{Family, ModelConfig};
use super::tensors::{Entry, RowOrder, TensorInfo};
use super::tokenizer_source::TokenizerSource;
use crate::disk::MappedFile;
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Lays the parameters out over the file.
pub(super) fn open(file: MappedFile, overrides: &[(String, String)]) -> Result<Parts> {
    let (path, bytes) = (file.path(), file.bytes());
    let mut config = configuration(&file, overrides)?;
    config.set(overrides)?;
    config.validate(path)?;
    let mut entries = Vec::new();
    let mut at = Some(0usize);
    for p in parameters(&config)? {
        let len = p.shape.checked_elements().and_then(|n| DType::F32.bytes_for(n));
        let start = at;
        at = start.zip(len).and_then(|(a, n)| a.checked_add(n));
        if let (Some(start), Some(len)) = (start, len) {
            let info = TensorInfo { name: p.name, dtype: DType::F32, shape: p.shape, orientation: p.orientation };
            entries.push(Entry { info, file: 0, start, len, rows: RowOrder::Plain });
        }
    }
    if at != Some(bytes.len()) {
        let dims: Vec<String> = config.dims.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let expected = at.map_or("more bytes than can be addressed".into(), |n| format!("{n} bytes"));
        let message = format!(
            "no known magic number, and as headerless f32 with {} it would have {expected}, not {}; check --set or config.json",
            dims.join(" "),
            bytes.len()
        );
        return Err(Error::file(path, message));
    }
    Ok(Parts { format: Format::Raw, config, tokenizer: TokenizerSource::None, entries, files: vec![file] })
}

fn configuration(file: &MappedFile, overrides: &[(String, String)]) -> Result<ModelConfig> {
    let path = file.path();
    let beside = path.with_file_name("config.json");
    if beside.is_file() {
        let config = read_config(&beside)?;
        if config.family != Family::Gpt2 {
            return Err(Error::file(
                path,
                "headerless f32 files hold GPT-2 models, but the config.json beside it is another's",
            ));
        }
        return Ok(config);
    }
    let given = |name: &str| overrides.iter().any(|(n, _)| n == name);
    if let Some(missing) = ["V", "T", "C", "H", "L"].into_iter().find(|n| !given(n)) {
        let head: Vec<String> = file.bytes().iter().take(8).map(|b| format!("{b:02x}")).collect();
        let message = format!(
            "no known magic number (it starts with {}); a headerless f32 checkpoint needs a config.json beside it \
             or --set V=… T=… C=… H=… L=… ({missing} is missing)",
            head.join(" ")
        );
        return Err(Error::file_at(path, 0, message));
    }
    let mut config = ModelConfig::gpt2([1; 6], 1e-5, true);
    config.set(overrides)?;
    if !given("F") {
        let inner = config.dim("C")? as i64 * 4;
        config.set(&[("F".to_string(), inner.to_string())])?;
    }
    Ok(config)
}
