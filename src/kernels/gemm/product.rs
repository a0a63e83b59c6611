//! A product, how its shared operand is packed, and how it splits into tiles.

use super::operand::Operand;
use super::shape::{
    MOST_BLOCKS, MOST_PANELS, Parts, Precision, SHARED_STREAM_BYTES, STREAM_BYTES, Shape, Shared, TILE_REGISTERS,
    TILES, VECTORS,
};
use crate::kernels::interleave::Block;
use crate::kernels::isa::Isa;
use crate::kernels::linear::{Caching, PANEL, float};
use std::ops::Range;

/// A product of two operands.
#[derive(Clone, Copy)]
pub struct Gemm<'a> {
    pub(super) isa: Isa,
    pub(super) shape: Shape,
    pub(super) a: Operand<'a>,
    pub(super) b: Operand<'a>,
    pub(super) parts: &'static Parts,
    blocks: usize,
    /// Rows of a row block; the first `larger_blocks` have one more, the last may have fewer.
    pub(super) block_rows: usize,
    larger_blocks: usize,
}

impl<'a> Gemm<'a> {
    /// `a` is `m × k`, `b` is `k × n`.
    ///
    /// # Panics
    /// When the operands do not fit.
    pub fn new(isa: Isa, precision: Precision, a: Operand<'a>, b: Operand<'a>, shared: Shared) -> Self {
        assert_eq!(a.columns(), b.rows(), "the operands disagree on the length of the reduction");
        let shape = Shape { m: a.rows(), n: b.columns(), k: a.columns(), precision, shared };
        let (most, tiles) = (float::block_rows(isa, shape.layout()), float::uses_tiles(isa, shape.layout()));
        let blocks = shape.m.div_ceil(most);
        let (block_rows, larger_blocks) = match tiles {
            // A block with a row less takes no less time, and whole ones begin at cache lines of the transpose.
            true => (most.min(shape.m), 0),
            false => (shape.m / blocks.max(1), shape.m % blocks.max(1)),
        };
        let parts = if tiles { &TILE_REGISTERS } else { &VECTORS };
        Gemm { isa, shape, a, b, parts, blocks, block_rows, larger_blocks }
    }

    /// Sizes and kinds.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How the product is best written when nobody reads it soon; `apart` as in [`Gemm::read_by_all`]. On vector registers multiplying takes longer
    /// than writing, unless memory is slow to take back from who read it last.
    pub fn unread(&self, apart: bool) -> Caching {
        let large = 4 * self.shape.m * self.shape.n >= STREAM_BYTES;
        if large && (self.uses_tiles() || apart) { Caching::Unread } else { Caching::Through }
    }

    /// How the product is best written when all workers read all of its rows, of which each writes some columns. `apart`: their cores have no
    /// cache in common, and memory that one of them has read is slow to write for another.
    pub fn read_by_all(&self, apart: bool) -> Caching {
        let large = 4 * self.shape.m * self.shape.n >= SHARED_STREAM_BYTES;
        if large && apart { Caching::Shared } else { Caching::Through }
    }

