//! A product, how its shared operand is packed, and how it splits into tiles.

use super::operand::Operand;
use super::shape::{PACK_GROUP, Precision, Shape, Shared, TILE_ROWS, TILES};
use crate::kernels::interleave::Block;
use crate::kernels::isa::Isa;
use crate::kernels::linear::{PANEL, float};
use std::ops::Range;

/// A product of two operands.
#[derive(Clone, Copy)]
pub struct Gemm<'a> {
    pub(super) isa: Isa,
    pub(super) shape: Shape,
    pub(super) a: Operand<'a>,
    pub(super) b: Operand<'a>,
    blocks: usize,
    /// Rows of a row block; the first `larger_blocks` have one more.
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
        // Operands are packed for the vector registers of the path.
        let isa = if isa == Isa::Amx && precision == Precision::Bf16 { Isa::Avx512 } else { isa };
        let shape = Shape { m: a.rows(), n: b.columns(), k: a.columns(), precision, shared };
        let blocks = shape.m.div_ceil(float::block_rows(isa, shape.layout()));
        let (block_rows, larger_blocks) = (shape.m / blocks.max(1), shape.m % blocks.max(1));
        Gemm { isa, shape, a, b, blocks, block_rows, larger_blocks }
    }

    /// Sizes and kinds.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Rows of row blocks `blocks`, which are of nearly equal size.
    pub(super) fn rows_of(&self, blocks: Range<usize>) -> Range<usize> {
        let start = |block: usize| block * self.block_rows + block.min(self.larger_blocks);
        start(blocks.start)..start(blocks.end)
    }

    /// The product over chunk `chunk` of the reduction alone.
    pub(super) fn chunk(&self, chunk: usize) -> Self {
        let size = self.shape.chunk();
        let inputs = self.shape.k.min(chunk * size)..self.shape.k.min((chunk + 1) * size);
        let shape = Shape { k: inputs.len(), ..self.shape };
        Gemm { shape, a: self.a.part(inputs.clone()), b: self.b.flipped().part(inputs).flipped(), ..*self }
    }

    /// Where the packed chunk `chunk` begins in the shared scratch, in bytes.
    pub(super) fn chunk_start(&self, chunk: usize) -> usize {
        4 * self.shape.word().count(chunk * self.shape.chunk()) * self.shape.shared_lines()
    }

    /// Row blocks or panels of the shared operand, and packing tiles of a chunk.
    fn pack_grid(&self) -> (usize, usize) {
        let of = match self.shape.shared {
            Shared::A => self.blocks(),
            Shared::B => self.shape.panels(),
        };
        let group = (of / TILES).clamp(1, PACK_GROUP);
        (of, even_tiles(of, group))
    }

    /// Row blocks or panels of packing tile `tile` of a chunk.
    fn packed_by(&self, tile: usize) -> Range<usize> {
        let (of, tiles) = self.pack_grid();
        share(tile, tiles, of)
    }

    /// Tiles of the packing of the shared operand.
    pub fn pack_tiles(&self) -> usize {
        self.pack_grid().1 * self.shape.chunks()
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
        let all = self.rows_of(blocks.clone());
        let mut parts = [Block { first: 0, count: 0 }; TILE_ROWS / 6];
        let count = blocks.len();
        for (part, block) in parts.iter_mut().zip(blocks) {
            let rows = self.rows_of(block..block + 1);
            *part = Block { first: rows.start - all.start, count: rows.len() };
        }
        self.a.pack(self.isa, self.shape.word(), all, &parts[..count], dst);
    }

    pub(super) fn pack_panels(&self, panels: Range<usize>, dst: &mut [u32]) {
        let columns = panels.start * PANEL..self.shape.n.min(panels.end * PANEL);
        let mut parts = [Block { first: 0, count: PANEL }; PACK_GROUP];
        for (i, part) in parts.iter_mut().enumerate() {
            part.first = i * PANEL;
        }
        self.b.flipped().pack(self.isa, self.shape.word(), columns, &parts[..panels.len()], dst);
    }

    pub(super) fn columns_of(&self, panel: usize) -> Range<usize> {
        panel * PANEL..self.shape.n.min((panel + 1) * PANEL)
    }

    /// Tiles side by side in the rows and in the columns of C.
    fn grid(&self) -> (usize, usize) {
        let (blocks, panels) = (self.blocks(), self.shape.panels());
        let most_blocks = (self.shape.tile_rows() / float::block_rows(self.isa, self.shape.layout())).max(1);
        match self.shape.shared {
            Shared::A => (blocks.div_ceil(most_blocks), panels.div_ceil(self.shape.packed_panels())),
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
