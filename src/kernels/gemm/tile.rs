//! One tile of a product.
#![allow(unsafe_code)]

use super::product::Gemm;
use super::shape::{Precision, Shared};
use crate::kernels::linear::{AHEAD_STEPS, Ahead, Direct, Epilogue, Kernel, Layout, PANEL, Sums, epilogue, float};
use std::ops::Range;

/// Sums of one row block and one panel.
#[repr(align(64))]
struct TileSums([f32; float::MOST_BLOCK_ROWS * PANEL]);

/// What the row blocks of a tile have in common while one panel passes by them.
struct Pass<'a> {
    panel: &'a [u32],
    columns: Range<usize>,
    /// Packed row blocks of the tile, the first of which starts at row `first_row`.
    blocks: &'a [u32],
    first_row: usize,
    /// The panel that this worker probably needs next.
    next: usize,
    /// Whether another panel of the tile follows.
    more: bool,
}

impl Gemm<'_> {
    /// Computes tile `tile` and hands every finished piece of a row of C to `out`.
    ///
    /// `shared` is the shared scratch with all tiles packed, `worker` this worker's own ([`super::Shape::worker_bytes`]), both aligned to
    /// 4 bytes (64 is faster).
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
        match self.shape.shared {
            Shared::A => self.pack_panels(panels.clone(), &mut worker[..panels.len() * PANEL * line]),
            Shared::B => self.pack_blocks(blocks.clone(), &mut worker[..rows.len() * line]),
        }
        let kernels = self.kernels();
        for panel in panels.clone() {
            let (from, packed_panels, packed_blocks, next) = match self.shape.shared {
                Shared::A => {
                    let next = after.end.min(after.start + panel - panels.start);
                    (panel - panels.start, &*worker, &shared[rows.start * line..], next)
                }
                Shared::B => (panel, shared, &*worker, if panel + 1 < panels.end { panel + 1 } else { after.start }),
            };
            let pass = Pass {
                panel: &packed_panels[from * PANEL * line..][..PANEL * line],
                columns: self.columns_of(panel),
                blocks: &packed_blocks[..rows.len() * line],
                first_row: rows.start,
                next,
                more: panel + 1 < panels.end,
            };
            self.pass(&pass, kernels, blocks.clone(), shared, out);
        }
    }

    /// The kernels for row blocks of the usual size and of one row more.
    fn kernels(&self) -> [Kernel; 2] {
        let layout = match self.shape.precision {
            Precision::F32 => Layout::F32,
            Precision::Bf16 => Layout::Bf16,
        };
        [0, 1]
            .map(|more| float::kernel(self.isa, layout, (self.block_rows + more).clamp(1, float::block_rows(self.isa))))
    }

    /// Multiplies the row blocks of a tile with one panel.
    fn pass(&self, pass: &Pass, kernels: [Kernel; 2], blocks: Range<usize>, shared: &[u32], out: &mut dyn Epilogue) {
        let line = self.shape.line_bytes() / 4;
        let tile_rows = self.rows_of(blocks.clone());
        let mut bias: Option<[f32; PANEL]> = None;
        let direct = out.direct(pass.columns.clone()).map(|Direct { mut out, accumulate, bias: values }| {
            assert!(
                out.is_contiguous() && out.width() == PANEL && tile_rows.end <= out.rows(),
                "memory of a direct output"
            );
            bias = values.map(|values| values.try_into().expect("a bias as wide as the panel"));
            Sums { at: out.row_ptr(0), stride: out.stride(), fresh: !accumulate }
        });
        for block in blocks.clone() {
            let rows = self.rows_of(block..block + 1);
            let packed = &pass.blocks[(rows.start - pass.first_row) * line..][..rows.len() * line];
            let kernel = kernels[rows.len() - self.block_rows];
            let ahead = self.ahead(pass.next, block - blocks.start, shared);
            let run = |sums: Sums| {
                // SAFETY: the panel holds `PANEL` and the block `rows.len()` packed lines of `k` values, `sums` a row of `PANEL` values
                // for each row, and the instruction set was detected before an `Isa` was handed out.
                unsafe { kernel(pass.panel.as_ptr().cast(), packed.as_ptr().cast(), self.shape.k, sums, ahead) }
            };
            let (next_rows, aside) = if block + 1 < blocks.end {
                (self.rows_of(block + 1..block + 2), 0)
            } else {
                (self.rows_of(blocks.start..blocks.start + 1), PANEL)
            };
            let follows = aside == 0 || pass.more;
            if let Some(sums) = direct {
                if follows {
                    for row in next_rows {
                        epilogue::prefetch_panel(sums.at.wrapping_add(row * sums.stride + aside));
                    }
                }
                // `out` is not touched while its memory is written here.
                let sums = Sums { at: sums.at.wrapping_add(rows.start * sums.stride), ..sums };
                run(sums);
                if let Some(bias) = &bias {
                    // SAFETY: the rows that the kernel has just written.
                    unsafe { add_bias(sums, rows.len(), bias) };
                }
                continue;
            }
            if follows {
                let end = self.shape.n.min(pass.columns.end + aside);
                out.expect(next_rows, pass.columns.start + aside..end);
            }
            let mut sums = TileSums([0.0; float::MOST_BLOCK_ROWS * PANEL]);
            let sums = &mut sums.0[..rows.len() * PANEL];
            out.start_rows(rows.clone(), pass.columns.clone(), sums);
            run(Sums { at: sums.as_mut_ptr(), stride: PANEL, fresh: false });
            out.rows(rows.clone(), pass.columns.clone(), sums);
        }
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

/// Adds one value per column to `rows` rows of finished sums.
///
/// # Safety
/// `sums` addresses `rows` rows of [`PANEL`] values that nobody else uses.
unsafe fn add_bias(sums: Sums, rows: usize, bias: &[f32; PANEL]) {
    for row in 0..rows {
        // SAFETY: the caller's.
        let values = unsafe { &mut *sums.at.wrapping_add(row * sums.stride).cast::<[f32; PANEL]>() };
        values.iter_mut().zip(bias).for_each(|(value, b)| *value += b);
    }
}
