//! What products prefetch while they multiply.
#![allow(unsafe_code)]

use super::epilogue::prefetch_line;
use super::layout::PANEL;
use crate::kernels::view::ViewMut;

/// Rows of memory that a product is about to write, evenly spaced: kernels prefetch them a few at a time, because all at once they would hold up
/// what streams through the caches. Any address is allowed.
#[derive(Clone, Copy)]
pub struct Place {
    /// First value of the first row; null when there is nothing to prefetch.
    pub(super) at: *const f32,
    /// From one row to the next, in values.
    pub(super) stride: usize,
}

impl Place {
    /// Nothing to prefetch.
    pub const NOWHERE: Place = Place { at: std::ptr::null(), stride: 0 };

    /// Rows `stride` values apart from `at` on.
    pub(in crate::kernels) fn new(at: *const f32, stride: usize) -> Place {
        Place { at, stride }
    }

    /// Asks for all lines of `rows` rows at once; nothing is left to prefetch.
    pub(super) fn prefetch(self, rows: usize) -> Place {
        let rows = if self.at.is_null() { 0 } else { rows };
        for row in 0..rows {
            let at = self.at.wrapping_add(row * self.stride).cast::<u8>();
            (0..size_of::<f32>() * PANEL).step_by(64).for_each(|line| prefetch_line(at.wrapping_add(line)));
        }
        Place::NOWHERE
    }

    /// The rows of `out` from `row` on, columns from `column` on. `None` when they are not evenly spaced.
    ///
    /// # Panics
    /// When `out` has no such row.
    pub fn of(out: &mut ViewMut<f32>, row: usize, column: usize) -> Option<Place> {
        out.is_contiguous().then(|| Place::new(out.row_ptr(row).wrapping_add(column), out.stride()))
    }
}

/// Memory that a kernel of many rows prefetches into the second-level cache while it multiplies: every [`AHEAD_INPUTS`] inputs (a quantised one
/// every block of 32) so many pairs of cache lines, `step` bytes apart. Any address is allowed.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Ahead {
    pub at: *const u8,
    pub step: usize,
    pub pairs: usize,
}

/// Row blocks of at most so many rows run at the speed of memory, and are finished before what those of more rows prefetch for the next ones
/// would arrive.
pub(in crate::kernels) const ROWS_AT_MEMORY_SPEED: usize = 4;

/// Bytes of two cache lines, which are prefetched together.
pub(in crate::kernels) const PAIR: usize = 128;

/// Memory that is prefetched in equal shares.
#[derive(Clone, Copy)]
pub(super) struct Shares<'a> {
    next: &'a [u8],
    pairs: usize,
}

impl<'a> Shares<'a> {
    /// `next` in `times` prefetches, or as much of it as so many may bring.
    pub(super) fn new(next: &'a [u8], times: usize) -> Self {
        Shares { next, pairs: next.len().div_ceil(PAIR).div_ceil(times.max(1)).min(MOST_PAIRS) }
    }

    /// What is prefetched after the first `times` prefetches.
    #[inline(always)]
    pub(super) fn after(&self, times: usize) -> Ahead {
        let done = times * self.pairs * PAIR;
        if done >= self.next.len() {
            return Ahead::NOTHING;
        }
        Ahead { at: self.next.as_ptr().wrapping_add(done), step: PAIR, pairs: self.pairs }
    }
}

impl Ahead {
    /// Nothing.
    pub(in crate::kernels) const NOTHING: Ahead = Ahead { at: std::ptr::null(), step: 0, pairs: 0 };

    /// What row block number `block` of `blocks` prefetches of `next`, of which each takes its share, in `times` prefetches.
    pub(super) fn share(next: &[u8], block: usize, blocks: usize, times: usize) -> Ahead {
        Shares::new(next, blocks * times).after(block * times)
    }

    /// Prefetches what is due at a time.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        for _ in 0..self.pairs {
            // SAFETY: prefetching has no effect on memory, at any address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(self.at.cast());
                _mm_prefetch::<_MM_HINT_T1>(self.at.wrapping_add(64).cast());
            }
            self.at = self.at.wrapping_add(self.step);
        }
    }
}

/// Most pairs of cache lines at a time: few row blocks are finished before more of them arrive.
const MOST_PAIRS: usize = 4;

/// Inputs of a kernel between two prefetches.
pub(in crate::kernels) const AHEAD_INPUTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_all_row_blocks_cover_what_is_next() {
        let next = vec![0u8; 98304];
        for (bytes, blocks, times) in [(98304, 16, 48), (98304, 13, 48), (98304, 6, 48), (1152, 3, 5), (130, 1, 1)] {
            let next = &next[..bytes];
            let mut end = next.as_ptr();
            for block in 0..blocks {
                let ahead = Ahead::share(next, block, blocks, times);
                if ahead.pairs > 0 {
                    assert_eq!(ahead.at, end, "{blocks} blocks, block {block}");
                    end = ahead.at.wrapping_add(times * ahead.pairs * ahead.step);
                }
            }
            assert!(end >= next.as_ptr_range().end, "{bytes} bytes, {blocks} blocks of {times}");
        }
    }

    #[test]
    fn few_row_blocks_do_not_fetch_more_than_they_can_wait_for() {
        let ahead = Ahead::share(&[0; 4096], 0, 1, 1);
        assert_eq!(ahead.pairs, MOST_PAIRS);
        assert_eq!(Ahead::share(&[], 0, 4, 4).pairs, 0);
    }
}
