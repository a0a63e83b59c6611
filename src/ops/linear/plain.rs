//! `linear` over weights as the checkpoint stores them (training): phase 0 packs the rows, phase 1 multiplies.

use super::shape::Form;
use crate::kernels::gemm::{Gemm, Precision};
use crate::ops::product::{self, Finish, Start};
use crate::ops::{Capacity, Kernel, Operands, Scratch};
use std::ops::Range;

/// Executable form over plain weights.
pub struct PlainKernel {
    form: Form,
    precision: Precision,
}

impl PlainKernel {
    pub fn new(form: Form, precision: Precision) -> Self {
        PlainKernel { form, precision }
    }

    fn product<'a>(&self, o: &'a dyn Operands) -> Gemm<'a> {
        let weight = product::matrix(o, self.form.weights.start);
        product::forward(o, self.precision, o.input(0), weight, self.form.layout)
    }
}

impl Kernel for PlainKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        let shape = product::rows_shape(capacity.step_rows, self.form.k, self.form.outs[0], self.precision);
        Scratch { shared: 4 * product::shared_elements(&shape), per_worker: shape.worker_bytes() }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        let product = self.product(o);
        if phase == 0 { product.pack_tiles() } else { product.tiles() }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let product = self.product(o);
        if phase == 0 {
            return product::pack(o, &product, 0, tile);
        }
        let place = |rows: Range<usize>, columns: Range<usize>| {
            let mut first = 0;
            for (part, &width) in self.form.parts.iter().enumerate() {
                if columns.start < first + width {
                    return o.output(part, rows, columns.start - first..(columns.end - first).min(width));
                }
                first += width;
            }
            unreachable!("column {} beyond the outputs", columns.start)
        };
        let bias = (!self.form.biases.is_empty()).then(|| o.fixed(self.form.biases.start));
        let (rows, caching) = (product.shape().m, product.read_by_all(o.workers_are_apart()));
        product::multiply(o, &product, 0, tile, &mut Finish { o, place, rows, bias, start: Start::Zero, caching });
    }
}
