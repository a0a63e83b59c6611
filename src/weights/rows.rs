//! Tensors read piece by piece, whole rows at a time, so that nothing needs a copy of a large one.

use super::layout::Parameter;
use super::tensors::{Entry, Orientation, RowOrder};
use crate::kernels::quant;
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of a piece as f32, about.
pub const PIECE_BYTES: usize = 1 << 20;
/// Values of a piece, about.
const PIECE: usize = PIECE_BYTES / 4;
/// Values that one task dequantises: whole blocks of every type.
const TASK: usize = 1 << 16;
/// Rows of a transposed piece that one task fills: a cache line of f32.
const STRIPE: usize = 16;

/// Whole rows of a parameter, in the orientation in which they are wanted. A vector is one row.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterRows<'a> {
    /// The parameter.
    pub parameter: &'a Parameter,
    /// Wanted orientation; only weights of linears have a choice.
    pub orientation: Orientation,
    /// The rows.
    pub rows: Range<usize>,
}

impl ParameterRows<'_> {
    /// Where the values lie in the whole parameter.
    pub fn elements(&self) -> Range<usize> {
        let (_, columns) = self.parameter.extent_as(self.orientation);
        self.rows.start * columns..self.rows.end * columns
    }

    /// Takes these rows from the whole parameter, whose `values` lie in orientation `stored`.
    ///
    /// # Panics
    /// When `values` or `out` have another length.
    pub fn copy_from(&self, values: &[f32], stored: Orientation, out: &mut [f32]) {
        assert_eq!((values.len(), out.len()), (self.parameter.shape.elements(), self.elements().len()));
        if self.parameter.orientation.is_none() || stored == self.orientation {
            return out.copy_from_slice(&values[self.elements()]);
        }
        let (rows, columns) = self.parameter.extent_as(self.orientation);
        for (row, out) in self.rows.clone().zip(out.chunks_mut(columns)) {
            out.iter_mut().enumerate().for_each(|(column, o)| *o = values[column * rows + row]);
        }
    }
}

impl Parameter {
    /// Rows and columns in orientation `wanted`.
    pub fn extent_as(&self, wanted: Orientation) -> (usize, usize) {
        match *self.shape_as(wanted).dims() {
            [rows, columns] => (rows, columns),
            _ => (1, self.shape.elements()),
        }
    }

    /// The whole parameter in pieces of about 1 MiB of f32: whole rows, in multiples of `unit`.
    pub fn pieces(&self, wanted: Orientation, unit: usize) -> impl Iterator<Item = ParameterRows<'_>> {
        let (rows, columns) = self.extent_as(wanted);
        let step = (PIECE / columns.max(1)).max(1).next_multiple_of(unit);
        let part = move |first: usize| first..(first + step).min(rows);
        (0..rows).step_by(step).map(move |r| ParameterRows { parameter: self, orientation: wanted, rows: part(r) })
    }
}

/// Dequantises `rows` of a tensor, in orientation `wanted`, to `out`. `stored` are all bytes of the tensor.
///
/// # Panics
/// When `out` has another number of values, or `rows` are not in the tensor.
pub(super) fn read(entry: &Entry, stored: &[u8], wanted: Orientation, rows: Range<usize>, out: &mut [f32]) {
    let dtype = entry.info.dtype;
    let (all, columns) = match *entry.info.shape.dims() {
        [all, columns] => (all, columns),
        _ => (1, entry.info.shape.elements()),
    };
    let row_bytes = stored.len() / all.max(1);
    if entry.info.orientation.is_some_and(|o| o != wanted) {
        assert_eq!(out.len(), rows.len() * all, "{rows:?} of {}", entry.info.name);
        let row = |r: usize| &stored[entry.rows.stored_row(r) * row_bytes..][..row_bytes];
        return read_columns(dtype.block_len(), dtype.block_bytes(), rows, all, out, &|r, blocks, out| {
            quant::dequantize(dtype, &row(r)[blocks], out);
        });
    }
    assert_eq!(out.len(), rows.len() * columns, "{rows:?} of {}", entry.info.name);
    if entry.rows == RowOrder::Plain {
        let bytes = &stored[rows.start * row_bytes..rows.end * row_bytes];
        let task_bytes = TASK / dtype.block_len() * dtype.block_bytes();
        return out
            .par_chunks_mut(TASK)
            .zip(bytes.par_chunks(task_bytes))
            .for_each(|(o, b)| quant::dequantize(dtype, b, o));
    }
    out.par_chunks_mut(columns.max(1)).zip(rows.into_par_iter()).for_each(|(out, r)| {
        quant::dequantize(dtype, &stored[entry.rows.stored_row(r) * row_bytes..][..row_bytes], out);
    });
}

