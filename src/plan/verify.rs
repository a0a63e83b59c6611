//! The independent check of a plan: nothing in it is believed.
//!
//! Sizes, lifespans and the buffer of every tensor are derived again from the graph, by other code than the planner's, and
//! compared with what the plan says; aliases are proved legal; then a sweep looks for buffers that overlap in time and memory.

use super::{ALIGN, Plan, buffers::tensor_bytes, placement};
use crate::error::{Error, Result};
use crate::graph::{TensorId, TensorKind};
use crate::ops;
use crate::passes::{self, Mode};
use crate::tensor::RowExtent;

fn broken(message: String) -> Error {
    Error::Plan(format!("broken plan: {message}"))
}

/// Proves that a plan may be executed.
///
/// # Errors
/// The first thing that is wrong, by name: graph, alias, size, lifespan, alignment, region or overlap.
pub fn verify(plan: &Plan) -> Result<()> {
    passes::check(&plan.graph)?;
    check_tables(plan)?;
    check_aliases(plan)?;
    check_sizes_and_lifespans(plan)?;
    check_regions(plan)?;
    check_overlap(plan)
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

/// An alias is legal when the op allows it, the operand's whole chain is dead afterwards, and the sizes agree.
fn check_aliases(plan: &Plan) -> Result<()> {
    let graph = &plan.graph;
    let mut last_use = vec![0usize; graph.tensors.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        node.operands.iter().for_each(|t| last_use[t.index()] = n);
    }
    graph.outputs.iter().for_each(|(_, t)| last_use[t.index()] = graph.nodes.len());
    for t in graph.tensor_ids() {
        let illegal = |why: &str| {
            let over =
                plan.aliases[t.index()].map_or("nothing", |o| graph.tensors.get(o.index()).map_or("?", |x| &x.name));
            Err(broken(format!("alias of '{}' on '{over}' is not legal: {why}", graph.tensor(t).name)))
        };
        let Some(operand) = plan.aliases[t.index()] else { continue };
        let Some(producer) = graph.producer(t) else { return illegal("it is not computed by a node") };
        let node = graph.node(producer);
        let Some(position) = node.operands.iter().position(|&o| o == operand) else {
            return illegal("it is not an operand of the node");
        };
        let output = node.outputs.iter().position(|&o| o == t).expect("the graph was verified");
        let sig = ops::build::signature(graph, node);
        let op = ops::find(&node.op).expect("the graph was checked");
        let must = op.must_alias(&sig, output) == Some(position);
        if !must && !op.may_alias(&sig, position, output) {
            return illegal("the op does not allow it");
        }
        if !must && !passes::alias::legal(graph, operand, t) {
            return illegal("kinds, extents or sizes differ");
        }
        if tensor_bytes(graph.ty(operand), &plan.capacity)? != tensor_bytes(graph.ty(t), &plan.capacity)? {
            return illegal("sizes differ");
        }
        if last_use[operand.index()] > producer.index() {
            return illegal("the operand is still read later");
        }
        if node.operands.iter().filter(|&&o| o == operand).count() > 1 {
            return illegal("the node reads the operand twice");
        }
        let twin = graph.tensor_ids().any(|u| u != t && plan.aliases[u.index()] == Some(operand));
        if twin {
            return illegal("another tensor takes over the same operand");
        }
    }
    for (n, node) in graph.nodes.iter().enumerate() {
        let sig = ops::build::signature(graph, node);
        let op = ops::find(&node.op).expect("the graph was checked");
        for (o, t) in node.outputs.iter().enumerate() {
            if let Some(i) = op.must_alias(&sig, o)
                && plan.aliases[t.index()] != Some(node.operands[i])
            {
                return Err(broken(format!("'{}' must share the memory of its operand {i}", node.name)));
            }
        }
        for (i, &t) in node.operands.iter().enumerate() {
            let writes_value = op.mutates(&sig, i);
            if writes_value
                && last_use[t.index()] > n
                && matches!(graph.tensor(t).kind, TensorKind::Param(_) | TensorKind::Value(_))
            {
                return Err(broken(format!(
                    "'{}' updates '{}', which is still read later",
                    node.name,
                    graph.tensor(t).name
                )));
            }
        }
    }
    Ok(())
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
        if b.size < size {
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

fn check_regions(plan: &Plan) -> Result<()> {
    let steps = plan.graph.nodes.len().max(1) as u32;
    let end = plan
        .totals
        .persistent
        .checked_add(plan.totals.transient)
        .filter(|&e| e < 1 << 47 && plan.totals.scratch_per_worker < 1 << 40)
        .ok_or_else(|| broken("its totals overflow".into()))?;
    for b in &plan.buffers {
        let last = b.offset.checked_add(b.size).ok_or_else(|| broken(format!("buffer '{}' overflows", b.name)))?;
        if !b.offset.is_multiple_of(ALIGN) {
            return Err(broken(format!("buffer '{}' at {} is not aligned to {ALIGN} bytes", b.name, b.offset)));
        }
        if last > end {
            return Err(broken(format!("buffer '{}' ends at {last}, beyond the arena of {end} bytes", b.name)));
        }
        let whole = b.lower == 0 && b.upper == steps;
        if b.offset < plan.totals.persistent && b.size > 0 && !whole {
            return Err(broken(format!("transient buffer '{}' lies in the persistent region", b.name)));
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