    /// Whether the packed operand, of which all workers read all, is better written past the caches; `apart` as in [`Gemm::read_by_all`].
    pub fn is_packed_past_caches(&self, apart: bool) -> bool {
        apart && self.shape.shared_bytes() >= SHARED_STREAM_BYTES
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Whether kernels use tile registers.
    pub(super) fn uses_tiles(&self) -> bool {
        float::uses_tiles(self.isa, self.shape.layout())
    }

    /// Rows of a row block that does not have the usual number, at least one.
    pub(super) fn odd_block_rows(&self) -> usize {
        if self.larger_blocks > 0 { self.block_rows + 1 } else { (self.shape.m % self.block_rows.max(1)).max(1) }
    }

    /// Chunks of the reduction.
    pub(super) fn chunks(&self) -> usize {
        self.shape.chunks(self.parts)
    }

    /// Rows of row blocks `blocks`.
    pub(super) fn rows_of(&self, blocks: Range<usize>) -> Range<usize> {
        let start = |block: usize| (block * self.block_rows + block.min(self.larger_blocks)).min(self.shape.m);
        start(blocks.start)..start(blocks.end)
    }

    /// The product over chunk `chunk` of the reduction alone.
    pub(super) fn chunk(&self, chunk: usize) -> Self {
        let size = self.shape.chunk(self.parts);
        let inputs = self.shape.k.min(chunk * size)..self.shape.k.min((chunk + 1) * size);
        let shape = Shape { k: inputs.len(), ..self.shape };
        Gemm { shape, a: self.a.part(inputs.clone()), b: self.b.flipped().part(inputs).flipped(), ..*self }
    }

    /// Where the packed chunk `chunk` begins in the shared scratch, in bytes.
    pub(super) fn chunk_start(&self, chunk: usize) -> usize {
        Shape { k: chunk * self.shape.chunk(self.parts), ..self.shape }.shared_bytes()
    }

    /// Row blocks or panels of the shared operand, and packing tiles of a chunk.
    fn pack_grid(&self) -> (usize, usize) {
        let of = match self.shape.shared {
            Shared::A => self.blocks(),
            Shared::B => self.shape.panels(),
        };
        let group = (of / TILES).clamp(1, self.parts.pack_group);
        (of, even_tiles(of, group))
    }

    /// Row blocks or panels of packing tile `tile` of a chunk.
    fn packed_by(&self, tile: usize) -> Range<usize> {
        let (of, tiles) = self.pack_grid();
        share(tile, tiles, of)
    }

    /// Tiles of the packing of the shared operand.
    pub fn pack_tiles(&self) -> usize {
        self.pack_grid().1 * self.chunks()
    }

    /// Chunk of packing tile `tile`, and the tile's number in it.
    fn pack_part(&self, tile: usize) -> (usize, usize) {
        let tiles = self.pack_grid().1.max(1);
        (tile / tiles, tile % tiles)
    }

    /// Where packing tile `tile` goes in the shared scratch, in bytes.
    pub fn pack_range(&self, tile: usize) -> Range<usize> {
        let (chunk, tile) = self.pack_part(tile);
        let (start, line) = (self.chunk_start(chunk), self.chunk(chunk).shape.line_bytes());
        let group = self.packed_by(tile);
        let lines = match self.shape.shared {
            Shared::A => self.rows_of(group),
            Shared::B => group.start * PANEL..group.end * PANEL,
        };
        start + lines.start * line..start + lines.end * line
    }

    /// Packs tile `tile` of the shared operand into `dst`, the part [`Gemm::pack_range`] of the shared scratch, aligned to 4 bytes.
    ///
    /// # Panics
    /// When `dst` has the wrong size or alignment.
    pub fn pack_tile(&self, tile: usize, dst: &mut [u8]) {
        assert_eq!(dst.len(), self.pack_range(tile).len(), "packed tile");
        let (chunk, tile) = self.pack_part(tile);
        let part = self.chunk(chunk);
        match self.shape.shared {
            Shared::A => part.pack_blocks(self.packed_by(tile), bytemuck::cast_slice_mut(dst)),
            Shared::B => part.pack_panels(self.packed_by(tile), bytemuck::cast_slice_mut(dst)),
        }
    }

    pub(super) fn pack_blocks(&self, blocks: Range<usize>, dst: &mut [u32]) {
        let (all, line) = (self.rows_of(blocks.clone()), self.shape.line_bytes() / 4);
        let mut parts = [Block { first: 0, count: 0, start: 0 }; MOST_BLOCKS];
        let count = blocks.len();
        for (part, block) in parts.iter_mut().zip(blocks) {
            let rows = self.rows_of(block..block + 1);
            let first = rows.start - all.start;
            *part = Block { first, count: rows.len(), start: first * line };
        }
        match self.uses_tiles() {
            true => self.a.pack_lines(self.isa, all, &parts[..count], dst),
            false => self.a.pack(self.isa, self.shape.word(), all, &parts[..count], dst),
        }
    }

    pub(super) fn pack_panels(&self, panels: Range<usize>, dst: &mut [u32]) {
        let line = self.shape.line_bytes() / 4;
        let columns = panels.start * PANEL..self.shape.n.min(panels.end * PANEL);
        let parts: [Block; MOST_PANELS] =
            std::array::from_fn(|i| Block { first: i * PANEL, count: PANEL, start: i * PANEL * line });
        self.b.flipped().pack(self.isa, self.shape.word(), columns, &parts[..panels.len()], dst);
    }

    pub(super) fn columns_of(&self, panel: usize) -> Range<usize> {
        panel * PANEL..self.shape.n.min((panel + 1) * PANEL)
    }

    /// Tiles side by side in the rows and in the columns of C.
    fn grid(&self) -> (usize, usize) {
        let (blocks, panels) = (self.blocks(), self.shape.panels());
        let most_blocks = (self.shape.tile_rows(self.parts) / float::block_rows(self.isa, self.shape.layout())).max(1);
        match self.shape.shared {
            Shared::A => (blocks.div_ceil(most_blocks), panels.div_ceil(self.shape.packed_panels(self.parts))),
            // Each tile packs its row blocks: as few tiles across as leave enough for all workers.
            Shared::B => {
                let down = even_tiles(blocks, most_blocks);
                (down, panels.min(TILES.div_ceil(down.max(1))))
            }
        }
    }

    /// Tiles of the product. They cover elements of C, never a part of a sum.
    pub fn tiles(&self) -> usize {
        let (down, across) = self.grid();
        down * across
    }

    /// Row blocks and panels of tile `tile`, none past the last; those of neighbouring tiles lie in different panels.
    pub(super) fn parts(&self, tile: usize) -> (Range<usize>, Range<usize>) {
        let (down, across) = self.grid();
        let column = tile % across.max(1);
        (share(tile / across.max(1), down, self.blocks()), share(column, across, self.shape.panels()))
    }
}

/// Tiles of at most `most` of `of` things. Tiles that differ by one thing at most and come in fours leave no worker idle for long.
fn even_tiles(of: usize, most: usize) -> usize {
    of.div_ceil(most).next_multiple_of(4).min(of)
}

/// The things of tile `tile`, which are nearly as many as those of any other of `tiles` tiles; none past the last.
fn share(tile: usize, tiles: usize, of: usize) -> Range<usize> {
    let start = |tile: usize| (tile.min(tiles) * of) / tiles.max(1);
    start(tile)..start(tile + 1)
}
