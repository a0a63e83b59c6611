//! What happens to a finished piece of an output row: bias, activation, residual, spreading over the split outputs.

use super::shape::{Activation, Form};
use crate::kernels::activation;
use crate::kernels::isa::Isa;
use crate::kernels::linear::{
    Added, Epilogue, PANEL, PairEpilogue, Place, add, add_bias, copy, prefetch, write_panels,
};
use crate::kernels::stream;
use crate::kernels::view::{View, ViewMut};
use crate::ops::Operands;
use std::ops::Range;

/// Most split outputs of one node.
pub const MAX_PARTS: usize = 8;

/// Writes columns of one weight's product to the node's outputs.
pub struct Finish<'a> {
    isa: Isa,
    /// The outputs that these columns touch, with their first column among all products.
    parts: [Option<(usize, ViewMut<'a, f32>)>; MAX_PARTS],
    /// Of this weight.
    bias: Option<&'a [f32]>,
    activation: Activation,
    residual: Residual<'a>,
    /// Column of this weight's first output among all products.
    first_column: usize,
}

#[derive(Clone, Copy)]
enum Residual<'a> {
    None,
    Add(View<'a, f32>),
    InPlace,
}

impl<'a> Finish<'a> {
    /// For product columns `columns` of weight `weight` and rows `rows`, of which it will get rows `mine`.
    pub fn new(
        form: &Form,
        o: &'a dyn Operands,
        weight: usize,
        columns: Range<usize>,
        rows: Range<usize>,
        mine: Range<usize>,
    ) -> Self {
        let first_column = if form.activation == Activation::Swiglu { 0 } else { form.first_column(weight) };
        let mut parts = [const { None }; MAX_PARTS];
        let mut start = 0;
        let (lower, upper) = (first_column + columns.start, first_column + columns.end);
        for (i, &width) in form.parts.iter().enumerate() {
            let cut = lower.max(start)..upper.min(start + width);
            if cut.start < cut.end {
                let mut view = o.output(i, rows.clone(), cut.start - start..cut.end - start);
                if o.workers_are_apart() && !o.is_in_place(i) {
                    stream::take_back(&mut view, mine.clone());
                }
                parts[i] = Some((cut.start, view));
            }
            start += width;
        }
        let residual = match form.residual {
            None => Residual::None,
            Some(i) if o.in_place(i, 0) => Residual::InPlace,
            Some(i) => Residual::Add(o.input(i).slice_rows(rows)),
        };
        let bias = (!form.biases.is_empty()).then(|| o.fixed(form.biases.start + weight));
        Finish { isa: o.isa(), parts, bias, activation: form.activation, residual, first_column }
    }

    /// Adds the residual to columns `first_column ..` of row `row` and puts them where they belong.
    fn write(&mut self, row: usize, first_column: usize, mut values: &mut [f32]) {
        if let Residual::Add(residual) = &self.residual {
            add(values, &residual.row(row)[first_column..][..values.len()]);
        }
        let mut column = self.first_column + first_column;
        for (start, view) in self.parts.iter_mut().flatten() {
            if values.is_empty() {
                return;
            }
            if column < *start || column >= *start + view.width() {
                continue;
            }
            let offset = column - *start;
            let here = values.len().min(view.width() - offset);
            let (now, later) = values.split_at_mut(here);
            let out = &mut view.row_mut(row)[offset..offset + here];
            if matches!(self.residual, Residual::InPlace) {
                add(out, now);
            } else {
                copy(out, now);
            }
            column += here;
            values = later;
        }
        debug_assert!(values.is_empty(), "product columns without an output");
    }

    /// The output that takes a whole panel from column `column` among all products on, and its first column.
    fn holding(&mut self, column: usize) -> Option<&mut (usize, ViewMut<'a, f32>)> {
        let holds = |(start, view): &(usize, ViewMut<f32>)| *start <= column && column + PANEL <= start + view.width();
        self.parts.iter_mut().flatten().find(|part| holds(part))
    }

    /// As [`Finish::write`] for whole panels of several rows, after adding `bias`.
    fn write_panels(
        &mut self,
        rows: Range<usize>,
        first_column: usize,
        bias: Option<&[f32; PANEL]>,
        values: &mut [f32],
    ) {
        let column = self.first_column + first_column;
        let (isa, residual) = (self.isa, self.residual);
        if let Some((start, view)) = self.holding(column) {
            let added = match &residual {
                Residual::None => Added::Nothing,
                Residual::InPlace => Added::Old,
                Residual::Add(residual) => Added::Rows(residual, first_column),
            };
            return write_panels(isa, values, bias, added, view, (rows, column - *start));
        }
        if let Some(bias) = bias {
            add_bias(isa, values, bias);
        }
        rows.zip(values.chunks_exact_mut(PANEL)).for_each(|(row, values)| self.write(row, first_column, values));
    }

    /// Asks for the outputs, which are read when the residual is in place, and for the residual elsewhere.
    fn prefetch(&mut self, rows: Range<usize>, columns: Range<usize>) {
        let column = self.first_column + columns.start;
        for (start, view) in self.parts.iter_mut().flatten() {
            if *start <= column && column < *start + view.width() {
                let from = column - *start;
                let until = view.width().min(from + columns.len());
                rows.clone().for_each(|row| prefetch(&view.row(row)[from..until]));
            }
        }
        self.prefetch_residual(rows, columns);
    }

    fn prefetch_residual(&self, rows: Range<usize>, columns: Range<usize>) {
        if let Residual::Add(residual) = &self.residual {
            rows.for_each(|row| prefetch(&residual.row(row)[columns.clone()]));
        }
    }

    /// As [`Finish::prefetch`], but leaves the output to the product where its rows are evenly spaced.
    fn place(&mut self, rows: Range<usize>, columns: Range<usize>) -> Place {
        let column = self.first_column + columns.start;
        let place = self.holding(column).and_then(|(start, view)| Place::of(view, rows.start, column - *start));
        match place {
            Some(place) => {
                self.prefetch_residual(rows, columns);
                place
            }
            None => {
                self.prefetch(rows, columns);
                Place::NOWHERE
            }
        }
    }

    fn activate(&self, values: &mut [f32]) {
        match self.activation {
            Activation::None | Activation::Swiglu => {}
            Activation::Gelu => activation::gelu_inplace(self.isa, values),
            Activation::GeluTable => activation::gelu_table_inplace(self.isa, values),
            Activation::Silu => activation::silu_inplace(self.isa, values),
        }
    }
}

/// Adds the bias of columns `first_column ..`.
fn add_biases(bias: Option<&[f32]>, first_column: usize, values: &mut [f32]) {
    if let Some(bias) = bias {
        add(values, &bias[first_column..][..values.len()]);
    }
}

/// The bias of the panel from column `first_column` on.
fn panel_of(bias: Option<&[f32]>, first_column: usize) -> Option<&[f32; PANEL]> {
    bias.map(|bias| bias[first_column..].first_chunk().expect("a bias as wide as the product"))
}

impl Epilogue for Finish<'_> {
    fn expect(&mut self, rows: Range<usize>, columns: Range<usize>) {
        self.prefetch(rows, columns);
    }

    fn place(&mut self, rows: Range<usize>, columns: Range<usize>) -> Place {
        self.place(rows, columns)
    }

    fn rows(&mut self, rows: Range<usize>, columns: Range<usize>, values: &mut [f32]) {
        if columns.len() < PANEL {
            for (row, values) in rows.zip(values.chunks_exact_mut(PANEL)) {
                self.row(row, columns.start, &mut values[..columns.len()]);
            }
            return;
        }
        let mut bias = panel_of(self.bias, columns.start);
        if !matches!(self.activation, Activation::None | Activation::Swiglu)
            && let Some(bias) = bias.take()
        {
            add_bias(self.isa, values, bias);
        }
        self.activate(values);
        self.write_panels(rows, columns.start, bias, values);
    }

    fn wide_row(&mut self, row: usize, columns: Range<usize>, values: &mut [f32]) {
        self.row(row, columns.start, &mut values[..columns.len()]);
    }

    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        add_biases(self.bias, first_column, values);
        self.activate(values);
        self.write(row, first_column, values);
    }
}

