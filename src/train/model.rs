//! The trained model as a Hugging Face directory, or the trained adapters as PEFT's.

use super::settings::Adapters;
use crate::error::{Error, Result};
use crate::exec::Trainer;
use crate::graph::{Attr, Graph, Layout};
use crate::tensor::DType;
use crate::weights::{
    AdapterExport, AdapterMatrix, Export, ExportFormat, ModelConfig, Orientation, Parameter, TokenizerSource,
    parameters,
};
use std::path::Path;

/// The configuration of a model made from a spec; `None` when no Hugging Face model computes what the spec says.
pub fn config_of(graph: &Graph) -> Option<ModelConfig> {
    let int = |name: &str| match graph.constants.get(name) {
        Some(Attr::Int(i)) => Some(*i),
        _ => None,
    };
    let float = |name: &str| match graph.constants.get(name) {
        Some(Attr::Float(x)) => Some(*x),
        Some(Attr::Int(i)) => Some(*i as f64),
        _ => None,
    };
    let is = |name: &str| graph.constants.get(name) == Some(&Attr::Bool(true));
    let (v, t, c, h, l, f) = (int("V")?, int("T")?, int("C")?, int("H")?, int("L")?, int("F")?);
    let config = match graph.name.as_str() {
        "gpt2" => ModelConfig::gpt2([v, t, c, h, l, f], float("eps")?, is("tied")),
        "llama" => {
            let dims = [v, t, c, h, int("KV")?, int("D")?, l, f];
            let pad = int("pad").and_then(|token| u32::try_from(token).ok());
            ModelConfig { pad, ..ModelConfig::llama(dims, float("eps")?, float("theta")?, is("tied")) }
        }
        _ => return None,
    };
    let known = parameters(&config).ok()?;
    let same = |p: &Parameter| {
        graph
            .find(&p.name)
            .is_some_and(|t| graph.param(t).is_some() && graph.ty(t).shape == p.shape_as(stored(graph, p)))
    };
    (known.len() == graph.params().count() && known.iter().all(same)).then_some(config)
}

/// Orientation in which the graph stores a parameter.
fn stored(graph: &Graph, parameter: &Parameter) -> Orientation {
    let layout = graph.find(&parameter.name).and_then(|t| graph.param(t)).map_or(Layout::Plain, |p| p.layout);
    if layout == Layout::InOut { Orientation::InOut } else { Orientation::OutIn }
}

/// Writes `config.json`, `model.safetensors` and the tokenizer to `directory`.
///
/// # Errors
/// What the system refuses; a type that safetensors files are not written with.
pub fn export(
    trainer: &Trainer,
    config: &ModelConfig,
    tokenizer: &TokenizerSource,
    dtype: DType,
    directory: &Path,
) -> Result<()> {
    let graph = &trainer.executor().plan().graph;
    let export = Export { config, tokenizer, format: ExportFormat::HuggingFace, dtype };
    export.write(directory, &mut |part, out| {
        let parameter = part.parameter;
        let values = trainer.parameter(&parameter.name).filter(|v| v.len() == parameter.shape.elements());
        let values = values.ok_or_else(|| Error::Weights(format!("the trained model has no '{}'", parameter.name)))?;
        part.copy_from(values, stored(graph, parameter), out);
        Ok(())
    })
}

/// Writes the adapters that a run trains to `directory`, in PEFT's layout; `base` is where the model is that they adapt.
///
/// # Errors
/// What the system refuses.
pub fn export_adapters(
    trainer: &Trainer,
    adapters: &Adapters,
    config: &ModelConfig,
    base: &str,
    dtype: DType,
    directory: &Path,
) -> Result<()> {
    let graph = &trainer.executor().plan().graph;
    let matrices: Vec<AdapterMatrix<'_>> = trainer
        .trained()
        .filter_map(|name| {
            let &[rows, columns] = graph.ty(graph.find(name)?).shape.dims() else { return None };
            Some(AdapterMatrix { name, dims: [rows, columns], values: trainer.parameter(name)? })
        })
        .collect();
    let Adapters { rank, alpha, targets, .. } = adapters;
    AdapterExport { config, base, rank: *rank, alpha: *alpha, targets, dtype }.write(directory, &matrices)
}
