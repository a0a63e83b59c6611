//! The split of a product into tiles, and one tile.
#![allow(unsafe_code)]

use super::operand::Operand;
use crate::kernels::interleave::{Block, Word};
use crate::kernels::isa::Isa;
use crate::kernels::linear::{AHEAD_STEPS, Ahead, Direct, Epilogue, Layout, PANEL, Sums, epilogue, float};
use crate::kernels::view::ViewMut;
use std::ops::Range;

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

/// A product of two operands.
#[derive(Clone, Copy)]
pub struct Gemm<'a> {
    isa: Isa,
    shape: Shape,
    a: Operand<'a>,
    b: Operand<'a>,
    workers: usize,
}

/// Sums of one row block and one panel.
#[repr(align(64))]
struct TileSums([f32; float::MOST_BLOCK_ROWS * PANEL]);

/// Most rows in a tile: many, to make up for packing panels.
const TILE_ROWS: usize = 384;
/// Row blocks or panels in a tile of the packing of the shared operand: together their rows fill several cache lines.
const PACK_GROUP: usize = 6;
/// Most bytes of panels that a tile packs for itself.
const TILE_PANEL_BYTES: usize = 416 << 10;
/// Tiles across the panels that leave enough work for all workers.
const PANEL_TILES: usize = 12;
/// Most bytes of row blocks that a tile packs for itself, to leave room for panels in the second-level cache.
const TILE_BYTES: usize = 128 << 10;
/// Panels in a tile that packs row blocks: enough to make up for packing, few enough to leave tiles for all workers.
const TILE_PANELS: usize = 8;

impl Shape {
    fn word(&self) -> Word {
        match self.precision {
            Precision::F32 => Word::F32,
            Precision::Bf16 => Word::Bf16Pair,
        }
    }

    /// Bytes of one packed row of A or column of B.
    fn line_bytes(&self) -> usize {
        4 * self.word().count(self.k)
    }

    fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Bytes of scratch that all workers share, on any instruction set.
    pub fn shared_bytes(&self) -> usize {
        self.line_bytes()
            * match self.shared {
                Shared::A => self.m,
                Shared::B => self.panels() * PANEL,
            }
    }

    /// Bytes of scratch for each worker, on any instruction set.
    pub fn worker_bytes(&self) -> usize {
        self.line_bytes()
            * match self.shared {
                Shared::A => self.packed_panels() * PANEL,
                Shared::B => self.tile_rows(),
            }
    }

    /// Panels that one tile packs: several, so that each stored row is read a few cache lines at a time.
    fn packed_panels(&self) -> usize {
        let fit = TILE_PANEL_BYTES / (PANEL * self.line_bytes()).max(1);
        fit.min(self.panels() / PANEL_TILES).clamp(1, PACK_GROUP)
    }

    /// Most rows in one tile.
    fn tile_rows(&self) -> usize {
        match self.shared {
            Shared::A => TILE_ROWS,
            Shared::B => (TILE_BYTES / self.line_bytes().max(1)).clamp(float::MOST_BLOCK_ROWS, TILE_ROWS),
        }
    }
}

impl<'a> Gemm<'a> {
    /// `a` is `m × k`, `b` is `k × n`.
    ///
    /// # Panics
    /// When the operands do not fit.
    pub fn new(isa: Isa, precision: Precision, a: Operand<'a>, b: Operand<'a>, shared: Shared) -> Self {
        assert_eq!(a.columns(), b.rows(), "the operands disagree on the length of the reduction");
        Gemm { isa, shape: Shape { m: a.rows(), n: b.columns(), k: a.columns(), precision, shared }, a, b, workers: 2 }
    }

    /// Says how many workers claim tiles in turn, by which a worker guesses what it packs next and prefetches that. Only speed depends
    /// on it; two unless said otherwise.
    pub fn claimed_by(self, workers: usize) -> Self {
        Gemm { workers, ..self }
    }

