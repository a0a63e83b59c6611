//! Sizes of a product, from which scratch and tiles follow.

use crate::kernels::interleave::Word;
use crate::kernels::linear::{Layout, PANEL, float};

/// What operands are rounded to before they are multiplied. Sums are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Not rounded.
    F32,
    /// Rounded to bf16, to nearest even.
    Bf16,
}

/// The operand that is packed once for all workers; each tile packs its own part of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// The left operand.
    A,
    /// The right operand.
    B,
}

/// Sizes and kinds of a product, from which scratch sizes and tiles follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Length of the reduction.
    pub k: usize,
    /// Rounding of the operands.
    pub precision: Precision,
    /// Which operand all workers share.
    pub shared: Shared,
}

/// Most rows in a tile: many, to make up for packing panels.
pub(super) const TILE_ROWS: usize = 384;
/// Row blocks or panels in a tile of the packing of the shared operand: together their rows fill several cache lines.
pub(super) const PACK_GROUP: usize = 6;
/// Most bytes of panels that a tile packs for itself.
pub(super) const TILE_PANEL_BYTES: usize = 416 << 10;
/// Most bytes of a packed row of A or column of B that kernels read at a time: the reduction runs in chunks, between which sums wait in C.
const CHUNK_BYTES: usize = 3072;
/// Tiles that leave enough work for all workers.
pub(super) const TILES: usize = 8;
/// Most bytes of packed row blocks that stay in the second-level cache while panels pass by, to leave room for those.
pub(super) const RESIDENT_BYTES: usize = 448 << 10;
/// Most bytes of row blocks that a tile packs for itself.
pub(super) const TILE_BYTES: usize = 288 << 10;

impl Shape {
    /// How a packed panel is laid out.
    pub(super) fn layout(&self) -> Layout {
        match self.precision {
            Precision::F32 => Layout::F32,
            Precision::Bf16 => Layout::Bf16,
        }
    }

    pub(super) fn word(&self) -> Word {
        match self.precision {
            Precision::F32 => Word::F32,
            Precision::Bf16 => Word::Bf16Pair,
        }
    }

    /// Bytes of one packed row of A or column of B.
    pub(super) fn line_bytes(&self) -> usize {
        4 * self.word().count(self.k)
    }

    /// Inputs of a chunk of the reduction; even, so that pairs of bf16 stay together.
    pub(super) fn chunk(&self) -> usize {
        let most = match self.precision {
            Precision::F32 => CHUNK_BYTES / 4,
            Precision::Bf16 => CHUNK_BYTES / 2,
        };
        let chunks = self.k.div_ceil(most).max(1);
        self.k.div_ceil(chunks).next_multiple_of(2).max(2)
    }

    /// Chunks of the reduction, the last of which may be shorter.
    pub(super) fn chunks(&self) -> usize {
        self.k.div_ceil(self.chunk()).max(1)
    }

    /// Bytes of one packed row of A or column of B in a chunk.
    fn chunk_line_bytes(&self) -> usize {
        4 * self.word().count(self.chunk().min(self.k))
    }

    /// Rows of A or columns of B in the shared scratch.
    pub(super) fn shared_lines(&self) -> usize {
        match self.shared {
            Shared::A => self.m,
            Shared::B => self.panels() * PANEL,
        }
    }

    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Bytes of scratch that all workers share, on any instruction set.
    pub fn shared_bytes(&self) -> usize {
        self.line_bytes() * self.shared_lines()
    }

    /// Bytes of scratch for each worker, on any instruction set: sums of a panel, and what a tile packs.
    pub fn worker_bytes(&self) -> usize {
        let lines = match self.shared {
            Shared::A => self.packed_panels() * PANEL,
            // Fewer rows may share the other operand.
            Shared::B => self.tile_rows().max(self.packed_panels() * PANEL),
        };
        4 * self.sums() + self.chunk_line_bytes() * lines
    }

    /// Sums of all rows of the largest tile and one panel.
    pub(super) fn sums(&self) -> usize {
        PANEL * TILE_ROWS.min(self.m)
    }

    /// Panels that one tile packs: several, so that each stored row is read a few cache lines at a time.
    pub(super) fn packed_panels(&self) -> usize {
        let fit = TILE_PANEL_BYTES / (PANEL * self.chunk_line_bytes()).max(1);
        fit.min(self.panels() / TILES).clamp(1, PACK_GROUP)
    }

    /// Most rows in one tile.
    pub(super) fn tile_rows(&self) -> usize {
        match self.shared {
            Shared::A => TILE_ROWS,
            Shared::B => (TILE_BYTES / self.chunk_line_bytes().max(1)).clamp(float::MOST_BLOCK_ROWS, TILE_ROWS),
        }
    }
}
