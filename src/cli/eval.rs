//! `staticgrad eval`: logits and loss of given tokens.

use super::ThreadArgs;
use super::gradients::gradients;
use super::model::{Model, ModelArgs};
use super::output::line;
use crate::disk::{keep_input, write_atomically};
use crate::error::{Error, Result};
use crate::exec::{Session, Want};
use crate::kernels::softmax::IGNORED_TARGET;
use crate::ops::Capacity;
use byteorder::{LittleEndian, WriteBytesExt};
use clap::Args;
use safetensors::tensor::{Dtype, SafeTensors};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of `eval`.
#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A safetensors file with `tokens` i32 [B, S] and optionally `targets`, of the same shape; −100 is ignored.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// Gets `logits` f32 [B, S, V] and, with targets, `loss` f32 [1].
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Add the gradient of the loss for every parameter as `grad.NAME`, named, shaped and oriented as Hugging Face does.
    #[arg(long)]
    grads: bool,
    /// Rows that one call computes [default: 128, or what a plan computes].
    #[arg(long, value_name = "N")]
    step_rows: Option<usize>,
    #[command(flatten)]
    threads: ThreadArgs,
}

/// Rows of a call when neither the command line nor a plan says.
const STEP_ROWS: usize = 128;

/// Tokens of `B` sequences of `S`.
pub struct Batch {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub length: usize,
    /// Row by row.
    pub tokens: Vec<i32>,
    /// What follows each token, or −100; empty without.
    pub targets: Vec<i32>,
}

impl Batch {
    /// Reads `tokens` and `targets`.
    ///
    /// # Errors
    /// A malformed file, a missing or mistyped tensor.
    pub fn read(path: &Path) -> Result<Batch> {
        let file = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
        let tensors = SafeTensors::deserialize(&file)
            .map_err(|e| Error::file(path, format!("is not a safetensors file: {e}")))?;
        let read = |name: &str| -> Result<(Vec<usize>, Vec<i32>)> {
            let t = tensors.tensor(name).map_err(|_| Error::file(path, format!("has no tensor '{name}'")))?;
            if t.dtype() != Dtype::I32 || t.shape().len() != 2 || t.shape().contains(&0) {
                let message = format!("'{name}' is {:?} {:?}; i32 [B, S] is expected", t.dtype(), t.shape());
                return Err(Error::file(path, message));
            }
            let values = t.data().chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            Ok((t.shape().to_vec(), values))
        };
        let (shape, tokens) = read("tokens")?;
        let targets = if tensors.names().contains(&"targets") {
            let (other, targets) = read("targets")?;
            if other != shape {
                return Err(Error::file(
                    path,
                    format!("'targets' has shape {other:?} and 'tokens' {shape:?}; they must agree"),
                ));
            }
            targets
        } else {
            Vec::new()
        };
        Ok(Batch { batch: shape[0], length: shape[1], tokens, targets })
    }

    /// Checks that the model knows all tokens and targets, and that there is a loss if there are targets; `path` is for messages.
    fn check(&self, path: &Path, vocabulary: usize) -> Result<()> {
        let known = |t: i32| usize::try_from(t).is_ok_and(|t| t < vocabulary);
        let token = self.tokens.iter().position(|&t| !known(t)).map(|i| ("token", self.tokens[i], i));
        let target =
            self.targets.iter().position(|&t| t != IGNORED_TARGET && !known(t)).map(|i| ("target", self.targets[i], i));
        if let Some((what, bad, at)) = token.or(target) {
            let message = format!("{what} {bad} is out of range, at index {at}: the model knows 0..{vocabulary}");
            return Err(Error::file(path, message));
        }
        if !self.targets.is_empty() && self.targets.iter().all(|&t| t == IGNORED_TARGET) {
            return Err(Error::file(path, "all 'targets' are -100, so there is no loss; leave them out, or give one"));
        }
        Ok(())
    }

    /// Checks that the sequences fit a context of `context` rows.
    fn check_length(&self, context: usize) -> Result<()> {
        if self.length > context {
            let length = self.length;
            return Err(Error::Request(format!("sequences of {length} tokens exceed the context of {context} rows")));
        }
        Ok(())
    }
}