/// [`Finish`] for gate and up.
pub struct FinishPair<'a> {
    finish: Finish<'a>,
    second_bias: Option<&'a [f32]>,
}

impl<'a> FinishPair<'a> {
    /// As [`Finish::new`], with the bias of the second weight.
    pub fn new(
        form: &Form,
        o: &'a dyn Operands,
        columns: Range<usize>,
        rows: Range<usize>,
        mine: Range<usize>,
    ) -> Self {
        let second_bias = (!form.biases.is_empty()).then(|| o.fixed(form.biases.start + 1));
        FinishPair { finish: Finish::new(form, o, 0, columns, rows, mine), second_bias }
    }
}

impl PairEpilogue for FinishPair<'_> {
    fn place(&mut self, rows: Range<usize>, columns: Range<usize>) -> Place {
        self.finish.place(rows, columns)
    }

    fn rows(&mut self, rows: Range<usize>, columns: Range<usize>, gate: &mut [f32], up: &mut [f32]) {
        if columns.len() < PANEL {
            let pieces = gate.chunks_exact_mut(PANEL).zip(up.chunks_exact_mut(PANEL));
            for (row, (gate, up)) in rows.zip(pieces) {
                self.row(row, columns.start, &mut gate[..columns.len()], &mut up[..columns.len()]);
            }
            return;
        }
        let biases = [(&mut *gate, self.finish.bias), (&mut *up, self.second_bias)];
        for (values, bias) in biases {
            if let Some(bias) = panel_of(bias, columns.start) {
                add_bias(self.finish.isa, values, bias);
            }
        }
        let (isa, column) = (self.finish.isa, self.finish.first_column + columns.start);
        match (self.finish.residual, self.finish.holding(column)) {
            (Residual::None, Some((start, view))) => {
                activation::silu_mul_to_rows::<PANEL>(isa, [gate, up], view, (rows, column - *start));
            }
            _ => {
                activation::silu_mul_slices(isa, gate, up);
                self.finish.write_panels(rows, columns.start, None, gate);
            }
        }
    }

    fn wide_row(&mut self, row: usize, columns: Range<usize>, gate: &mut [f32], up: &mut [f32]) {
        self.row(row, columns.start, &mut gate[..columns.len()], &mut up[..columns.len()]);
    }

    fn row(&mut self, row: usize, first_column: usize, gate: &mut [f32], up: &mut [f32]) {
        add_biases(self.finish.bias, first_column, gate);
        add_biases(self.second_bias, first_column, up);
        activation::silu_mul_slices(self.finish.isa, gate, up);
        self.finish.write(row, first_column, gate);
    }
}
