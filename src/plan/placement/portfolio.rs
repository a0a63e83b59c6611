//! Runs the members of the portfolio in turn and keeps the best placement.

use crate::error::Result;

use super::clock::Clock;
use super::problem::Problem;
use super::{Buffer, Options, Placement, Status, greedy, minimise, outward, search};

/// See [`place`](super::place).
pub(super) fn run(buffers: &[Buffer], options: &Options) -> Result<Placement> {
    let problem = Problem::new(buffers)?;
    let mut clock = Clock::new(options.effort, options.time_limit);
    let target = options.capacity.map_or(problem.bound, |capacity| (capacity / problem.unit).max(problem.bound));
    let mut best = Best { height: u64::MAX, offsets: Vec::new(), winner: "nothing to place", target };

    if problem.items.is_empty() {
        best.height = 0;
    }
    if !best.is_enough() {
        outward::run(&problem, &mut clock, |offsets, name| best.offer(&problem, offsets, name));
    }
    if !best.is_enough() {
        greedy::run(&problem, &mut clock, |offsets, name| best.offer(&problem, offsets, name));
    }

    let mut proved = problem.bound;
    if !best.is_enough() && !clock.exhausted() && problem.items.len() <= search::MOST_ITEMS {
        proved = minimise::run(&problem, &mut best, &mut clock);
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
    offsets: Vec<u64>,
    winner: &'static str,
    pub target: u64,
}

impl Best {
    /// Keeps a placement that is lower than the best so far; true when no more is needed.
    pub fn offer(&mut self, problem: &Problem, offsets: Vec<u64>, winner: &'static str) -> bool {
        let height = problem.height(&offsets);
        if height < self.height {
            (self.height, self.offsets, self.winner) = (height, offsets, winner);
        }
        self.is_enough()
    }

    pub fn is_enough(&self) -> bool {
        self.height <= self.target
    }
}
