//! `linear` over weights as the checkpoint stores them (training).

use super::shape::Form;
use crate::graph::Layout;
use crate::kernels::elementwise::add_slices;
use crate::kernels::strided::{Factor, product};
use crate::kernels::vector::map::Write;
use crate::kernels::view::{View, ViewMut};
use crate::ops::{Kernel, Operands, Weight};
use std::ops::Range;

/// Executable form over plain weights.
pub struct PlainKernel {
    form: Form,
}

/// Rows of an output block.
pub const BLOCK_ROWS: usize = 64;
/// Columns of an output block.
pub const BLOCK_COLUMNS: usize = 128;

/// Output blocks of `rows × columns`, row blocks first.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    rows: usize,
    columns: usize,
}

impl Blocks {
    pub fn new(rows: usize, columns: usize) -> Self {
        Blocks { rows, columns }
    }

    pub fn count(&self) -> usize {
        self.rows.div_ceil(BLOCK_ROWS) * self.columns.div_ceil(BLOCK_COLUMNS)
    }

    /// Rows and columns of block `i`.
    pub fn block(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let down = self.rows.div_ceil(BLOCK_ROWS);
        let (r, c) = (i % down * BLOCK_ROWS, i / down * BLOCK_COLUMNS);
        (r..(r + BLOCK_ROWS).min(self.rows), c..(c + BLOCK_COLUMNS).min(self.columns))
    }
}

/// The weight matrix of an operand, as stored.
pub fn matrix(o: &dyn Operands, operand: usize) -> View<'_, f32> {
    match o.weight(operand) {
        Weight::Plain(view) => view,
        Weight::Packed(_) => panic!("a training plan holds plain weights"),
    }
}

/// Columns `outputs` of the product's right factor: `[inputs, outputs]` of a weight in either layout.
pub fn outputs_of<'a>(weight: &View<'a, f32>, layout: Layout, outputs: Range<usize>) -> Factor<'a> {
    match layout {
        Layout::OutIn => Factor::transposed(weight.slice_rows(outputs)),
        _ => Factor::plain(weight.columns(outputs.start, outputs.len())),
    }
}

/// A block of d_out·W or d_out·Wᵀ: inputs `columns`; `d` is for outputs from `first` on.
pub fn input_gradient(
    d: &View<'_, f32>,
    weight: &View<'_, f32>,
    layout: Layout,
    first: usize,
    columns: Range<usize>,
    out: &mut ViewMut<'_, f32>,
    write: Write,
) {
    let factor = match layout {
        Layout::OutIn => {
            Factor::plain(weight.slice_rows(first..first + d.width()).columns(columns.start, columns.len()))
        }
        _ => Factor::transposed(weight.slice_rows(columns).columns(first, d.width())),
    };
    product(Factor::plain(*d), factor, out, write);
}

/// Block `rows × columns` of the gradient of a weight as it is stored: d_outᵀ·x or xᵀ·d_out.
pub fn weight_gradient(
    x: &View<'_, f32>,
    d: &View<'_, f32>,
    layout: Layout,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &mut ViewMut<'_, f32>,
    write: Write,
) {
    let (left, right) = if layout == Layout::OutIn { (d, x) } else { (x, d) };
    let left = Factor::transposed(left.columns(rows.start, rows.len()));
    product(left, Factor::plain(right.columns(columns.start, columns.len())), out, write);
}

impl PlainKernel {
    pub fn new(form: Form) -> Self {
        PlainKernel { form }
    }
}

impl Kernel for PlainKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        self.form.parts.iter().map(|&width| Blocks::new(o.rows().len(), width).count()).sum()
    }

    fn run(&self, o: &dyn Operands, _phase: usize, mut tile: usize) {
        let mut first = 0;
        for (part, &width) in self.form.parts.iter().enumerate() {
            let blocks = Blocks::new(o.rows().len(), width);
            if tile >= blocks.count() {
                tile -= blocks.count();
                first += width;
                continue;
            }
            let (rows, columns) = blocks.block(tile);
            let all = first + columns.start..first + columns.end;
            let weight = outputs_of(&matrix(o, self.form.weights.start), self.form.layout, all.clone());
            let mut out = o.output(part, rows.clone(), columns);
            product(Factor::plain(o.input(0).slice_rows(rows)), weight, &mut out, Write::Overwrite);
            if !self.form.biases.is_empty() {
                let bias = &o.fixed(self.form.biases.start)[all];
                (0..out.rows()).for_each(|i| add_slices(o.isa(), out.row_mut(i), bias));
            }
            return;
        }
        unreachable!("tile {tile} beyond the output blocks");
    }
}
