//! `linear` over weights packed once (inference).
//!
//! Phase 0 brings the rows into the form that the product wants (normalised, interleaved, bf16 or int8); phase 1 multiplies.

use super::epilogue::{Finish, FinishPair};
use super::mixed_pair::MixedPair;
use super::shape::{Activation, Form};
use crate::kernels::linear::{Grid, PANEL, PackedMatrix, Prepared, RowBlocks, product, product_pair};
use crate::kernels::norm::{NormParameters, layer_norm, rms_norm};
use crate::kernels::view::ViewMut;
use crate::ops::norm::NormKind;
use crate::ops::{Capacity, Kernel, NO_MEMORY, Operands, Scratch, Weight};
use crate::tensor::DType;
use std::ops::Range;

/// Executable form over packed weights.
pub struct PackedKernel {
    form: Form,
}

/// One weight type for each form of prepared rows.
const FORMS: [DType; 3] = [DType::F32, DType::BF16, DType::Q8_0];

/// Row blocks of one tile of the preparing phase.
const PREPARE_BLOCKS: usize = 1;

impl PackedKernel {
    pub fn new(form: Form) -> Self {
        PackedKernel { form }
    }

    fn matrix<'a>(&self, o: &'a dyn Operands, i: usize) -> PackedMatrix<'a> {
        match o.weight(self.form.weights.start + i) {
            Weight::Packed(matrix) => matrix,
            Weight::Plain(_) => panic!("an inference plan holds packed weights"),
        }
    }

    /// Elements of the shared scratch that hold normalised rows.
    fn normed(&self, rows: usize) -> Range<usize> {
        0..if self.form.norm.is_some() { rows * self.form.k } else { 0 }
    }

    /// Elements of the shared scratch that hold the rows prepared for weight `i`. Weights of one form share them.
    fn prepared(&self, o: &dyn Operands, i: usize) -> Range<usize> {
        let (rows, k) = (o.rows().len(), self.form.k);
        let mut start = self.normed(rows).end;
        let dtype = self.matrix(o, i).dtype();
        for j in 0..i {
            let other = self.matrix(o, j).dtype();
            if same_form(other, dtype) {
                return self.prepared(o, j);
            }
            if (0..j).all(|h| !same_form(self.matrix(o, h).dtype(), other)) {
                start += form_elements(other, rows, k);
            }
        }
        start..start + form_elements(dtype, rows, k)
    }

    /// Whether weight `i` is the first that wants its form.
    fn leads(&self, o: &dyn Operands, i: usize) -> bool {
        let dtype = self.matrix(o, i).dtype();
        (0..i).all(|j| !same_form(self.matrix(o, j).dtype(), dtype))
    }

    /// One row of f32 is its own prepared form.
    fn is_own_form(&self, o: &dyn Operands, i: usize) -> bool {
        o.rows().len() == 1 && !Grid::wants_prepared_rows(self.matrix(o, i).dtype())
    }

    fn blocks(&self, o: &dyn Operands, i: usize) -> RowBlocks {
        RowBlocks::new(o.isa(), self.matrix(o, i).dtype(), o.rows().len(), self.form.k)
    }

    /// Products that are computed tile by tile: gate and up go together.
    fn products(&self) -> usize {
        if self.form.activation == Activation::Swiglu { 1 } else { self.form.outs.len() }
    }

    fn grid(&self, o: &dyn Operands, i: usize) -> Grid {
        let matrix = self.matrix(o, i);
        Grid::new(o.isa(), matrix.dtype(), matrix.n(), matrix.k(), o.rows().len())
    }

    /// The order of tiles in the second phase: products, their grids and ranges of their tiles. Where all products have the same rows in a tile,
    /// these go through all products before the next ones do.
    fn parts<'a>(&'a self, o: &'a dyn Operands) -> impl Iterator<Item = (usize, Grid, Range<usize>)> + 'a {
        let first = self.grid(o, 0);
        let same = |i: usize| self.grid(o, i).has_rows_of(&first);
        // With few rows, where time is short, there is one group.
        let groups = if first.row_groups() > 1 && (1..self.products()).all(same) { first.row_groups() } else { 1 };
        (0..groups * self.products()).map(move |at| {
            let (group, i) = (at / self.products(), at % self.products());
            let grid = self.grid(o, i);
            let size = grid.tiles() / groups;
            (i, grid, group * size..(group + 1) * size)
        })
    }

    /// Normalises rows `rows` into the shared scratch.
    fn normalise(&self, o: &dyn Operands, kind: NormKind, eps: f32, rows: Range<usize>) {
        let (k, first) = (self.form.k, self.form.norm_operand);
        let bias = (kind == NormKind::Layer).then(|| o.fixed(first + 1));
        let parameters = NormParameters { weight: o.fixed(first), bias, eps };
        let x = o.input(0).slice_rows(rows.clone());
        let mut part = o.fresh_shared(rows.start * k..rows.end * k);
        let mut out = ViewMut::new(part.row_mut(0), rows.len(), k, k);
        match kind {
            NormKind::Layer => layer_norm(o.isa(), &x, parameters, &mut out, None),
            NormKind::Rms => rms_norm(o.isa(), &x, parameters, &mut out, None),
        }
    }

    fn prepare(&self, o: &dyn Operands, tile: usize) {
        let (rows, k) = (o.rows().len(), self.form.k);
        let mut normed: Option<Range<usize>> = None;
        for i in (0..self.form.outs.len()).filter(|&i| self.leads(o, i)) {
            let blocks = self.blocks(o, i);
            let mine = tile_blocks(tile, self.prepare_tiles(o), blocks.count());
            if mine.is_empty() {
                continue;
            }
            let covered = blocks.rows_of(mine.start).start..blocks.rows_of(mine.end - 1).end;
            if let Some((kind, eps)) = self.form.norm
                && normed.as_ref() != Some(&covered)
            {
                self.normalise(o, kind, eps, covered.clone());
                normed = Some(covered);
            }
            if self.is_own_form(o, i) {
                continue;
            }
            let x = if self.form.norm.is_some() { o.shared_rows(0, rows, k) } else { o.input(0) };
            let bytes = blocks.bytes_of(mine.clone());
            let base = self.prepared(o, i).start;
            let mut dst = o.fresh_shared(base + bytes.start / 4..base + bytes.end.div_ceil(4));
            blocks.prepare(&x, mine, &mut bytemuck::cast_slice_mut(dst.row_mut(0))[..bytes.len()]);
        }
    }

    fn prepare_tiles(&self, o: &dyn Operands) -> usize {
        let blocks = (0..self.form.outs.len()).map(|i| self.blocks(o, i).count()).min().unwrap_or(0);
        // Forms that block rows differently must not split a normalised row between tiles.
        let mixed = (1..self.form.outs.len()).any(|i| self.leads(o, i));
        if mixed && self.form.norm.is_some() { 1 } else { blocks.div_ceil(PREPARE_BLOCKS) }
    }

    /// The rows in the form that weight `i` wants, after the preparing phase.
    fn x<'a>(&self, o: &'a dyn Operands, i: usize) -> Prepared<'a> {
        if self.is_own_form(o, i) {
            let row = if self.form.norm.is_some() { o.shared(self.normed(1)).row(0) } else { o.input(0).row(0) };
            return Prepared::from_row(o.isa(), self.matrix(o, i).dtype(), row);
        }
        let layout = self.blocks(o, i);
        let scratch = o.shared(self.prepared(o, i));
        Prepared::new(layout, &bytemuck::cast_slice(scratch.row(0))[..layout.bytes()])
    }

    fn multiply(&self, o: &dyn Operands, i: usize, (panels, blocks): (Range<usize>, Range<usize>)) {
        let rows = o.rows().len();
        let matrix = self.matrix(o, i);
        let x = self.x(o, i);
        let columns = panels.start * PANEL..(panels.end * PANEL).min(matrix.n());
        let layout = self.blocks(o, i);
        let mine = layout.rows_of(blocks.start).start..layout.rows_of(blocks.end - 1).end;
        if self.form.activation == Activation::Swiglu {
            let up = self.matrix(o, 1);
            let mut out = FinishPair::new(&self.form, o, columns, 0..rows, mine);
            if same_form(matrix.dtype(), up.dtype()) {
                product_pair([&matrix, &up], panels, &x, blocks, &mut out);
            } else {
                let mut out = MixedPair { second: &up, x: self.x(o, 1), out: &mut out };
                product(&matrix, panels, &x, blocks, &mut out);
            }
        } else {
            let mut out = Finish::new(&self.form, o, i, columns, 0..rows, mine);
            product(&matrix, panels, &x, blocks, &mut out);
        }
    }
}

