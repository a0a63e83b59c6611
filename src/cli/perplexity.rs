//! `staticgrad perplexity`: how well a model predicts a text, in windows of its context.

use super::ThreadArgs;
use super::eval::cross_entropy;
use super::model::{Model, ModelArgs};
use super::output::line;
use crate::error::{Error, Result};
use crate::exec::{Session, Want};
use crate::ops::Capacity;
use crate::train::TokenSource;
use clap::Args;
use std::path::{Path, PathBuf};

/// Options of `perplexity`.
#[derive(Args)]
pub struct PerplexityArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A text, or a token file (.bin) made with the model's tokenizer.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Rows of a window [default: the model's context].
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// Tokens from one window to the next: what a window shares with the one before is context only [default: half a
    /// window]. A stride of the whole context gives windows that do not overlap; a rest shorter than a window is left out then.
    #[arg(long, value_name = "S")]
    stride: Option<usize>,
    /// Measure the last part of the tokens only, such as 0.1 for the last tenth.
    #[arg(long, value_name = "X")]
    last_fraction: Option<f64>,
    #[command(flatten)]
    threads: ThreadArgs,
}

/// Inputs `[start, start + rows)`; the targets of the rows from `skip` on count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    start: usize,
    rows: usize,
    skip: usize,
}

/// Covers `count` tokens, of which all but the first are targets.
fn windows(count: usize, context: usize, stride: usize) -> Vec<Window> {
    let targets = count.saturating_sub(1);
    let mut list = Vec::new();
    let mut scored = 0;
    let mut start = 0;
    while start + context <= targets {
        list.push(Window { start, rows: context, skip: scored - start });
        scored = start + context;
        start += stride;
    }
    // The rest, with as much context as there is.
    if scored < targets && (stride < context || list.is_empty()) {
        let start = targets.saturating_sub(context);
        list.push(Window { start, rows: targets - start, skip: scored - start });
    }
    list
}

/// Logits that one call keeps at most, in values.
const LOGITS: usize = 1 << 22;
/// Rows of one call at most.
const ROWS: usize = 512;

/// Runs the command.
pub fn run(args: &PerplexityArgs) -> Result<()> {
    let threads = args.threads.count()?;
    let model = Model::open(&args.model)?;
    let most = model.context()?;
    let context = args.context.unwrap_or(most);
    if context == 0 || context > most {
        return Err(Error::Usage(format!("--context {context} must be 1 to {most}, the rows that the model knows")));
    }
    let stride = args.stride.unwrap_or(context.div_ceil(2));
    if stride == 0 || stride > context {
        return Err(Error::Usage(format!("--stride {stride} must be 1 to {context}, the rows of a window")));
    }
    let mut source = TokenSource::open(&args.text, || model.tokenizer())?;
    source.check_vocab_size(model.dim("V")?)?;
    if let Some(fraction) = args.last_fraction {
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(Error::Usage(format!("--last-fraction {fraction} must be above 0 and at most 1")));
        }
        let all = (0..source.len()).map(|i| source.get(i)).collect();
        let too_short = || Error::file(&args.text, format!("--last-fraction {fraction} of it holds no tokens"));
        source = TokenSource::from_tokens(&args.text, all).split_validation(fraction).ok_or_else(too_short)?;
    }
    let list = windows(source.len(), context, stride);
    if list.is_empty() {
        return Err(Error::file(&args.text, format!("{} tokens are too few: nothing follows the first", source.len())));
    }
    let tokens: Vec<i32> = (0..source.len()).map(|i| source.get(i) as i32).collect();
    let (nats, count) = total(&model, &tokens, &list, threads)?;
    let mean = nats / count as f64;
    line(&format!(
        "{} windows of {context} tokens, stride {stride}; {count} of {} tokens",
        list.len(),
        tokens.len() - 1
    ));
    line(&format!("nats per token  {mean:.6}"));
    line(&format!("perplexity      {:.6}", mean.exp()));
    if let Ok(tokenizer) = model.tokenizer() {
        let mut bytes = 0;
        for w in &list {
            for &token in &tokens[w.start + w.skip + 1..=w.start + w.rows] {
                let special = tokenizer.is_special(token as u32);
                bytes += if special { 0 } else { tokenizer.token_bytes(token as u32)?.len() };
            }
        }
        if bytes > 0 {
            line(&format!("bits per byte   {:.6}", nats / std::f64::consts::LN_2 / bytes as f64));
        }
    }
    Ok(())
}

