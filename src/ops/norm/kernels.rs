//! Executable forms of the norms and of their gradients.

use super::super::tiling::{ADD_COLUMNS, SumTiles, row_tiles, tile_rows};
use super::super::{Capacity, Kernel, Operands, Scratch, Signature};
use super::kind::{NormKind, eps};
use crate::kernels::norm::{self, NormParameters};
use crate::kernels::norm_backward as backward;
use crate::kernels::reduce::add_tiles;
use crate::kernels::vector::map::Write;

/// Forward.
pub(super) struct NormKernel {
    kind: NormKind,
    eps: f32,
    save: bool,
}

impl NormKernel {
    pub fn boxed(kind: NormKind, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let save = sig.attrs.bool_or("save_statistics", false)?;
        Ok(Box::new(NormKernel { kind, eps: eps(&sig.attrs)?, save }))
    }
}

impl Kernel for NormKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let bias = (self.kind == NormKind::Layer).then(|| o.fixed(2));
        let parameters = NormParameters { weight: o.fixed(1), bias, eps: self.eps };
        let mut statistics = self.save.then(|| o.output(1, rows.clone(), 0..self.kind.statistics()));
        let isa = o.isa();
        let mut out = o.fresh_output(0, rows.clone(), 0..o.output_width(0));
        if o.in_place(0, 0) {
            match self.kind {
                NormKind::Layer => norm::layer_norm_inplace(isa, &mut out, parameters, statistics.as_mut()),
                NormKind::Rms => norm::rms_norm_inplace(isa, &mut out, parameters, statistics.as_mut()),
            }
        } else {
            let x = o.input(0).slice_rows(rows);
            match self.kind {
                NormKind::Layer => norm::layer_norm(isa, &x, parameters, &mut out, statistics.as_mut()),
                NormKind::Rms => norm::rms_norm(isa, &x, parameters, &mut out, statistics.as_mut()),
            }
        }
    }
}

/// d_input: operands d_out, x, statistics, weight, and optionally a gradient to add to.
pub(super) struct NormDInputKernel {
    pub accumulate: bool,
}

impl Kernel for NormDInputKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        use crate::kernels::elementwise::copy;
        let rows = tile_rows(tile, o.rows().len());
        let (isa, weight) = (o.isa(), o.fixed(3));
        let x = o.input(1).slice_rows(rows.clone());
        let statistics = o.input(2).slice_rows(rows.clone());
        let mut out = o.fresh_output(0, rows.clone(), 0..o.output_width(0));
        if !self.accumulate && o.in_place(0, 0) {
            return backward::norm_backward_input_inplace(isa, &x, &statistics, weight, &mut out);
        }
        let d_out = o.input(0).slice_rows(rows.clone());
        if self.accumulate && !o.in_place(4, 0) {
            copy(&o.input(4).slice_rows(rows), &mut out);
        }
        let write = if self.accumulate { Write::Add } else { Write::Overwrite };
        backward::norm_backward_input(isa, &x, &statistics, weight, &d_out, &mut out, write);
    }
}

/// d_weight (and d_bias): phase 0 sums tiles of [`ROW_TILE`](crate::kernels::reduce::ROW_TILE) rows, phase 1 adds those up in ascending order.
///
/// Operands: d_out, x, statistics, and optionally the sums that the results continue.
pub(super) struct NormDWeightKernel {
    kind: NormKind,
    accumulate: bool,
    width: usize,
    tiles: SumTiles,
}

impl NormDWeightKernel {
    pub fn new(kind: NormKind, accumulate: bool, width: usize) -> Self {
        NormDWeightKernel { kind, accumulate, width, tiles: SumTiles::new(&[width]) }
    }

    /// Results: the weight's gradient, and the bias's where there is one.
    fn outputs(&self) -> usize {
        if self.kind == NormKind::Layer { 2 } else { 1 }
    }

    /// First element of the sums of output `output` in the shared scratch, for so many rows.
    fn start(&self, rows: usize, output: usize) -> usize {
        output * SumTiles::row_tiles(rows) * self.width
    }
}

impl Kernel for NormDWeightKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        Scratch { shared: 4 * self.start(capacity.step_rows, self.outputs()), per_worker: 0 }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        match (o.rows().is_empty(), phase) {
            (true, _) => 0,
            (false, 0) => self.tiles.count(o.rows().len()),
            (false, _) => self.width.div_ceil(ADD_COLUMNS),
        }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let (live, width) = (o.rows().len(), self.width);
        if phase == 0 {
            let (row_tile, rows, _, columns) = self.tiles.tile(tile, live);
            let cut = |i: usize| o.input(i).slice_rows(rows.clone());
            let sums = |i: usize| o.shared_block(self.start(live, i), width, row_tile..row_tile + 1, columns.clone());
            let (mut d_weight, mut d_bias) = (sums(0), (self.outputs() == 2).then(|| sums(1)));
            return backward::norm_backward_weight(
                o.isa(),
                &cut(1).columns(columns.start, columns.len()),
                &cut(2),
                &cut(0).columns(columns.start, columns.len()),
                d_weight.row_mut(0),
                d_bias.as_mut().map(|b| b.row_mut(0)),
            );
        }
        let columns = tile * ADD_COLUMNS..((tile + 1) * ADD_COLUMNS).min(width);
        let write = if self.accumulate { Write::Add } else { Write::Overwrite };
        for i in 0..self.outputs() {
            let sums = o.shared_rows(self.start(live, i), SumTiles::row_tiles(live), width);
            let sums = sums.columns(columns.start, columns.len());
            add_tiles(o.isa(), &sums, o.fixed_output(i, columns.clone()).row_mut(0), write);
        }
    }
}