fn same_form(a: DType, b: DType) -> bool {
    let form = |d: DType| match d {
        DType::F32 | DType::F16 => 0,
        DType::BF16 => 1,
        _ => 2,
    };
    form(a) == form(b)
}

fn form_elements(dtype: DType, rows: usize, k: usize) -> usize {
    RowBlocks::bytes_for(dtype, rows, k).div_ceil(4).next_multiple_of(16)
}

fn tile_blocks(tile: usize, tiles: usize, blocks: usize) -> Range<usize> {
    crate::ops::tiling::part(tile, tiles.max(1), blocks)
}

impl Kernel for PackedKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        let (rows, k) = (capacity.step_rows, self.form.k);
        let forms = FORMS.map(|form| form_elements(form, rows, k));
        // One product takes one form, several may take all of them.
        let one = forms.into_iter().max().expect("a form");
        let prepared = if self.form.outs.len() == 1 { one } else { forms.into_iter().sum() };
        Scratch { shared: 4 * (self.normed(rows).end + prepared), per_worker: 0 }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        if o.rows().is_empty() {
            return 0;
        }
        if phase == 0 {
            let any = self.form.norm.is_some() || (0..self.form.outs.len()).any(|i| !self.is_own_form(o, i));
            return if any { self.prepare_tiles(o) } else { 0 };
        }
        (0..self.products()).map(|i| self.grid(o, i).tiles()).sum()
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        self.run_tiles(o, phase, tile..tile + 1);
    }

    fn run_tiles(&self, o: &dyn Operands, phase: usize, tiles: Range<usize>) {
        if phase == 0 {
            return tiles.for_each(|tile| self.prepare(o, tile));
        }
        let mut first = 0;
        for (i, grid, part) in self.parts(o) {
            let end = first + part.len();
            let from = |tile: usize| tile.clamp(first, end) - first + part.start;
            let mut mine = from(tiles.start)..from(tiles.end);
            while !mine.is_empty() {
                let (these, part) = grid.joined(mine.clone());
                self.multiply(o, i, part);
                mine.start = these.end;
            }
            first = end;
        }
    }

    fn memory_from(&self, o: &dyn Operands, phase: usize, mut tile: usize) -> Range<*const u8> {
        if phase == 0 || o.rows().is_empty() {
            return NO_MEMORY;
        }
        for (i, grid, part) in self.parts(o) {
            if tile < part.len() {
                let matrix = self.matrix(o, i);
                return matrix.panel_bytes(grid.tile(part.start + tile).0.start..matrix.panels()).as_ptr_range();
            }
            tile -= part.len();
        }
        NO_MEMORY
    }
}
