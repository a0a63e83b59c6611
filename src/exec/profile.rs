//! Time per node.

use super::Executor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Nanoseconds spent in each node since the profile was switched on.
pub(super) struct Profile {
    nanoseconds: Vec<AtomicU64>,
    calls: Vec<AtomicU64>,
    last: AtomicU64,
    origin: Instant,
}

/// What a node took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTime {
    /// Index of the node in the plan's graph.
    pub node: usize,
    /// Wall-clock nanoseconds over all runs.
    pub nanoseconds: u64,
}

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
        self.nanoseconds[node].fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        self.calls[node].fetch_add(1, Ordering::Relaxed);
    }
}

impl Executor<'_> {
    /// Switches the profile on (from zero) or off.
    pub fn set_profile(&mut self, on: bool) {
        let zeros = || self.plan.graph.nodes.iter().map(|_| AtomicU64::new(0)).collect();
        self.profile = on.then(|| Profile {
            nanoseconds: zeros(),
            calls: zeros(),
            last: AtomicU64::new(0),
            origin: Instant::now(),
        });
    }

    /// Time of each node since the profile was switched on; empty when it is off.
    pub fn profile(&self) -> Vec<NodeTime> {
        let times = self.profile.iter().flat_map(|p| p.nanoseconds.iter().enumerate());
        times.map(|(node, ns)| NodeTime { node, nanoseconds: ns.load(Ordering::Relaxed) }).collect()
    }
}
