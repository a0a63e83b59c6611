//! From a lowered graph to the buffers it needs: sizes, kinds, lifespans.

use super::ALIGN;
use crate::error::{Error, Result};
use crate::graph::{Graph, Section, TensorId, TensorKind};
use crate::ops::{self, Capacity};
use crate::passes::{Mode, alias::Aliases};
use crate::tensor::{RowExtent, TensorType};
use serde::{Deserialize, Serialize};

/// What a buffer holds, for dumps and for choosing its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BufferKind {
    /// Tokens, targets, hyperparameters: written by the caller.
    Input,
    /// Parameters of a training plan.
    Parameter,
    /// Moments, accumulated gradients.
    State,
    /// Rows kept between calls (keys, values; everything in the full layout).
    Kept,
    /// An activation read by forward nodes only.
    Activation,
    /// An activation or statistic that backward reads.
    Saved,
    /// Gradient of an activation.
    ActivationGradient,
    /// Gradient of a parameter.
    ParameterGradient,
    /// Result of a recomputed node.
    Recomputed,
    /// Needed by one node while it runs.
    Scratch,
}

impl BufferKind {
    /// Whether the buffer lives from call to call.
    pub const fn is_persistent(self) -> bool {
        matches!(self, BufferKind::Input | BufferKind::Parameter | BufferKind::State | BufferKind::Kept)
    }

    /// Name in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            BufferKind::Input => "input",
            BufferKind::Parameter => "parameter",
            BufferKind::State => "state",
            BufferKind::Kept => "kept",
            BufferKind::Activation => "activation",
            BufferKind::Saved => "saved",
            BufferKind::ActivationGradient => "activation gradient",
            BufferKind::ParameterGradient => "parameter gradient",
            BufferKind::Recomputed => "recomputed",
            BufferKind::Scratch => "scratch",
        }
    }
}

/// A planned allocation. Offsets and sizes in bytes; the lifespan is half-open, in schedule steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanBuffer {
    /// Name of the first tensor that lives in it, or of the node whose scratch it is.
    pub name: String,
    /// What it holds.
    pub kind: BufferKind,
    /// First step that uses it.
    pub lower: u32,
    /// One past the last step that uses it.
    pub upper: u32,
    /// Bytes.
    pub size: u64,
    /// Where it starts in the arena.
    pub offset: u64,
}

/// Buffers of a graph, before placement.
pub(super) struct Layout {
    pub buffers: Vec<PlanBuffer>,
    pub tensor_buffer: Vec<Option<u32>>,
    pub node_scratch: Vec<Option<u32>>,
    pub scratch_per_worker: u64,
}

/// Rows that a tensor of this extent has room for.
pub fn capacity_rows(extent: RowExtent, capacity: &Capacity) -> usize {
    match extent {
        RowExtent::Fixed => 1,
        RowExtent::Step => capacity.step_rows,
        RowExtent::Wanted => capacity.wanted_rows,
        RowExtent::Kept => capacity.slots.saturating_mul(capacity.context),
    }
}

/// Bytes of a tensor at full capacity.
///
/// # Errors
/// On overflow.
pub fn tensor_bytes(ty: &TensorType, capacity: &Capacity) -> Result<u64> {
    let overflow =
        || Error::Plan(format!("a tensor of type {ty} overflows the address space; ask for fewer rows or sequences"));
    let elements = ty.shape.checked_elements().and_then(|n| n.checked_mul(capacity_rows(ty.extent, capacity)));
    let bytes = elements.and_then(|n| ty.dtype.bytes_for(n)).ok_or_else(overflow)?;
    if bytes as u64 > 1 << 46 { Err(overflow()) } else { Ok(bytes as u64) }
}

/// The tensor at the root of an alias chain.
pub(super) fn root(aliases: &Aliases, mut t: TensorId) -> TensorId {
    while let Some(next) = aliases[t.index()] {
        t = next;
    }
    t
}

