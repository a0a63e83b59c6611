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

/// Small sets of strategies that differ in what they solve at once.
const TABLE: [(SectionRule, bool, Measure); 9] = [
    (SectionRule::Near(3), false, Measure::Area),
    (SectionRule::Near(3), true, Measure::Area),
    (SectionRule::Near(2), false, Measure::Size),
    (SectionRule::Near(3), true, Measure::Span),
    (SectionRule::Near(4), false, Measure::Compromise),
    (SectionRule::Near(3), true, Measure::Size),
    (SectionRule::Near(3), false, Measure::Span),
    (SectionRule::Near(3), true, Measure::Compromise),
    (SectionRule::Fewest, false, Measure::Compromise),
];

/// What stands for 1 where measures are multiplied: noise and failures make it up to 5.
const FACTOR: u64 = 1024;

impl Strategy {
    /// Strategies beyond the table repeat it with noise, and with items earlier that are live where runs so far failed
    /// most: `failures` counts them by section.
    pub fn new(model: &Model, number: u64, failures: &[u64]) -> Self {
        let (section, contact, measure) = TABLE[(number % TABLE.len() as u64) as usize];
        let noisy = number >= TABLE.len() as u64;
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
        Self { section, contact, hasty: number % 2 == 1, rank }
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