/// −log softmax(logits)[target], in f64.
pub fn cross_entropy(logits: &[f32], target: usize) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let total: f64 = logits.iter().map(|&x| (x as f64 - top).exp()).sum();
    top + total.ln() - logits[target] as f64
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<()> {
    if args.step_rows == Some(0) {
        return Err(Error::Usage("--step-rows 0: must be at least 1".into()));
    }
    let threads = args.threads.count()?;
    keep_input(&args.tokens, &args.out)?;
    args.model.keep(&args.out)?;
    let batch = Batch::read(&args.tokens)?;
    let model = Model::open(&args.model)?;
    let vocabulary = model.logits_width()?;
    batch.check(&args.tokens, vocabulary)?;
    batch.check_length(model.context()?)?;
    let mut loss = 0.0;
    let mut counted = 0usize;
    write_atomically(&args.out, |out| {
        let fail = |e| Error::io(&args.out, "write", e);
        let gradients = match args.grads {
            true => {
                let (graph, checkpoint) = model.checkpoint("--grads")?;
                gradients(graph, checkpoint, &batch, threads)?.parameters
            }
            false => Vec::new(),
        };
        let mut tensors = vec![("logits".to_string(), vec![batch.batch, batch.length, vocabulary])];
        if !batch.targets.is_empty() {
            tensors.push(("loss".into(), vec![1]));
        }
        tensors.extend(gradients.iter().map(|(p, _)| (format!("grad.{}", p.name), p.shape.dims().to_vec())));
        write_header(out, &tensors).map_err(fail)?;
        for_each_row(&model, &batch, args.step_rows, threads, &mut |row, logits| {
            if let Some(&target) = batch.targets.get(row)
                && target != IGNORED_TARGET
            {
                loss += cross_entropy(logits, target as usize);
                counted += 1;
            }
            logits.iter().try_for_each(|&x| out.write_f32::<LittleEndian>(x)).map_err(fail)
        })?;
        if !batch.targets.is_empty() {
            loss /= counted as f64;
            out.write_f32::<LittleEndian>(loss as f32).map_err(fail)?;
        }
        let mut values = gradients.iter().flat_map(|(_, values)| values);
        values.try_for_each(|&x| out.write_f32::<LittleEndian>(x)).map_err(fail)
    })?;
    if !batch.targets.is_empty() {
        line(&format!("loss {loss:.6} over {counted} targets"));
    }
    Ok(())
}

/// Computes the logits of every row of a batch, sequence by sequence, and hands them over with the number of the row.
///
/// # Errors
/// Sequences longer than the context, more rows a call than a plan computes, tokens out of range, what `each` returns.
pub fn for_each_row(
    model: &Model,
    batch: &Batch,
    step_rows: Option<usize>,
    threads: usize,
    each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    batch.check_length(model.context()?)?;
    let step_rows = match (step_rows, model.capacity()) {
        (Some(n), Some(c)) if n > c.step_rows => {
            return Err(Error::Request(format!(
                "--step-rows {n} exceeds the {} rows that the plan computes in a call; lower it, or compile with --step-rows {n}",
                c.step_rows
            )));
        }
        (Some(n), _) => n,
        (None, Some(c)) => c.step_rows,
        (None, None) => STEP_ROWS,
    };
    let step_rows = step_rows.min(batch.length);
    let plan = model.plan(Capacity { slots: 1, context: batch.length, step_rows, wanted_rows: step_rows })?;
    let store = model.store(&plan)?;
    let mut session = Session::new(&plan, threads, &|name| store.get(name))?;
    let rows_per_call = plan.capacity.wanted_rows.min(step_rows);
    let mut row = 0;
    for tokens in batch.tokens.chunks(batch.length) {
        session.truncate(0, 0);
        for part in tokens.chunks(rows_per_call) {
            session.run(&[(0, part)], Want::All)?;
            for i in 0..part.len() {
                each(row, session.logits(i))?;
                row += 1;
            }
        }
    }
    Ok(())
}

/// The safetensors header of f32 tensors whose values follow in the same order.
fn write_header(out: &mut impl Write, tensors: &[(String, Vec<usize>)]) -> std::io::Result<()> {
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut text = serde_json::Value::Object(header).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    out.write_u64::<LittleEndian>(text.len() as u64)?;
    out.write_all(text.as_bytes())
}
