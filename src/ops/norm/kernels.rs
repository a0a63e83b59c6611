//! Executable forms of the norms and of their gradients.

use super::super::tiling::{row_tiles, tile_rows};
use super::super::{Kernel, Operands, Signature};
use super::kind::{NormKind, eps};
use crate::kernels::norm::{self, NormParameters};
use crate::kernels::norm_backward as backward;
use crate::kernels::reduce::ROW_TILE;

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
        let mut out = o.output(0, rows.clone(), 0..o.output_width(0));
        let isa = o.isa();
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
        use crate::kernels::vector::map::Write;
        let rows = tile_rows(tile, o.rows().len());
        let (isa, weight) = (o.isa(), o.fixed(3));
        let x = o.input(1).slice_rows(rows.clone());
        let statistics = o.input(2).slice_rows(rows.clone());
        let mut out = o.output(0, rows.clone(), 0..o.output_width(0));
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

/// d_weight (and d_bias): tiles split the columns; rows run in ascending tiles of [`ROW_TILE`].
///
/// Operands: d_out, x, statistics, and optionally the sums that the results continue.
pub(super) struct NormDWeightKernel {
    pub kind: NormKind,
    pub accumulate: bool,
}

/// Columns of one tile.
const COLUMNS: usize = 64;

impl Kernel for NormDWeightKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        if o.rows().is_empty() { 0 } else { o.output_width(0).div_ceil(COLUMNS) }
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        use crate::kernels::vector::map::Write;
        debug_assert!(ROW_TILE.is_power_of_two());
        let columns = tile * COLUMNS..((tile + 1) * COLUMNS).min(o.output_width(0));
        let cut = |i: usize| o.input(i).columns(columns.start, columns.len());
        let mut d_weight = o.fixed_output(0, columns.clone());
        let mut d_bias = (self.kind == NormKind::Layer).then(|| o.fixed_output(1, columns.clone()));
        backward::norm_backward_weight(
            o.isa(),
            &cut(1),
            &o.input(2),
            &cut(0),
            0,
            d_weight.row_mut(0),
            d_bias.as_mut().map(|b| b.row_mut(0)),
            if self.accumulate { Write::Add } else { Write::Overwrite },
        );
    }
}
