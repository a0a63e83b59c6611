//! Matrix products of training nodes on [`crate::kernels::gemm`]: packing into the node's scratch, and where results go.

use super::{Operands, Weight};
use crate::graph::{Attrs, Layout};
use crate::kernels::elementwise::add_slices;
use crate::kernels::gemm::{Gemm, Matrix, Operand, Precision, Shape, Shared};
use crate::kernels::linear::{Caching, Direct, Epilogue, PANEL};
use crate::kernels::stream;
use crate::kernels::view::{View, ViewMut};
use std::ops::Range;

/// The `precision` attribute: what operands are rounded to before they are multiplied.
pub fn precision(attrs: &Attrs) -> Result<Precision, String> {
    match attrs.str_or("precision", "f32")? {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        other => Err(format!("precision = \"{other}\" is unknown; use \"f32\" or \"bf16\"")),
    }
}

/// The weight matrix of an operand, as stored.
pub fn matrix(o: &dyn Operands, operand: usize) -> Matrix<'_> {
    match o.weight(operand) {
        Weight::Plain(matrix) => matrix,
        Weight::Packed(_) => panic!("a training plan holds plain weights"),
    }
}

/// The operand of a product of rows with a weight that all workers share: the smaller one. Its size grows with `rows`, so that scratch for
/// the most rows is enough for fewer.
fn shared(rows: usize, outputs: usize) -> Shared {
    if rows > outputs.next_multiple_of(PANEL) { Shared::B } else { Shared::A }
}

/// x·Wᵀ or x·W, `[rows, outputs]`.
pub fn forward<'a>(
    o: &dyn Operands,
    precision: Precision,
    x: View<'a, f32>,
    weight: Matrix<'a>,
    layout: Layout,
) -> Gemm<'a> {
    let weight = if layout == Layout::OutIn { Operand::transposed(weight) } else { Operand::plain(weight) };
    Gemm::new(o.isa(), precision, Operand::plain(x), weight, shared(x.rows(), weight.columns()))
}

/// d_out·W or d_out·Wᵀ, `[rows, inputs]`, where `d` holds outputs from `first` on.
pub fn input_gradient<'a>(
    o: &dyn Operands,
    precision: Precision,
    d: View<'a, f32>,
    weight: Matrix<'a>,
    layout: Layout,
    first: usize,
) -> Gemm<'a> {
    let weight = match layout {
        Layout::OutIn => Operand::plain(weight.slice_rows(first..first + d.width())),
        _ => Operand::transposed(weight.columns(first, d.width())),
    };
    Gemm::new(o.isa(), precision, Operand::plain(d), weight, shared(d.rows(), weight.columns()))
}

/// d_outᵀ·x or xᵀ·d_out: the gradient of a weight as it is stored. `shares_d`: d is packed for all workers; else x, which several `d` can
/// share and which is there before any `d`.
pub fn weight_gradient<'a>(
    o: &dyn Operands,
    precision: Precision,
    x: View<'a, f32>,
    d: View<'a, f32>,
    layout: Layout,
    shares_d: bool,
) -> Gemm<'a> {
    let (a, b) = if layout == Layout::OutIn { (d, x) } else { (x, d) };
    let shared = shared_of_weight(layout, shares_d);
    Gemm::new(o.isa(), precision, Operand::transposed(a), Operand::plain(b), shared)
}

fn shared_of_weight(layout: Layout, shares_d: bool) -> Shared {
    if (layout == Layout::OutIn) == shares_d { Shared::A } else { Shared::B }
}

/// Sizes of [`forward`] (and of [`input_gradient`] with inputs and outputs exchanged).
pub fn rows_shape(rows: usize, inputs: usize, outputs: usize, precision: Precision) -> Shape {
    Shape { m: rows, n: outputs, k: inputs, precision, shared: shared(rows, outputs) }
}

/// Sizes of [`weight_gradient`].
pub fn weight_shape(
    rows: usize,
    inputs: usize,
    outputs: usize,
    layout: Layout,
    precision: Precision,
    shares_d: bool,
) -> Shape {
    let (m, n) = if layout == Layout::OutIn { (outputs, inputs) } else { (inputs, outputs) };
    Shape { m, n, k: rows, precision, shared: shared_of_weight(layout, shares_d) }
}

/// Elements (of f32) of shared scratch for the packed operand, whole cache lines.
pub fn shared_elements(shape: &Shape) -> usize {
    shape.shared_bytes().div_ceil(64) * 16
}

