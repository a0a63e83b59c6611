//! Runs the members of the portfolio in turn and keeps the best placement.

use crate::error::Result;

use super::clock::Clock;
use super::problem::Problem;
use super::{Buffer, Options, Placement, Status, greedy, local, minimise, outward, search};

/// Items above which a node of the search is dear, so that local search goes first.
const LARGE: usize = 800;

/// See [`place`](super::place).
pub(super) fn run(buffers: &[Buffer], options: &Options) -> Result<Placement> {
    let problem = Problem::new(buffers)?;
    let mut clock = Clock::new(options.effort, options.time_limit);
    let target = options.capacity.map_or(problem.bound, |capacity| capacity / problem.unit);
    let satisfy = options.capacity.is_some();
    let mut best = Best { height: u64::MAX, offsets: Vec::new(), winner: "nothing to place", target, satisfy };

    if problem.items.is_empty() {
        best.height = 0;
    }
    if !best.is_enough(problem.bound) {
        outward::run(&problem, &mut clock, |offsets, name| best.offer(&problem, offsets, name));
    }
    if !best.is_enough(problem.bound) {
        greedy::run(&problem, &mut clock, |offsets, name| best.offer(&problem, offsets, name));
    }

    let mut proved = problem.bound;
    if !best.is_enough(problem.bound) && !clock.exhausted() {
        if problem.items.len() > LARGE {
            local::run(&problem, &mut best, &mut clock);
        }
        if problem.items.len() <= search::MOST_ITEMS && !best.is_enough(problem.bound) {
            proved = minimise::run(&problem, &mut best, &mut clock);
        }
    }
    let mut offsets: Vec<u64> = buffers.iter().map(|b| b.fixed.unwrap_or(0)).collect();
    for (&source, &offset) in problem.source.iter().zip(&best.offsets) {
        offsets[source as usize] = offset * problem.unit;
    }
    let arena = buffers.iter().zip(&offsets).map(|(b, offset)| offset + b.size).max().unwrap_or(0);
    // A fixed buffer of zero bytes needs no byte of the arena, but its offset has to lie within.
    let ends = buffers.iter().filter_map(|b| Some(b.fixed? + b.size)).max().unwrap_or(0);
    let bound = ends.max(problem.bound * problem.unit);
    let proved = bound.max(proved * problem.unit);
    let status = match () {
        () if arena == bound => Status::Optimal,
        () if arena == proved => Status::Proved,
        () => Status::Gap,
    };
    let (nodes, timed_out, winner) = (clock.spent, clock.timed_out, best.winner);
    Ok(Placement { offsets, arena, bound, proved, status, nodes, timed_out, winner })
}

/// The best placement so far, in units.
pub(super) struct Best {
    pub height: u64,
    pub offsets: Vec<u64>,
    winner: &'static str,
    /// The bound or the capacity.
    pub target: u64,
    /// The target is a capacity: above it, nothing is worth searching for.
    pub satisfy: bool,
}

impl Best {
    /// Keeps a placement that is lower than the best so far; true when no more is needed.
    pub fn offer(&mut self, problem: &Problem, offsets: Vec<u64>, winner: &'static str) -> bool {
        let height = problem.height(&offsets);
        if height < self.height {
            (self.height, self.offsets, self.winner) = (height, offsets, winner);
        }
        self.is_enough(problem.bound)
    }

    /// Whether nothing more is asked for: the target is met, the best is `proved`, or a capacity is below what is proved.
    pub fn is_enough(&self, proved: u64) -> bool {
        let refuted = self.satisfy && self.target < proved && self.height < u64::MAX;
        self.height <= self.target.max(proved) || refuted
    }
}
