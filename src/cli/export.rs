//! `staticgrad export`: a checkpoint in another format.

use super::model::{Model, ModelArgs};
use super::output::line;
use crate::error::{Error, Result};
use crate::tensor::DType;
use crate::weights::{Export, ExportFormat};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Options of `export`.
#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Format to write.
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Target,
    /// Element type of the matrices: f32, f16, bf16, q8_0, …, as far as the format has it.
    #[arg(long = "type", value_name = "TYPE", default_value = "f32")]
    dtype: String,
    /// The directory (hf) or file to write.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// A Hugging Face directory.
    Hf,
    /// A GGUF file.
    Gguf,
    /// An llm.c model file (GPT-2 only).
    Llmc,
}

/// Runs the command.
pub fn run(args: &ExportArgs) -> Result<()> {
    let format = match args.to {
        Target::Hf => ExportFormat::HuggingFace,
        Target::Gguf => ExportFormat::Gguf,
        Target::Llmc => ExportFormat::Llmc,
    };
    let names = || format.dtypes().iter().map(|d| d.name()).collect::<Vec<_>>().join(", ");
    let dtype = DType::from_name(&args.dtype)
        .ok_or_else(|| Error::Usage(format!("--type {}: unknown; {} has {}", args.dtype, format.name(), names())))?;
    args.model.keep(&args.out)?;
    let model = Model::open(&args.model)?;
    let (_, checkpoint) = model.checkpoint("export")?;
    let export = Export { config: checkpoint.config(), tokenizer: checkpoint.tokenizer(), format, dtype };
    export.write(&args.out, &mut |part, values| {
        checkpoint.read_rows(part, values)?;
        checkpoint.release(&part.parameter.name);
        Ok(())
    })?;
    line(&format!("wrote {} ({} of {})", args.out.display(), format.name(), dtype.name()));
    Ok(())
}
