//! `staticgrad merge`: a low-rank adapter into the weights of its base model.

use super::model::{Model, ModelArgs};
use super::output::line;
use crate::disk::keep_input;
use crate::error::{Error, Result};
use crate::tensor::DType;
use crate::weights::{Export, ExportFormat, adapter::Adapter, parameters};
use clap::Args;
use std::path::PathBuf;

/// Options of `merge`.
#[derive(Args)]
pub struct MergeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Directory of the adapter, in PEFT's layout.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// Element type of the merged matrices: f32, f16 or bf16.
    #[arg(long = "type", value_name = "TYPE", default_value = "f32")]
    dtype: String,
    /// The Hugging Face directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &MergeArgs) -> Result<()> {
    let dtype = DType::from_name(&args.dtype)
        .ok_or_else(|| Error::Usage(format!("--type {}: unknown; use f32, f16 or bf16", args.dtype)))?;
    args.model.keep(&args.out)?;
    keep_input(&args.adapter, &args.out)?;
    let model = Model::open(&args.model)?;
    let (_, checkpoint) = model.checkpoint("merge")?;
    let adapter = Adapter::open(&args.adapter)?;
    adapter.check(&parameters(checkpoint.config())?)?;
    let (config, tokenizer) = (checkpoint.config(), checkpoint.tokenizer());
    let export = Export { config, tokenizer, format: ExportFormat::HuggingFace, dtype };
    export.write(&args.out, &mut |part, values| {
        checkpoint.read_rows(part, values)?;
        checkpoint.release(&part.parameter.name);
        adapter.add_to(part, values);
        Ok(())
    })?;
    line(&format!("merged {} linears into {}", adapter.linears(), args.out.display()));
    Ok(())
}
