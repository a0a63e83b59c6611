//! Runs of adjacent tiles that workers claim shares of.
//!
//! A 64-bit word holds (end, next tile) of a run, so that a claim is one exchange; a claim takes a share of what is left.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// A run of tiles: `end << 32 | next`.
#[inline]
pub fn word(end: usize, next: usize) -> u64 {
    (end as u64) << 32 | next as u64
}

/// The tiles that are left of a run.
#[inline]
pub fn left(word: u64) -> Range<usize> {
    (word & u64::from(u32::MAX)) as usize..(word >> 32) as usize
}

/// Takes the next tiles of a run, one of `claims` shares of what is left, unless none is left.
#[inline]
pub fn claim(run: &AtomicU64, claims: usize) -> Option<Range<usize>> {
    let mut now = run.load(Ordering::Acquire);
    loop {
        let left = left(now);
        if left.is_empty() {
            return None;
        }
        let mine = left.start..left.start + left.len().div_ceil(claims);
        match run.compare_exchange_weak(now, word(left.end, mine.end), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(mine),
            Err(newer) => now = newer,
        }
    }
}
