//! What happens to finished sums while they are in the first-level cache.

use crate::kernels::isa::Isa;
use crate::kernels::view::{View, ViewMut};

/// Takes finished pieces of output rows.
pub trait Epilogue {
    /// `values` are outputs `first_column ..` of row `row` of the product, at most one panel of them. They may be changed.
    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]);
}

/// Takes the same piece of an output row of two products, such as gate and up.
pub trait PairEpilogue {
    /// `first` and `second` are outputs `first_column ..` of row `row` of the two products.
    fn row(&mut self, row: usize, first_column: usize, first: &mut [f32], second: &mut [f32]);
}

/// Applies an elementwise function in place, as the functions of [`crate::kernels::activation`] do.
pub type Activation = fn(Isa, &mut [f32]);

/// What is added to the outputs after bias and activation.
pub enum Residual<'a> {
    /// Nothing.
    None,
    /// Rows of another tensor, as wide as all outputs together.
    Add(View<'a, f32>),
    /// The old content of the outputs.
    InPlace,
}

/// The usual epilogue: `out = activation(y + bias) + residual`, spread over one or more column-split outputs.
pub struct Output<'a, 'b> {
    /// For the activation.
    pub isa: Isa,
    /// Outputs side by side: the first takes columns `0 .. width`, the next the following ones. Row `i` of the product is row `i` of each.
    pub parts: &'b mut [ViewMut<'a, f32>],
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Option<Activation>,
    /// Added last.
    pub residual: Residual<'a>,
}

impl Epilogue for Output<'_, '_> {
    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        if let Some(bias) = self.bias {
            for (v, b) in values.iter_mut().zip(&bias[first_column..]) {
                *v += b;
            }
        }
        if let Some(activation) = self.activation {
            activation(self.isa, values);
        }
        if let Residual::Add(residual) = &self.residual {
            for (v, r) in values.iter_mut().zip(&residual.row(row)[first_column..]) {
                *v += r;
            }
        }
        let in_place = matches!(self.residual, Residual::InPlace);
        let mut values = &*values;
        let mut column = first_column;
        for part in self.parts.iter_mut() {
            let width = part.width();
            if column >= width {
                column -= width;
                continue;
            }
            let here = values.len().min(width - column);
            let out = part.columns(column, here);
            write(out, row, &values[..here], in_place);
            values = &values[here..];
            column = 0;
            if values.is_empty() {
                break;
            }
        }
        debug_assert!(values.is_empty(), "the outputs are narrower than the product");
    }
}

fn write(mut out: ViewMut<f32>, row: usize, values: &[f32], add: bool) {
    let out = out.row_mut(row);
    if add {
        for (o, v) in out.iter_mut().zip(values) {
            *o += v;
        }
    } else {
        out.copy_from_slice(values);
    }
}
