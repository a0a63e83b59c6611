//! How workers share the keys of a single query row.

use super::Heads;
use crate::kernels::attention::{Around, KEY_TILE, attention_part_floats, parts_heads};
use crate::ops::RowSet;
use crate::ops::shares::{Piece, Shares};
use crate::ops::tiling::part;
use std::ops::Range;

/// Most keys for each worker that are not shared: with so few a second phase costs more than it brings.
const KEYS_OF_A_WORKER: usize = 96;

/// Floats of shared scratch: a part of each tile of the context for each query head, unless keys are never shared.
pub fn scratch_floats(heads: &Heads, context: usize) -> usize {
    let shares = parts_heads(heads.group(), heads.head_dim) > 0 && context > 2 * KEYS_OF_A_WORKER;
    if shares { context.div_ceil(KEY_TILE) * attention_part_floats(heads.heads, heads.head_dim) } else { 0 }
}

/// Key-value heads of adjacent tiles of keys.
#[derive(Clone, Debug)]
pub struct Call {
    pub tiles: Range<usize>,
    pub heads: Range<usize>,
}

/// Tiles of keys that workers share. The last ones, one for each worker at most, are split by heads: cores do not read at the same speed, and so end
/// together.
pub struct SharedKeys {
    key_tiles: usize,
    kv_heads: usize,
    /// Most key-value heads of a call.
    most_heads: usize,
    shares: Shares,
}

impl SharedKeys {
    /// Of a call whose `rows` are a single one, far enough into its text to be worth it for so many workers.
    pub fn of(heads: &Heads, rows: &RowSet, workers: usize) -> Option<Self> {
        let [position] = rows.positions() else { return None };
        let most_heads = parts_heads(heads.group(), heads.head_dim);
        let keys = *position as usize + 1;
        if workers == 1 || most_heads == 0 || keys <= workers * KEYS_OF_A_WORKER {
            return None;
        }
        let (key_tiles, kv_heads) = (keys.div_ceil(KEY_TILE), heads.kv_heads);
        let shares = Shares::split(key_tiles, (key_tiles - 1) / workers, kv_heads, workers);
        Some(SharedKeys { key_tiles, kv_heads, most_heads, shares })
    }

    /// Tiles of keys.
    pub fn key_tiles(&self) -> usize {
        self.key_tiles
    }

    /// Tiles of work.
    pub fn tiles(&self) -> usize {
        self.shares.tiles()
    }

    /// Calls that compute tiles of work `work`, one after the other.
    pub fn for_each_call(&self, work: Range<usize>, mut make: impl FnMut(Call, Around<Call>)) {
        let mut first = work.start;
        while first < work.end {
            let (here, end) = self.adjacent(first, work.end);
            let (count, run) = (self.calls(&here), self.shares.run(first));
            // What the next claim takes is not known: where tiles are split it is few heads.
            let next_end = if end < work.end { work.end } else { run.end.min(end + self.kv_heads) };
            for i in 0..count {
                let then = match i + 1 < count {
                    true => Some(self.call(&here, i + 1)),
                    false => (end < run.end).then(|| self.call(&self.adjacent(end, next_end).0, 0)),
                };
                make(self.call(&here, i), Around { begins: first == run.start && i == 0, then });
            }
            first = end;
        }
    }

    /// The first tile of keys of tile `tile` of work.
    pub fn key_tile(&self, tile: usize) -> usize {
        match self.shares.piece(tile) {
            Piece::Unit(key_tile) => key_tile,
            Piece::Part(number) => self.shares.unsplit() + number / self.kv_heads,
        }
    }

    /// What tiles of work from `first` on, at most to `end`, compute together, and where those that they do it with end.
    fn adjacent(&self, first: usize, end: usize) -> (Call, usize) {
        let follows = |tile: usize| match (self.shares.piece(first), self.shares.piece(tile)) {
            (Piece::Unit(a), Piece::Unit(b)) => b - a == tile - first,
            (Piece::Part(a), Piece::Part(b)) => a / self.kv_heads == b / self.kv_heads,
            _ => false,
        };
        let end = (first + 1..end).find(|&tile| !follows(tile)).unwrap_or(end);
        let (key_tile, count) = (self.key_tile(first), end - first);
        let call = match self.shares.piece(first) {
            Piece::Unit(_) => Call { tiles: key_tile..key_tile + count, heads: 0..self.kv_heads },
            Piece::Part(number) => {
                let head = number % self.kv_heads;
                Call { tiles: key_tile..key_tile + 1, heads: head..head + count }
            }
        };
        (call, end)
    }