/// Dequantises a range of bytes, whole blocks, of a row.
type ReadBlocks<'a> = dyn Fn(usize, Range<usize>, &mut [f32]) + Sync + 'a;

/// Fills `out` with columns `columns` of a matrix of `rows` rows, each column as a row.
fn read_columns(
    block: usize,
    block_bytes: usize,
    columns: Range<usize>,
    rows: usize,
    out: &mut [f32],
    read: &ReadBlocks<'_>,
) {
    let stripe = STRIPE.max(block);
    out.par_chunks_mut(stripe * rows).enumerate().for_each(|(i, out)| {
        let first = columns.start + i * stripe;
        let blocks = first / block..(first + out.len() / rows).div_ceil(block);
        let mut values = vec![0.0; blocks.len() * block];
        for r in 0..rows {
            read(r, blocks.start * block_bytes..blocks.end * block_bytes, &mut values);
            let wanted = &values[first - blocks.start * block..];
            out.iter_mut().skip(r).step_by(rows).zip(wanted).for_each(|(o, v)| *o = *v);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DType, Shape};
    use crate::weights::TensorInfo;

    fn entry(dtype: DType, shape: [usize; 2], rows: RowOrder) -> Entry {
        let info =
            TensorInfo { name: "w".into(), dtype, shape: Shape::new(shape), orientation: Some(Orientation::OutIn) };
        let len = info.bytes();
        Entry { info, file: 0, start: 0, len, rows }
    }

    #[test]
    fn every_piece_is_that_of_the_whole() {
        for (dtype, n, k) in [(DType::F32, 20, 37), (DType::F16, 7, 50), (DType::Q8_0, 40, 96), (DType::Q4_0, 6, 64)] {
            for order in [RowOrder::Plain, RowOrder::AdjacentPairs { head: 2 }] {
                let order = if n % 2 == 0 { order } else { RowOrder::Plain };
                let entry = entry(dtype, [n, k], order);
                let values: Vec<f32> = (0..n * k).map(|i| ((i * 37 % 101) as f32 - 50.0) / 8.0).collect();
                let mut stored = vec![0; entry.len];
                quant::quantize(dtype, &values, &mut stored);
                let mut whole = vec![0.0; n * k];
                quant::dequantize(dtype, &stored, &mut whole);
                let at = |row: usize, column: usize| whole[order.stored_row(row) * k + column];
                for (first, end) in [(0, n), (1, n), (n / 2, n / 2 + 1)] {
                    let mut out = vec![f32::NAN; (end - first) * k];
                    read(&entry, &stored, Orientation::OutIn, first..end, &mut out);
                    assert!((0..out.len()).all(|i| out[i] == at(first + i / k, i % k)), "{dtype} {first}..{end}");
                }
                for (first, end) in [(0, k), (3, k), (33, 36)] {
                    let mut out = vec![f32::NAN; (end - first) * n];
                    read(&entry, &stored, Orientation::InOut, first..end, &mut out);
                    assert!((0..out.len()).all(|i| out[i] == at(i % n, first + i / n)), "{dtype} {first}..{end}");
                }
            }
        }
    }

    #[test]
    fn pieces_cover_a_parameter_in_units() {
        let p = |shape: &[usize]| Parameter {
            name: "w".into(),
            shape: Shape::new(shape.to_vec()),
            orientation: (shape.len() == 2).then_some(Orientation::InOut),
        };
        let wide = p(&[1000, 2000]);
        let rows: Vec<_> = wide.pieces(Orientation::OutIn, 64).map(|piece| piece.rows).collect();
        assert!(rows.len() > 1 && rows[0].start == 0 && rows.last().unwrap().end == 2000);
        assert!(rows.windows(2).all(|w| w[0].end == w[1].start && w[0].len() % 64 == 0));
        let vector = p(&[7]);
        assert!(vector.pieces(Orientation::OutIn, 1).map(|piece| piece.elements()).eq(std::iter::once(0..7)));
        let small = p(&[2, 3]);
        let mut out = [0.0; 6];
        let piece = small.pieces(Orientation::OutIn, 1).next().unwrap();
        piece.copy_from(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], Orientation::InOut, &mut out);
        assert_eq!(out, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }
}