/// Sum of the losses in nats, and their number, of the first `count` tokens of a text in windows of `context` rows that do not overlap.
///
/// # Errors
/// A text that does not load or is shorter than two tokens.
pub fn of_beginning(model: &Model, text: &Path, context: usize, count: usize, threads: usize) -> Result<(f64, usize)> {
    let source = TokenSource::open(text, || model.tokenizer())?;
    source.check_vocab_size(model.dim("V")?)?;
    let tokens: Vec<i32> = (0..source.len().min(count + 1)).map(|i| source.get(i) as i32).collect();
    let list = windows(tokens.len(), context, context);
    if list.is_empty() {
        return Err(Error::file(text, format!("{} tokens are too few: nothing follows the first", tokens.len())));
    }
    total(model, &tokens, &list, threads)
}

/// Sum of the losses of all counted targets, in nats, and their number.
fn total(model: &Model, tokens: &[i32], list: &[Window], threads: usize) -> Result<(f64, usize)> {
    let vocabulary = model.dim("V")?;
    let context = list.iter().map(|w| w.rows).max().unwrap_or(1);
    let rows = (LOGITS / vocabulary).clamp(16, ROWS);
    let slots = (rows / context).clamp(1, list.len());
    let rows = rows.min(slots * context);
    let plan = model.plan(Capacity { slots, context, step_rows: rows, wanted_rows: rows })?;
    let store = model.store(&plan)?;
    let mut session = Session::new(&plan, threads, &|name| store.get(name))?;
    let (slots, rows) = (plan.capacity.slots, plan.capacity.step_rows.min(plan.capacity.wanted_rows));
    let slots = slots.min(rows);
    let (mut nats, mut count) = (0.0, 0);
    // Windows of one shape advance together, one slot each.
    for alike in list.chunk_by(|a, b| (a.rows, a.skip) == (b.rows, b.skip)) {
        for group in alike.chunks(slots) {
            (0..group.len()).for_each(|slot| session.truncate(slot, 0));
            let (length, skip) = (group[0].rows, group[0].skip);
            let each = rows / group.len();
            let mut done = 0;
            while done < length {
                let end = (done + each).min(if done < skip { skip } else { length });
                let part = |w: &Window| &tokens[w.start + done..w.start + end];
                let parts: Vec<(usize, &[i32])> = group.iter().map(part).enumerate().collect();
                let wanted = end > skip;
                session.run(&parts, if wanted { Want::All } else { Want::None })?;
                if wanted {
                    let targets = group.iter().flat_map(|w| &tokens[w.start + done + 1..=w.start + end]);
                    for (i, &target) in targets.enumerate() {
                        nats += cross_entropy(session.logits(i), target as usize);
                        count += 1;
                    }
                }
                done = end;
            }
        }
    }
    Ok((nats, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_counts_once() {
        for count in 2..40 {
            for context in 1..12 {
                for stride in 1..=context {
                    let mut seen = vec![0; count];
                    for w in windows(count, context, stride) {
                        assert!(w.rows <= context && w.start + w.rows < count, "{w:?}");
                        seen[w.start + w.skip + 1..=w.start + w.rows].iter_mut().for_each(|n| *n += 1);
                    }
                    assert_eq!(seen[0], 0, "nothing predicts the first token");
                    let whole =
                        if stride == context && count > context { (count - 1) / context * context } else { count - 1 };
                    assert!(seen[1..=whole].iter().all(|&n| n == 1), "{count} {context} {stride}: {seen:?}");
                    assert!(seen[whole + 1..].iter().all(|&n| n == 0), "{count} {context} {stride}: {seen:?}");
                }
            }
        }
        assert!(windows(1, 4, 2).is_empty() && windows(0, 4, 2).is_empty());
    }
}
