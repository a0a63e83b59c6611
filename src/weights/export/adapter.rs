//! Adapters in PEFT's layout, for [`crate::weights::adapter`] and PEFT to read: `adapter_model.safetensors`, then `adapter_config.json`.

use super::super::model_config::{Family, ModelConfig};
use super::hugging_face::{header, stored_type, write_json};
use crate::disk::{make_directory, write_atomically};
use crate::error::Result;
use crate::kernels::quant;
use crate::tensor::DType;
use safetensors::tensor::TensorInfo;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

/// What an adapter's configuration says beside its matrices.
pub struct AdapterExport<'a> {
    /// The model it adapts.
    pub config: &'a ModelConfig,
    /// Where that model is.
    pub base: &'a str,
    /// Inner width.
    pub rank: usize,
    /// Products are scaled by alpha / rank.
    pub alpha: f64,
    /// Last parts of the paths of the adapted linears; empty for those of the matrices.
    pub targets: &'a [String],
    /// Element type of the matrices: f32, f16 or bf16.
    pub dtype: DType,
}

/// A matrix of an adapter, row by row.
pub struct AdapterMatrix<'a> {
    /// `PATH.lora_A.weight` or `PATH.lora_B.weight`.
    pub name: &'a str,
    /// Rows and columns.
    pub dims: [usize; 2],
    /// Values.
    pub values: &'a [f32],
}

impl AdapterExport<'_> {
    /// Writes both files to `directory`. The configuration, without which nothing loads it, comes last.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn write(&self, directory: &Path, matrices: &[AdapterMatrix<'_>]) -> Result<()> {
        make_directory(directory)?;
        let path = directory.join("adapter_model.safetensors");
        let gpt2 = self.config.family == Family::Gpt2;
        let prefix = if gpt2 { "base_model.model.transformer." } else { "base_model.model." };
        let (mut end, mut infos) = (0, Vec::with_capacity(matrices.len()));
        for m in matrices {
            let begin = end;
            end += self.dtype.bytes_for(m.values.len()).expect("floats are no blocks");
            let info =
                TensorInfo { dtype: stored_type(self.dtype), shape: m.dims.to_vec(), data_offsets: (begin, end) };
            infos.push((format!("{prefix}{}", m.name), info));
        }
        let header = header(&path, infos)?;
        write_atomically(&path, |out| {
            out.put(&header)?;
            let mut bytes = Vec::new();
            matrices.iter().try_for_each(|m| {
                bytes.resize(self.dtype.bytes_for(m.values.len()).expect("floats are no blocks"), 0);
                quant::quantize(self.dtype, m.values, &mut bytes);
                out.put(&bytes)
            })
        })?;
        let last = |m: &AdapterMatrix| m.name.rsplit('.').nth(2).unwrap_or(m.name).to_string();
        let targets: BTreeSet<String> = match self.targets {
            [] => matrices.iter().map(last).collect(),
            named => named.iter().cloned().collect(),
        };
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "target_modules": targets,
            // GPT-2's linears hold their weights as [in, out].
            "fan_in_fan_out": gpt2,
            "bias": "none",
            "use_rslora": false,
            "use_dora": false,
            "rank_pattern": {},
            "alpha_pattern": {},
            "modules_to_save": null,
            "layers_to_transform": null,
            "layers_pattern": null,
            "init_lora_weights": true,
            "inference_mode": true,
            "revision": null,
        });
        write_json(&directory.join("adapter_config.json"), &config)
    }
}
