//! One tile of a product.
#![allow(unsafe_code)]

use super::operand::Walk;
use super::product::Gemm;
use super::shape::Shared;
use crate::kernels::linear::float::HELD_ROWS;
use crate::kernels::linear::{
    AHEAD_INPUTS, Caching, Direct, Epilogue, Kernel, PANEL, Place, Sums, add_bias, add_bias_to_sums, float,
};
use crate::kernels::stream;
use std::ops::Range;

/// What the row blocks of a tile have in common while one panel passes by them.
struct Pass<'a> {
    panel: &'a [u32],
    columns: Range<usize>,
    /// Packed row blocks of the tile, the first of which starts at row `first_row`.
    blocks: &'a [u32],
    first_row: usize,
    /// What this worker probably needs next, of which so many pairs of cache lines have been prefetched.
    next: Walk,
    fetched: usize,
    /// Whether sums start here, and whether they end here.
    first: bool,
    last: bool,
    /// Whether another panel of the tile follows.
    more: bool,
}

/// Scratch of a worker: sums of a panel, and what a tile packs.
struct Scratch<'a> {
    sums: &'a mut [f32],
    packed: &'a mut [u32],
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
        let (sums, packed) = worker.split_at_mut(self.shape.sums(self.parts));
        let mut scratch = Scratch { sums: bytemuck::cast_slice_mut(sums), packed };
        let (blocks, panels) = self.parts(tile);
        // Workers claim runs of tiles in order.
        let after = self.parts(tile + 1);
        let once = self.shape.shared == Shared::B && self.chunks() == 1;
        if once {
            self.pack(&blocks, &panels, scratch.packed);
        }
        let mut first = panels.start;
        while first < panels.end {
            // Panels whose sums may wait in C go chunk by chunk together.
            let direct = (first..panels.end).take_while(|&panel| out.direct(self.columns_of(panel)).is_some()).count();
            let group = first..first + direct.max(1);
            first = group.end;
            let more = first < panels.end;
            for chunk in 0..self.chunks() {
                let part = self.chunk(chunk);
                if !once {
                    part.pack(&blocks, &group, scratch.packed);
                }
                let next = match chunk + 1 < self.chunks() {
                    true => (self.chunk(chunk + 1), (&blocks, &group)),
                    false => (self.chunk(0), (&after.0, &after.1)),
                };
                let (first, last) = (chunk == 0, chunk + 1 == self.chunks());
                let shared = &shared[self.chunk_start(chunk) / 4..][..part.shape.shared_bytes() / 4];
                part.multiply(&blocks, &group, (first, last, more), next, shared, &mut scratch, out);
            }
        }
    }

    /// Packs what a tile packs for itself.
    fn pack(&self, blocks: &Range<usize>, panels: &Range<usize>, dst: &mut [u32]) {
        let line = self.shape.line_bytes() / 4;
        match self.shape.shared {
            Shared::A => self.pack_panels(panels.clone(), &mut dst[..panels.len() * PANEL * line]),
            Shared::B => self.pack_blocks(blocks.clone(), &mut dst[..self.rows_of(blocks.clone()).len() * line]),
        }
    }

    /// Multiplies row blocks with panels over one chunk of the reduction. `next`: the product, row blocks and panels that probably follow.
    #[expect(clippy::too_many_arguments, reason = "what a chunk of a tile is made of")]
    fn multiply(
        &self,
        blocks: &Range<usize>,
        panels: &Range<usize>,
        (first, last, more): (bool, bool, bool),
        next: (Self, (&Range<usize>, &Range<usize>)),
        shared: &[u32],
        scratch: &mut Scratch,
        out: &mut dyn Epilogue,
    ) {
        let line = self.shape.line_bytes() / 4;
        let rows = self.rows_of(blocks.clone());
        let (next, (next_blocks, next_panels)) = next;
        let kernels = self.kernels();
        // So many row blocks stay in the second-level cache while all panels pass by them.
        let step = (self.parts.resident_bytes / (self.block_rows.max(1) * self.shape.line_bytes()).max(1)).max(1);
        let parts = (blocks.start..blocks.end).step_by(step).map(|first| first..blocks.end.min(first + step));
        for (part, panel) in parts.flat_map(|part| panels.clone().map(move |panel| (part.clone(), panel))) {
            let done = panel - panels.start;
            let (from, packed_panels, packed_blocks) = match self.shape.shared {
                Shared::A => (done, &*scratch.packed, &shared[rows.start * line..]),
                Shared::B => (panel, shared, &*scratch.packed),
            };
            let (next, fetched) = match self.shape.shared {
                Shared::A if next_panels.start + done < next_panels.end => {
                    let before = (part.start - blocks.start) * self.fetches();
                    (next.b.flipped().walk(self.columns_of(next_panels.start + done)), before)
                }
                Shared::A => (Walk::over(&[]), 0),
                Shared::B => {
                    let before = (part.start - blocks.start) * panels.len() + done * part.len();
                    (next.a.walk(self.rows_of(next_blocks.clone())), before * self.fetches())
                }
            };
            let pass = Pass {
                panel: &packed_panels[from * PANEL * line..][..PANEL * line],
                columns: self.columns_of(panel),
                blocks: &packed_blocks[..rows.len() * line],
                first_row: rows.start,
                next,
                fetched,
                first,
                last,
                more: more || panel + 1 < panels.end,
            };
            self.pass(&pass, kernels, part, scratch.sums, out);
        }
    }

    /// The kernels for row blocks of the usual and of another size.
    fn kernels(&self) -> [Kernel; 2] {
        [self.block_rows.max(1), self.odd_block_rows()].map(|rows| float::kernel(self.isa, self.shape.layout(), rows))
    }

    /// Pairs of cache lines that the multiplication of one row block prefetches.
    fn fetches(&self) -> usize {
        self.shape.k.div_ceil(AHEAD_INPUTS)
    }

    /// Multiplies the row blocks of a tile with one panel.
    fn pass(&self, pass: &Pass, kernels: [Kernel; 2], blocks: Range<usize>, kept: &mut [f32], out: &mut dyn Epilogue) {
        let line = self.shape.line_bytes() / 4;
        let tile_rows = self.rows_of(blocks.clone());
        let mut bias: Option<[f32; PANEL]> = None;
        let mut streams = false;
        let direct = out.direct(pass.columns.clone()).map(|Direct { mut out, accumulate, bias: values, caching }| {
            assert!(
                out.is_contiguous() && out.width() == PANEL && tile_rows.end <= out.rows(),
                "memory of a direct output"
            );
            bias = values.filter(|_| pass.last).map(|values| values.try_into().expect("a bias as wide as the panel"));
            let at = out.row_ptr(0);
            let fresh = pass.first && !accumulate;
            streams = match caching {
                Caching::Through => false,
                Caching::Unread => fresh && pass.last,
                Caching::Shared => fresh || pass.last,
            };
            streams &= stream::fits(self.isa, at, out.stride());
            Sums { at, stride: out.stride(), fresh, next: Place::NOWHERE }
        });
        // SAFETY: until the block of another size, which comes last and for which this is dropped, only the kernel of this is called;
        // epilogues do not multiply.
        let hold = || unsafe { float::hold(self.isa, self.shape.layout()) };
        let mut held = (self.block_rows == HELD_ROWS).then(hold).flatten();
        for block in blocks.clone() {
            let rows = self.rows_of(block..block + 1);
            let packed = &pass.blocks[(rows.start - pass.first_row) * line..][..rows.len() * line];
            let kernel = match &held {
                Some(held) if rows.len() == self.block_rows => held.kernel(),
                _ => {
                    held = None;
                    kernels[usize::from(rows.len() != self.block_rows)]
                }
            };
            let ahead = pass.next.ahead(pass.fetched + (block - blocks.start) * self.fetches());
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
                // `out` is not touched while its memory is written here.
                let at = sums.at.wrapping_add(rows.start * sums.stride);
                let next = match follows && !(streams && sums.fresh) {
                    true => Place::new(sums.at.wrapping_add(next_rows.start * sums.stride + aside), sums.stride),
                    false => Place::NOWHERE,
                };
                if streams {
                    let here = &mut kept[..rows.len() * PANEL];
                    if !sums.fresh {
                        // SAFETY: the rows of the output that this block has and no other tile; an earlier chunk has written them, or they
                        // are what the product is added to.
                        unsafe { load_rows(at, sums.stride, here) };
                    }
                    run(Sums { at: here.as_mut_ptr(), stride: PANEL, fresh: sums.fresh, next });
                    if let Some(bias) = &bias {
                        add_bias(self.isa, here, bias);
                    }
                    // SAFETY: the rows of the output that this block has, and they fit.
                    unsafe { stream::rows(here, at, sums.stride) };
                    continue;
                }
                let sums = Sums { at, next, ..sums };
                run(sums);
                if let Some(bias) = &bias {
                    // SAFETY: the rows that the kernel has just written.
                    unsafe { add_bias_to_sums(self.isa, sums, rows.len(), bias) };
                }
                continue;
            }
            if follows && pass.last {
                let end = self.shape.n.min(pass.columns.end + aside);
                out.expect(next_rows, pass.columns.start + aside..end);
            }
            let sums = &mut kept[(rows.start - pass.first_row) * PANEL..][..rows.len() * PANEL];
            if pass.first {
                out.start_rows(rows.clone(), pass.columns.clone(), sums);
            }
            let at = sums.as_mut_ptr();
            run(Sums { at, stride: PANEL, fresh: false, next: Place::NOWHERE });
            if pass.last {
                out.rows(rows.clone(), pass.columns.clone(), sums);
            }
        }
        if streams {
            stream::end();
        }
    }
}

/// Copies rows of [`PANEL`] values, `stride` values apart, side by side to `into`.
///
/// # Safety
/// As many rows can be read at `at`, and nobody writes to them.
unsafe fn load_rows(at: *const f32, stride: usize, into: &mut [f32]) {
    for (i, row) in into.chunks_exact_mut(PANEL).enumerate() {
        // SAFETY: the caller's.
        row.copy_from_slice(unsafe { std::slice::from_raw_parts(at.wrapping_add(i * stride), PANEL) });
    }
}