/// Buffers, lifespans and scratch of a lowered graph.
///
/// # Errors
/// Sizes that overflow.
pub(super) fn layout(graph: &Graph, mode: Mode, capacity: &Capacity, aliases: &Aliases) -> Result<Layout> {
    let steps = graph.nodes.len().max(1) as u32;
    let mut buffers: Vec<PlanBuffer> = Vec::new();
    let mut tensor_buffer: Vec<Option<u32>> = vec![None; graph.tensors.len()];
    let saved = read_after_forward(graph);
    for t in graph.tensor_ids() {
        let tensor = graph.tensor(t);
        if root(aliases, t) != t || (matches!(tensor.kind, TensorKind::Param(_)) && mode != Mode::Train) {
            continue;
        }
        let (lower, upper) = match tensor.kind {
            TensorKind::Value(n) if tensor.ty.extent != RowExtent::Kept => (n.0, n.0 + 1),
            _ => (0, steps),
        };
        tensor_buffer[t.index()] = Some(buffers.len() as u32);
        let kind = kind_of(graph, t, saved[t.index()]);
        buffers.push(PlanBuffer {
            name: tensor.name.clone(),
            kind,
            lower,
            upper,
            size: tensor_bytes(&tensor.ty, capacity)?,
            offset: 0,
        });
    }
    for t in graph.tensor_ids() {
        let r = root(aliases, t);
        tensor_buffer[t.index()] = tensor_buffer[r.index()];
    }
    let mut extend = |t: TensorId, step: u32| {
        if let Some(b) = tensor_buffer[t.index()] {
            let b = &mut buffers[b as usize];
            b.upper = b.upper.max(step + 1);
        }
    };
    for (n, node) in graph.nodes.iter().enumerate() {
        node.operands.iter().chain(&node.outputs).for_each(|&t| extend(t, n as u32));
    }
    graph.outputs.iter().for_each(|&(_, t)| extend(t, steps - 1));
    let mut node_scratch = vec![None; graph.nodes.len()];
    let mut scratch_per_worker = 0;
    for (n, node) in graph.nodes.iter().enumerate() {
        let op = ops::find(&node.op).ok_or_else(|| Error::Plan(format!("unknown op '{}' in the graph", node.op)))?;
        let kernel = op.kernel(&ops::build::signature(graph, node)).map_err(|message| Error::Shape {
            op: node.op.clone(),
            node: node.name.clone(),
            message,
        })?;
        let scratch = kernel.scratch(capacity);
        scratch_per_worker = u64::max(scratch_per_worker, (scratch.per_worker as u64).next_multiple_of(ALIGN));
        if scratch.shared > 0 {
            node_scratch[n] = Some(buffers.len() as u32);
            let (lower, upper) = (n as u32, n as u32 + 1);
            let size = scratch.shared as u64;
            buffers.push(PlanBuffer {
                name: node.name.clone(),
                kind: BufferKind::Scratch,
                lower,
                upper,
                size,
                offset: 0,
            });
        }
    }
    Ok(Layout { buffers, tensor_buffer, node_scratch, scratch_per_worker })
}

/// For each tensor, whether a node of backward or of the optimiser reads it.
fn read_after_forward(graph: &Graph) -> Vec<bool> {
    let mut read = vec![false; graph.tensors.len()];
    for node in graph.nodes.iter().filter(|n| n.section != Section::Forward) {
        node.operands.iter().for_each(|t| read[t.index()] = true);
    }
    read
}

fn kind_of(graph: &Graph, t: TensorId, saved: bool) -> BufferKind {
    let tensor = graph.tensor(t);
    let n = match tensor.kind {
        TensorKind::Input => return BufferKind::Input,
        TensorKind::Param(_) => return BufferKind::Parameter,
        TensorKind::State => return BufferKind::State,
        TensorKind::Value(n) => n,
    };
    let node = graph.node(n);
    if tensor.ty.extent == RowExtent::Kept {
        return BufferKind::Kept;
    }
    match node.section {
        _ if node.recomputed => BufferKind::Recomputed,
        // The head computes its weight's gradient while it has the logits.
        Section::Forward if tensor.ty.extent == RowExtent::Fixed => BufferKind::ParameterGradient,
        Section::Forward if saved => BufferKind::Saved,
        Section::Forward => BufferKind::Activation,
        _ if tensor.ty.extent == RowExtent::Fixed => BufferKind::ParameterGradient,
        _ => BufferKind::ActivationGradient,
    }
}
