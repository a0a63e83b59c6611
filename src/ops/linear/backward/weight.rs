//! `linear.d_weight`: the gradient of the weight, a sum over rows.

use super::{Form, flops};
use crate::graph::{Attrs, Layout};
use crate::kernels::gemm::Gemm;
use crate::ops::product::{self, Finish, Start};
use crate::ops::{Capacity, Cost, Kernel, Op, Operands, RowDep, Scratch, Signature, rule};
use crate::tensor::TensorType;
use std::ops::Range;

/// `linear.d_weight(x, d_out…[, d])`: d_outᵀ·x or xᵀ·d_out, as the weight is stored.
pub struct LinearDWeight;

impl Op for LinearDWeight {
    fn keyword(&self) -> &'static str {
        "linear.d_weight"
    }
    fn doc(&self) -> &'static str {
        "linear.d_weight(x, d_out…[, d], parts = n, layout = …): d_outᵀ·x or xᵀ·d_out over all rows, continuing the sums of d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["parts", "layout", "precision"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let (form, k) = (Form::of(attrs, operands, 1)?, rule::width(operands, 0)?);
        let shape = if form.layout == Layout::OutIn { [form.total(), k] } else { [k, form.total()] };
        form.existing.map_or(Ok(()), |i| rule::fixed(operands, i, &shape))?;
        Ok(vec![rule::fixed_type(&shape)])
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn must_alias(&self, sig: &Signature, _output: usize) -> Option<usize> {
        Form::of(&sig.attrs, &sig.operands, 1).ok()?.existing
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        flops(sig, 1, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let k = rule::width(&sig.operands, 0)?;
        Ok(Box::new(DWeightKernel { form: Form::of(&sig.attrs, &sig.operands, 1)?, k }))
    }
}

/// Phase 0 packs x, or the only part of d_out when that is narrower; the tiles of phase 1 are those of all parts.
struct DWeightKernel {
    form: Form,
    k: usize,
}

impl DWeightKernel {
    fn shares_d(&self) -> bool {
        matches!(self.form.parts[..], [width] if width < self.k)
    }

    fn product<'a>(&self, o: &'a dyn Operands, part: usize) -> Gemm<'a> {
        let d = o.input(self.form.d_outs.start + part);
        product::weight_gradient(o, self.form.precision, o.input(0), d, self.form.layout, self.shares_d())
    }
}

impl Kernel for DWeightKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        let Form { layout, precision, .. } = self.form;
        let shape =
            product::weight_shape(capacity.step_rows, self.k, self.form.total(), layout, precision, self.shares_d());
        Scratch { shared: 4 * product::shared_elements(&shape), per_worker: shape.worker_bytes() }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        if phase == 0 {
            return self.product(o, 0).pack_tiles();
        }
        (0..self.form.parts.len()).map(|part| self.product(o, part).tiles()).sum()
    }

    fn run(&self, o: &dyn Operands, phase: usize, mut tile: usize) {
        if phase == 0 {
            return product::pack(o, &self.product(o, 0), 0, tile);
        }
        for part in 0..self.form.parts.len() {
            let product = self.product(o, part);
            if tile >= product.tiles() {
                tile -= product.tiles();
                continue;
            }
            let first = self.form.first_column(part);
            let (down, right) = if self.form.layout == Layout::OutIn { (first, 0) } else { (0, first) };
            let place = |rows: Range<usize>, columns: Range<usize>| {
                o.fixed_output_block(0, down + rows.start..down + rows.end, right + columns.start..right + columns.end)
            };
            let rows = product.shape().m;
            let start = if self.form.existing.is_some() { Start::Output } else { Start::Zero };
            let caching = product.unread(o.workers_are_apart());
            return product::multiply(o, &product, 0, tile, &mut Finish { o, place, rows, bias: None, start, caching });
        }
        unreachable!("tile {tile} beyond the parts' tiles");
    }
}
