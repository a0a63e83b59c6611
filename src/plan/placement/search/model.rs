//! What the search knows of a problem, whatever the height.

use super::super::problem::{Item, Problem};
use super::super::random::Random;

/// No item.
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Model {
    pub items: Vec<Item>,
    /// Items live in each section.
    pub at: Vec<Vec<u32>>,
    /// Items first live in each section.
    pub starts: Vec<Vec<u32>>,
    /// Items that overlap each item.
    pub overlaps: Vec<Vec<u32>>,
    /// Load of each section.
    pub load: Vec<u64>,
    /// The previous item of the same lifespan, size, alignment and fixed offset, or [`NONE`].
    pub twin: Vec<u32>,
    /// Random bits of each item: their exclusive or names a set of items.
    pub bits: Vec<u128>,
}

impl Model {
    pub fn new(problem: &Problem) -> Self {
        let items = problem.items.clone();
        let sections = problem.load.len();
        let (mut at, mut starts) = (vec![Vec::new(); sections], vec![Vec::new(); sections]);
        for (i, item) in (0u32..).zip(&items) {
            starts[item.first as usize].push(i);
            (item.first..item.last).for_each(|s| at[s as usize].push(i));
        }
        let overlaps = (0u32..)
            .zip(&items)
            .map(|(i, item)| {
                let later = (item.first + 1..item.last).flat_map(|s| &starts[s as usize]);
                at[item.first as usize].iter().chain(later).copied().filter(|&j| j != i).collect()
            })
            .collect();
        let twin = twins(&items);
        let mut random = Random::new(1);
        let bits = items.iter().map(|_| random.next_u128()).collect();
        Self { items, at, starts, overlaps, load: problem.load.clone(), twin, bits }
    }
}

fn twins(items: &[Item]) -> Vec<u32> {
    let key = |i: u32| {
        let item = &items[i as usize];
        (item.first, item.last, item.size, item.align, item.fixed)
    };
    let mut order: Vec<u32> = (0..items.len() as u32).collect();
    order.sort_by_key(|&i| (key(i), i));
    let mut twin = vec![NONE; items.len()];
    for pair in order.windows(2).filter(|pair| key(pair[0]) == key(pair[1])) {
        twin[pair[1] as usize] = pair[0];
    }
    twin
}
