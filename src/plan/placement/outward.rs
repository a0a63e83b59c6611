//! Stack what is live at the peak, then place outward in both directions of time.
//!
//! At the peak nothing can be wasted, so its buffers are stacked without a gap. Going away from the peak, a buffer is met
//! when its nearer end is reached and gone after its farther one: each side is an online allocation with a free list,
//! solved by best fit. Every step costs O(log holes).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::clock::Clock;
use super::problem::{Item, Problem};

/// In which order the buffers live at the peak are stacked from offset 0.
#[derive(Clone, Copy)]
enum Stack {
    /// Earliest born at the bottom: on the way left, space is freed from the top. Of those born together, the last to die is lowest.
    Lower,
    /// Last to die at the bottom: on the way right, space is freed from the top. Of those that die together, the first born is lowest.
    Upper,
    /// As `Lower`, but of those born together the last to die is highest: what outlives the rest caps them, and they free space as one.
    LowerCapped,
    /// As `Upper`, but of those that die together the first born is highest.
    UpperCapped,
    /// Longest lived at the bottom.
    Duration,
    /// Largest at the bottom.
    Size,
}

const STACKS: [(Stack, &str); 6] = [
    (Stack::Lower, "outward by lower"),
    (Stack::Upper, "outward by upper"),
    (Stack::LowerCapped, "outward by lower, capped"),
    (Stack::UpperCapped, "outward by upper, capped"),
    (Stack::Duration, "outward by duration"),
    (Stack::Size, "outward by size"),
];

/// Items that all attempts together may place, so that a million buffers take a second or two.
const ITEM_LIMIT: usize = 2_000_000;

