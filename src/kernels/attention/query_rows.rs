//! Query rows on their way in, and their results on their way out.
#![allow(unsafe_code)]

use super::ahead::fetch;
use super::forward::{Forward, Output};
use super::online_softmax::State;
use super::pairs::narrow_row;
use crate::kernels::vector::Simd;
use crate::kernels::vector::stored::Stored;

/// Rows of queries, and of results, between what is read or written and what is asked for.
const QUERY_ROWS_AHEAD: usize = 8;

impl<E: Stored> Forward<'_, '_, '_, E> {
    /// Scales the queries and clears the running state.
    #[inline(always)]
    pub(super) unsafe fn load_queries<S: Simd>(&self, s: S, state: State) {
        let (d, rows) = (self.input.head_dim, self.input.positions.len());
        let scale = self.input.scale * std::f32::consts::LOG2_E;
        let n = rows * self.group * self.kv_heads;
        // SAFETY: the state holds n vectors; a query row holds kv_heads · group · d elements.
        unsafe {
            for row in 0..rows {
                if row + QUERY_ROWS_AHEAD < rows {
                    fetch(s, self.input.q.row_ptr(row + QUERY_ROWS_AHEAD), self.input.q.width());
                }
                let q = self.input.q.row_ptr(row);
                for head in 0..self.kv_heads {
                    for i in 0..self.group {
                        let src = q.add((head * self.group + i) * d);
                        let dst = state.q.add(((head * rows + row) * self.group + i) * state.q_row);
                        if Self::pairs::<S>() {
                            narrow_row(s, src, d, scale, dst);
                        } else {
                            scale_row(s, src, d, scale, dst);
                        }
                    }
                }
            }
            state.running.clear(n);
        }
    }

    /// Divides by the sums and writes the results.
    #[inline(always)]
    pub(super) unsafe fn finish<S: Simd>(&mut self, s: S, state: State) {
        let Output::Rows(out, log_sum_exp) = &mut self.output else { return };
        let (d, rows) = (self.input.head_dim, self.input.positions.len());
        for row in 0..rows {
            if row + QUERY_ROWS_AHEAD < rows {
                fetch(s, out.row_ptr(row + QUERY_ROWS_AHEAD), self.input.q.width());
            }
            let to = out.row_ptr(row);
            for head in 0..self.kv_heads {
                for i in 0..self.group {
                    let (column, v) = (head * self.group + i, (head * rows + row) * self.group + i);
                    // SAFETY: the state holds vector v; the output row holds one head of d elements per column.
                    unsafe {
                        let running = state.running.after(v);
                        running.write(s, d, to.add(column * d));
                        if let Some(log_sum_exp) = log_sum_exp {
                            log_sum_exp.row_mut(row)[column] = running.log_sum_exp(s);
                        }
                    }
                }
            }
        }
    }
}

/// Writes `width` elements of a query times `factor`.
///
/// # Safety
/// `width` elements are readable at `src` and writable at `dst`.
#[inline(always)]
unsafe fn scale_row<S: Simd>(s: S, src: *const f32, width: usize, factor: f32, dst: *mut f32) {
    let factor = s.splat(factor);
    let mut i = 0;
    while i < width {
        let count = S::LANES.min(width - i);
        // SAFETY: the caller's contract.
        unsafe { s.store_partial(dst.add(i), s.mul(s.load_partial(src.add(i), count), factor), count) };
        i += count;
    }
}
