//! Memory that is wanted soon, asked for on the way.

use crate::kernels::vector::Simd;
use std::slice::Iter;

/// Asks for the cache lines of `count` elements from `first` on.
#[inline(always)]
pub fn fetch<S: Simd, E>(s: S, first: *const E, count: usize) {
    for at in (0..count).step_by(64 / size_of::<E>()) {
        s.prefetch(first.wrapping_add(at));
    }
}

/// Rows that are wanted in the cache soon, of keys and of values.
pub struct Ahead<'a, E> {
    pub rows: [&'a [*const E]; 2],
    /// First element that is wanted of each.
    pub column: usize,
    /// How many are.
    pub width: usize,
}

impl<E> Ahead<'_, E> {
    /// Asks for part `part` of `parts`: whole rows in ascending order.
    #[inline(always)]
    pub fn fetch<S: Simd>(&self, s: S, part: usize, parts: usize) {
        for rows in self.rows {
            for &row in &rows[rows.len() * part / parts..rows.len() * (part + 1) / parts] {
                fetch(s, row.wrapping_add(self.column), self.width);
            }
        }
    }
}

/// Rows of memory that are read one after the other.
pub struct RowList<'a, E> {
    pub rows: &'a [*const E],
    /// Elements of a row.
    pub width: usize,
}

impl<E> RowList<'_, E> {
    /// Asks for all of them at once.
    #[inline(always)]
    pub fn fetch<S: Simd>(&self, s: S) {
        for &row in self.rows {
            fetch(s, row, self.width);
        }
    }
}

/// Rows in the order in which they are read, asked for a few cache lines at a time: a core has about a dozen requests under way, and more at
/// once would hold up what it reads itself.
pub struct Stream<'a, E> {
    lists: [Iter<'a, *const E>; 3],
    /// Elements of a row of each list.
    widths: [usize; 3],
    /// What is left of the row that was begun.
    at: *const E,
    left: usize,
}

impl<'a, E> Stream<'a, E> {
    /// The three lists, one after the other.
    #[inline(always)]
    pub fn new(lists: [RowList<'a, E>; 3]) -> Self {
        let widths = [lists[0].width, lists[1].width, lists[2].width];
        Stream { lists: lists.map(|list| list.rows.iter()), widths, at: std::ptr::null(), left: 0 }
    }

    /// Asks for the next `bytes` bytes, or for the rest of a row.
    #[inline(always)]
    pub fn fetch<S: Simd>(&mut self, s: S, bytes: usize) {
        if self.left == 0 {
            let [first, second, third] = &mut self.lists;
            (self.at, self.left) = if let Some(&row) = first.next() {
                (row, self.widths[0])
            } else if let Some(&row) = second.next() {
                (row, self.widths[1])
            } else if let Some(&row) = third.next() {
                (row, self.widths[2])
            } else {
                return;
            };
        }
        let count = self.left.min(bytes / size_of::<E>());
        fetch(s, self.at, count);
        self.at = self.at.wrapping_add(count);
        self.left -= count;
    }
}
