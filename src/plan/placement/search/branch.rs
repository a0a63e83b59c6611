//! The tree of the branch and bound, on an explicit stack. [`decide`] says where and in which order it branches.
//!
//! A *part* is a run of sections that no unplaced item leaves; the parts still to solve form a list, so that each branch
//! shares its tail with its siblings. A part fails when all branches at its decision fail, and with it the branch of
//! the frame that made it: parts solved in between are taken back without trying their alternatives.

mod decide;

use super::super::clock::Clock;
use super::super::random::Random;
use super::memo::Memo;
use super::model::NONE;
use super::state::{Dead, State};
use super::strategy::Strategy;

/// How a run ended.
pub(super) enum Outcome {
    Placed,
    Impossible,
    Stopped,
}

/// Sections `lo..hi`, the frame that made the part, and the next part of the list.
#[derive(Clone, Copy)]
struct Part {
    lo: usize,
    hi: usize,
    parent: usize,
    next: usize,
}

/// No frame, no part.
const END: usize = usize::MAX;

/// An open decision.
struct Frame {
    part: Part,
    /// Key of the state in the memo.
    key: u128,
    /// The section of the decision.
    section: usize,
    /// Undo mark and list lengths before any branch.
    mark: usize,
    parts: usize,
    options: usize,
    /// Index of the next option; behind the last comes the branch with none of them.
    cursor: usize,
    end: usize,
    lifted: bool,
}

pub(super) struct Brancher<'a> {
    state: State<'a>,
    strategy: &'a Strategy,
    memo: &'a mut Memo,
    /// Makes keys differ between heights, and between proofs and what is only hasty.
    seed: u128,
    limit: u64,
    /// Branches that failed at once, by the section that overflowed.
    failures: &'a mut [u64],
    /// Section of the decision opened last.
    last: usize,
    /// Decisions opened.
    pub nodes: u64,
    frames: Vec<Frame>,
    parts: Vec<Part>,
    options: Vec<u32>,
    lifts: Vec<(u32, u64)>,
    /// Scratch: change of the number of branches at each section.
    counts: Vec<i32>,
}

/// Nodes between looks at the wall clock.
const CLOCK_INTERVAL: u64 = 64;

impl<'a> Brancher<'a> {
    pub fn new(
        state: State<'a>,
        strategy: &'a Strategy,
        memo: &'a mut Memo,
        failures: &'a mut [u64],
        limit: u64,
    ) -> Self {
        let sections = state.model.load.len();
        Self {
            seed: Random::new(state.height ^ u64::from(strategy.hasty) << 63).next_u128(),
            state,
            strategy,
            memo,
            limit,
            failures,
            last: 0,
            nodes: 0,
            frames: Vec::new(),
            parts: Vec::new(),
            options: Vec::new(),
            lifts: Vec::new(),
            counts: vec![0; sections + 1],
        }
    }

    /// The offsets after [`Outcome::Placed`].
    pub fn into_offsets(self) -> Vec<u64> {
        self.state.low
    }

    pub fn run(&mut self, clock: &mut Clock) -> Outcome {
        let mut pending = self.split(0, self.state.model.load.len(), END, END);
        while pending != END {
            let part = self.parts[pending];
            let key = self.key(&part);
            let mut frame = self.frames.len();
            if self.memo.contains(key) {
                frame = part.parent;
            } else {
                if self.nodes == self.limit || self.nodes % CLOCK_INTERVAL == CLOCK_INTERVAL - 1 && clock.late() {
                    return Outcome::Stopped;
                }
                self.nodes += 1;
                self.open(part, key);
            }
            // Back to the innermost decision with a branch that lives.
            pending = loop {
                if frame == END {
                    return if self.strategy.hasty { Outcome::Stopped } else { Outcome::Impossible };
                }
                self.return_to(frame);
                if let Some(pending) = self.next_branch(frame) {
                    break pending;
                }
                self.memo.insert(self.frames[frame].key);
                frame = self.frames[frame].part.parent;
            };
        }
        Outcome::Placed
    }

    /// Puts the independent parts of sections `lo..hi` in front of the list `next`, the tightest foremost.
    fn split(&mut self, lo: usize, hi: usize, parent: usize, mut next: usize) -> usize {
        let first = self.parts.len();
        let (mut from, mut slack) = (lo, u64::MAX);
        for s in lo..hi {
            if self.state.rest[s] > 0 {
                slack = slack.min(self.state.slack(s));
            }
            if s + 1 == hi || self.state.crossing[s] == 0 {
                if slack != u64::MAX {
                    // `next` holds the sort key until the parts are linked.
                    self.parts.push(Part { lo: from, hi: s + 1, parent, next: slack as usize });
                }
                (from, slack) = (s + 1, u64::MAX);
            }
        }
        self.parts[first..].sort_by_key(|part| std::cmp::Reverse(part.next));
        for index in first..self.parts.len() {
            self.parts[index].next = next;
            next = index;
        }
        next
    }

