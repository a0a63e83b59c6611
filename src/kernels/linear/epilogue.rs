//! What happens to finished sums while they are in the first-level cache.
#![allow(unsafe_code)]

use super::Place;
use super::layout::PANEL;
use crate::kernels::view::ViewMut;
use std::ops::Range;

/// Takes finished pieces of output rows.
pub trait Epilogue {
    /// Sets the values from which the sums of this piece of a row start (zero unless overridden). Only products that can
    /// accumulate ([`crate::kernels::gemm`]) ask for them.
    fn start(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        let _ = (row, first_column);
        values.fill(0.0);
    }

    /// Says which pieces come next, so that the memory they go to can be prefetched.
    fn expect(&mut self, rows: Range<usize>, columns: Range<usize>) {
        let _ = (rows, columns);
    }

    /// As [`Epilogue::expect`], but the product prefetches the memory itself, bit by bit, if it is known where it is.
    fn place(&mut self, rows: Range<usize>, columns: Range<usize>) -> Place {
        self.expect(rows, columns);
        Place::NOWHERE
    }

    /// Memory into which the product may write whole panels of these columns itself, row by row, instead of calling [`Epilogue::start`] and
    /// [`Epilogue::row`]. `None` unless the epilogue does nothing but store or accumulate, and perhaps add a bias.
    fn direct(&mut self, columns: Range<usize>) -> Option<Direct<'_>> {
        let _ = columns;
        None
    }

    /// [`Epilogue::start`] for several rows of [`PANEL`] values; one call instead of many.
    fn start_rows(&mut self, rows: Range<usize>, columns: Range<usize>, values: &mut [f32]) {
        for (row, values) in rows.zip(values.chunks_exact_mut(PANEL)) {
            self.start(row, columns.start, &mut values[..columns.len()]);
        }
    }

    /// [`Epilogue::row`] for several rows of [`PANEL`] values; one call instead of many.
    fn rows(&mut self, rows: Range<usize>, columns: Range<usize>, values: &mut [f32]) {
        for (row, values) in rows.zip(values.chunks_exact_mut(PANEL)) {
            self.row(row, columns.start, &mut values[..columns.len()]);
        }
    }

    /// [`Epilogue::row`] for outputs `columns` of row `row`, which begin with a panel and are as many as there are; `values` are whole panels.
    /// One call instead of many, as a product of one row does little else but read weights.
    fn wide_row(&mut self, row: usize, columns: Range<usize>, values: &mut [f32]) {
        for (start, values) in columns.clone().step_by(PANEL).zip(values.chunks_exact_mut(PANEL)) {
            self.rows(row..row + 1, start..columns.end.min(start + PANEL), values);
        }
    }

    /// `values` are outputs `first_column ..` of row `row` of the product, at most one panel of them. They may be changed.
    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]);
}

/// One panel of columns in the memory of an output.
pub struct Direct<'a> {
    /// All rows of the product, as wide as one panel and not indexed.
    pub out: ViewMut<'a, f32>,
    /// Whether the product is added to what is there.
    pub accumulate: bool,
    /// One value per column, added to finished sums.
    pub bias: Option<&'a [f32]>,
    /// Whether sums go through the caches.
    pub caching: Caching,
}

/// Whether an output is written through the caches. Where past them is not possible, through them it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Through them.
    Through,
    /// Past them where sums begin and end at once: the output is large, and nobody reads it soon.
    Unread,
    /// Past them where sums begin and where they end: other cores hold its memory since they have read it
    /// ([`Isa::takes_lines_back_slowly`](crate::kernels::isa::Isa::takes_lines_back_slowly)), and will again.
    Shared,
}

/// Takes the same piece of an output row of two products, such as gate and up.
pub trait PairEpilogue {
    /// As [`Epilogue::place`].
    fn place(&mut self, rows: Range<usize>, columns: Range<usize>) -> Place {
        let _ = (rows, columns);
        Place::NOWHERE
    }

    /// [`PairEpilogue::row`] for several rows of [`PANEL`] values of each product; one call instead of many.
    fn rows(&mut self, rows: Range<usize>, columns: Range<usize>, first: &mut [f32], second: &mut [f32]) {
        let pieces = first.chunks_exact_mut(PANEL).zip(second.chunks_exact_mut(PANEL));
        for (row, (first, second)) in rows.zip(pieces) {
            self.row(row, columns.start, &mut first[..columns.len()], &mut second[..columns.len()]);
        }
    }

    /// As [`Epilogue::wide_row`].
    fn wide_row(&mut self, row: usize, columns: Range<usize>, first: &mut [f32], second: &mut [f32]) {
        let pieces = first.chunks_exact_mut(PANEL).zip(second.chunks_exact_mut(PANEL));
        for (start, (first, second)) in columns.clone().step_by(PANEL).zip(pieces) {
            self.rows(row..row + 1, start..columns.end.min(start + PANEL), first, second);
        }
    }

    /// `first` and `second` are outputs `first_column ..` of row `row` of the two products.
    fn row(&mut self, row: usize, first_column: usize, first: &mut [f32], second: &mut [f32]);
}

/// `to = from`, as [`add`].
#[inline]
pub fn copy(to: &mut [f32], from: &[f32]) {
    if let (Ok(to), Ok(from)) = (<&mut [f32; PANEL]>::try_from(&mut *to), <&[f32; PANEL]>::try_from(from)) {
        *to = *from;
    } else {
        to.copy_from_slice(from);
    }
}

/// Asks for the cache lines of `values`, which a product is about to read or write.
pub fn prefetch(values: &[f32]) {
    for line in values.chunks(16) {
        prefetch_line(line.as_ptr().cast());
    }
}

/// Asks for the cache line at any address.
#[inline]
pub fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching has no effect on memory, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// `sums += values`. Whole panels, which are nearly all, get a length that the compiler knows.
#[inline]
pub fn add(sums: &mut [f32], values: &[f32]) {
    if let (Ok(sums), Ok(values)) = (<&mut [f32; PANEL]>::try_from(&mut *sums), <&[f32; PANEL]>::try_from(values)) {
        for (s, v) in sums.iter_mut().zip(values) {
            *s += v;
        }
    } else {
        for (s, v) in sums.iter_mut().zip(values) {
            *s += v;
        }
    }
}
