//! Run-time scalars of a training graph: two small inputs that the caller fills before a step.

use crate::graph::{Graph, TensorId};
use crate::tensor::{DType, RowExtent, Shape, TensorType};

/// Name of the f32 input.
pub const HYPER: &str = "hyper";
/// Elements of the f32 input.
pub const HYPER_LEN: usize = 4;
/// `hyper`: factor on the loss of every row before it is differentiated (1 / number of targets of the step).
pub const LOSS_SCALE: usize = 0;
/// `hyper`: learning rate of this update.
pub const LEARNING_RATE: usize = 1;
/// `hyper`: largest norm of all gradients together; 0 switches clipping off.
pub const MAX_NORM: usize = 2;
/// `hyper`: whether this run trains (not 0). Without, nothing is dropped and the head computes no gradient.
pub const TRAINING: usize = 3;

/// Name of the i32 input.
pub const COUNTERS: &str = "counters";
/// Elements of the i32 input.
pub const COUNTERS_LEN: usize = 4;
/// `counters`: low half of the seed.
pub const SEED_LOW: usize = 0;
/// `counters`: high half of the seed.
pub const SEED_HIGH: usize = 1;
/// `counters`: number of this update, 1 for the first.
pub const STEP: usize = 2;
/// `counters`: number of the sample in slot 0 among the samples of this update (micro-batches count up).
pub const FIRST_SAMPLE: usize = 3;

/// Type of the f32 input.
pub fn hyper_type() -> TensorType {
    TensorType { dtype: DType::F32, extent: RowExtent::Fixed, shape: Shape::new([HYPER_LEN]) }
}

/// Type of the i32 input.
pub fn counters_type() -> TensorType {
    TensorType { dtype: DType::I32, extent: RowExtent::Fixed, shape: Shape::new([COUNTERS_LEN]) }
}

/// The f32 input of a graph, added when it is not there.
pub fn hyper(graph: &mut Graph) -> TensorId {
    let ty = hyper_type();
    graph.find(HYPER).unwrap_or_else(|| graph.add_input(HYPER, ty.dtype, ty.extent, ty.shape))
}

/// The i32 input of a graph, added when it is not there.
pub fn counters(graph: &mut Graph) -> TensorId {
    let ty = counters_type();
    graph.find(COUNTERS).unwrap_or_else(|| graph.add_input(COUNTERS, ty.dtype, ty.extent, ty.shape))
}

/// Operand `i` is the f32 input.
pub fn is_hyper(operands: &[TensorType], i: usize) -> Result<(), String> {
    super::rule::fixed(operands, i, &[HYPER_LEN])
}

/// Operand `i` is the i32 input.
pub fn is_counters(operands: &[TensorType], i: usize) -> Result<(), String> {
    match operands.get(i) {
        Some(t) if *t == counters_type() => Ok(()),
        Some(t) => Err(format!("operand {i} has type {t}, but {} is expected", counters_type())),
        None => Err(format!("operand {i} is missing")),
    }
}
