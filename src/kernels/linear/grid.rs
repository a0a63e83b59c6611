//! The split of a product into tiles.

use super::layout::{Form, Layout, PANEL};
use super::rows::{block_bytes, block_rows};
use crate::kernels::isa::Isa;
use crate::tensor::DType;
use std::ops::Range;

/// A fixed split of a product into tiles: they cover outputs, never a part of a sum, so any tile can go to any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    panels: usize,
    blocks: usize,
    panels_per_tile: usize,
    blocks_per_tile: usize,
    /// Whether adjacent tiles have the same rows, else the same panels.
    rows_stay: bool,
}

/// Weight bytes that make a tile of few rows worth its claim.
const TILE_BYTES: usize = 16 << 10;
/// Row blocks in a tile of many rows: enough to use a panel from the second-level cache many times.
pub(super) const TILE_BLOCKS: usize = 16;
/// Most bytes of row blocks in a tile of many rows on tile registers: products so fast wait for row blocks that come from farther than the
/// second-level cache.
const RESIDENT_BYTES: usize = 1 << 20;
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
        let per_block = block_rows(isa, layout.form());
        let blocks = rows.div_ceil(per_block);
        let on_tiles = isa == Isa::Amx && layout.form() != Form::F32;
        let most_blocks = match on_tiles {
            true => (RESIDENT_BYTES / block_bytes(isa, layout.form(), k).max(1)).clamp(1, TILE_BLOCKS),
            false => TILE_BLOCKS,
        };
        let blocks_per_tile = blocks.div_ceil(blocks.div_ceil(most_blocks).max(1)).max(1);
        let panel_bytes = layout.panel_bytes(k).unwrap_or(usize::MAX).max(1);
        let panels_per_tile = if blocks <= 1 {
            TILE_BYTES.div_ceil(panel_bytes).clamp(1, panels.max(1))
        } else {
            (panels / TILES).max(1)
        };
        // Of f32 the rows take more of the second-level cache than a panel does; they stay there while panels pass by, as they do
        // on tile registers.
        Grid { panels, blocks, panels_per_tile, blocks_per_tile, rows_stay: layout.form() == Form::F32 || on_tiles }
    }

    /// Tiles across the outputs and across the rows.
    fn sides(&self) -> (usize, usize) {
        (self.panels.div_ceil(self.panels_per_tile), self.blocks.div_ceil(self.blocks_per_tile))
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        let (across_panels, across_blocks) = self.sides();
        across_panels * across_blocks
    }

    /// Panels and row blocks of tile `tile`.
    pub fn tile(&self, tile: usize) -> (Range<usize>, Range<usize>) {
        let (across_panels, across_blocks) = self.sides();
        let (panels, blocks) = if self.rows_stay {
            (tile % across_panels.max(1), tile / across_panels.max(1))
        } else {
            (tile / across_blocks.max(1), tile % across_blocks.max(1))
        };
        let part = |i: usize, size: usize, of: usize| i * size..((i + 1) * size).min(of);
        (part(panels, self.panels_per_tile, self.panels), part(blocks, self.blocks_per_tile, self.blocks))
    }

    /// The first tiles of `tiles` that can be computed as one, and that one.
    pub fn joined(&self, tiles: Range<usize>) -> (Range<usize>, (Range<usize>, Range<usize>)) {
        let (panels, blocks) = self.tile(tiles.start);
        let (across_panels, across_blocks) = self.sides();
        let end = match across_blocks {
            1 => tiles.end,
            _ if self.rows_stay => tiles.end.min((tiles.start / across_panels + 1) * across_panels),
            _ => tiles.start + 1,
        };
        (tiles.start..end, (panels.start..self.tile(end - 1).0.end, blocks))
    }

    /// Whether `dtype` quantises activations, for which a single row still has to be prepared.
    pub fn wants_prepared_rows(dtype: DType) -> bool {
        Layout::of(dtype).is_some_and(|layout| layout.form() != Form::F32)
    }
}
