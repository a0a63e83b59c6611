//! `staticgrad check`: logits, loss and gradients against those of an llm.c debug state.

use super::ThreadArgs;
use super::eval::{self, Batch};
use super::gradients::{gradients, turned};
use super::model::{Model, ModelArgs};
use super::output::line;
use crate::error::{Error, Result};
use crate::weights::{Orientation, debug_state::DebugState};
use clap::Args;
use std::path::PathBuf;

/// Largest norm of the difference over the norm of the reference.
const NORM: f64 = 1e-4;
/// Largest difference of an element over the reference's largest element.
const ELEMENT: f64 = 1e-3;

/// Options of `check`.
#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// llm.c's debug state of the model.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    #[command(flatten)]
    threads: ThreadArgs,
}

/// How far a tensor is off.
struct Off {
    name: String,
    norm: f64,
    element: f64,
}

impl Off {
    fn of(name: impl Into<String>, got: &[f32], want: &[f32]) -> Off {
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (got, want) = (wide(got), wide(want));
        let difference = || got.iter().zip(&want).map(|(a, b)| a - b);
        // A difference that is not a number must not be lost in the maximum.
        let largest = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(0.0, |m: f64, x| if m.is_nan() || x.is_nan() { f64::NAN } else { m.max(x.abs()) })
        };
        let over = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a / b };
        Off {
            name: name.into(),
            norm: over(squares(&mut difference()), squares(&mut want.iter().copied())),
            element: over(largest(&mut difference()), largest(&mut want.iter().copied())),
        }
    }

    fn passes(&self) -> bool {
        self.norm <= NORM && self.element <= ELEMENT
    }
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<()> {
    let threads = args.threads.count()?;
    let model = Model::open(&args.model)?;
    let (graph, checkpoint) = model.checkpoint("check")?;
    let state = DebugState::open(&args.state, checkpoint.config())?;
    let batch = Batch { batch: state.batch, length: state.length, tokens: state.tokens, targets: state.targets };
    let mut logits = Vec::with_capacity(state.logits.len());
    eval::for_each_row(&model, &batch, None, threads, &mut |_, row| {
        logits.extend_from_slice(row);
        Ok(())
    })?;
    let found = gradients(graph, checkpoint, &batch, threads)?;
    let mut table =
        vec![Off::of("logits", &logits, &state.logits), Off::of("loss", &[found.loss as f32], &[state.loss])];
    for (reference, want) in &state.gradients {
        let (p, got) = found
            .parameters
            .iter()
            .find(|(p, _)| p.name == reference.name)
            .ok_or_else(|| Error::Weights(format!("the model has no '{}'", reference.name)))?;
        let name = format!("grad.{}", p.name);
        table.push(match p.orientation {
            Some(Orientation::InOut) => Off::of(name, &turned(got, reference.shape.dims()), want),
            _ => Off::of(name, got, want),
        });
    }
    let width = table.iter().map(|t| t.name.len()).max().unwrap_or(0);
    line(&format!("{:width$}  {:>10}  {:>10}", "tensor", "norm", "element"));
    for t in &table {
        let verdict = if t.passes() { "ok" } else { "OFF" };
        line(&format!("{:width$}  {:>10.2e}  {:>10.2e}  {verdict}", t.name, t.norm, t.element));
    }
    let off = table.iter().filter(|t| !t.passes()).count();
    if off > 0 {
        return Err(Error::Request(format!(
            "{off} of {} tensors are off (relative norm above {NORM:e}, or an element above {ELEMENT:e} of the largest)",
            table.len()
        )));
    }
    line(&format!("all {} tensors agree", table.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_count() {
        assert!(Off::of("same", &[1.0, -2.0], &[1.0, -2.0]).passes());
        assert!(Off::of("zero", &[0.0], &[0.0]).passes());
        assert!(!Off::of("nothing expected", &[1e-9], &[0.0]).passes());
        assert!(!Off::of("norm", &[1.001], &[1.0]).passes());
        let broken = Off::of("not a number", &[f32::NAN, 1.0], &[1.0, 1.0]);
        assert!(!broken.passes() && broken.element.is_nan());
        // One element of very many: the norm alone would let it pass.
        let want = vec![1.0; 1_000_000];
        let mut got = want.clone();
        got[7] = 1.01;
        let off = Off::of("element", &got, &want);
        assert!(off.norm < NORM && !off.passes());
    }
}
