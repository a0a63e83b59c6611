//! Where the tree branches next, and in which order it tries the items there.

use super::super::model::NONE;
use super::super::strategy::SectionRule;
use super::{Brancher, Part};

/// A section of a valley: the run of sections `left..right` at one floor between higher ones.
pub(super) struct Decision {
    pub section: usize,
    pub left: usize,
    pub right: usize,
    pub floor: u64,
}

impl Brancher<'_> {
    /// The section with the fewest branches of all valleys in a part.
    pub(super) fn decide(&mut self, lo: usize, hi: usize) -> Decision {
        let state = &self.state;
        let mut best: Option<([u64; 3], Decision)> = None;
        let (mut left, mut before) = (lo, u64::MAX);
        while left < hi {
            let floor = state.wall(left);
            let right = (left + 1..hi).find(|&s| state.wall(s) != floor).unwrap_or(hi);
            let after = if right < hi { state.wall(right) } else { u64::MAX };
            if floor < before && floor < after {
                self.counts[left..=right].fill(0);
                for s in left..right {
                    for &i in &state.model.starts[s] {
                        let last = state.model.items[i as usize].last as usize;
                        let twin = state.model.twin[i as usize];
                        if last <= right && state.is_option(i, floor) && (twin == NONE || state.placed[twin as usize]) {
                            self.counts[s] += 1;
                            self.counts[last] -= 1;
                        }
                    }
                }
                let mut count = 0;
                for section in left..right {
                    count += self.counts[section];
                    let slack = state.slack(section);
                    let branches = count as u64 + u64::from(slack > 0);
                    let score = match self.strategy.section {
                        SectionRule::Near(cap) => [branches.min(cap), section.abs_diff(self.last) as u64, slack],
                        SectionRule::Fewest => [branches, slack, floor],
                    };
                    if best.as_ref().is_none_or(|(other, _)| score < *other) {
                        best = Some((score, Decision { section, left, right, floor }));
                    }
                }
            }
            (before, left) = (floor, right);
        }
        best.expect("the lowest section of a part with unplaced items lies in a valley").1
    }

    /// Orders the options from `from` on: by rank, or first those that touch the walls of the valley.
    pub(super) fn sort_options(&mut self, from: usize, part: &Part, decision: &Decision) {
        let (state, rank) = (&self.state, &self.strategy.rank);
        if !self.strategy.contact {
            self.options[from..].sort_unstable_by_key(|&i| rank[i as usize]);
            return;
        }
        let wall = |beyond: bool, s: usize| if beyond { state.height } else { state.wall(s) };
        let left = wall(decision.left == part.lo, decision.left.wrapping_sub(1));
        let right = wall(decision.right == part.hi, decision.right);
        self.options[from..].sort_by_cached_key(|&i| {
            let item = &state.model.items[i as usize];
            let top = decision.floor + item.size;
            let touches = [(item.first as usize == decision.left, left), (item.last as usize == decision.right, right)];
            let contact: u32 =
                touches.iter().map(|&(touch, wall)| u32::from(touch) + u32::from(touch && top == wall)).sum();
            (4 - contact, rank[i as usize])
        });
    }
}
