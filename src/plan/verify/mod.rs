//! The independent check of a plan: nothing in it is believed.
//!
//! Sizes, lifespans and the buffer of every tensor are derived again from the graph, by other code than the planner's, and
//! compared with what the plan says; aliases are proved legal; then a sweep looks for buffers that overlap in time and memory.

mod aliases;
mod regions;

use super::{ALIGN, Plan, buffers::tensor_bytes, placement};
use crate::error::{Error, Result};
use crate::graph::{TensorId, TensorKind};
use crate::ops;
use crate::passes::{self, Layout, Mode};
use crate::tensor::RowExtent;

fn broken(message: String) -> Error {
    Error::Plan(format!("broken plan: {message}"))
}

/// Proves that a plan may be executed.
///
/// # Errors
/// The first thing that is wrong, by name: graph, capacity, mode, tables, alias, size, lifespan, kind, alignment, region, totals or
/// overlap.
pub fn verify(plan: &Plan) -> Result<()> {
    passes::check(&plan.graph)?;
    check_capacity(plan)?;
    check_mode(plan)?;
    check_tables(plan)?;
    aliases::check(plan)?;
    check_sizes_and_lifespans(plan)?;
    regions::check(plan)?;
    check_overlap(plan)
}

/// Live sizes fit each other, and the ops that are limited in rows.
fn check_capacity(plan: &Plan) -> Result<()> {
    let c = &plan.capacity;
    let kept = c.slots.checked_mul(c.context).filter(|&rows| rows <= 1 << 40);
    let fits = kept.is_some_and(|kept| match plan.mode {
        Mode::Train => c.step_rows == kept && c.wanted_rows <= kept,
        Mode::Infer(_) => c.step_rows <= kept && c.wanted_rows <= c.step_rows,
    });
    if !fits || [c.slots, c.context, c.step_rows, c.wanted_rows].contains(&0) {
        return Err(broken(format!(
            "its capacity is impossible: {} slots of {} rows, {} rows a call, {} wanted",
            c.slots, c.context, c.step_rows, c.wanted_rows
        )));
    }
    for node in &plan.graph.nodes {
        let sig = ops::build::signature(&plan.graph, node);
        let op = ops::find(&node.op).expect("the graph was checked");
        op.check_capacity(&sig, c).map_err(|message| Error::Shape {
            op: node.op.clone(),
            node: node.name.clone(),
            message,
        })?;
    }
    Ok(())
}

/// What the executor takes for granted of each mode: which tensors keep all rows.
fn check_mode(plan: &Plan) -> Result<()> {
    let rows = plan.graph.tensors.iter().filter(|t| t.ty.extent != RowExtent::Fixed);
    let (mode, wrong) = match plan.mode {
        Mode::Train => ("training", rows.clone().find(|t| t.ty.extent == RowExtent::Kept)),
        Mode::Infer(Layout::Full) => ("the full layout", rows.clone().find(|t| t.ty.extent != RowExtent::Kept)),
        Mode::Infer(Layout::Compact) => {
            let input = |t: &&crate::graph::Tensor| t.kind == TensorKind::Input && t.ty.extent != RowExtent::Kept;
            ("the compact layout", rows.clone().find(input))
        }
    };
    let external = |t: &&crate::graph::Tensor| {
        matches!(t.kind, TensorKind::Param(_) | TensorKind::State) && t.ty.extent != RowExtent::Fixed
    };
    match wrong.or_else(|| rows.clone().find(external)) {
        Some(t) => Err(broken(format!("'{}' has {} rows, which does not go with {mode}", t.name, t.ty.extent.name()))),
        None => Ok(()),
    }
}

fn check_tables(plan: &Plan) -> Result<()> {
    let (graph, buffers) = (&plan.graph, plan.buffers.len() as u32);
    if plan.aliases.len() != graph.tensors.len()
        || plan.tensor_buffer.len() != graph.tensors.len()
        || plan.node_scratch.len() != graph.nodes.len()
    {
        return Err(broken("its tables do not match its graph".into()));
    }
    let in_range = |b: &Option<u32>| b.is_none_or(|b| b < buffers);
    if !plan.tensor_buffer.iter().chain(&plan.node_scratch).all(in_range) {
        return Err(broken("a buffer number is out of range".into()));
    }
    let mut owners = vec![0u32; plan.buffers.len()];
    for t in graph.tensor_ids().filter(|t| plan.aliases[t.index()].is_none()) {
        plan.tensor_buffer[t.index()].iter().for_each(|&b| owners[b as usize] += 1);
    }
    plan.node_scratch.iter().flatten().for_each(|&b| owners[b as usize] += 1);
    match owners.iter().position(|&n| n != 1) {
        Some(b) => Err(broken(format!(
            "buffer '{}' belongs to {} tensors that are not aliases",
            plan.buffers[b].name, owners[b]
        ))),
        None => Ok(()),
    }
}

