//! Runs the members of the portfolio in turn and keeps the best placement.

use crate::error::Result;

use super::clock::Clock;
use super::problem::Problem;
use super::search::{self, Search};
use super::{Buffer, Options, Placement, Status, greedy, local, minimise, outward};

/// One part in so many of the effort is kept for local search, where the search leaves a gap.
const LOCAL_SHARE: u64 = 4;

/// Items above which another attempt of the near-linear heuristics takes half a second, which no millionth of the arena is worth.
const DEAR: usize = 500_000;

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
        outward::run(&problem, &mut clock, |offsets, name| {
            best.offer(&problem, offsets, name) || problem.items.len() > DEAR && best.is_close(problem.bound)
        });
    }
    let searchable = problem.items.len() <= search::MOST_ITEMS;
    let (mut search, mut proved) = (None, problem.bound);
    if searchable && !best.is_enough(problem.bound) && !clock.exhausted() {
        // Dives are cheaper than the greedy orders, and find most of what those do not.
        let search = search.insert(Search::new(&problem));
        proved = minimise::dive(search, &problem, &mut best, &mut clock);
    }
    if !best.is_enough(proved) {
        greedy::run(&problem, &mut clock, |offsets, name| best.offer(&problem, offsets, name));
    }
    if !best.is_enough(proved) && !clock.exhausted() {
        let kept = clock.set_aside(LOCAL_SHARE);
        if let Some(search) = &mut search {
            proved = minimise::run(search, &problem, &mut best, &mut clock, proved);
        }
        clock.left += kept;
        if !best.is_enough(proved) && !clock.exhausted() {
            local::run(&problem, &mut best, &mut clock);
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

    /// Whether the best is within a millionth of the bound.
    fn is_close(&self, bound: u64) -> bool {
        self.height - bound <= bound / 1_000_000
    }

    /// Whether nothing more is asked for: the target is met, the best is `proved`, or a capacity is below what is proved.
    pub fn is_enough(&self, proved: u64) -> bool {
        let refuted = self.satisfy && self.target < proved && self.height < u64::MAX;
        self.height <= self.target.max(proved) || refuted
    }
}
