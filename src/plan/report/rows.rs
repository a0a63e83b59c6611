//! Buffers, tensors and steps as rows of a table.

use crate::graph::{Graph, Node, NodeId, RowSpace, Section, TensorId};
use crate::ops;
use crate::plan::{ALIGN, BufferKind, Plan};
use serde::Serialize;
use std::collections::HashSet;

/// One step of the schedule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeRow {
    /// Position in the schedule.
    pub step: u32,
    /// Name of the node.
    pub name: String,
    /// Keyword of its op.
    pub op: String,
    /// Part of the training step.
    pub section: Section,
    /// Whether it repeats an earlier node.
    pub recomputed: bool,
    /// Floating-point operations at full capacity.
    pub flops: f64,
}

/// In which part of the arena a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// It keeps its content from call to call.
    Persistent,
    /// It comes and goes within a call.
    Transient,
}

/// Why a buffer is alive until the end of its lifespan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LastUse {
    /// A node reads it last.
    Read {
        /// The step.
        step: u32,
        /// The node.
        node: String,
        /// Its op.
        op: String,
    },
    /// It is a result of the graph, read by the caller after the last step.
    Result(String),
    /// It lives from call to call.
    Persistent,
    /// Only the node that writes it uses it.
    Producer,
}

/// A tensor that lives in a buffer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorRow {
    /// Its name.
    pub name: String,
    /// Element type, row extent and features.
    #[serde(rename = "type")]
    pub ty: String,
    /// Step that computes it; none for inputs, parameters and states.
    pub step: Option<u32>,
    /// Op that computes it.
    pub op: Option<String>,
    /// The operand whose memory it took over.
    pub in_place_of: Option<String>,
    /// Names of the nodes that read it, in execution order.
    pub readers: Vec<String>,
}

/// A planned allocation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BufferRow {
    /// Unique name without commas, quotes, blanks or control characters.
    pub id: String,
    /// Name of the first tensor that lives in it, or of the node whose scratch it is.
    pub name: String,
    /// What it holds.
    pub kind: BufferKind,
    /// Part of the arena.
    pub region: Region,
    /// Op that first writes it; `input`, `param` or `state` when none does.
    pub op: String,
    /// Type of the first tensor (`f32[step × 768]`); `bytes` for scratch.
    pub shape: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Where it starts in the arena.
    pub offset: u64,
    /// First step that uses it.
    pub lower: u32,
    /// One past the last step that uses it.
    pub upper: u32,
    /// Node that first writes it.
    pub producer: Option<String>,
    /// Why it lives until `upper`.
    pub last_use: LastUse,
    /// The tensors that live in it, each taking over the memory of one before it.
    pub tensors: Vec<TensorRow>,
}

impl BufferRow {
    /// Bytes that placement reserves: the size rounded up to the alignment.
    pub fn padded(&self) -> u64 {
        self.bytes.next_multiple_of(ALIGN)
    }

    /// Whether it is live at a step.
    pub fn live_at(&self, step: u32) -> bool {
        self.lower <= step && step < self.upper
    }
}

/// Floating-point operations of a node when every row that the plan has room for is live.
pub(super) fn node_flops(plan: &Plan, node: &Node) -> f64 {
    let rows = match node.space {
        RowSpace::New => plan.capacity.step_rows,
        RowSpace::Wanted => plan.capacity.wanted_rows,
        RowSpace::Fixed => 1,
    };
    let sig = ops::build::signature(&plan.graph, node);
    ops::find(&node.op).map_or(0.0, |op| op.cost(&sig, rows, plan.capacity.context).flops)
}

/// One row per step.
pub(super) fn nodes(plan: &Plan) -> Vec<NodeRow> {
    let row = |(step, node): (usize, &Node)| NodeRow {
        step: step as u32,
        name: node.name.clone(),
        op: node.op.clone(),
        section: node.section,
        recomputed: node.recomputed,
        flops: node_flops(plan, node),
    };
    plan.graph.nodes.iter().enumerate().map(row).collect()
}

