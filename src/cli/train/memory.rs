//! The bytes of a run, printed before step 0: what the plan takes, what the process holds already, and what checkpoints need.

use super::super::output::{bytes, line};
use super::source::Data;
use crate::graph::TensorId;
use crate::passes::optimizer::FIRST_MOMENT;
use crate::plan::{BufferKind, Plan};
use crate::train::sample::Sampling;
use crate::weights::PIECE_BYTES;

/// Code and small tables that are first touched after the report: measured as 0.7 to 0.8 MiB for models of all sizes.
const LATER: u64 = 768 << 10;
/// What a thread touches of its stack and of the allocator: measured as 70 KiB with 1 to 32 threads.
const PER_THREAD: u64 = 72 << 10;
/// Buffer of a file that is written.
const FILE_BUFFER: u64 = 64 << 10;

/// Resident bytes of this process: now, and the most so far.
struct Resident {
    now: u64,
    peak: u64,
}

impl Resident {
    /// As the system counts them; `None` where it does not tell.
    fn measure() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let kib = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|l| l.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse().ok()
        };
        Some(Resident { now: 1024 * kib("VmRSS:")?, peak: 1024 * kib("VmHWM:")? })
    }
}

/// Prints every part and the total: the most that the process will hold at once, from start to the closing export.
pub fn report(plan: &Plan, threads: usize, data: &Data, sampling: Option<&Sampling>) {
    let parameters = plan.buffers.iter().filter(|b| b.kind == BufferKind::Parameter);
    let parameters: u64 = parameters.map(|b| b.size).sum();
    let totals = &plan.totals;
    let tokens = data.train.memory_bytes() + data.validation.as_ref().map_or(0, |v| v.memory_bytes());
    let batch = 8 * plan.capacity.step_rows as u64;
    let samples = sampling.map_or(0, Sampling::bytes);
    let (held, peak) = Resident::measure().map_or((tokens, 0), |r| (r.now, r.peak));
    let arena = totals.arena(threads);
    // A piece of the largest parameter that is written, as values and as bytes.
    let graph = &plan.graph;
    let is_written = |t: &TensorId| graph.find(&format!("{}{FIRST_MOMENT}", graph.tensor(*t).name)).is_some();
    let bytes_of = |t| 4 * graph.ty(t).shape.elements() as u64;
    let largest = graph.params().filter(is_written).map(bytes_of).max().unwrap_or(0);
    let writing = 2 * largest.min(PIECE_BYTES as u64) + FILE_BUFFER;
    let later = LATER + PER_THREAD * threads as u64;
    let parts = [
        ("parameters", parameters),
        ("moments, other states and inputs", totals.persistent - parameters),
        ("activations and gradients", totals.transient),
        ("scratch of all threads", totals.scratch_per_worker * threads as u64),
        ("arena: the four above", arena),
        ("held already: program, plan, tokens", held),
        ("batch", batch),
        ("samples", samples),
        ("writing checkpoints and the model", writing),
        ("threads, and code yet to be touched", later),
        ("total", (arena + held + batch + samples + writing + later).max(peak)),
    ];
    for (what, n) in parts {
        line(&format!("  {what:<36} {n:>14} B  {}", bytes(n)));
    }
}
