//! Strided views that kernels read and write.
//!
//! A view is (pointer, rows, row stride, width) and an optional row index. Rows of a view may interleave with rows of other
//! views in memory (column splits of one buffer written by different threads), which slices cannot express; hence pointers.
//! An operand that is overwritten by the result arrives as one [`InOut`], never as a [`View`] and a [`ViewMut`] of the same bytes.
#![allow(unsafe_code)]

use std::marker::PhantomData;

/// Read-only rows of `T`. Stride is in elements.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    ptr: *const T,
    rows: usize,
    stride: usize,
    width: usize,
    index: Option<&'a [u32]>,
    lifetime: PhantomData<&'a [T]>,
}

/// Writable rows of `T`. Stride is in elements.
pub struct ViewMut<'a, T> {
    ptr: *mut T,
    rows: usize,
    stride: usize,
    width: usize,
    index: Option<&'a [u32]>,
    lifetime: PhantomData<&'a mut [T]>,
}

/// Rows that are read and then overwritten in place.
pub type InOut<'a, T> = ViewMut<'a, T>;

// SAFETY: a View is a shared borrow of T values and a ViewMut an exclusive one; they move between threads as `&[T]` and
// `&mut [T]` do.
unsafe impl<T: Sync> Send for View<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for View<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for ViewMut<'_, T> {}

impl<'a, T> View<'a, T> {
    /// `rows` rows of `width` elements, `stride` elements apart, at the start of `data`.
    ///
    /// # Panics
    /// When the rows do not lie inside `data`.
    pub fn new(data: &'a [T], rows: usize, stride: usize, width: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * stride + width <= data.len(), "view of {rows} rows exceeds its slice");
        View { ptr: data.as_ptr(), rows, stride, width, index: None, lifetime: PhantomData }
    }

    /// # Safety
    /// Every element of every row (through `index`, when given: view row `i` is memory row `index[i]`) must be inside one live,
    /// initialised allocation, aligned for `T`, and not be written while the view lives.
    pub unsafe fn from_raw(ptr: *const T, rows: usize, stride: usize, width: usize, index: Option<&'a [u32]>) -> Self {
        debug_assert!(index.is_none_or(|i| i.len() >= rows));
        View { ptr, rows, stride, width, index, lifetime: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Elements from one memory row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Whether row `i` is simply at `i × stride`.
    pub fn is_contiguous(&self) -> bool {
        self.index.is_none()
    }

    /// First element of row `i`.
    #[inline]
    pub fn row_ptr(&self, i: usize) -> *const T {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        let r = self.index.map_or(i, |index| index[i] as usize);
        // SAFETY: the constructor's contract puts every row inside the allocation.
        unsafe { self.ptr.add(r * self.stride) }
    }

    /// Row `i`.
    #[inline]
    pub fn row(&self, i: usize) -> &'a [T] {
        // SAFETY: the constructor's contract: initialised, in bounds, not written while the view lives.
        unsafe { std::slice::from_raw_parts(self.row_ptr(i), self.width) }
    }

    /// Rows `rows` only.
    pub fn slice_rows(&self, rows: std::ops::Range<usize>) -> View<'a, T> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let (first, index) = match self.index {
            Some(index) => (0, Some(&index[rows.clone()])),
            None => (rows.start, None),
        };
        // Behind the last row of some columns lies no part of the allocation.
        let first = if rows.is_empty() { 0 } else { first };
        // SAFETY: row `first` is one of the view's rows, or the pointer stays where it is.
        View { ptr: unsafe { self.ptr.add(first * self.stride) }, rows: rows.len(), index, ..*self }
    }

    /// The same rows, columns `first .. first + width`.
    pub fn columns(&self, first: usize, width: usize) -> View<'a, T> {
        assert!(first + width <= self.width);
        // SAFETY: inside each row by the assertion.
        View { ptr: unsafe { self.ptr.add(first) }, width, ..*self }
    }
}

impl<'a, T> ViewMut<'a, T> {
    /// `rows` rows of `width` elements, `stride` elements apart, at the start of `data`.
    ///
    /// # Panics
    /// When the rows do not lie inside `data`.
    pub fn new(data: &'a mut [T], rows: usize, stride: usize, width: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * stride + width <= data.len(), "view of {rows} rows exceeds its slice");
        ViewMut { ptr: data.as_mut_ptr(), rows, stride, width, index: None, lifetime: PhantomData }
    }

    /// # Safety
    /// As [`View::from_raw`], and no other view may read or write the same elements while this one lives. Elements may be
    /// uninitialised when the kernel writes them before it reads them and `T` has no invalid bit patterns.
    pub unsafe fn from_raw(ptr: *mut T, rows: usize, stride: usize, width: usize, index: Option<&'a [u32]>) -> Self {
        debug_assert!(index.is_none_or(|i| i.len() >= rows));
        ViewMut { ptr, rows, stride, width, index, lifetime: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Elements from one memory row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Whether row `i` is simply at `i × stride`.
    pub fn is_contiguous(&self) -> bool {
        self.index.is_none()
    }

    /// First element of row `i`.
    #[inline]
    pub fn row_ptr(&mut self, i: usize) -> *mut T {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        let r = self.index.map_or(i, |index| index[i] as usize);
        // SAFETY: the constructor's contract puts every row inside the allocation.
        unsafe { self.ptr.add(r * self.stride) }
    }

    /// Row `i`, to write.
    #[inline]
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        let p = self.row_ptr(i);
        // SAFETY: the constructor's contract: in bounds and exclusively ours.
        unsafe { std::slice::from_raw_parts_mut(p, self.width) }
    }

    /// Row `i`, to read.
    #[inline]
    pub fn row(&mut self, i: usize) -> &[T] {
        self.row_mut(i)
    }

    /// The same rows, columns `first .. first + width`, borrowed from this view.
    pub fn columns(&mut self, first: usize, width: usize) -> ViewMut<'_, T> {
        assert!(first + width <= self.width);
        // SAFETY: inside each row by the assertion; `self` is borrowed while the part lives.
        ViewMut {
            ptr: unsafe { self.ptr.add(first) },
            width,
            rows: self.rows,
            stride: self.stride,
            index: self.index,
            lifetime: PhantomData,
        }
    }
}