fn check_sizes_and_lifespans(plan: &Plan) -> Result<()> {
    let graph = &plan.graph;
    let steps = graph.nodes.len().max(1) as u32;
    // Needed size and steps of each buffer, from a walk over every use of every tensor.
    let mut need: Vec<(u64, u32, u32)> = vec![(0, u32::MAX, 0); plan.buffers.len()];
    let mut touch = |b: u32, size: u64, lower: u32, upper: u32| {
        let n = &mut need[b as usize];
        *n = (n.0.max(size), n.1.min(lower), n.2.max(upper));
    };
    for t in graph.tensor_ids() {
        let tensor = graph.tensor(t);
        let external = matches!(tensor.kind, TensorKind::Param(_)) && plan.mode != Mode::Train;
        if external && plan.tensor_buffer[t.index()].is_some() {
            return Err(broken(format!("parameter '{}' has a buffer, but inference binds it outside", tensor.name)));
        }
        let Some(b) = plan.tensor_buffer[t.index()] else {
            if external {
                continue;
            }
            return Err(broken(format!("'{}' has no buffer", tensor.name)));
        };
        if let Some(operand) = plan.aliases[t.index()]
            && plan.tensor_buffer[operand.index()] != Some(b)
        {
            return Err(broken(format!("'{}' is an alias but has another buffer", tensor.name)));
        }
        let size = tensor_bytes(&tensor.ty, &plan.capacity)?;
        match tensor.kind {
            TensorKind::Value(n) if tensor.ty.extent != RowExtent::Kept => touch(b, size, n.0, n.0 + 1),
            _ => touch(b, size, 0, steps),
        }
    }
    let buffer_of = |t: TensorId| plan.tensor_buffer[t.index()];
    for (n, node) in graph.nodes.iter().enumerate() {
        let n = n as u32;
        node.operands.iter().filter_map(|&t| buffer_of(t)).for_each(|b| touch(b, 0, n, n + 1));
        let sig = ops::build::signature(graph, node);
        let kernel = ops::find(&node.op).expect("the graph was checked").kernel(&sig).map_err(broken)?;
        let scratch = kernel.scratch(&plan.capacity);
        if scratch.per_worker as u64 > plan.totals.scratch_per_worker {
            return Err(broken(format!("'{}' needs {} bytes of scratch per worker", node.name, scratch.per_worker)));
        }
        match plan.node_scratch[n as usize] {
            Some(b) => touch(b, scratch.shared as u64, n, n + 1),
            None if scratch.shared > 0 => return Err(broken(format!("'{}' has no scratch buffer", node.name))),
            None => {}
        }
    }
    graph.outputs.iter().filter_map(|&(_, t)| buffer_of(t)).for_each(|b| touch(b, 0, steps - 1, steps));
    for (b, &(size, lower, upper)) in plan.buffers.iter().zip(&need) {
        if b.size != size {
            return Err(broken(format!("buffer '{}' has {} bytes and needs {size}", b.name, b.size)));
        }
        if b.lower > lower || b.upper < upper || b.upper > steps {
            return Err(broken(format!(
                "the lifespan of '{}' is [{}, {}) and must cover [{lower}, {upper}) of {steps} steps",
                b.name, b.lower, b.upper
            )));
        }
    }
    Ok(())
}

fn check_overlap(plan: &Plan) -> Result<()> {
    let problem: Vec<placement::Buffer> = plan
        .buffers
        .iter()
        .map(|b| placement::Buffer {
            lower: b.lower as u64,
            upper: b.upper as u64,
            size: b.size,
            align: ALIGN,
            fixed: None,
        })
        .collect();
    let offsets: Vec<u64> = plan.buffers.iter().map(|b| b.offset).collect();
    placement::verify(&problem, &offsets, plan.totals.persistent + plan.totals.transient).map_err(|violation| {
        broken(match violation {
            placement::Violation::Overlap { first, second } => {
                let (a, b) = (&plan.buffers[first], &plan.buffers[second]);
                format!("overlap: '{}' and '{}' share memory while both are alive", a.name, b.name)
            }
            other => other.to_string(),
        })
    })
}
