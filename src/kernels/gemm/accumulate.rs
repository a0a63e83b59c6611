//! Adding a product to what is in memory.

use crate::kernels::linear::{Caching, Direct, Epilogue, PANEL, epilogue};
use crate::kernels::view::ViewMut;
use std::ops::Range;

/// C keeps its value and the product is added to it, as one chain that continues from the value.
pub struct Accumulate<'a> {
    /// Row `i` of C is row `i`.
    pub out: ViewMut<'a, f32>,
}

impl Epilogue for Accumulate<'_> {
    fn start(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        let width = values.len();
        epilogue::copy(values, &self.out.row(row)[first_column..first_column + width]);
    }

    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        epilogue::copy(&mut self.out.row_mut(row)[first_column..first_column + values.len()], values);
    }

    fn direct(&mut self, columns: Range<usize>) -> Option<Direct<'_>> {
        let direct = self.out.is_contiguous() && columns.len() == PANEL;
        direct.then(|| Direct {
            out: self.out.columns(columns.start, PANEL),
            accumulate: true,
            bias: None,
            caching: Caching::Through,
        })
    }

    fn expect(&mut self, rows: Range<usize>, columns: Range<usize>) {
        for row in rows {
            epilogue::prefetch(&self.out.row(row)[columns.clone()]);
        }
    }
}