    /// Sizes and kinds.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    fn blocks(&self) -> usize {
        self.shape.m.div_ceil(float::block_rows(self.isa))
    }

    /// Rows of row blocks `blocks`, which are of nearly equal size.
    fn rows_of(&self, blocks: Range<usize>) -> Range<usize> {
        let count = self.blocks().max(1);
        let (base, extra) = (self.shape.m / count, self.shape.m % count);
        let start = |block: usize| block * base + block.min(extra);
        start(blocks.start)..start(blocks.end)
    }

    /// Row blocks or panels of packing tile `tile`.
    fn packed_by(&self, tile: usize) -> Range<usize> {
        let of = match self.shape.shared {
            Shared::A => self.blocks(),
            Shared::B => self.shape.panels(),
        };
        of.min(tile * PACK_GROUP)..of.min((tile + 1) * PACK_GROUP)
    }

    /// Tiles of the packing of the shared operand.
    pub fn pack_tiles(&self) -> usize {
        match self.shape.shared {
            Shared::A => self.blocks().div_ceil(PACK_GROUP),
            Shared::B => self.shape.panels().div_ceil(PACK_GROUP),
        }
    }

    /// Where packing tile `tile` goes in the shared scratch, in bytes.
    pub fn pack_range(&self, tile: usize) -> Range<usize> {
        let group = self.packed_by(tile);
        let lines = match self.shape.shared {
            Shared::A => self.rows_of(group),
            Shared::B => group.start * PANEL..group.end * PANEL,
        };
        lines.start * self.shape.line_bytes()..lines.end * self.shape.line_bytes()
    }

    /// Packs tile `tile` of the shared operand into `dst`, the part [`Gemm::pack_range`] of the shared scratch, aligned to 4 bytes.
    ///
    /// # Panics
    /// When `dst` has the wrong size or alignment.
    pub fn pack_tile(&self, tile: usize, dst: &mut [u8]) {
        assert_eq!(dst.len(), self.pack_range(tile).len(), "packed tile");
        match self.shape.shared {
            Shared::A => self.pack_blocks(self.packed_by(tile), bytemuck::cast_slice_mut(dst)),
            Shared::B => self.pack_panels(self.packed_by(tile), bytemuck::cast_slice_mut(dst)),
        }
    }

    fn pack_blocks(&self, blocks: Range<usize>, dst: &mut [u32]) {
        let all = self.rows_of(blocks.clone());
        let mut parts = [Block { first: 0, count: 0 }; TILE_ROWS / 6];
        let count = blocks.len();
        for (part, block) in parts.iter_mut().zip(blocks) {
            let rows = self.rows_of(block..block + 1);
            *part = Block { first: rows.start - all.start, count: rows.len() };
        }
        self.a.pack(self.isa, self.shape.word(), all, &parts[..count], dst);
    }

    fn pack_panels(&self, panels: Range<usize>, dst: &mut [u32]) {
        let columns = panels.start * PANEL..self.shape.n.min(panels.end * PANEL);
        let mut parts = [Block { first: 0, count: PANEL }; PACK_GROUP];
        for (i, part) in parts.iter_mut().enumerate() {
            part.first = i * PANEL;
        }
        self.b.flipped().pack(self.isa, self.shape.word(), columns, &parts[..panels.len()], dst);
    }

    fn columns_of(&self, panel: usize) -> Range<usize> {
        panel * PANEL..self.shape.n.min((panel + 1) * PANEL)
    }

    /// Row blocks and panels of a tile.
    fn grid(&self) -> (usize, usize) {
        let blocks = self.blocks();
        let per_tile = self.shape.tile_rows() / float::block_rows(self.isa);
        let blocks_per_tile = blocks.div_ceil(blocks.div_ceil(per_tile).max(1)).max(1);
        let panels_per_tile = match self.shape.shared {
            Shared::A => self.shape.packed_panels(),
            Shared::B => TILE_PANELS,
        };
        (blocks_per_tile, panels_per_tile)
    }

    /// Tiles of the product. They cover elements of C, never a part of a sum.
    pub fn tiles(&self) -> usize {
        let (blocks, panels) = self.grid();
        self.blocks().div_ceil(blocks) * self.shape.panels().div_ceil(panels)
    }

    /// Row blocks and panels of tile `tile`; those of neighbouring tiles lie in different panels.
    fn parts(&self, tile: usize) -> (Range<usize>, Range<usize>) {
        let (blocks_per_tile, panels_per_tile) = self.grid();
        let across = self.shape.panels().div_ceil(panels_per_tile).max(1);
        let part = |i: usize, size: usize, of: usize| of.min(i * size)..of.min((i + 1) * size);
        let blocks = part(tile / across, blocks_per_tile, self.blocks());
        (blocks, part(tile % across, panels_per_tile, self.shape.panels()))
    }

    /// Computes tile `tile` and hands every finished piece of a row of C to `out`.
    ///
    /// `shared` is the shared scratch with all tiles packed, `worker` this worker's own ([`Shape::worker_bytes`]), both aligned to 4 bytes
    /// (64 is faster).
    ///
    /// # Panics
    /// When scratch is too small or misaligned.
    pub fn tile(&self, tile: usize, shared: &[u8], worker: &mut [u8], out: &mut dyn Epilogue) {
        let shared: &[u32] = bytemuck::cast_slice(&shared[..self.shape.shared_bytes()]);
        let worker: &mut [u32] = bytemuck::cast_slice_mut(&mut worker[..self.shape.worker_bytes()]);
        let (blocks, panels) = self.parts(tile);
        let after = self.parts(tile + self.workers).1;
        let line = self.shape.line_bytes() / 4;
        let rows = self.rows_of(blocks.clone());
        if self.shape.shared == Shared::B {
            self.pack_blocks(blocks.clone(), &mut worker[..rows.len() * line]);
        }
        if self.shape.shared == Shared::A {
            self.pack_panels(panels.clone(), &mut worker[..panels.len() * PANEL * line]);
        }
        for panel in panels.clone() {
            let packed_panel = match self.shape.shared {
                Shared::A => &worker[(panel - panels.start) * PANEL * line..][..PANEL * line],
                Shared::B => &shared[panel * PANEL * line..][..PANEL * line],
            };
            let next = match self.shape.shared {
                Shared::A => after.end.min(after.start + panel - panels.start),
                Shared::B if panel + 1 < panels.end => panel + 1,
                Shared::B => after.start,
            };
            for block in blocks.clone() {
                let here = self.rows_of(block..block + 1);
                let packed_block = match self.shape.shared {
                    Shared::A => &shared[here.start * line..][..here.len() * line],
                    Shared::B => &worker[(here.start - rows.start) * line..][..here.len() * line],
                };
                let ahead = self.ahead(next, block - blocks.start, shared);
                if block + 1 < blocks.end {
                    out.expect(self.rows_of(block + 1..block + 2), self.columns_of(panel));
                } else if panel + 1 < panels.end {
                    out.expect(self.rows_of(blocks.start..blocks.start + 1), self.columns_of(panel + 1));
                }
                self.multiply(packed_panel, packed_block, here, self.columns_of(panel), ahead, out);
            }
        }
    }

    fn multiply(
        &self,
        panel: &[u32],
        block: &[u32],
        rows: Range<usize>,
        columns: Range<usize>,
        ahead: Ahead,
        out: &mut dyn Epilogue,
    ) {
        let layout = match self.shape.precision {
            Precision::F32 => Layout::F32,
            Precision::Bf16 => Layout::Bf16,
        };
        let kernel = float::kernel(self.isa, layout, rows.len());
        let run = |sums: Sums| {
            // SAFETY: the panel holds `PANEL` and the block `rows.len()` packed lines of `k` values (sliced by the caller), `sums` a
            // row of `PANEL` values for each row, and the instruction set was detected before an `Isa` was handed out.
            unsafe { kernel(panel.as_ptr().cast(), block.as_ptr().cast(), self.shape.k, sums, ahead) }
        };
        if let Some(Direct { mut out, accumulate }) = out.direct(columns.clone()) {
            assert!(out.is_contiguous() && out.width() == PANEL && rows.end <= out.rows(), "memory of a direct output");
            return run(Sums { at: out.row_ptr(rows.start), stride: out.stride(), fresh: !accumulate });
        }
        let mut sums = TileSums([0.0; float::MOST_BLOCK_ROWS * PANEL]);
        let sums = &mut sums.0[..rows.len() * PANEL];
        out.start_rows(rows.clone(), columns.clone(), sums);
        run(Sums { at: sums.as_mut_ptr(), stride: PANEL, fresh: false });
        out.rows(rows, columns, sums);
    }

    /// What to prefetch while row block `done` of a tile is multiplied: a part of the panel that comes after this one, or of its source.
    fn ahead(&self, next: usize, done: usize, shared: &[u32]) -> Ahead {
        let fetches = self.shape.word().count(self.shape.k).div_ceil(AHEAD_STEPS) * done;
        let nothing = Ahead { at: std::ptr::null(), step: 0 };
        if next >= self.shape.panels() {
            return nothing;
        }
        let (at, step, bytes) = match self.shape.shared {
            Shared::A => {
                let columns = self.columns_of(next);
                let (at, step) = self.b.flipped().walk(columns.clone());
                (at, step, columns.len() * self.shape.k * 4)
            }
            Shared::B => {
                let line = self.shape.line_bytes() / 4;
                (shared[next * PANEL * line..].as_ptr().cast(), 128, PANEL * line * 4)
            }
        };
        if fetches * 128 >= bytes { nothing } else { Ahead { at: at.wrapping_add(fetches * step), step } }
    }
}

/// C keeps its value and the product is added to it, as one chain that continues from the value.
pub struct Accumulate<'a> {
    /// Row `i` of C is row `i`.
    pub out: ViewMut<'a, f32>,
}

impl Epilogue for Accumulate<'_> {
    fn start(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        let width = values.len();
        epilogue::copy(values, &self.out.row(row)[first_column..first_column + width]);
    }

    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        epilogue::copy(&mut self.out.row_mut(row)[first_column..first_column + values.len()], values);
    }

    fn direct(&mut self, columns: Range<usize>) -> Option<Direct<'_>> {
        let direct = self.out.is_contiguous() && columns.len() == PANEL;
        direct.then(|| Direct { out: self.out.columns(columns.start, PANEL), accumulate: true })
    }

    fn expect(&mut self, rows: Range<usize>, columns: Range<usize>) {
        for row in rows {
            epilogue::prefetch(&self.out.row(row)[columns.clone()]);
        }
    }
}
