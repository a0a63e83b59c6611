//! Regions of the arena: what keeps its content lies in the persistent one, everything else behind it, and the totals are exact.

use super::broken;
use crate::error::Result;
use crate::graph::{Graph, TensorKind};
use crate::ops;
use crate::plan::{ALIGN, BufferKind, MAX_ARENA, Plan, placement};
use crate::tensor::RowExtent;

/// Kinds, alignment, regions and totals. The tables of the plan must have been checked, so that every buffer has one owner.
///
/// # Errors
/// The first buffer or total that does not fit, by name.
pub(super) fn check(plan: &Plan) -> Result<()> {
    let totals = &plan.totals;
    let end = totals
        .persistent
        .checked_add(totals.transient)
        .filter(|&e| e <= MAX_ARENA && totals.scratch_per_worker < 1 << 40)
        .ok_or_else(|| broken("its totals overflow".into()))?;
    check_kinds(plan)?;
    let (mut persistent, mut last) = (0, totals.persistent);
    for b in &plan.buffers {
        let ends = b.offset.checked_add(b.size).and_then(|e| e.checked_next_multiple_of(ALIGN));
        let ends = ends.ok_or_else(|| broken(format!("buffer '{}' overflows", b.name)))?;
        if !b.offset.is_multiple_of(ALIGN) {
            return Err(broken(format!("buffer '{}' at {} is not aligned to {ALIGN} bytes", b.name, b.offset)));
        }
        if b.offset + b.size > end {
            let last = b.offset + b.size;
            return Err(broken(format!("buffer '{}' ends at {last}, beyond the arena of {end} bytes", b.name)));
        }
        if b.kind.is_persistent() {
            persistent = u64::max(persistent, ends);
            if ends > totals.persistent {
                return Err(broken(format!("persistent buffer '{}' lies in the transient region", b.name)));
            }
        } else {
            last = last.max(ends);
            if b.offset < totals.persistent && b.size > 0 {
                return Err(broken(format!("transient buffer '{}' lies in the persistent region", b.name)));
            }
        }
    }
    let transient = plan.buffers.iter().filter(|b| !b.kind.is_persistent());
    let padded: Vec<placement::Buffer> = transient
        .map(|b| placement::Buffer::new(b.lower.into(), b.upper.into(), b.size.next_multiple_of(ALIGN)))
        .collect();
    let exact = [
        ("persistent", totals.persistent, persistent),
        ("transient", totals.transient, last - totals.persistent),
        ("max_load", totals.max_load, placement::max_load(&padded)),
        ("scratch_per_worker", totals.scratch_per_worker, scratch_per_worker(plan)?),
    ];
    match exact.iter().find(|(_, said, is)| said != is) {
        Some((name, said, is)) => Err(broken(format!("its totals are wrong: {name} is {is} bytes, not {said}"))),
        None => Ok(()),
    }
}

/// Scratch of the node that needs most of it per worker.
fn scratch_per_worker(plan: &Plan) -> Result<u64> {
    let mut most = 0;
    for node in &plan.graph.nodes {
        let sig = ops::build::signature(&plan.graph, node);
        let kernel = ops::find(&node.op).expect("the graph was checked").kernel(&sig).map_err(broken)?;
        most = u64::max(most, (kernel.scratch(&plan.capacity).per_worker as u64).next_multiple_of(ALIGN));
    }
    Ok(most)
}

/// Every buffer says what it holds: its owner's name, and whether it lives from call to call.
fn check_kinds(plan: &Plan) -> Result<()> {
    let graph = &plan.graph;
    let mut owner: Vec<Option<(&str, Option<BufferKind>)>> = vec![None; plan.buffers.len()];
    for t in graph.tensor_ids().filter(|t| plan.aliases[t.index()].is_none()) {
        if let Some(b) = plan.tensor_buffer[t.index()] {
            owner[b as usize] = Some((&graph.tensor(t).name, persistent_kind(graph, t.index())));
        }
    }
    for (node, b) in graph.nodes.iter().zip(&plan.node_scratch) {
        if let Some(b) = b {
            owner[*b as usize] = Some((&node.name, None));
        }
    }
    for (b, owner) in plan.buffers.iter().zip(owner) {
        let (name, kind) = owner.expect("the tables were checked");
        if b.name != name {
            return Err(broken(format!("buffer '{}' belongs to '{name}'", b.name)));
        }
        let fits = kind.map_or(!b.kind.is_persistent(), |kind| kind == b.kind);
        if !fits {
            let must = kind.map_or("of a kind that does not outlive a call", BufferKind::name);
            return Err(broken(format!("the kind of buffer '{}' is {} and must be {must}", b.name, b.kind.name())));
        }
    }
    Ok(())
}

/// The kind of what keeps its content from call to call; `None` for all else.
fn persistent_kind(graph: &Graph, t: usize) -> Option<BufferKind> {
    let tensor = &graph.tensors[t];
    match tensor.kind {
        TensorKind::Input => Some(BufferKind::Input),
        TensorKind::Param(_) => Some(BufferKind::Parameter),
        TensorKind::State => Some(BufferKind::State),
        TensorKind::Value(_) => (tensor.ty.extent == RowExtent::Kept).then_some(BufferKind::Kept),
    }
}
