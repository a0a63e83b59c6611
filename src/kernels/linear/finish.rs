//! Finished panels of several rows: bias, residual and the way to memory, in vectors.
#![allow(unsafe_code)]

use super::Sums;
use super::layout::PANEL;
use crate::kernels::isa::Isa;
use crate::kernels::vector::{Kernel, Simd, dispatch};
use crate::kernels::view::{View, ViewMut};
use std::ops::Range;

/// What is added to finished values on their way to memory.
#[derive(Clone, Copy)]
pub enum Added<'a, 'b> {
    /// Nothing.
    Nothing,
    /// The same rows of another tensor, of which the panel begins at this column.
    Rows(&'b View<'a, f32>, usize),
    /// What is there.
    Old,
}

struct Write<'a, 'b> {
    values: &'b [f32],
    bias: Option<&'b [f32; PANEL]>,
    added: Added<'a, 'b>,
    out: &'b mut ViewMut<'a, f32>,
    rows: Range<usize>,
    column: usize,
}

impl Kernel for Write<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (values, row) in self.values.chunks_exact(PANEL).zip(self.rows) {
            let out = &mut self.out.row_mut(row)[self.column..][..PANEL];
            let residual = match self.added {
                Added::Rows(view, column) => &view.row(row)[column..][..PANEL],
                _ => values,
            };
            for i in (0..PANEL).step_by(S::LANES) {
                // SAFETY: each slice holds `PANEL` values, of which whole vectors are left at `i`, as `PANEL` is a multiple of the lanes.
                unsafe {
                    let mut v = s.load(values.as_ptr().add(i));
                    if let Some(bias) = self.bias {
                        v = s.add(v, s.load(bias.as_ptr().add(i)));
                    }
                    v = match self.added {
                        Added::Nothing => v,
                        Added::Rows(..) => s.add(v, s.load(residual.as_ptr().add(i))),
                        Added::Old => s.add(v, s.load(out.as_ptr().add(i))),
                    };
                    s.store(out.as_mut_ptr().add(i), v);
                }
            }
        }
    }
}

/// `out[row] = values + bias + added` for rows `rows` of `out`, columns `column ..` of one panel. `values` are rows of [`PANEL`] values.
///
/// # Panics
/// When a row or column is out of bounds.
pub fn write_panels<'a>(
    isa: Isa,
    values: &[f32],
    bias: Option<&[f32; PANEL]>,
    added: Added<'a, '_>,
    out: &mut ViewMut<'a, f32>,
    (rows, column): (Range<usize>, usize),
) {
    dispatch(isa, Write { values, bias, added, out, rows, column });
}

struct AddBias<'b> {
    at: *mut f32,
    stride: usize,
    rows: usize,
    bias: &'b [f32; PANEL],
}

impl Kernel for AddBias<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in 0..self.rows {
            for i in (0..PANEL).step_by(S::LANES) {
                // SAFETY: every row and the bias hold `PANEL` values, a multiple of the lanes, and the rows are nobody else's.
                unsafe {
                    let at = self.at.add(row * self.stride + i);
                    s.store(at, s.add(s.load(at), s.load(self.bias.as_ptr().add(i))));
                }
            }
        }
    }
}

/// Adds a value per column to rows of [`PANEL`] values.
pub fn add_bias(isa: Isa, values: &mut [f32], bias: &[f32; PANEL]) {
    dispatch(isa, AddBias { at: values.as_mut_ptr(), stride: PANEL, rows: values.len() / PANEL, bias });
}

/// [`add_bias`] to `rows` rows of finished sums where a kernel wrote them.
///
/// # Safety
/// `sums` addresses `rows` rows of [`PANEL`] values that nobody else uses.
pub(in crate::kernels) unsafe fn add_bias_to_sums(isa: Isa, sums: Sums, rows: usize, bias: &[f32; PANEL]) {
    dispatch(isa, AddBias { at: sums.at, stride: sums.stride, rows, bias });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_take_bias_and_residual_in_their_order_and_leave_the_rest() {
        let (rows, width, column) = (1..4, 2 * PANEL + 5, PANEL + 3);
        let values: Vec<f32> = (0..3 * PANEL).map(|i| (i as f32).sin()).collect();
        let bias: [f32; PANEL] = std::array::from_fn(|i| 1e3 + i as f32 * 0.37);
        let residual: Vec<f32> = (0..5 * PANEL * 2).map(|i| (i as f32 * 0.7).cos() * 1e-3).collect();
        let view = View::new(&residual, 5, 2 * PANEL, 2 * PANEL);
        for isa in Isa::available() {
            for bias in [None, Some(&bias)] {
                for added in [Added::Nothing, Added::Rows(&view, 7), Added::Old] {
                    let mut out = vec![0.25; 5 * width];
                    let mut view = ViewMut::new(&mut out, 5, width, width);
                    write_panels(isa, &values, bias, added, &mut view, (rows.clone(), column));
                    for (at, got) in out.iter().enumerate() {
                        let (row, c) = (at / width, at % width);
                        let inside = rows.contains(&row) && (column..column + PANEL).contains(&c);
                        let expected = if inside {
                            let i = c - column;
                            let value = values[(row - rows.start) * PANEL + i] + bias.map_or(0.0, |bias| bias[i]);
                            match added {
                                Added::Nothing => value,
                                Added::Rows(view, first) => value + view.row(row)[first + i],
                                Added::Old => value + 0.25,
                            }
                        } else {
                            0.25
                        };
                        assert_eq!(*got, expected, "{} row {row} column {c}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn bias_goes_to_every_row() {
        let bias: [f32; PANEL] = std::array::from_fn(|i| i as f32 + 0.5);
        for isa in Isa::available() {
            let mut values = vec![2.0; 3 * PANEL];
            add_bias(isa, &mut values, &bias);
            assert!(values.iter().enumerate().all(|(i, &v)| v == 2.5 + (i % PANEL) as f32), "{}", isa.name());
        }
    }
}