/// One row per buffer.
pub(super) fn buffers(plan: &Plan) -> Vec<BufferRow> {
    let graph = &plan.graph;
    let readers = graph.readers();
    let mut tensors: Vec<Vec<TensorId>> = vec![Vec::new(); plan.buffers.len()];
    for t in graph.tensor_ids() {
        plan.tensor_buffer[t.index()].iter().for_each(|&b| tensors[b as usize].push(t));
    }
    // Operands come before what takes over their memory.
    let step = |t: &TensorId| graph.producer(*t).map_or(0, |n| n.index() + 1);
    tensors.iter_mut().for_each(|list| list.sort_by_key(step));
    let mut scratch_of: Vec<Option<NodeId>> = vec![None; plan.buffers.len()];
    for n in graph.node_ids() {
        plan.node_scratch[n.index()].iter().for_each(|&b| scratch_of[b as usize] = Some(n));
    }
    let mut ids = HashSet::new();
    let row = |(i, b): (usize, &crate::plan::PlanBuffer)| {
        let first = tensors[i].first().copied();
        let producer = first.map_or(scratch_of[i], |t| graph.producer(t));
        BufferRow {
            id: unique_id(&mut ids, b),
            name: b.name.clone(),
            kind: b.kind,
            region: if b.kind.is_persistent() { Region::Persistent } else { Region::Transient },
            op: match (producer, b.kind) {
                (Some(n), _) => graph.node(n).op.clone(),
                (None, BufferKind::Parameter) => "param".into(),
                (None, BufferKind::State) => "state".into(),
                (None, _) => "input".into(),
            },
            shape: first.map_or("bytes".into(), |t| graph.ty(t).to_string()),
            bytes: b.size,
            offset: b.offset,
            lower: b.lower,
            upper: b.upper,
            producer: producer.map(|n| graph.node(n).name.clone()),
            last_use: last_use(graph, b.kind, &tensors[i], &readers),
            tensors: tensors[i].iter().map(|&t| tensor_row(plan, t, &readers[t.index()])).collect(),
        }
    };
    plan.buffers.iter().enumerate().map(row).collect()
}

/// The name with everything replaced that a CSV field, a shell word or a terminal could trip over; scratch is marked.
fn unique_id(taken: &mut HashSet<String>, b: &crate::plan::PlanBuffer) -> String {
    let plain = |c: char| if c.is_control() || c.is_whitespace() || ",\"'`\\".contains(c) { '_' } else { c };
    let mut base: String = b.name.chars().map(plain).collect();
    if b.kind == BufferKind::Scratch || base.is_empty() {
        base.push_str(if b.kind == BufferKind::Scratch { "#scratch" } else { "#" });
    }
    let mut id = base.clone();
    let mut number = 1;
    while !taken.insert(id.clone()) {
        number += 1;
        id = format!("{base}#{number}");
    }
    id
}

fn tensor_row(plan: &Plan, t: TensorId, readers: &[(NodeId, usize)]) -> TensorRow {
    let graph = &plan.graph;
    let producer = graph.producer(t);
    let mut names: Vec<String> = readers.iter().map(|&(n, _)| graph.node(n).name.clone()).collect();
    names.dedup();
    TensorRow {
        name: graph.tensor(t).name.clone(),
        ty: graph.ty(t).to_string(),
        step: producer.map(|n| n.0),
        op: producer.map(|n| graph.node(n).op.clone()),
        in_place_of: plan.aliases[t.index()].map(|o| graph.tensor(o).name.clone()),
        readers: names,
    }
}

fn last_use(graph: &Graph, kind: BufferKind, tensors: &[TensorId], readers: &[Vec<(NodeId, usize)>]) -> LastUse {
    if kind.is_persistent() {
        return LastUse::Persistent;
    }
    if let Some((name, _)) = graph.outputs.iter().find(|(_, t)| tensors.contains(t)) {
        return LastUse::Result(name.clone());
    }
    match tensors.iter().filter_map(|t| readers[t.index()].last()).map(|&(n, _)| n).max() {
        Some(n) if graph.node(n).outputs.iter().all(|o| tensors.last() != Some(o)) => {
            let node = graph.node(n);
            LastUse::Read { step: n.0, node: node.name.clone(), op: node.op.clone() }
        }
        _ => LastUse::Producer,
    }
}
