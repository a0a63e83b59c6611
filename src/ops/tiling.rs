//! How per-row ops split: fixed runs of rows.

use crate::kernels::reduce::ROW_TILE;
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

/// The first tile of run `run` of `runs` runs of a phase of `tiles` tiles: each worker begins with the run of its number.
pub fn run_start(tiles: usize, run: usize, runs: usize) -> usize {
    run * tiles / runs
}

/// Part `tile` of `parts` nearly equal parts of `0..n`.
pub fn part(tile: usize, parts: usize, n: usize) -> Range<usize> {
    let (base, extra) = (n / parts, n % parts);
    let start = |i: usize| i * base + i.min(extra);
    start(tile)..start(tile + 1)
}

/// Most columns of one tile of a sum over rows: whole lines of a page of memory.
const SUM_COLUMNS: usize = 256;
/// Columns whose sums over tiles of rows are added up by one tile of work.
pub const ADD_COLUMNS: usize = 64;

/// Tiles of sums over rows, for each column: [`ROW_TILE`] rows by at most 256 columns of one part of the columns. Those of a tile of rows follow
/// each other, so that memory is read in order.
pub struct SumTiles {
    /// Part of each chunk, and its columns within the part.
    chunks: Vec<(usize, Range<usize>)>,
}

impl SumTiles {
    /// Of parts of these widths.
    pub fn new(widths: &[usize]) -> Self {
        let cut = |(part, &width): (usize, &usize)| {
            let count = width.div_ceil(SUM_COLUMNS).max(1);
            (0..count).map(move |i| (part, self::part(i, count, width))).collect::<Vec<_>>()
        };
        SumTiles { chunks: widths.iter().enumerate().flat_map(cut).collect() }
    }

    /// Number of tiles of rows.
    pub fn row_tiles(rows: usize) -> usize {
        rows.div_ceil(ROW_TILE)
    }

    /// Number of tiles.
    pub fn count(&self, rows: usize) -> usize {
        Self::row_tiles(rows) * self.chunks.len()
    }

    /// A tile: number of the tile of rows, its rows, the part, and the columns within it.
    pub fn tile(&self, tile: usize, rows: usize) -> (usize, Range<usize>, usize, Range<usize>) {
        let (row_tile, (part, columns)) = (tile / self.chunks.len(), &self.chunks[tile % self.chunks.len()]);
        (row_tile, row_tile * ROW_TILE..((row_tile + 1) * ROW_TILE).min(rows), *part, columns.clone())
    }
}
