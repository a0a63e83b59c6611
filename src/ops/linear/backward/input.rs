//! `linear.d_input`: the gradient of the input.

use super::{Form, flops};
use crate::graph::{Attrs, Layout};
use crate::kernels::gemm::Gemm;
use crate::ops::product::{self, Finish, Start};
use crate::ops::{Capacity, Cost, Kernel, Op, Operands, Scratch, Signature, rule};
use crate::tensor::TensorType;
use std::ops::Range;

/// `linear.d_input(weight, d_out…[, d])`: d_out·W or d_out·Wᵀ.
pub struct LinearDInput;

impl Op for LinearDInput {
    fn keyword(&self) -> &'static str {
        "linear.d_input"
    }
    fn doc(&self) -> &'static str {
        "linear.d_input(weight, d_out…[, d], parts = n, layout = …): d_out·W or d_out·Wᵀ, added to d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["parts", "layout", "precision"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let form = Form::of(attrs, operands, 1)?;
        let k = match (form.layout, operands[0].shape.dims()) {
            (Layout::OutIn, &[n, k]) | (_, &[k, n]) if n == form.total() => k,
            _ => {
                return Err(format!(
                    "the weight has shape {}, but d_out has features {:?}",
                    operands[0].shape, form.parts
                ));
            }
        };
        rule::weight(operands, 0, operands[0].shape.dims())?;
        if let Some(i) = form.existing
            && rule::width(operands, i)? != k
        {
            return Err(format!("the gradient to add to has type {}, but x has features [{k}]", operands[i]));
        }
        Ok(vec![rule::rows_like(&operands[1..], k)])
    }
    fn may_alias(&self, sig: &Signature, operand: usize, _output: usize) -> bool {
        Form::of(&sig.attrs, &sig.operands, 1).is_ok_and(|f| f.existing == Some(operand))
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        flops(sig, 1, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let k = rule::width(&sig.outputs, 0)?;
        Ok(Box::new(DInputKernel { form: Form::of(&sig.attrs, &sig.operands, 1)?, k }))
    }
}

/// For each part two phases: pack it, then continue the sums with it.
struct DInputKernel {
    form: Form,
    k: usize,
}

impl DInputKernel {
    fn product<'a>(&self, o: &'a dyn Operands, part: usize) -> Gemm<'a> {
        let (Form { layout, precision, .. }, d) = (&self.form, o.input(self.form.d_outs.start + part));
        product::input_gradient(o, *precision, d, product::matrix(o, 0), *layout, self.form.first_column(part))
    }
}

impl Kernel for DInputKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        let widest = self.form.parts.iter().copied().max().unwrap_or(0);
        let shape = product::rows_shape(capacity.step_rows, widest, self.k, self.form.precision);
        Scratch { shared: 4 * product::shared_elements(&shape), per_worker: shape.worker_bytes() }
    }

    fn phases(&self) -> usize {
        2 * self.form.parts.len()
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        let product = self.product(o, phase / 2);
        if phase.is_multiple_of(2) { product.pack_tiles() } else { product.tiles() }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let product = self.product(o, phase / 2);
        if phase.is_multiple_of(2) {
            return product::pack(o, &product, 0, tile);
        }
        let start = match self.form.existing {
            _ if phase > 1 => Start::Output,
            None => Start::Zero,
            Some(i) if o.in_place(i, 0) => Start::Output,
            Some(i) => Start::Rows(o.input(i)),
        };
        let place = |rows: Range<usize>, columns: Range<usize>| o.output(0, rows, columns);
        let (rows, caching) = (product.shape().m, product.read_by_all(o.workers_are_apart()));
        product::multiply(o, &product, 0, tile, &mut Finish { o, place, rows, bias: None, start, caching });
    }
}
