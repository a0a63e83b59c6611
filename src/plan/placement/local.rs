//! Any-time local search over orders of placing, around what sticks out.
//!
//! An order decodes to a placement by first fit. The items that end at the top of the arena were placed too late: they
//! move to a random earlier place, and the new order stays unless it is higher (squeaky wheel optimisation, Joslin and
//! Clements, 1999).

use super::clock::Clock;
use super::greedy::{self, Fit};
use super::portfolio::Best;
use super::problem::Problem;
use super::random::Random;

/// Decodings without a lower placement after which it gives up.
const PATIENCE: u64 = 300;
/// Pairs of overlapping items whose decoding costs as much as a search node.
const NODE_PAIRS: u64 = 64;

/// Improves `best` until the target is met, the effort is spent or nothing moves any more.
pub(super) fn run(problem: &Problem, best: &mut Best, clock: &mut Clock) {
    let cost = (greedy::overlaps(problem) + problem.items.len() as u64) / NODE_PAIRS + 1;
    if cost > clock.left {
        return;
    }
    let mut random = Random::new(7);
    // Decoding the order of offsets loses nothing.
    let mut order: Vec<u32> = (0..problem.items.len() as u32).collect();
    order.sort_by_key(|&i| (best.offsets[i as usize], i));
    let (mut offsets, mut height) = (best.offsets.clone(), best.height);
    let mut idle = 0;
    while idle < PATIENCE && !clock.exhausted() {
        idle += 1;
        clock.charge(1, cost);
        let mut next = order.clone();
        for place in 0..next.len() {
            let i = next[place] as usize;
            if offsets[i] + problem.items[i].size == height {
                let earlier = (random.next_u64() % (place as u64 + 1)) as usize;
                next[earlier..=place].rotate_right(1);
            }
        }
        let placed = greedy::place_in_order(problem, &next, Fit::First);
        let reached = problem.height(&placed);
        if reached <= height {
            if reached < height {
                idle = 0;
            }
            (order, height) = (next, reached);
            offsets.clone_from(&placed);
            if best.offer(problem, placed, "local search") {
                return;
            }
        }
    }
}
