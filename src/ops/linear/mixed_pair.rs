//! A pair of products, such as gate and up, whose weights want the rows in different forms (bf16 beside int8, say).

use crate::kernels::linear::{Epilogue, PANEL, PackedMatrix, PairEpilogue, Place, Prepared, product};
use std::ops::Range;

/// Most rows of a piece that a product hands out.
const MOST_ROWS: usize = 32;

/// The epilogue of the first product: computes the same piece of the second, and hands both on.
pub struct MixedPair<'a> {
    /// The second matrix.
    pub second: &'a PackedMatrix<'a>,
    /// The rows in the form that it wants.
    pub x: Prepared<'a>,
    /// Takes the pieces of both.
    pub out: &'a mut dyn PairEpilogue,
}

impl MixedPair<'_> {
    /// Sums of the second product for a piece within one panel. Forms may block rows differently, so that a block at the edge of the
    /// piece can be computed for the next piece again.
    fn second(&self, rows: Range<usize>, first_column: usize, sums: &mut [f32]) {
        let (panel, blocks) = (first_column / PANEL, self.x.blocks());
        let holding = |row: usize| (0..blocks.count()).find(|&b| blocks.rows_of(b).contains(&row));
        let (first, last) = (holding(rows.start), holding(rows.end - 1));
        let blocks = first.expect("a row of the product")..last.expect("a row of the product") + 1;
        let mut kept = Kept { rows, sums };
        product(self.second, panel..panel + 1, &self.x, blocks, &mut kept);
    }
}

impl Epilogue for MixedPair<'_> {
    fn place(&mut self, rows: Range<usize>, columns: Range<usize>) -> Place {
        self.out.place(rows, columns)
    }

    fn rows(&mut self, rows: Range<usize>, columns: Range<usize>, values: &mut [f32]) {
        let mut second = [0.0; MOST_ROWS * PANEL];
        let second = &mut second[..rows.len() * PANEL];
        self.second(rows.clone(), columns.start, second);
        self.out.rows(rows, columns, values, second);
    }

    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        let mut second = [0.0; PANEL];
        self.second(row..row + 1, first_column, &mut second);
        self.out.row(row, first_column, values, &mut second[..values.len()]);
    }
}

/// Keeps the sums of some rows of one panel.
struct Kept<'a> {
    rows: Range<usize>,
    sums: &'a mut [f32],
}

impl Epilogue for Kept<'_> {
    fn row(&mut self, row: usize, _first_column: usize, values: &mut [f32]) {
        if self.rows.contains(&row) {
            self.sums[(row - self.rows.start) * PANEL..][..values.len()].copy_from_slice(values);
        }
    }
}
