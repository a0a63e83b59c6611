//! Chooses the heights at which the search is asked, since it only answers "is there a placement this low?".

use super::clock::Clock;
use super::portfolio::Best;
use super::problem::Problem;
use super::search::{Answer, Search};

/// Effort of a first run.
const FIRST_LIMIT: u64 = 500;
/// Each round raises it by one part in so many.
const GROWTH: u64 = 2;
/// Strategies tried at the target in each round.
const STRATEGIES: u64 = 8;

/// Searches at the target, and where that fails between it and the best height so far, until the effort is spent, the
/// target is met or the best height is proved. Returns the greatest proved lower bound.
pub(super) fn run(problem: &Problem, best: &mut Best, clock: &mut Clock) -> u64 {
    let mut search = Search::new(problem);
    let mut proved = problem.bound;
    let (mut limit, mut strategy) = (FIRST_LIMIT, 0);
    while !clock.exhausted() && !best.is_enough() && best.height > proved {
        let target = best.target.max(proved);
        for _ in 0..STRATEGIES {
            match search.run(target, strategy, limit, clock) {
                Answer::Placed(offsets) => {
                    best.offer(problem, offsets, "search");
                    return proved;
                }
                Answer::Impossible => {
                    proved = target + 1;
                    break;
                }
                Answer::Unknown => strategy += 1,
            }
            if clock.exhausted() {
                return proved;
            }
        }
        // Bisect, taking "not found" for "too low" within this round only.
        let mut low = target.max(proved);
        while best.height > low + problem.bound / 1000 && !clock.exhausted() {
            let height = low + (best.height - low) / 2;
            match search.run(height, strategy, limit, clock) {
                Answer::Placed(offsets) => {
                    best.offer(problem, offsets, "search");
                }
                Answer::Impossible => {
                    proved = height + 1;
                    low = height + 1;
                }
                Answer::Unknown => low = height + 1,
            }
        }
        limit += limit / GROWTH;
    }
    proved
}
