//! Time per node, and a trace of every phase.

use super::Executor;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Clocks of the nodes since the profile was switched on.
pub(super) struct Profile {
    nanoseconds: Vec<AtomicU64>,
    last: AtomicU64,
    origin: Instant,
    events: Mutex<Vec<PhaseTime>>,
}

/// What a node took; of nodes that run together the first has the time of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTime {
    /// Index of the node in the plan's graph.
    pub node: usize,
    /// Wall-clock nanoseconds over all runs.
    pub nanoseconds: u64,
}

/// One phase of a node in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseTime {
    /// Index of the node in the plan's graph.
    pub node: usize,
    /// Nanoseconds from switching the profile on to the start of the phase.
    pub start: u64,
    /// Nanoseconds that it took.
    pub duration: u64,
}

/// Phases that a trace keeps; later ones are counted in the totals alone.
const TRACE_PHASES: usize = 1 << 18;

impl Profile {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Starts the clock of a run.
    pub fn resume(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    /// Books the time since the last call on `node`.
    pub fn add(&self, node: usize) {
        let now = self.now();
        let before = self.last.swap(now, Ordering::Relaxed);
        let duration = now.saturating_sub(before);
        self.nanoseconds[node].fetch_add(duration, Ordering::Relaxed);
        let mut events = self.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if events.len() < events.capacity() {
            events.push(PhaseTime { node, start: before, duration });
        }
    }
}

impl Executor<'_> {
    /// Switches the profile on (from zero) or off. With `trace`, every phase is kept too.
    pub fn set_profile(&mut self, on: bool, trace: bool) {
        self.profile = on.then(|| Profile {
            nanoseconds: self.plan.graph.nodes.iter().map(|_| AtomicU64::new(0)).collect(),
            last: AtomicU64::new(0),
            origin: Instant::now(),
            events: Mutex::new(Vec::with_capacity(if trace { TRACE_PHASES } else { 0 })),
        });
    }

    /// Time of each node since the profile was switched on; empty when it is off.
    pub fn profile(&self) -> Vec<NodeTime> {
        let times = self.profile.iter().flat_map(|p| p.nanoseconds.iter().enumerate());
        times.map(|(node, ns)| NodeTime { node, nanoseconds: ns.load(Ordering::Relaxed) }).collect()
    }

    /// The phases since the profile was switched on, in order.
    pub fn trace(&self) -> Vec<PhaseTime> {
        let copy = |p: &Profile| p.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        self.profile.as_ref().map(copy).unwrap_or_default()
    }
}