/// Tries every stack from the first and the last section of highest load, until `accept` returns true. Where there are fixed
/// buffers, everything else goes above them all: legal at once, whatever the number of buffers, and for others to improve.
pub(super) fn run(problem: &Problem, clock: &mut Clock, mut accept: impl FnMut(Vec<u64>, &'static str) -> bool) {
    let highest = problem.load.iter().max();
    let first = problem.load.iter().position(|load| Some(load) == highest);
    let last = problem.load.iter().rposition(|load| Some(load) == highest).filter(|&last| Some(last) != first);
    let mut attempts = (ITEM_LIMIT / problem.items.len().max(1)).max(1);
    for peak in [first, last].into_iter().flatten() {
        let sides = Sides::new(problem, peak as u32);
        for (stack, name) in STACKS {
            if attempts == 0 || accept(sides.place(problem, stack), name) || clock.late() {
                return;
            }
            attempts -= 1;
        }
    }
}

/// The items live at the peak and those on either side of it, in the order in which they are met.
struct Sides {
    live: Vec<u32>,
    left: Vec<u32>,
    right: Vec<u32>,
}

impl Sides {
    fn new(problem: &Problem, peak: u32) -> Self {
        let items = &problem.items;
        let (mut live, mut left, mut right) = (Vec::new(), Vec::new(), Vec::new());
        for (k, item) in items.iter().enumerate().filter(|(_, item)| item.fixed.is_none()) {
            let side = match () {
                () if item.last <= peak => &mut left,
                () if item.first > peak => &mut right,
                () => &mut live,
            };
            side.push(k as u32);
        }
        // Met together: the longer first, since it also outlives the others; then the larger.
        left.sort_unstable_by_key(|&k| (Reverse(items[k as usize].last), rank(&items[k as usize]), k));
        right.sort_unstable_by_key(|&k| (items[k as usize].first, rank(&items[k as usize]), k));
        Self { live, left, right }
    }

    fn place(&self, problem: &Problem, stack: Stack) -> Vec<u64> {
        let items = &problem.items;
        let mut order = self.live.clone();
        order.sort_unstable_by_key(|&k| {
            let item = &items[k as usize];
            let key = match stack {
                Stack::Lower => (u64::from(item.first), u64::from(u32::MAX - item.last)),
                Stack::Upper => (u64::from(u32::MAX - item.last), u64::from(item.first)),
                Stack::LowerCapped => (u64::from(item.first), u64::from(item.last)),
                Stack::UpperCapped => (u64::from(u32::MAX - item.last), u64::from(u32::MAX - item.first)),
                Stack::Duration => (u64::from(u32::MAX - (item.last - item.first)), u64::from(item.first)),
                Stack::Size => (u64::MAX - item.size, u64::from(item.first)),
            };
            (key, k)
        });
        let mut offsets: Vec<u64> = items.iter().map(|item| item.fixed.unwrap_or(0)).collect();
        let base = items.iter().filter_map(|item| Some(item.fixed? + item.size)).max().unwrap_or(0);
        let (mut top, mut gaps) = (base, Vec::new());
        for &k in &order {
            let offset = items[k as usize].align_up(top);
            if offset > top {
                gaps.push((top, offset));
            }
            offsets[k as usize] = offset;
            top = offset + items[k as usize].size;
        }
        for (side, met) in [(Side::Left, &self.left), (Side::Right, &self.right)] {
            let mut free = FreeList::new(top.max(problem.bound));
            gaps.iter().for_each(|&(start, end)| free.release(start, end));
            free.release(top, free.top);
            let leaving = self.live.iter().chain(met).map(|&k| (side.gone(&items[k as usize]), k));
            let mut leaving: Vec<(u32, u32)> = leaving.collect();
            leaving.sort_unstable();
            let mut leaving = leaving.into_iter().peekable();
            for &k in met {
                let item = &items[k as usize];
                let now = side.met(item);
                while let Some((_, other)) = leaving.next_if(|&(when, _)| when <= now) {
                    let offset = offsets[other as usize];
                    free.release(offset, offset + items[other as usize].size);
                }
                offsets[k as usize] = free.take(item);
            }
        }
        offsets
    }
}

/// A direction away from the peak, with time running that way.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

impl Side {
    fn met(self, item: &Item) -> u32 {
        match self {
            Side::Left => u32::MAX - item.last,
            Side::Right => item.first,
        }
    }

    fn gone(self, item: &Item) -> u32 {
        match self {
            Side::Left => u32::MAX - item.first,
            Side::Right => item.last,
        }
    }
}

fn rank(item: &Item) -> (Reverse<u32>, Reverse<u64>) {
    (Reverse(item.last - item.first), Reverse(item.size))
}

/// Free extents below a top that grows when nothing fits.
struct FreeList {
    by_start: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    top: u64,
}

impl FreeList {
    /// Everything below `top` is taken.
    fn new(top: u64) -> Self {
        Self { by_start: BTreeMap::new(), by_size: BTreeSet::new(), top }
    }

    fn add(&mut self, start: u64, end: u64) {
        if start < end {
            self.by_start.insert(start, end);
            self.by_size.insert((end - start, start));
        }
    }

    fn remove(&mut self, start: u64, end: u64) {
        self.by_start.remove(&start);
        self.by_size.remove(&(end - start, start));
    }

    /// Frees an extent and joins it with its free neighbours.
    fn release(&mut self, mut start: u64, mut end: u64) {
        if start == end {
            return;
        }
        if let Some((&left, &left_end)) = self.by_start.range(..start).next_back()
            && left_end == start
        {
            self.remove(left, left_end);
            start = left;
        }
        if let Some(&right_end) = self.by_start.get(&end) {
            self.remove(end, right_end);
            end = right_end;
        }
        self.add(start, end);
    }

    /// Takes space for `item` from the smallest hole that fits, else from above the top.
    fn take(&mut self, item: &Item) -> u64 {
        let fits = |&&(size, start): &&(u64, u64)| item.align_up(start) + item.size <= start + size;
        if let Some(&(size, start)) = self.by_size.range((item.size, 0)..).find(fits) {
            self.remove(start, start + size);
            let offset = item.align_up(start);
            self.add(start, offset);
            self.add(offset + item.size, start + size);
            return offset;
        }
        let last =
            self.by_start.iter().next_back().map(|(&start, &end)| (start, end)).filter(|&(_, end)| end == self.top);
        let floor = last.map_or(self.top, |(start, _)| start);
        if let Some((start, end)) = last {
            self.remove(start, end);
        }
        let offset = item.align_up(floor);
        self.add(floor, offset);
        self.top = offset + item.size;
        offset
    }
}
