//! How per-row ops split: fixed runs of rows.

use std::ops::Range;

/// Rows of one tile of a per-row op: enough to be worth a claim, few enough to even out the threads.
pub const ROWS_PER_TILE: usize = 8;

/// Tiles of `rows` rows.
pub fn row_tiles(rows: usize) -> usize {
    rows.div_ceil(ROWS_PER_TILE)
}

/// Rows of tile `tile`.
pub fn tile_rows(tile: usize, rows: usize) -> Range<usize> {
    tile * ROWS_PER_TILE..((tile + 1) * ROWS_PER_TILE).min(rows)
}

/// Part `tile` of `parts` nearly equal parts of `0..n`.
pub fn part(tile: usize, parts: usize, n: usize) -> Range<usize> {
    let (base, extra) = (n / parts, n % parts);
    let start = |i: usize| i * base + i.min(extra);
    start(tile)..start(tile + 1)
}
