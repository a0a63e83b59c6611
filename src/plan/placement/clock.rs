//! When to stop: search nodes always, the wall clock only on request.

use std::time::{Duration, Instant};

/// What is left of the effort and of the time.
pub(super) struct Clock {
    deadline: Option<Instant>,
    /// Effort that may still be spent.
    pub left: u64,
    /// Search nodes spent.
    pub spent: u64,
    /// The deadline has passed and something asked.
    pub timed_out: bool,
}

impl Clock {
    pub fn new(effort: u64, time_limit: Option<Duration>) -> Self {
        let deadline = time_limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { deadline, left: effort, spent: 0, timed_out: false }
    }

    /// Whether the wall clock says stop; never without a time limit.
    pub fn late(&mut self) -> bool {
        if !self.timed_out && self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.timed_out = true;
        }
        self.timed_out
    }

    /// Charges `nodes` of `cost` each.
    pub fn charge(&mut self, nodes: u64, cost: u64) {
        self.spent += nodes;
        self.left = self.left.saturating_sub(nodes.saturating_mul(cost));
    }

    /// Takes one part in `parts` of the effort out of what is left, and returns it.
    pub fn set_aside(&mut self, parts: u64) -> u64 {
        let kept = self.left / parts;
        self.left -= kept;
        kept
    }

    /// Whether nothing may be spent any more.
    pub fn exhausted(&mut self) -> bool {
        self.left == 0 || self.late()
    }
}