    /// Names the unplaced items of a part and the floors under them.
    fn key(&self, part: &Part) -> u128 {
        const MULTIPLIERS: (u64, u64) = (0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93);
        let mut set = self.seed;
        let (mut a, mut b) = (part.lo as u64, part.hi as u64);
        for s in part.lo..part.hi {
            set ^= self.state.start_bits[s];
            let floor = if self.state.rest[s] > 0 { self.state.floor[s] } else { 0 };
            a = (a ^ floor).wrapping_mul(MULTIPLIERS.0);
            a ^= a >> 29;
            b = (b.rotate_left(23) ^ floor).wrapping_mul(MULTIPLIERS.1);
            b ^= b >> 32;
        }
        set ^ (u128::from(a) << 64 | u128::from(b))
    }

    /// Opens the decision of a part.
    fn open(&mut self, part: Part, key: u128) {
        let decision = self.decide(part.lo, part.hi);
        self.last = decision.section;
        let options = self.options.len();
        for s in decision.left..=decision.section {
            for &i in &self.state.model.starts[s] {
                let last = self.state.model.items[i as usize].last as usize;
                if last > decision.section && last <= decision.right && self.state.is_option(i, decision.floor) {
                    self.options.push(i);
                }
            }
        }
        self.sort_options(options, &part, &decision);
        self.frames.push(Frame {
            part,
            key,
            section: decision.section,
            mark: self.state.mark(),
            parts: self.parts.len(),
            options,
            cursor: options,
            end: self.options.len(),
            lifted: false,
        });
    }

    /// Undoes everything since `frame` was opened.
    fn return_to(&mut self, frame: usize) {
        self.frames.truncate(frame + 1);
        let frame = &self.frames[frame];
        self.parts.truncate(frame.parts);
        self.options.truncate(frame.end);
        self.state.undo(frame.mark);
    }

    /// Takes the next branch of the innermost frame that propagation lets live; the list of parts to solve then.
    fn next_branch(&mut self, index: usize) -> Option<usize> {
        loop {
            let frame = &mut self.frames[index];
            let (lo, hi, next, mark) = (frame.part.lo, frame.part.hi, frame.part.next, frame.mark);
            let result = if frame.cursor < frame.end {
                let i = self.options[frame.cursor];
                frame.cursor += 1;
                let twin = self.state.model.twin[i as usize];
                if twin != NONE && !self.state.placed[twin as usize] {
                    continue;
                }
                self.state.place(i)
            } else if !frame.lifted && self.state.slack(frame.section) > 0 {
                frame.lifted = true;
                self.exclude(index)
            } else {
                return None;
            };
            match result {
                Ok(()) => return Some(self.split(lo, hi, index, next)),
                Err(Dead { section }) => {
                    self.failures[section as usize] += 1;
                    self.state.undo(mark);
                }
            }
        }
    }

    /// The branch in which none of the options lies on the floor: each is held up by an unplaced item below it.
    ///
    /// One that is no option has its top at its lowest offset plus its size, or higher. Another option, itself held
    /// up, does so at its own new lowest offset plus its size: all options meet in the section, so taking them from the
    /// lowest up, as in Dijkstra's algorithm, settles each. A hasty strategy overlooks holders that are over the section.
    fn exclude(&mut self, index: usize) -> Result<(), Dead> {
        let Frame { section, options, end, .. } = self.frames[index];
        let (state, hasty) = (&self.state, self.strategy.hasty);
        let items = &state.model.items;
        let floor = state.floor[section];
        self.lifts.clear();
        for &i in &self.options[options..end] {
            let holders = state.model.overlaps[i as usize].iter().filter(|&&j| {
                let item = &items[j as usize];
                let over_section = item.first as usize <= section && section < item.last as usize;
                let is_holder = if hasty { !over_section } else { !over_section || state.low[j as usize] > floor };
                is_holder && !state.placed[j as usize]
            });
            let lowest = holders.map(|&j| state.low[j as usize] + items[j as usize].size).min();
            self.lifts.push((i, lowest.unwrap_or(u64::MAX)));
        }
        self.lifts.sort_unstable_by_key(|&(i, lowest)| (lowest, i));
        let mut top = state.height;
        for (i, lowest) in &mut self.lifts {
            *lowest = if hasty { state.height.min(*lowest) } else { top.min(*lowest) };
            top = top.min(*lowest + items[*i as usize].size);
        }
        self.state.lift_all(&self.lifts)
    }
}
