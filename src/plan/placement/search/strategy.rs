//! In which order the search makes its choices. A run that fails fast under one strategy may take forever under another.

use std::cmp::Reverse;

use super::super::problem::Item;
use super::super::random::Random;
use super::model::Model;

/// Which section to branch on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionRule {
    /// The one nearest to the last decision among those with the fewest branches, where so many or more count as equal.
    /// Staying near finds a contradiction before choices elsewhere multiply it.
    Near(u64),
    /// The fewest branches, then the least room to spare.
    Fewest,
}

/// Which items are tried first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measure {
    Area,
    Span,
    Size,
    /// Between size and area.
    Compromise,
}

pub(super) struct Strategy {
    pub section: SectionRule,
    /// Items that touch the walls of their valley first.
    pub contact: bool,
    /// Prunes more than is proved: finds more in little time, and proves nothing.
    pub hasty: bool,
    /// Place of each item in the order of trying.
    pub rank: Vec<u32>,
}

/// Section rule, contact, haste and measure: of eighty combinations those that together solve most of some hundred synthetic packings with up
/// to a tenth left out, with two nodes an item, the best first; the last one solves most plans of graphs.
const TABLE: [(SectionRule, bool, bool, Measure); 9] = [
    (SectionRule::Near(6), true, false, Measure::Span),
    (SectionRule::Near(6), true, false, Measure::Size),
    (SectionRule::Fewest, true, false, Measure::Area),
    (SectionRule::Near(2), true, false, Measure::Compromise),
    (SectionRule::Near(4), false, false, Measure::Span),
    (SectionRule::Fewest, false, false, Measure::Span),
    (SectionRule::Near(2), true, false, Measure::Span),
    (SectionRule::Near(4), true, true, Measure::Compromise),
    (SectionRule::Near(3), false, false, Measure::Area),
];

/// What stands for 1 where measures are multiplied: noise and failures make it up to 5.
const FACTOR: u64 = 1024;

impl Strategy {
    /// Strategies beyond the table repeat it with noise, every other time with the opposite haste, and with items earlier that are
    /// live where runs so far failed most: `failures` counts them by section.
    pub fn new(model: &Model, number: u64, failures: &[u64]) -> Self {
        let (section, contact, hasty, measure) = TABLE[(number % TABLE.len() as u64) as usize];
        let round = number / TABLE.len() as u64;
        let noisy = round > 0;
        let most = failures.iter().copied().max().unwrap_or(0).max(1);
        let mut random = Random::new(number);
        let mut order: Vec<u32> = (0..model.items.len() as u32).collect();
        order.sort_by_cached_key(|&i| {
            let item = &model.items[i as usize];
            let mut factor = FACTOR;
            if noisy {
                let trouble = failures[item.first as usize..item.last as usize].iter().copied().max().unwrap_or(0);
                factor += random.next_u64() % (2 * FACTOR) + 2 * FACTOR * trouble / most;
            }
            Reverse(measure.of(item).saturating_mul(u128::from(factor)))
        });
        let mut rank = vec![0; order.len()];
        for (place, &i) in (0u32..).zip(&order) {
            rank[i as usize] = place;
        }
        Self { section, contact, hasty: hasty ^ (round % 2 == 1), rank }
    }
}

impl Measure {
    fn of(self, item: &Item) -> u128 {
        let (span, size) = (u128::from(item.last - item.first), u128::from(item.size));
        match self {
            Measure::Area => span * size,
            Measure::Span => span << 64 | size,
            Measure::Size => size << 32 | span,
            Measure::Compromise => size * (span << 32).isqrt(),
        }
    }
}
