//! Static orders with first fit and best fit.
//!
//! The orders are those of the dynamic storage allocation literature and of TFLite's greedy-by-size planner: what is hard to place goes
//! first.

use std::cmp::Reverse;

use super::clock::Clock;
use super::interval_index::IntervalIndex;
use super::problem::{Item, Problem};

/// Which hole to take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// The lowest hole.
    First,
    /// The smallest hole below the top of what is placed; else the lowest offset above.
    Best,
}

/// A named order of placing.
struct Order {
    names: [&'static str; 2],
    key: fn(&Item, &Context) -> (u64, u64),
}

/// What a key may look at beyond the item.
struct Context<'a> {
    load: &'a [u64],
}

/// Descending by key; ties by input position.
const ORDERS: [Order; 6] = [
    Order { names: ["greedy size first-fit", "greedy size best-fit"], key: |i, _| (i.size, span(i)) },
    Order { names: ["greedy duration first-fit", "greedy duration best-fit"], key: |i, _| (span(i), i.size) },
    Order { names: ["greedy area first-fit", "greedy area best-fit"], key: |i, _| (span(i).saturating_mul(i.size), 0) },
    Order {
        names: ["greedy lower first-fit", "greedy lower best-fit"],
        key: |i, _| (u64::from(u32::MAX - i.first), i.size),
    },
    Order { names: ["greedy upper first-fit", "greedy upper best-fit"], key: |i, _| (u64::from(i.last), i.size) },
    Order {
        names: ["greedy load first-fit", "greedy load best-fit"],
        key: |i, c| (c.peak_over(i), span(i).saturating_mul(i.size)),
    },
];

impl Context<'_> {
    /// Highest load during the item's life.
    fn peak_over(&self, item: &Item) -> u64 {
        self.load[item.first as usize..item.last as usize].iter().copied().max().unwrap_or(0)
    }
}

fn span(item: &Item) -> u64 {
    u64::from(item.last - item.first)
}

/// Overlap tests one order may cost; instances beyond are left to the near-linear members of the portfolio.
const OVERLAP_LIMIT: u64 = 20_000_000;

/// Number of overlapping pairs.
pub(super) fn overlaps(problem: &Problem) -> u64 {
    let sections = problem.load.len();
    let (mut starts, mut ends) = (vec![0u64; sections + 1], vec![0u64; sections + 1]);
    for item in &problem.items {
        starts[item.first as usize] += 1;
        ends[item.last as usize] += 1;
    }
    let (mut live, mut pairs) = (0u64, 0u64);
    for (started, ended) in starts.iter().zip(&ends) {
        live -= ended;
        pairs += live * started + started * started.saturating_sub(1) / 2;
        live += started;
    }
    pairs
}

/// Tries every order with both fits until `accept` returns true for a placement (offsets in units, name).
pub(super) fn run(problem: &Problem, clock: &mut Clock, mut accept: impl FnMut(Vec<u64>, &'static str) -> bool) {
    if overlaps(problem) > OVERLAP_LIMIT {
        return;
    }
    let context = Context { load: &problem.load };
    for order in &ORDERS {
        let mut sequence: Vec<u32> = (0..problem.items.len() as u32).collect();
        sequence.sort_by_cached_key(|&k| Reverse((order.key)(&problem.items[k as usize], &context)));
        for (fit, name) in [Fit::First, Fit::Best].into_iter().zip(order.names) {
            if accept(place_in_order(problem, &sequence, fit), name) || clock.late() {
                return;
            }
        }
    }
}

/// Places fixed items first, then the others in `sequence`, each in the hole that `fit` chooses.
pub(super) fn place_in_order(problem: &Problem, sequence: &[u32], fit: Fit) -> Vec<u64> {
    let mut offsets = vec![0u64; problem.items.len()];
    let mut index = IntervalIndex::new(problem.load.len());
    let mut top = 0;
    for (k, item) in problem.items.iter().enumerate() {
        if let Some(offset) = item.fixed {
            offsets[k] = offset;
            top = top.max(offset + item.size);
            index.insert(item, k as u32);
        }
    }
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for &k in sequence {
        let item = &problem.items[k as usize];
        if item.fixed.is_some() {
            continue;
        }
        taken.clear();
        index.overlapping(item, |other| {
            let offset = offsets[other as usize];
            taken.push((offset, offset + problem.items[other as usize].size));
        });
        taken.sort_unstable();
        let offset = choose(item, &taken, fit, top);
        offsets[k as usize] = offset;
        top = top.max(offset + item.size);
        index.insert(item, k);
    }
    offsets
}

/// An offset for `item` among the extents `taken`, ascending.
fn choose(item: &Item, taken: &[(u64, u64)], fit: Fit, top: u64) -> u64 {
    let mut best: Option<(u64, u64)> = None;
    let mut floor = 0;
    for &(start, end) in taken {
        let offset = item.align_up(floor);
        if start > floor && offset + item.size <= start {
            if fit == Fit::First {
                return offset;
            }
            let hole = (start - floor, offset);
            best = Some(best.map_or(hole, |other| other.min(hole)));
        }
        floor = floor.max(end);
    }
    let above = item.align_up(floor);
    if above + item.size <= top {
        let hole = (top - floor, above);
        best = Some(best.map_or(hole, |other| other.min(hole)));
    }
    best.map_or(above, |(_, offset)| offset)
}
