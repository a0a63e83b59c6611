//! Sizes of a product, from which scratch and tiles follow.

use crate::kernels::interleave::{LINE, Word};
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

/// Inputs that a product of bf16 values sums before it adds to what it has, on the instruction set where that are most: a reduction in parts of
/// so many has the bits of the whole.
pub const STEP: usize = LINE;
/// Tiles that leave enough work for all workers.
pub(super) const TILES: usize = 8;

/// Sizes of the parts of a product, chosen by measurement: they follow from how much its kernels compute while memory brings a byte.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Most rows in a tile: many, to make up for packing panels.
    pub tile_rows: usize,
    /// Row blocks or panels in a tile of the packing of the shared operand: together their rows fill several cache lines.
    pub pack_group: usize,
    /// Most bytes of panels that a tile packs for itself.
    pub tile_panel_bytes: usize,
    /// Most bytes of a packed row of A or column of B that kernels read at a time: the reduction runs in chunks, between which sums wait in C.
    pub chunk_bytes: usize,
    /// Most bytes of packed row blocks that stay in the second-level cache while panels pass by, to leave room for those.
    pub resident_bytes: usize,
    /// Most bytes of row blocks that a tile packs for itself.
    pub tile_bytes: usize,
}

/// For kernels on vector registers.
pub(super) const VECTORS: Parts = Parts {
    tile_rows: 384,
    pack_group: 6,
    tile_panel_bytes: 416 << 10,
    chunk_bytes: 3072,
    resident_bytes: 448 << 10,
    tile_bytes: 288 << 10,
};
/// For kernels on tile registers.
pub(super) const TILE_REGISTERS: Parts = Parts {
    tile_rows: 1024,
    pack_group: 6,
    tile_panel_bytes: 416 << 10,
    // Chunks short enough to keep a panel in the first-level cache make kernels faster, but sums that wait in C between them cost more.
    chunk_bytes: 2048,
    resident_bytes: 800 << 10,
    tile_bytes: 288 << 10,
};

/// Bytes of a product from which on it is written past the caches when nobody reads it soon: half of what the second level holds.
pub(super) const STREAM_BYTES: usize = 1 << 20;
/// Bytes from which on what other cores read is written past the caches where taking it back from them is slow: what is smaller takes
/// microseconds.
pub(super) const SHARED_STREAM_BYTES: usize = 1 << 17;
/// Most panels of a packing tile.
pub(super) const MOST_PANELS: usize = 6;
/// Most row blocks of a packing tile, of the rows of a tile in blocks of at least six on vector registers and of 32 on tile registers.
pub(super) const MOST_BLOCKS: usize = 64;

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

    /// Bytes of one packed row of A or column of B, on any instruction set.
    pub(super) fn line_bytes(&self) -> usize {
        self.packed_bytes(self.k)
    }

    /// Bytes of `k` packed values; those of bf16 are whole cache lines, as tile registers take them.
    fn packed_bytes(&self, k: usize) -> usize {
        match self.precision {
            Precision::F32 => 4 * k,
            Precision::Bf16 => 2 * k.next_multiple_of(STEP),
        }
    }

    /// Inputs of a chunk of the reduction; for bf16 a multiple of [`STEP`].
    pub(super) fn chunk(&self, parts: &Parts) -> usize {
        let step = match self.precision {
            Precision::F32 => 2,
            Precision::Bf16 => STEP,
        };
        let most = self.longest_chunk(parts);
        let chunks = self.k.div_ceil(most).max(1);
        self.k.div_ceil(chunks).next_multiple_of(step).max(step)
    }

    /// Chunks of the reduction, the last of which may be shorter.
    pub(super) fn chunks(&self, parts: &Parts) -> usize {
        self.k.div_ceil(self.chunk(parts)).max(1)
    }

    /// Bytes of one packed row of A or column of B in a chunk.
    fn chunk_line_bytes(&self, parts: &Parts) -> usize {
        self.packed_bytes(self.chunk(parts).min(self.k))
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

    /// Bytes of scratch for each worker, on any instruction set: sums of a panel, and what a tile packs; or a packing tile, which is packed here
    /// first where it is then written past the caches. It never falls as sizes grow, so that scratch for the largest product is enough for a
    /// part of it, of fewer rows or of a shorter reduction.
    pub fn worker_bytes(&self) -> usize {
        let on = |parts: &Parts| {
            let line = self.longest_chunk_line_bytes(parts);
            let group = (self.panels() / TILES).clamp(1, parts.pack_group);
            let panels = (line * PANEL * group).min(parts.tile_panel_bytes.max(line * PANEL));
            let packed = match self.shared {
                Shared::A => panels,
                // Fewer rows may share the other operand.
                Shared::B => {
                    panels.max((line * parts.tile_rows).min(parts.tile_bytes.max(line * float::MOST_BLOCK_ROWS)))
                }
            };
            (4 * self.sums(parts) + packed).max(line * self.most_packed_lines(parts))
        };
        match self.precision {
            Precision::F32 => on(&VECTORS),
            Precision::Bf16 => on(&VECTORS).max(on(&TILE_REGISTERS)),
        }
    }

    /// Inputs of the longest chunk of any reduction.
    fn longest_chunk(&self, parts: &Parts) -> usize {
        match self.precision {
            Precision::F32 => parts.chunk_bytes / 4,
            Precision::Bf16 => parts.chunk_bytes / 2,
        }
    }

    /// Bytes that [`Shape::chunk_line_bytes`] does not exceed for any reduction that is not longer.
    fn longest_chunk_line_bytes(&self, parts: &Parts) -> usize {
        self.packed_bytes(self.k.min(self.longest_chunk(parts)))
    }

    /// Rows of A or columns of B that a packing tile of the shared operand, or of A with no more rows than that has lines, never exceeds: its
    /// group of row blocks or panels is an eighth of them, and one of the blocks, of at least six rows, may have a row more than another.
    fn most_packed_lines(&self, parts: &Parts) -> usize {
        (self.shared_lines() / 6 + 4).clamp(float::MOST_BLOCK_ROWS, parts.pack_group * float::MOST_BLOCK_ROWS)
    }

    /// Sums of all rows of the largest tile and one panel.
    pub(super) fn sums(&self, parts: &Parts) -> usize {
        PANEL * parts.tile_rows.min(self.m)
    }

    /// Panels that one tile packs: several, so that each stored row is read a few cache lines at a time.
    pub(super) fn packed_panels(&self, parts: &Parts) -> usize {
        let fit = parts.tile_panel_bytes / (PANEL * self.chunk_line_bytes(parts)).max(1);
        fit.min(self.panels() / TILES).clamp(1, parts.pack_group)
    }

    /// Most rows in one tile.
    pub(super) fn tile_rows(&self, parts: &Parts) -> usize {
        match self.shared {
            Shared::A => parts.tile_rows,
            Shared::B => {
                (parts.tile_bytes / self.chunk_line_bytes(parts).max(1)).clamp(float::MOST_BLOCK_ROWS, parts.tile_rows)
            }
        }
    }
}
