//! `linear.d_bias`: the gradient of the bias, a sum over rows.

use super::{Form, flops};
use crate::graph::Attrs;
use crate::kernels::reduce::{add_tiles, tile_sums};
use crate::kernels::vector::map::Write;
use crate::ops::tiling::{ADD_COLUMNS, SumTiles};
use crate::ops::{Capacity, Cost, Kernel, Op, Operands, RowDep, Scratch, Signature, rule};
use crate::tensor::TensorType;

/// `linear.d_bias(d_out…[, d])`: sums of d_out over rows.
pub struct LinearDBias;

impl Op for LinearDBias {
    fn keyword(&self) -> &'static str {
        "linear.d_bias"
    }
    fn doc(&self) -> &'static str {
        "linear.d_bias(d_out…[, d], parts = n): sums of d_out over rows, added to d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["parts", "layout", "precision"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let form = Form::of(attrs, operands, 0)?;
        form.existing.map_or(Ok(()), |i| rule::fixed(operands, i, &[form.total()]))?;
        Ok(vec![rule::fixed_type(&[form.total()])])
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn must_alias(&self, sig: &Signature, _output: usize) -> Option<usize> {
        Form::of(&sig.attrs, &sig.operands, 0).ok()?.existing
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        flops(sig, 0, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let form = Form::of(&sig.attrs, &sig.operands, 0)?;
        Ok(Box::new(DBiasKernel { tiles: SumTiles::new(&form.parts), form }))
    }
}

/// Phase 0 sums tiles of rows, phase 1 adds those up.
struct DBiasKernel {
    form: Form,
    tiles: SumTiles,
}

impl Kernel for DBiasKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        Scratch { shared: 4 * SumTiles::row_tiles(capacity.step_rows) * self.form.total(), per_worker: 0 }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        if phase == 0 { self.tiles.count(o.rows().len()) } else { self.form.total().div_ceil(ADD_COLUMNS) }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let (rows, total) = (o.rows().len(), self.form.total());
        if phase == 0 {
            let (row_tile, rows, part, columns) = self.tiles.tile(tile, rows);
            let d = o.input(self.form.d_outs.start + part).slice_rows(rows).columns(columns.start, columns.len());
            let first = self.form.first_column(part);
            let sums = first + columns.start..first + columns.end;
            return tile_sums(o.isa(), &d, o.shared_block(0, total, row_tile..row_tile + 1, sums).row_mut(0));
        }
        let columns = tile * ADD_COLUMNS..((tile + 1) * ADD_COLUMNS).min(total);
        let sums = o.shared_rows(0, SumTiles::row_tiles(rows), total).columns(columns.start, columns.len());
        let write = if self.form.existing.is_some() { Write::Add } else { Write::Overwrite };
        add_tiles(o.isa(), &sums, o.fixed_output(0, columns).row_mut(0), write);
    }
}
