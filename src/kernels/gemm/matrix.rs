//! A matrix as it is stored: f32, or bf16, which is exact as it is packed.

use crate::kernels::view::View;
use half::bf16;

/// Rows of values.
#[derive(Clone, Copy)]
pub enum Matrix<'a> {
    /// f32.
    F32(View<'a, f32>),
    /// bf16, exact in f32.
    Bf16(View<'a, bf16>),
}

impl<'a> From<View<'a, f32>> for Matrix<'a> {
    fn from(view: View<'a, f32>) -> Self {
        Matrix::F32(view)
    }
}

impl<'a> Matrix<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Matrix::F32(view) => view.rows(),
            Matrix::Bf16(view) => view.rows(),
        }
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        match self {
            Matrix::F32(view) => view.width(),
            Matrix::Bf16(view) => view.width(),
        }
    }

    /// Bytes of a value.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Matrix::F32(_) => 4,
            Matrix::Bf16(_) => 2,
        }
    }

    /// Values from one row to the next.
    pub(super) fn stride(&self) -> usize {
        match self {
            Matrix::F32(view) => view.stride(),
            Matrix::Bf16(view) => view.stride(),
        }
    }

    /// Address of value `column` of row `row`.
    pub(super) fn address(&self, row: usize, column: usize) -> *const u8 {
        match self {
            Matrix::F32(view) => view.row(row)[column..].as_ptr().cast(),
            Matrix::Bf16(view) => view.row(row)[column..].as_ptr().cast(),
        }
    }

    /// Some of the rows.
    pub fn slice_rows(&self, rows: std::ops::Range<usize>) -> Self {
        match self {
            Matrix::F32(view) => Matrix::F32(view.slice_rows(rows)),
            Matrix::Bf16(view) => Matrix::Bf16(view.slice_rows(rows)),
        }
    }

    /// The same rows, columns `first .. first + width`.
    pub fn columns(&self, first: usize, width: usize) -> Self {
        match self {
            Matrix::F32(view) => Matrix::F32(view.columns(first, width)),
            Matrix::Bf16(view) => Matrix::Bf16(view.columns(first, width)),
        }
    }
}
