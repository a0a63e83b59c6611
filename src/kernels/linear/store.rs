//! Sums as they are, for tests.

use super::{Caching, Direct, Epilogue, PANEL, prefetch};
use crate::kernels::view::ViewMut;
use std::ops::Range;

/// Row `i` of the product becomes row `i`.
pub(in crate::kernels) struct Store<'a>(pub ViewMut<'a, f32>);

impl Epilogue for Store<'_> {
    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        self.0.row_mut(row)[first_column..first_column + values.len()].copy_from_slice(values);
    }

    fn direct(&mut self, columns: Range<usize>) -> Option<Direct<'_>> {
        let direct = self.0.is_contiguous() && columns.len() == PANEL;
        direct.then(|| Direct {
            out: self.0.columns(columns.start, PANEL),
            accumulate: false,
            bias: None,
            caching: Caching::Through,
        })
    }

    fn expect(&mut self, rows: Range<usize>, columns: Range<usize>) {
        rows.for_each(|row| prefetch(&self.0.row(row)[columns.clone()]));
    }
}
