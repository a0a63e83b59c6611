//! Finished panels of several rows: bias, residual and the way to memory, in vectors.
#![allow(unsafe_code)]

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
    values: &'b mut [f32],
    bias: &'b [f32; PANEL],
}

impl Kernel for AddBias<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for values in self.values.chunks_exact_mut(PANEL) {
            for i in (0..PANEL).step_by(S::LANES) {
                // SAFETY: both hold `PANEL` values, a multiple of the lanes.
                unsafe {
                    let at = values.as_mut_ptr().add(i);
                    s.store(at, s.add(s.load(at), s.load(self.bias.as_ptr().add(i))));
                }
            }
        }
    }
}

/// Adds a value per column to rows of [`PANEL`] values.
pub fn add_bias(isa: Isa, values: &mut [f32], bias: &[f32; PANEL]) {
    dispatch(isa, AddBias { values, bias });
}
