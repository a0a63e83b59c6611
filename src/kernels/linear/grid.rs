//! The split of a product into tiles.

use super::int8;
use super::layout::{Form, Layout, PANEL};
use super::rows::{FEWEST_TO_SPLIT, block_bytes, block_count};
use crate::kernels::isa::Isa;
use crate::tensor::DType;
use std::ops::Range;

/// A fixed split of a product into tiles: they cover outputs, never a part of a sum, so any tile can go to any thread. Adjacent tiles have
/// the same rows: these take more of the second-level cache than a panel does and stay there while panels pass by, and the halves of the
/// tiles that two workers begin with are halves of the rows, as in ops that go row by row: so rows stay with the worker whose caches have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    panels: usize,
    blocks: usize,
    panels_per_tile: usize,
    /// Parts of the row blocks, of nearly equal size.
    groups: usize,
}

/// Weight bytes that make a tile of few rows worth its claim.
const TILE_BYTES: usize = 16 << 10;
/// Row blocks in a tile of many rows: enough to use a panel from the second-level cache many times.
pub(super) const TILE_BLOCKS: usize = 16;
/// Most bytes of row blocks in a tile of many rows, which stay in the second-level cache.
const RESIDENT_BYTES: usize = 640 << 10;
/// The same on tile registers, which come with larger caches.
const RESIDENT_BYTES_ON_TILES: usize = 1 << 20;
/// Tiles of many rows in a product, enough to even out the threads.
const TILES: usize = 64;

impl Grid {
    /// For a product of `rows` rows with `n` outputs of `k` inputs of `dtype`.
    ///
    /// # Panics
    /// When `dtype` is not a weight type.
    pub fn new(isa: Isa, dtype: DType, n: usize, k: usize, rows: usize) -> Self {
        let layout = Layout::of(dtype).expect("a weight type");
        let panels = n.div_ceil(PANEL);
        let blocks = block_count(isa, layout.form(), rows);
        let block_bytes = block_bytes(isa, layout.form(), k).max(1);
        let resident =
            if isa == Isa::Amx && layout.form() != Form::F32 { RESIDENT_BYTES_ON_TILES } else { RESIDENT_BYTES };
        // The reduction over f32 is cut where row blocks are large ([`super::chunks`]); what is made of a panel first is shared by many.
        let most_blocks = match layout.form() {
            Form::F32 => TILE_BLOCKS,
            _ => {
                let most = if int8::has_levels(isa, layout) { int8::GROUP } else { TILE_BLOCKS };
                (resident / block_bytes).clamp(1, most)
            }
        };
        let groups = match blocks {
            0..FEWEST_TO_SPLIT => blocks.div_ceil(most_blocks),
            _ => blocks.div_ceil(most_blocks).next_multiple_of(2),
        };
        let panel_bytes = layout.panel_bytes(k).unwrap_or(usize::MAX).max(1);
        let panels_per_tile = if blocks <= 1 {
            TILE_BYTES.div_ceil(panel_bytes).clamp(1, panels.max(1))
        } else {
            (panels / TILES).max(1)
        };
        Grid { panels, blocks, panels_per_tile, groups }
    }

    /// Tiles across the outputs and across the rows.
    fn sides(&self) -> (usize, usize) {
        (self.panels.div_ceil(self.panels_per_tile), self.groups)
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        let (across_panels, across_blocks) = self.sides();
        across_panels * across_blocks
    }

    /// Whether both have the same rows in a tile, for every part of the rows.
    pub fn has_rows_of(&self, other: &Grid) -> bool {
        (self.blocks, self.groups) == (other.blocks, other.groups)
    }

    /// Runs of tiles that share rows, all of the same number: the first cover the first rows, and so on.
    pub fn row_groups(&self) -> usize {
        self.sides().1
    }

    /// Panels and row blocks of tile `tile`.
    pub fn tile(&self, tile: usize) -> (Range<usize>, Range<usize>) {
        let across = self.sides().0.max(1);
        let (first, group) = (tile % across * self.panels_per_tile, tile / across);
        let start = |group: usize| group * self.blocks / self.groups.max(1);
        (first..self.panels.min(first + self.panels_per_tile), start(group)..start(group + 1))
    }

    /// The first tiles of `tiles` that can be computed as one, and that one.
    pub fn joined(&self, tiles: Range<usize>) -> (Range<usize>, (Range<usize>, Range<usize>)) {
        let (panels, blocks) = self.tile(tiles.start);
        let across = self.sides().0;
        let end = tiles.end.min((tiles.start / across + 1) * across);
        (tiles.start..end, (panels.start..self.tile(end - 1).0.end, blocks))
    }

    /// Whether `dtype` quantises activations, for which a single row still has to be prepared.
    pub fn wants_prepared_rows(dtype: DType) -> bool {
        Layout::of(dtype).is_some_and(|layout| layout.form() != Form::F32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_product_and_those_of_grids_with_the_same_rows_go_together() {
        const TYPES: [DType; 4] = [DType::F32, DType::BF16, DType::Q8_0, DType::Q4_1];
        for isa in Isa::available() {
            for (k, rows, n) in [256, 576, 1024, 8192].into_iter().flat_map(|k| {
                let rows = [1, 40, 113, 257, 337, 512].into_iter();
                rows.flat_map(move |rows| [64, 192, 640].map(move |n| (k, rows, n)))
            }) {
                let grids = TYPES.map(|dtype| Grid::new(isa, dtype, n, k, rows));
                for grid in &grids {
                    assert!(grid.tiles().is_multiple_of(grid.row_groups()), "{grid:?}");
                    let mut seen = vec![0; grid.panels * grid.blocks];
                    for (panels, blocks) in (0..grid.tiles()).map(|tile| grid.tile(tile)) {
                        panels.for_each(|p| blocks.clone().for_each(|b| seen[p * grid.blocks + b] += 1));
                    }
                    assert!(seen.iter().all(|&times| times == 1), "{grid:?}");
                    for other in grids.iter().filter(|other| other.has_rows_of(grid)) {
                        let rows_of = |grid: &Grid, group: usize| grid.tile(group * grid.tiles() / grid.row_groups()).1;
                        assert!((0..grid.row_groups()).all(|group| rows_of(grid, group) == rows_of(other, group)));
                    }
                }
            }
        }
    }
}
