//! Chooses the heights at which the search is asked, since it only answers "is there a placement this low?".

use super::clock::Clock;
use super::portfolio::Best;
use super::problem::Problem;
use super::search::{Answer, Search};

/// Nodes of a first run, and nodes for each item if that is more: a run without a wrong choice takes one.
const FIRST_LIMIT: u64 = 500;
const FIRST_LIMIT_PER_ITEM: u64 = 3;
/// Each round raises it by one part in so many.
const GROWTH: u64 = 2;
/// Strategies tried at the target in each round.
const STRATEGIES: u64 = 9;
/// How many times as many where meeting the target is all that is asked for.
const SATISFY_FACTOR: u64 = 4;
/// Strategies tried at each height above it.
const STRATEGIES_BETWEEN: u64 = 4;
/// Strategies that dive at each height on the first way down, which tells heights one part in so many of the bound apart.
const APPROACHES: u64 = 3;
const COARSE: u64 = 100;
/// Heights closer than one part in so many of the bound are not told apart.
const PRECISION: u64 = 1000;

/// As many nodes as a run with hardly a wrong choice takes.
fn dive_limit(problem: &Problem) -> u64 {
    problem.items.len() as u64 * 9 / 8
}

/// Asks each strategy for the target, with as many nodes as a run with hardly a wrong choice takes; the last ones first, which suit plans of
/// graphs. Returns the greatest proved lower bound.
pub(super) fn dive(search: &mut Search, problem: &Problem, best: &mut Best, clock: &mut Clock) -> u64 {
    let limit = dive_limit(problem);
    let target = best.target.max(problem.bound);
    for strategy in (0..STRATEGIES).rev() {
        match search.run(target, strategy, limit, clock) {
            Answer::Placed(offsets) => {
                best.offer(problem, offsets, "search");
                break;
            }
            Answer::Impossible => return target + 1,
            Answer::Unknown if clock.exhausted() => break,
            Answer::Unknown => {}
        }
    }
    problem.bound
}

/// Searches at the target, and where that fails between it and the best height so far, until the effort is spent, the
/// target is met or the best height is proved. Takes and returns the greatest proved lower bound.
pub(super) fn run(search: &mut Search, problem: &Problem, best: &mut Best, clock: &mut Clock, proved: u64) -> u64 {
    let mut driver = Driver { search, problem, best, clock, proved, strategy: 0 };
    let mut limit = FIRST_LIMIT.max(FIRST_LIMIT_PER_ITEM * problem.items.len() as u64);
    driver.approach();
    let strategies = if driver.best.satisfy { SATISFY_FACTOR * STRATEGIES } else { STRATEGIES };
    let mut round = 0;
    while !driver.is_done() {
        driver.strategy = round * strategies;
        round += 1;
        let target = driver.best.target.max(driver.proved);
        let mut low = if driver.ask(target, strategies, limit) { target } else { driver.proved.max(target + 1) };
        // Bisect, taking "not found" for "too low" within this round only. Proofs are worth the last byte.
        let precision = |low, proved| if low > proved { problem.bound / PRECISION } else { 0 };
        while !driver.is_done() && driver.best.height > low + precision(low, driver.proved) {
            let height = low + (driver.best.height - low) / 2;
            if !driver.ask(height, STRATEGIES_BETWEEN, limit) {
                low = height + 1;
            }
        }
        limit += limit / GROWTH;
    }
    driver.proved
}

struct Driver<'a> {
    search: &'a mut Search,
    problem: &'a Problem,
    best: &'a mut Best,
    clock: &'a mut Clock,
    proved: u64,
    /// Number of the next strategy.
    strategy: u64,
}

impl Driver<'_> {
    fn is_done(&mut self) -> bool {
        self.best.is_enough(self.proved) || self.clock.exhausted()
    }

    /// Dives at heights between the target and the best so far, so that a good placement is there soon, however long the target takes. What is
    /// learned of heights that need not be searched is forgotten.
    fn approach(&mut self) {
        let limit = dive_limit(self.problem);
        let failures = self.search.failures.clone();
        let mut low = self.best.target.max(self.proved) + 1;
        while !self.best.satisfy && !self.is_done() && self.best.height > low + self.problem.bound / COARSE {
            let height = low + (self.best.height - low) / 2;
            if !self.ask(height, APPROACHES, limit) {
                low = height + 1;
            }
        }
        self.search.failures = failures;
    }

    /// Whether one of the next `count` strategies finds a placement of at most `height`.
    fn ask(&mut self, height: u64, count: u64, limit: u64) -> bool {
        for _ in 0..count {
            let answer = self.search.run(height, self.strategy, limit, self.clock);
            self.strategy += 1;
            match answer {
                Answer::Placed(offsets) => {
                    self.best.offer(self.problem, offsets, "search");
                    return true;
                }
                Answer::Impossible => {
                    self.proved = self.proved.max(height + 1);
                    return false;
                }
                Answer::Unknown if self.clock.exhausted() => return false,
                Answer::Unknown => {}
            }
        }
        false
    }
}
