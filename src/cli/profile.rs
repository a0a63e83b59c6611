//! `--profile`: where the time went, per kind of op, and as a trace that Perfetto opens.

use super::bench::main_type;
use super::op_times;
use crate::disk::write_atomically;
use crate::error::{Error, Result};
use crate::exec::Executor;
use crate::graph::{Node, RowSpace};
use crate::kernels::isa::Isa;
use crate::kernels::roofline::{Arithmetic, Streams, arithmetic_peak};
use crate::ops;
use crate::weights::ParamStore;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// The calls that a profile covers: (rows, rows wanted, rows of the sequence after the call, how many such calls).
pub type Calls<'a> = &'a [(usize, usize, usize, usize)];

/// What the machine can do, measured when the profile is printed.
struct Limits {
    /// Bytes a second.
    bandwidth: f64,
    /// Operations a second of products with the model's weights, and of everything else.
    products: f64,
    rest: f64,
}

impl Limits {
    fn measure(threads: usize, store: &ParamStore) -> Self {
        let isa = Isa::current();
        Limits {
            bandwidth: Streams::allocate().read_bandwidth(isa, threads),
            products: arithmetic_peak(isa, Arithmetic::of(main_type(store)), threads).best,
            rest: arithmetic_peak(isa, Arithmetic::F32, threads).best,
        }
    }
}

/// Arithmetic and bytes of a node over the calls, weights included, and the seconds that they take at the limit of the machine.
fn work(executor: &Executor, store: &ParamStore, node: &Node, calls: Calls, limits: &Limits) -> (f64, f64, f64) {
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
    let peak = if node.op == "linear" { limits.products } else { limits.rest };
    calls.iter().fold((0.0, 0.0, 0.0), |(flops, bytes, seconds), &(rows, wanted, context, count)| {
        let live = if node.space == RowSpace::Wanted { wanted } else { rows };
        // A call of few rows far into a sequence attends to all of it.
        let cost = op.cost(&sig, live, if rows == context { rows } else { 2 * context - 1 });
        let n = if live == 0 { 0.0 } else { count as f64 };
        let traffic = cost.bytes + weights as f64;
        let least = f64::max(cost.flops / peak, traffic / limits.bandwidth);
        (flops + n * cost.flops, bytes + n * traffic, seconds + n * least)
    })
}

/// The table for standard error: what `calls` took in the mean of `runs` runs, each of which made them all.
pub fn table(executor: &Executor, store: &ParamStore, calls: Calls, runs: usize) -> String {
    let limits = Limits::measure(executor.threads(), store);
    let mut kinds = Vec::new();
    for time in executor.profile() {
        let node = &executor.plan().graph.nodes[time.node];
        let seconds = time.nanoseconds as f64 * 1e-9 / runs as f64;
        op_times::add(&mut kinds, node, seconds, work(executor, store, node, calls, &limits));
    }
    op_times::table(&mut kinds)
}

/// Writes the trace in the Chrome trace-event format, which Perfetto opens: names of process and track, then a slice for each phase of a
/// node, in order of time, on one track, since phases do not overlap. Times are microseconds.
///
/// # Errors
/// What the system reports.
pub fn write_trace(executor: &Executor, path: &Path) -> Result<()> {
    let nodes = &executor.plan().graph.nodes;
    let name =
        |what: &str, name: String| json!({ "name": what, "ph": "M", "pid": 1, "tid": 1, "args": { "name": name } });
    let track = format!("steps of the plan, {} threads", executor.threads());
    write_atomically(path, |out| {
        let fail = |e| Error::io(path, "write", e);
        let names = [name("process_name", "staticgrad".into()), name("thread_name", track)];
        let slices = executor.trace().into_iter().map(|phase| {
            let node = &nodes[phase.node];
            json!({
                "name": node.name, "cat": node.op, "ph": "X", "pid": 1, "tid": 1,
                "ts": phase.start as f64 / 1e3, "dur": phase.duration as f64 / 1e3, "args": { "op": node.op },
            })
        });
        out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[").map_err(fail)?;
        for (i, event) in names.into_iter().chain(slices).enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(out, "{comma}\n{event}").map_err(fail)?;
        }
        out.write_all(b"\n]}\n").map_err(fail)
    })
}
