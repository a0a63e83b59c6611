//! Resolving a plan against an arena and parameters, once at start-up.

use super::arena::{Arena, BoundNode, LiveRows, Place, ScratchSlot, Set, Slot};
use crate::error::{Error, Result};
use crate::graph::{Layout, RowSpace, TensorId};
use crate::kernels::param::Param;
use crate::ops::{self, Kernel, RowSet};
use crate::passes::storage;
use crate::plan::{BufferKind, Plan, buffers::capacity_rows};
use crate::tensor::{DType, RowExtent, Shape};
use std::collections::HashSet;
use std::ops::Range;

/// Zeroes inputs, states and parameters. Kept rows are written before they are read, so their pages stay untouched until used.
pub(super) fn clear_persistent(plan: &Plan, arena: &mut Arena) {
    for b in plan.buffers.iter().filter(|b| b.kind.is_persistent() && b.kind != BufferKind::Kept) {
        arena.fill(b.offset, b.size, 0);
    }
}

/// One executable form per node.
pub(super) fn kernels(plan: &Plan) -> Result<Vec<Box<dyn Kernel>>> {
    let build = |node: &crate::graph::Node| {
        let op = ops::find(&node.op).expect("the plan was verified");
        let refuse = |message| Error::Shape { op: node.op.clone(), node: node.name.clone(), message };
        let mut kernel = op.kernel(&ops::build::signature(&plan.graph, node)).map_err(refuse)?;
        kernel.prepare(&plan.capacity);
        Ok(kernel)
    };
    plan.graph.nodes.iter().map(build).collect()
}

/// Runs of nodes that run as one phase: nodes of one phase on fixed operands (so that rows do not change their tiles), without results or shared
/// scratch (so that no buffer begins to live within the run), none of which reads or updates what another one updates. These are the updates of
/// parameters, most of which are too small for several workers.
pub(super) fn runs(plan: &Plan, kernels: &[Box<dyn Kernel>]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::with_capacity(kernels.len());
    // Whether the last run takes more nodes; the buffers that it reads, and those that it updates.
    let (mut open, mut read, mut updated) = (false, HashSet::new(), HashSet::new());
    for (n, node) in plan.graph.nodes.iter().enumerate() {
        let op = ops::find(&node.op).expect("the plan was verified");
        let signature = ops::build::signature(&plan.graph, node);
        let fixed = node.operands.iter().all(|t| plan.graph.ty(*t).extent == RowExtent::Fixed);
        let alone = !fixed || !node.outputs.is_empty() || kernels[n].phases() != 1 || plan.node_scratch[n].is_some();
        let buffers = |updates: bool| {
            let operands = node.operands.iter().enumerate().filter(|(i, _)| op.mutates(&signature, *i) == updates);
            operands.filter_map(|(_, t)| plan.tensor_buffer[t.index()]).collect::<HashSet<u32>>()
        };
        let (reads, updates) = (buffers(false), buffers(true));
        let apart = updates.is_disjoint(&read) && updates.is_disjoint(&updated) && reads.is_disjoint(&updated);
        match runs.last_mut() {
            Some(run) if open && !alone && apart => run.end = n + 1,
            _ => {
                runs.push(n..n + 1);
                (read, updated) = (HashSet::new(), HashSet::new());
            }
        }
        open = !alone;
        read.extend(reads);
        updated.extend(updates);
    }
    runs
}

/// Row sets with room for the plan's capacity.
pub(super) fn row_sets(plan: &Plan) -> LiveRows {
    let c = &plan.capacity;
    let all =
        if plan.mode == crate::passes::Mode::Infer(crate::passes::Layout::Full) { c.slots * c.context } else { 0 };
    LiveRows {
        new: RowSet::with_capacity(c.step_rows),
        wanted: RowSet::with_capacity(c.wanted_rows),
        wanted_in_step: Vec::with_capacity(c.wanted_rows),
        all: RowSet::with_capacity(all),
        track_all: all > 0,
    }
}

/// Every node with its operands' addresses.
pub(super) fn nodes<'w>(
    plan: &Plan,
    arena: &Arena,
    param: &dyn Fn(&str) -> Option<Param<'w>>,
) -> Result<Vec<BoundNode<'w>>> {
    let slots: Vec<Slot> = plan.graph.tensor_ids().map(|t| slot(plan, arena, param, t)).collect::<Result<_>>()?;
    let bound = plan.graph.nodes.iter().enumerate().map(|(n, node)| {
        let shared = plan.node_scratch[n].map_or(ScratchSlot { ptr: std::ptr::null_mut(), len: 0 }, |b| {
            let b = &plan.buffers[b as usize];
            ScratchSlot { ptr: arena.at(b.offset, b.size), len: b.size as usize }
        });
        let mut in_place = Vec::new();
        for (o, output) in node.outputs.iter().enumerate() {
            for (i, operand) in node.operands.iter().enumerate() {
                if plan.aliases[output.index()] == Some(*operand) {
                    in_place.push((i, o));
                }
            }
        }
        BoundNode {
            operands: node.operands.iter().map(|t| slots[t.index()]).collect(),
            outputs: node.outputs.iter().map(|t| slots[t.index()]).collect(),
            shared,
            in_place,
            set: if node.space == RowSpace::Wanted { Set::Wanted } else { Set::New },
        }
    });
    Ok(bound.collect())
}

