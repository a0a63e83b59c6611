//! Loss and parameter gradients of a batch, as Hugging Face names, shapes and stores the parameters.

use super::eval::Batch;
use crate::error::{Error, Result};
use crate::exec::Trainer;
use crate::graph::{Graph, Layout};
use crate::kernels::softmax::IGNORED_TARGET;
use crate::ops::Capacity;
use crate::passes::{self, Mode, Training};
use crate::plan::compile;
use crate::weights::{Checkpoint, Orientation, Parameter, parameters};

/// Mean loss of a batch with its gradients.
pub struct Gradients {
    /// Mean over the rows with a target, in nats.
    pub loss: f64,
    /// Every parameter with its gradient, in Hugging Face's orientation.
    pub parameters: Vec<(Parameter, Vec<f32>)>,
}

/// Runs forward and backward on the whole batch at once, in f32.
///
/// # Errors
/// A batch without targets; tokens out of range; weights that do not fit the graph.
pub fn gradients(graph: &Graph, checkpoint: &Checkpoint, batch: &Batch, threads: usize) -> Result<Gradients> {
    let count = batch.targets.iter().filter(|&&t| t != IGNORED_TARGET).count();
    if count == 0 {
        return Err(Error::Request("gradients need targets; give 'targets' with at least one that is not -100".into()));
    }
    let list = parameters(checkpoint.config())?;
    checkpoint.refuse_extra(list.iter().map(|p| p.name.as_str()))?;
    let rows = batch.batch * batch.length;
    let capacity = Capacity { slots: batch.batch, context: batch.length, step_rows: rows, wanted_rows: rows };
    let plan = compile(passes::train(graph, &Training::default())?, Mode::Train, capacity)?;
    let mut trainer = Trainer::new(&plan, threads)?;
    let stored = |name: &str| -> Option<Orientation> {
        let info = plan.graph.find(name).and_then(|t| plan.graph.param(t));
        match info.map_or(Layout::Plain, |p| p.layout) {
            Layout::OutIn => Some(Orientation::OutIn),
            Layout::InOut => Some(Orientation::InOut),
            Layout::Plain => None,
        }
    };
    let missing = |name: &str| Error::Weights(format!("the graph has no parameter '{name}'"));
    for p in &list {
        let values = trainer.parameter_mut(&p.name).ok_or_else(|| missing(&p.name))?;
        checkpoint.require(&p.name, &p.shape, p.orientation)?;
        match stored(&p.name) {
            Some(orientation) => checkpoint.read_f32_as(&p.name, orientation, values)?,
            None => checkpoint.read_f32(&p.name, values)?,
        }
    }
    trainer.begin(1);
    trainer.micro_step(&batch.tokens, &batch.targets, 1.0 / count as f32)?;
    let parameters = list
        .into_iter()
        .map(|p| {
            let values = trainer.gradient(&p.name).ok_or_else(|| missing(&p.name))?;
            let values = match (stored(&p.name), p.orientation) {
                (Some(has), Some(wants)) if has != wants => turned(values, p.shape.dims()),
                _ => values.to_vec(),
            };
            Ok((p, values))
        })
        .collect::<Result<_>>()?;
    Ok(Gradients { loss: trainer.loss(), parameters })
}

/// The transpose, which has shape `dims`.
///
/// # Panics
/// When `dims` are not two.
pub fn turned(values: &[f32], dims: &[usize]) -> Vec<f32> {
    let &[rows, columns] = dims else { panic!("a matrix has two dimensions, not {dims:?}") };
    (0..rows * columns).map(|i| values[(i % columns) * rows + i / columns]).collect()
}
