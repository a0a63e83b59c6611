//! `bench --what types`: what each type of weights costs in quality and brings in speed.

use super::super::model::{Model, ModelArgs};
use super::super::perplexity;
use super::speed::{Speed, Work, measure};
use crate::error::Result;
use std::path::Path;

/// The types in the order of the table.
const TYPES: [&str; 6] = ["f32", "f16", "bf16", "q8_0", "q4_0", "native"];

/// Tokens of the text that count, and rows of a window.
const TOKENS: usize = 8192;
const WINDOW: usize = 512;

/// One type of weights.
pub struct Row {
    /// The word for `--weights-type`.
    pub name: &'static str,
    /// Perplexity on the text, and how many tokens were predicted.
    pub perplexity: f64,
    /// See `perplexity`.
    pub tokens: usize,
    /// Speed of single tokens.
    pub decode: Speed,
    /// Speed of a prompt.
    pub prefill: Speed,
}

/// Measures one type after the other; each is shown when it is ready.
///
/// # Errors
/// A model or a text that does not load; a compiled plan, whose types are fixed.
pub fn run(args: &ModelArgs, text: &Path, threads: usize, repeat: usize, show: &dyn Fn(&Row)) -> Result<()> {
    for name in TYPES {
        let model = Model::open(&ModelArgs { weights_type: name.into(), ..args.clone() })?;
        model.checkpoint("bench --what types")?;
        let window = WINDOW.min(model.context()?);
        let (nats, tokens) = perplexity::of_beginning(&model, text, window, TOKENS, threads)?;
        let decode = measure(&model, Work::Decode(8), threads, repeat, None)?;
        let prefill = measure(&model, Work::Prefill(512), threads, repeat, None)?;
        show(&Row { name, perplexity: (nats / tokens as f64).exp(), tokens, decode, prefill });
    }
    Ok(())
}
