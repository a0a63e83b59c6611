//! Initial parameters, from scratch or from a checkpoint.

use crate::error::{Error, Result};
use crate::exec::Trainer;
use crate::graph::{Init, Layout, TensorId};
use crate::kernels::philox::{Philox, Purpose};
use crate::kernels::quant;
use crate::passes::lora;
use crate::tensor::DType;
use crate::weights::{Checkpoint, Orientation, Parameter};
use rayon::prelude::*;

/// Values that one task draws.
const TASK: usize = 1 << 12;

/// Fills `out` as `init` says. Value `i` of parameter `index` depends on the seed, `index` and `i` alone.
pub fn fill(init: Init, seed: u64, index: u64, out: &mut [f32]) {
    match init {
        Init::Zeros => out.fill(0.0),
        Init::Ones => out.fill(1.0),
        Init::Normal(deviation) => {
            let random = Philox::new(seed).derive(Purpose::Init, index, 0);
            out.par_chunks_mut(TASK).enumerate().for_each(|(task, out)| {
                for (i, value) in out.iter_mut().enumerate() {
                    *value = (deviation * f64::from(random.normal_f32((task * TASK + i) as u64))) as f32;
                }
            });
        }
    }
}

/// Gives every parameter the initial value that its spec asks for.
pub fn initialise(trainer: &mut Trainer, seed: u64) {
    let graph = &trainer.executor().plan().graph;
    for (index, t) in graph.params().enumerate() {
        let init = graph.param(t).expect("it is a parameter").init;
        let out = trainer.parameter_mut(&graph.tensor(t).name).expect("the trainer holds every parameter");
        fill(init, seed, index as u64, out);
    }
}

/// Gives every parameter its value in a checkpoint, dequantised, in the orientation that the graph stores. Adapters, which the checkpoint does
/// not have, get their initial values.
///
/// # Errors
/// A tensor that is missing, extra or of another shape.
pub fn load(trainer: &mut Trainer, checkpoint: &Checkpoint, seed: u64) -> Result<()> {
    let graph = &trainer.executor().plan().graph;
    let (adapters, base): (Vec<TensorId>, Vec<TensorId>) =
        graph.params().partition(|&t| lora::is_adapter(&graph.tensor(t).name));
    for (index, &t) in adapters.iter().enumerate() {
        let init = graph.param(t).expect("it is a parameter").init;
        let out = trainer.parameter_mut(&graph.tensor(t).name).expect("the trainer holds every parameter");
        fill(init, seed, index as u64, out);
    }
    for &t in &base {
        let tensor = graph.tensor(t);
        let orientation = match graph.param(t).expect("it is a parameter").layout {
            Layout::OutIn => Some(Orientation::OutIn),
            Layout::InOut => Some(Orientation::InOut),
            Layout::Plain => None,
        };
        let parameter = Parameter { name: tensor.name.clone(), shape: tensor.ty.shape.clone(), orientation };
        let (dtype, out) = trainer.stored_mut(&tensor.name).expect("the trainer holds every parameter");
        let mut wide = Vec::new();
        for piece in parameter.pieces(orientation.unwrap_or(Orientation::OutIn), 1) {
            let elements = piece.elements();
            let bytes = &mut out[elements.start * dtype.block_bytes()..elements.end * dtype.block_bytes()];
            let values = match dtype {
                DType::F32 => bytemuck::cast_slice_mut(&mut *bytes),
                _ => {
                    wide.resize(elements.len(), 0.0);
                    &mut wide[..]
                }
            };
            checkpoint.read_rows(&piece, values)?;
            checkpoint.release(&tensor.name);
            if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                return Err(Error::Weights(format!("{} holds {bad}; the checkpoint is damaged", tensor.name)));
            }
            if dtype != DType::F32 {
                quant::quantize(dtype, &wide, bytes);
            }
        }
    }
    checkpoint.refuse_extra(base.iter().map(|&t| graph.tensor(t).name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_normal_and_depend_on_seed_and_index() {
        let draw = |seed, index| {
            let mut out = vec![0.0; 10_000];
            fill(Init::Normal(0.02), seed, index, &mut out);
            out
        };
        let values = draw(1, 0);
        let mean = values.iter().sum::<f32>() / 1e4;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 1e4;
        assert!(mean.abs() < 1e-3 && (variance.sqrt() - 0.02).abs() < 1e-3, "{mean} {variance}");
        assert!(values == draw(1, 0) && values != draw(2, 0) && values != draw(1, 1));
        let mut short = vec![0.0; 10];
        fill(Init::Normal(0.02), 1, 0, &mut short);
        assert_eq!(short, values[..10]);
        fill(Init::Ones, 1, 0, &mut short);
        assert_eq!(short, [1.0; 10]);
    }
}