fn slot<'w>(plan: &Plan, arena: &Arena, param: &dyn Fn(&str) -> Option<Param<'w>>, t: TensorId) -> Result<Slot<'w>> {
    let tensor = plan.graph.tensor(t);
    let place = match plan.tensor_buffer[t.index()] {
        Some(b) => {
            let b = &plan.buffers[b as usize];
            Place::Arena(arena.at(b.offset, b.size))
        }
        None => Place::Param(external(plan, t, param)?),
    };
    Ok(Slot {
        place,
        dtype: tensor.ty.dtype,
        extent: tensor.ty.extent,
        capacity: capacity_rows(tensor.ty.extent, &plan.capacity),
        width: tensor.ty.shape.elements(),
        last: tensor.ty.shape.dims().last().copied().unwrap_or(1),
    })
}

/// The parameter behind a tensor that has no buffer, after comparing shapes.
fn external<'w>(plan: &Plan, t: TensorId, param: &dyn Fn(&str) -> Option<Param<'w>>) -> Result<Param<'w>> {
    let tensor = plan.graph.tensor(t);
    debug_assert!(tensor.ty.extent == RowExtent::Fixed);
    let found = param(&tensor.name).ok_or_else(|| Error::Weights(format!("parameter {} is missing", tensor.name)))?;
    let layout = plan.graph.param(t).map_or(Layout::Plain, |p| p.layout);
    let dims = tensor.ty.shape.dims();
    let fits = match (&found, layout, dims) {
        (Param::Packed(m), Layout::OutIn, &[n, k]) | (Param::Packed(m), Layout::InOut, &[k, n]) => {
            m.n() == n && m.k() == k && storage::is_read_as(&plan.graph, t, "packed")
        }
        (Param::Packed(_), ..) => false,
        (Param::Plain(values), ..) => {
            let readable = layout == Layout::Plain || storage::is_read_as(&plan.graph, t, "plain");
            readable && tensor.ty.dtype == DType::F32 && values.len() == tensor.ty.shape.elements()
        }
        (Param::PlainBf16(values), ..) => {
            let readable = tensor.ty.dtype == DType::BF16 && storage::is_read_as(&plan.graph, t, "plain");
            readable && values.len() == tensor.ty.shape.elements()
        }
    };
    if fits {
        return Ok(found);
    }
    let has = match found {
        Param::Packed(m) => format!("a packed matrix {}", Shape::new([m.n(), m.k()])),
        Param::Plain(values) => format!("{} plain values", values.len()),
        Param::PlainBf16(values) => format!("{} plain bf16 values", values.len()),
    };
    Err(Error::Weights(format!(
        "parameter {} has shape {} in the plan, but the weights hold {has}",
        tensor.name, tensor.ty.shape
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attr, Attrs, Graph, Section, TensorKind};
    use crate::ops::{Capacity, hyper};
    use crate::passes::Mode;
    use crate::plan;

    /// Lengths of the runs of updates of states that stand for parameters; each reads the gradient of the number given, and clears it.
    fn runs_of(gradients: &[usize]) -> Vec<usize> {
        let mut graph = Graph::new("updates");
        let (hyper, counters) = (hyper::hyper(&mut graph), hyper::counters(&mut graph));
        let state = |graph: &mut Graph, name: String| {
            let ty =
                crate::tensor::TensorType { dtype: DType::F32, extent: RowExtent::Fixed, shape: Shape::new([100]) };
            graph.add_tensor(name, ty, TensorKind::State)
        };
        let sums: Vec<TensorId> = (0..gradients.len()).map(|i| state(&mut graph, format!("g{i}"))).collect();
        for (i, &g) in gradients.iter().enumerate() {
            let [p, m, v] = ["p", "m", "v"].map(|name| state(&mut graph, format!("{name}{i}")));
            let mut attrs = Attrs::new().with("clear", Attr::Bool(true));
            for (name, value) in [("beta1", 0.9), ("beta2", 0.95), ("eps", 1e-8), ("weight_decay", 0.1)] {
                attrs.set(name, Attr::Float(value));
            }
            let operands = vec![p, sums[g], m, v, hyper, counters];
            let op = ops::find("adamw").expect("the op is in the registry");
            ops::build::add(&mut graph, op, format!("update{i}"), operands, attrs, Section::Update).expect("it fits");
        }
        let capacity = Capacity { slots: 1, context: 1, step_rows: 1, wanted_rows: 1 };
        let plan = plan::compile(graph, Mode::Train, capacity).expect("a plan");
        runs(&plan, &kernels(&plan).expect("kernels")).iter().map(|run| run.len()).collect()
    }

    #[test]
    fn updates_run_together_unless_they_share_what_they_change() {
        assert_eq!(runs_of(&[0, 1, 2]), [3]);
        assert_eq!(runs_of(&[0, 1, 1, 2]), [2, 2]);
        assert_eq!(runs_of(&[0, 0, 0]), [1, 1, 1]);
    }
}
