//! `staticgrad tokenize`: text files to token files.

use super::output::line;
use crate::error::Result;
use crate::text::Tokenizer;
use crate::train::{TokenizeOptions, tokenize};
use clap::Args;
use std::path::PathBuf;

/// Options of `tokenize`.
#[derive(Args)]
pub struct TokenizeArgs {
    /// Text files, in order.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// gpt2, bytes, or the path of a tokenizer or model.
    #[arg(long, value_name = "NAME|PATH", default_value = "gpt2")]
    tokenizer: String,
    /// Share of the tokens, from the end, that goes into the validation file beside OUT.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    val_fraction: f64,
    /// Put the end-of-text token before every section that blank lines separate, not just before every file (as llm.c prepares
    /// Tiny Shakespeare).
    #[arg(long)]
    sections: bool,
    /// The token file to write (llm.c's format).
    #[arg(short, long, value_name = "FILE.bin")]
    output: PathBuf,
}

/// Runs the command.
pub fn run(args: &TokenizeArgs) -> Result<()> {
    let options = TokenizeOptions { val_fraction: args.val_fraction, sections: args.sections };
    let report = tokenize(&args.files, &Tokenizer::named(&args.tokenizer)?, options, &args.output)?;
    for (path, tokens) in std::iter::once(report.train).chain(report.validation) {
        line(&format!("{}: {tokens} tokens", path.display()));
    }
    Ok(())
}