    /// Calls of no more heads than a call may have.
    fn calls(&self, all: &Call) -> usize {
        all.heads.len().div_ceil(self.most_heads)
    }

    /// The `i`th of them.
    fn call(&self, all: &Call, i: usize) -> Call {
        let within = part(i, self.calls(all), all.heads.len());
        Call { heads: all.heads.start + within.start..all.heads.start + within.end, ..all.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_head_of_each_tile_is_computed_once() {
        for (heads, kv_heads, position, workers) in [
            (12, 12, 1000, 2),
            (9, 3, 700, 2),
            (40, 40, 1023, 3),
            (20, 20, 511, 4),
            (40, 10, 800, 2),
            (6, 6, 128 * 7, 4),
        ] {
            let most = parts_heads(heads / kv_heads, 64);
            let heads = Heads { heads, kv_heads, head_dim: 64 };
            let mut rows = RowSet::with_capacity(1);
            rows.push(0, position, 1, 1024);
            let keys = SharedKeys::of(&heads, &rows, workers).expect("far enough into the text");
            for step in [1, 3, keys.tiles()] {
                let mut seen = vec![0; keys.key_tiles() * kv_heads];
                for first in (0..keys.tiles()).step_by(step) {
                    keys.for_each_call(first..keys.tiles().min(first + step), |call, _| {
                        assert!(!call.heads.is_empty() && call.heads.len() <= most);
                        let heads = || call.heads.clone();
                        call.tiles.clone().for_each(|tile| heads().for_each(|head| seen[tile * kv_heads + head] += 1));
                    });
                }
                assert!(seen.iter().all(|&n| n == 1), "{heads:?} at {position}, {workers} workers: {seen:?}");
            }
        }
    }

    #[test]
    fn each_call_knows_what_its_worker_calls_next() {
        let heads = Heads { heads: 20, kv_heads: 20, head_dim: 64 };
        let mut rows = RowSet::with_capacity(1);
        rows.push(0, 1000, 1, 1024);
        let keys = SharedKeys::of(&heads, &rows, 2).expect("far enough into the text");
        let middle = keys.tiles() / 2;
        for (run, step) in [(0..middle, 1), (0..middle, 3), (middle..keys.tiles(), keys.tiles())] {
            let (mut calls, mut expected) = (Vec::new(), Vec::new());
            for first in run.clone().step_by(step) {
                keys.for_each_call(first..run.end.min(first + step), |call, around| {
                    assert_eq!(around.begins, calls.is_empty());
                    calls.push((call.tiles.start, call.heads.start));
                    expected.push(around.then.map(|next| (next.tiles.start, next.heads.start)));
                });
            }
            let next: Vec<_> = calls[1..].iter().map(|&call| Some(call)).chain([None]).collect();
            assert_eq!(expected, next, "{run:?} by {step}");
        }
    }

    #[test]
    fn keys_are_shared_far_into_a_text_only() {
        let heads = Heads { heads: 12, kv_heads: 12, head_dim: 64 };
        let shared = |first: usize, count: usize, workers: usize| {
            let mut rows = RowSet::with_capacity(8);
            rows.push(0, first, count, 1024);
            SharedKeys::of(&heads, &rows, workers).map(|keys| keys.tiles())
        };
        assert_eq!([shared(191, 1, 2), shared(192, 1, 2), shared(256, 1, 2)], [None, Some(2 * 12), Some(2 + 12)]);
        assert_eq!([shared(1000, 1, 1), shared(1000, 2, 2), shared(800, 1, 9)], [None; 3]);
        assert_eq!(scratch_floats(&heads, 255), scratch_floats(&heads, 256));
        assert_eq!([scratch_floats(&heads, 192), scratch_floats(&heads, 193)], [0, 2 * 12 * (64 + 32)]);
    }
}
