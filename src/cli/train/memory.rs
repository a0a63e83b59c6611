//! The bytes of a run, printed before step 0: what the plan takes, what the process holds already, and what checkpoints need.

use super::super::output::{bytes, line};
use super::source::Data;
use crate::plan::{BufferKind, Plan};
use crate::train::sample::Sampling;

/// Buffers of the writer of checkpoints and models (two pieces of 1 MiB, one of 64 KiB), stacks of the threads, and the code that
/// only training touches: measured as 2.5 to 3.5 MiB for two threads, and nearly the same for any model.
const WRITING: u64 = 3 << 20;

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
    let parts = [
        ("parameters", parameters),
        ("moments, other states and inputs", totals.persistent - parameters),
        ("activations and gradients", totals.transient),
        ("scratch of all threads", totals.scratch_per_worker * threads as u64),
        ("arena: the four above", arena),
        ("held already: program, plan, tokens", held),
        ("batch", batch),
        ("samples", samples),
        ("writing checkpoints and the model", WRITING),
        ("total", (arena + held + batch + samples + WRITING).max(peak)),
    ];
    for (what, n) in parts {
        line(&format!("  {what:<36} {n:>14} B  {}", bytes(n)));
    }
}
