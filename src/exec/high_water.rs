//! Which bytes of the arena runs touch, for tests that compare them with the plan.
//!
//! Fill with one value and run, fill with another and run again: a byte that holds the filled value both times was not written.

use super::Executor;
use crate::plan::BufferKind;
use std::ops::Range;

impl Executor<'_> {
    /// Ranges of the arena that a run writes before it reads them: kept rows, and everything behind the persistent region, which is the transient
    /// region and the scratch of each worker.
    fn unwritten(&self) -> Vec<Range<u64>> {
        let kept = self.plan().buffers.iter().filter(|b| b.kind == BufferKind::Kept);
        let behind = self.plan().totals.persistent..self.arena_bytes() as u64;
        kept.map(|b| b.offset..b.offset + b.size).chain([behind]).collect()
    }

    /// Fills these ranges with `value`; the next run must start from row 0.
    pub fn fill_unwritten(&mut self, value: u8) {
        for range in self.unwritten() {
            self.arena.fill(range.start, range.end - range.start, value);
        }
    }

    /// Where each of these ranges starts, and its bytes, after [`Executor::fill_unwritten`].
    pub fn filled(&self) -> Vec<(u64, &[u8])> {
        self.unwritten()
            .into_iter()
            .map(|range| (range.start, self.arena.slice(range.start, (range.end - range.start) as usize)))
            .collect()
    }
}
