//! `--profile`: where the time went, per kind of op, and as a trace that Perfetto opens.

use crate::disk::write_atomically;
use crate::error::{Error, Result};
use crate::exec::Executor;
use crate::graph::{Node, RowSpace};
use crate::ops;
use crate::weights::ParamStore;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// The calls that a profile covers: (rows, rows wanted, rows of the sequence after the call, how many such calls).
pub type Calls<'a> = &'a [(usize, usize, usize, usize)];

struct Kind {
    op: String,
    seconds: f64,
    flops: f64,
    bytes: f64,
}

/// Arithmetic and bytes of a node over the calls, weights included.
fn work(executor: &Executor, store: &ParamStore, node: &Node, calls: Calls) -> (f64, f64) {
    let graph = &executor.plan().graph;
    let sig = ops::build::signature(graph, node);
    let op = ops::find(&node.op).expect("the plan was verified");
    let name = |t: &crate::graph::TensorId| graph.tensor(*t).name.as_str();
    let weights: usize = match node.op.as_str() {
        "linear" => {
            node.operands.iter().filter_map(|t| store.entries().iter().find(|e| e.name == name(t))).map(|e| e.len).sum()
        }
        _ => 0,
    };
    calls.iter().fold((0.0, 0.0), |(flops, bytes), &(rows, wanted, context, count)| {
        let live = if node.space == RowSpace::Wanted { wanted } else { rows };
        // A call of few rows far into a sequence attends to all of it.
        let cost = op.cost(&sig, live, if rows == context { rows } else { 2 * context - 1 });
        let n = if live == 0 { 0.0 } else { count as f64 };
        (flops + n * cost.flops, bytes + n * (cost.bytes + weights as f64))
    })
}

/// The table for standard error.
pub fn table(executor: &Executor, store: &ParamStore, calls: Calls) -> String {
    let mut kinds: Vec<Kind> = Vec::new();
    for time in executor.profile() {
        let node = &executor.plan().graph.nodes[time.node];
        let (flops, bytes) = work(executor, store, node, calls);
        let seconds = time.nanoseconds as f64 * 1e-9;
        match kinds.iter_mut().find(|k| k.op == node.op) {
            Some(k) => (k.seconds, k.flops, k.bytes) = (k.seconds + seconds, k.flops + flops, k.bytes + bytes),
            None => kinds.push(Kind { op: node.op.clone(), seconds, flops, bytes }),
        }
    }
    kinds.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let total: f64 = kinds.iter().map(|k| k.seconds).sum();
    let mut text = format!("{:<22} {:>10} {:>7} {:>10} {:>9}\n", "op", "ms", "%", "GFLOP/s", "GB/s");
    for k in &kinds {
        let per = |x: f64| if k.seconds > 0.0 { x / k.seconds / 1e9 } else { 0.0 };
        let share = if total > 0.0 { 100.0 * k.seconds / total } else { 0.0 };
        text += &format!(
            "{:<22} {:>10.3} {share:>7.1} {:>10.1} {:>9.2}\n",
            k.op,
            1e3 * k.seconds,
            per(k.flops),
            per(k.bytes)
        );
    }
    text
}

/// Writes the trace in the Chrome trace-event format, which Perfetto opens.
///
/// # Errors
/// What the system reports.
pub fn write_trace(executor: &Executor, path: &Path) -> Result<()> {
    let nodes = &executor.plan().graph.nodes;
    write_atomically(path, |out| {
        let fail = |e| Error::io(path, "write", e);
        out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n").map_err(fail)?;
        for (i, phase) in executor.trace().iter().enumerate() {
            let node = &nodes[phase.node];
            let event = json!({
                "name": node.name, "cat": node.op, "ph": "X", "pid": 1, "tid": 1,
                "ts": phase.start as f64 / 1e3, "dur": phase.duration as f64 / 1e3, "args": { "op": node.op },
            });
            let comma = if i == 0 { "" } else { ",\n" };
            write!(out, "{comma}{event}").map_err(fail)?;
        }
        out.write_all(b"\n]}\n").map_err(fail)
    })
}
