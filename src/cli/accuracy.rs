//! `staticgrad accuracy`: multiple-choice questions in llm.c's eval format (HellaSwag and alike).

use super::ThreadArgs;
use super::eval::cross_entropy;
use super::model::{Model, ModelArgs};
use super::output::line;
use crate::error::{Error, Result};
use crate::exec::{Session, Want};
use crate::ops::Capacity;
use crate::train::{EvalFile, Example};
use clap::Args;
use std::path::PathBuf;

/// Options of `accuracy`.
#[derive(Args)]
pub struct AccuracyArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Questions in llm.c's multiple-choice format.
    #[arg(long, value_name = "FILE.bin")]
    data: PathBuf,
    /// Answer the first N questions only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    threads: ThreadArgs,
}

/// Rows of one call at most.
const ROWS: usize = 64;

/// Runs the command.
pub fn run(args: &AccuracyArgs) -> Result<()> {
    let threads = args.threads.count()?;
    let mut file = EvalFile::open(&args.data)?;
    file.examples.truncate(args.limit.unwrap_or(usize::MAX));
    if file.examples.is_empty() {
        return Err(Error::file(&args.data, "there are no questions to answer"));
    }
    let model = Model::open(&args.model)?;
    file.check_vocab_size(&args.data, model.dim("V")?)?;
    let (longest, most) = (file.longest(), model.context()?);
    if longest > most {
        let message = format!("a question with an ending has {longest} tokens, more than the context of {most} rows");
        return Err(Error::file(&args.data, message));
    }
    let rows = ROWS.min(longest);
    let plan = model.plan(Capacity { slots: 1, context: longest, step_rows: rows, wanted_rows: rows })?;
    let store = model.store(&plan)?;
    let mut session = Session::new(&plan, threads, &|name| store.get(name))?;
    let (mut right, mut right_by_mean) = (0, 0);
    for example in &file.examples {
        let losses = ending_losses(&mut session, example)?;
        let best = |loss: &dyn Fn(usize) -> f64| {
            (0..losses.len()).min_by(|&a, &b| loss(a).total_cmp(&loss(b))).expect("a question has endings")
        };
        right += usize::from(best(&|i| losses[i]) == example.label);
        right_by_mean += usize::from(best(&|i| losses[i] / example.endings[i].len() as f64) == example.label);
    }
    let total = file.examples.len();
    for (what, n) in [("accuracy", right), ("accuracy, loss per token", right_by_mean)] {
        line(&format!("{what:<26}{n}/{total} = {:.4}", n as f64 / total as f64));
    }
    Ok(())
}

/// Sum of the losses of each ending's tokens, in nats. The context is computed once.
fn ending_losses(session: &mut Session, example: &Example) -> Result<Vec<f64>> {
    let signed = |tokens: &[u32]| tokens.iter().map(|&t| t as i32).collect::<Vec<_>>();
    session.advance_to(0, &signed(&example.context))?;
    let first: Vec<f64> = example.endings.iter().map(|e| cross_entropy(session.logits(0), e[0] as usize)).collect();
    let capacity = session.executor().plan().capacity;
    let rows = capacity.step_rows.min(capacity.wanted_rows);
    let mut losses = Vec::with_capacity(first.len());
    for (ending, mut loss) in example.endings.iter().zip(first) {
        session.truncate(0, example.context.len());
        let (inputs, targets) = (signed(&ending[..ending.len() - 1]), &ending[1..]);
        for (inputs, targets) in inputs.chunks(rows).zip(targets.chunks(rows)) {
            session.run(&[(0, inputs)], Want::All)?;
            loss += (0..inputs.len()).map(|i| cross_entropy(session.logits(i), targets[i] as usize)).sum::<f64>();
        }
        losses.push(loss);
    }
    Ok(losses)
}