/// Packs tile `tile` of the operand that all workers share; its region of the node's scratch starts at element `start`.
pub fn pack(o: &dyn Operands, gemm: &Gemm<'_>, start: usize, tile: usize) {
    let bytes = gemm.pack_range(tile);
    let mut region = o.shared_mut(start + bytes.start / 4..start + bytes.end / 4);
    let packed = bytemuck::cast_slice_mut(region.row_mut(0));
    if !gemm.is_packed_past_caches(o.workers_are_apart()) {
        return gemm.pack_tile(tile, packed);
    }
    let mut worker = o.scratch();
    let here = &mut bytemuck::cast_slice_mut(worker.row_mut(0))[..packed.len()];
    gemm.pack_tile(tile, here);
    stream::copy(o.isa(), here, packed);
}

/// Computes tile `tile` of a product whose shared operand is packed.
pub fn multiply(o: &dyn Operands, gemm: &Gemm<'_>, start: usize, tile: usize, out: &mut dyn Epilogue) {
    let shape = gemm.shape();
    let shared = o.shared(start..start + shape.shared_bytes() / 4);
    let mut worker = o.scratch();
    gemm.tile(tile, bytemuck::cast_slice(shared.row(0)), bytemuck::cast_slice_mut(worker.row_mut(0)), out);
}

/// What sums start from.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// Zero.
    Zero,
    /// The old content of the output.
    Output,
    /// Rows of another tensor.
    Rows(View<'a, f32>),
}

/// Writes finished sums where `place(rows, columns)` says: that part of the output, which may hold fewer columns where the next output begins.
pub struct Finish<'a, F> {
    /// For the bias.
    pub o: &'a dyn Operands,
    /// See above.
    pub place: F,
    /// Rows of the product.
    pub rows: usize,
    /// Added to finished sums.
    pub bias: Option<&'a [f32]>,
    /// What sums start from.
    pub start: Start<'a>,
    /// Whether sums go through the caches.
    pub caching: Caching,
}

impl<'a, F: Fn(Range<usize>, Range<usize>) -> ViewMut<'a, f32>> Finish<'a, F> {
    /// Calls `each(output, values)` for the parts of rows of `values`, which are `pitch` apart.
    fn spread(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        values: &mut [f32],
        pitch: usize,
        each: impl Fn(&mut [f32], &mut [f32]),
    ) {
        let mut first = columns.start;
        while first < columns.end {
            let mut out = (self.place)(rows.clone(), first..columns.end);
            let here = first - columns.start..first - columns.start + out.width();
            for (i, values) in values.chunks_mut(pitch).take(rows.len()).enumerate() {
                each(out.row_mut(i), &mut values[here.clone()]);
            }
            first += out.width();
        }
    }

    fn begin(&self, rows: Range<usize>, columns: Range<usize>, values: &mut [f32], pitch: usize) {
        match self.start {
            Start::Zero => values.fill(0.0),
            Start::Output => self.spread(rows, columns, values, pitch, |out, values| values.copy_from_slice(out)),
            Start::Rows(from) => {
                for (row, values) in rows.zip(values.chunks_mut(pitch)) {
                    values[..columns.len()].copy_from_slice(&from.row(row)[columns.clone()]);
                }
            }
        }
    }

    fn end(&self, rows: Range<usize>, columns: Range<usize>, values: &mut [f32], pitch: usize) {
        if let Some(bias) = self.bias {
            for values in values.chunks_mut(pitch).take(rows.len()) {
                add_slices(self.o.isa(), &mut values[..columns.len()], &bias[columns.clone()]);
            }
        }
        self.spread(rows, columns, values, pitch, |out, values| out.copy_from_slice(values));
    }
}

impl<'a, F: Fn(Range<usize>, Range<usize>) -> ViewMut<'a, f32>> Epilogue for Finish<'a, F> {
    fn start(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        let width = values.len();
        self.begin(row..row + 1, first_column..first_column + width, values, width);
    }

    fn start_rows(&mut self, rows: Range<usize>, columns: Range<usize>, values: &mut [f32]) {
        self.begin(rows, columns, values, PANEL);
    }

    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        let width = values.len();
        self.end(row..row + 1, first_column..first_column + width, values, width);
    }

    fn rows(&mut self, rows: Range<usize>, columns: Range<usize>, values: &mut [f32]) {
        self.end(rows, columns, values, PANEL);
    }

    /// Tiles share these columns, but each writes its own rows only.
    fn direct(&mut self, columns: Range<usize>) -> Option<Direct<'_>> {
        let accumulate = match self.start {
            _ if columns.len() != PANEL => return None,
            Start::Zero => false,
            Start::Output => true,
            Start::Rows(_) => return None,
        };
        let bias = self.bias.map(|bias| &bias[columns.clone()]);
        let out = (self.place)(0..self.rows, columns);
        (out.width() == PANEL && out.is_contiguous()).then_some(Direct { out, accumulate, bias, caching: self.caching })
    }
}
