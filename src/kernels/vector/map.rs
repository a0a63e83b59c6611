//! Elementwise kernels from one lane function: slices or rows of views, in place or not, stored or added.
//!
//! Inputs may be the very elements that an output overwrites (each vector is read before it is written).
#![allow(unsafe_code)]

use super::stored::Stored;
use super::{Kernel, Simd, dispatch};
use crate::kernels::isa::Isa;
use crate::kernels::view::{InOut, View, ViewMut};
use std::ops::Range;

/// What happens to the old value of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The result replaces it; it may be uninitialised.
    Overwrite,
    /// The result is added to it.
    Add,
}

/// A function of `N` inputs and `M` outputs, applied to each element.
pub trait LaneFn<const N: usize, const M: usize> {
    /// Implement with `#[inline(always)]`.
    fn apply<S: Simd>(&self, s: S, x: [S::V; N]) -> [S::V; M];
}

/// Elements of a cache line.
const LINE: usize = 16;

struct Map<'a, F, const N: usize, const M: usize> {
    function: &'a F,
    inputs: [*const f32; N],
    outputs: [(*mut f32, Write); M],
    len: usize,
    /// Elements from one that is read to one of the same input that is fetched meanwhile; 0 fetches none.
    ahead: usize,
    /// Whether no output is an input, so that outputs are fetched too: a store waits for its line as a load does.
    apart: bool,
}

impl<F: LaneFn<N, M>, const N: usize, const M: usize> Kernel for Map<'_, F, N, M> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut i = 0;
        // SAFETY: `map` promises `len` elements at each pointer, and i + count ≤ len.
        unsafe {
            while i + S::LANES <= self.len {
                if self.ahead > 0 && i % LINE == 0 {
                    for k in 0..N {
                        s.prefetch(self.inputs[k].wrapping_add(i + self.ahead));
                    }
                    if self.apart {
                        for k in 0..M {
                            s.prefetch(self.outputs[k].0.wrapping_add(i + self.ahead));
                        }
                    }
                }
                let mut x = [s.splat(0.0); N];
                for k in 0..N {
                    x[k] = s.load(self.inputs[k].add(i));
                }
                let y = self.function.apply(s, x);
                for k in 0..M {
                    let (p, write) = self.outputs[k];
                    let y = if write == Write::Add { s.add(s.load(p.add(i)), y[k]) } else { y[k] };
                    s.store(p.add(i), y);
                }
                i += S::LANES;
            }
            if i < self.len {
                let count = self.len - i;
                let mut x = [s.splat(0.0); N];
                for k in 0..N {
                    x[k] = s.load_partial(self.inputs[k].add(i), count);
                }
                let y = self.function.apply(s, x);
                for k in 0..M {
                    let (p, write) = self.outputs[k];
                    let y = if write == Write::Add { s.add(s.load_partial(p.add(i), count), y[k]) } else { y[k] };
                    s.store_partial(p.add(i), y, count);
                }
            }
        }
    }
}

/// Applies `function` to `len` elements.
///
/// # Safety
/// `len` elements are readable at each input and writable at each output (initialised where `Add`); inputs and outputs overlap
/// only when they are equal; outputs do not overlap each other.
#[inline]
pub unsafe fn map<F: LaneFn<N, M>, const N: usize, const M: usize>(
    isa: Isa,
    function: &F,
    inputs: [*const f32; N],
    outputs: [(*mut f32, Write); M],
    len: usize,
) {
    dispatch(isa, Map { function, inputs, outputs, len, ahead: 0, apart: false });
}

/// As [`map`], on one of `rows` rows: where there are several, each array is likely to be long.
///
/// # Safety
/// As [`map`].
#[inline]
pub unsafe fn map_row<F: LaneFn<N, M>, const N: usize, const M: usize>(
    isa: Isa,
    function: &F,
    inputs: [*const f32; N],
    outputs: [(*mut f32, Write); M],
    (len, rows): (usize, usize),
) {
    let ahead = if rows > 1 { STREAM_AHEAD } else { 0 };
    let apart = outputs.iter().all(|o| !inputs.contains(&o.0.cast_const()));
    dispatch(isa, Map { function, inputs, outputs, len, ahead, apart });
}

/// Elements that are fetched ahead of arrays from memory: half a page of 4 KB, at whose end hardware prefetching stops and starts anew.
pub const STREAM_AHEAD: usize = 512;

/// As [`map`], for arrays that come from memory and not from a cache.
///
/// # Safety
/// As [`map`].
#[inline]
pub unsafe fn stream<F: LaneFn<N, M>, const N: usize, const M: usize>(
    isa: Isa,
    function: &F,
    inputs: [*const f32; N],
    outputs: [(*mut f32, Write); M],
    len: usize,
) {
    let ahead = if isa.prefetches_streams_itself() { 0 } else { STREAM_AHEAD };
    dispatch(isa, Map { function, inputs, outputs, len, ahead, apart: false });
}

/// Replaces each element of `x` by the function of it.
#[inline]
pub fn inplace<F: LaneFn<1, 1>>(isa: Isa, function: &F, x: &mut [f32]) {
    let p = x.as_mut_ptr();
    // SAFETY: the one input is the one output, a slice of that length.
    unsafe { map(isa, function, [p.cast_const()], [(p, Write::Overwrite)], x.len()) }
}

/// `out = function(x…)` row by row.
///
/// # Panics
/// When rows or widths differ.
pub fn rows<F: LaneFn<N, 1>, const N: usize>(
    isa: Isa,
    function: &F,
    x: [&View<f32>; N],
    out: &mut ViewMut<f32>,
    write: Write,
) {
    let width = out.width();
    assert!(x.iter().all(|x| x.rows() == out.rows() && x.width() == width), "elementwise operands of different shapes");
    for i in 0..out.rows() {
        // SAFETY: views of the same width; an overwritten operand comes as `InOut`, so these are disjoint.
        unsafe { map_row(isa, function, x.map(|x| x.row_ptr(i)), [(out.row_ptr(i), write)], (width, out.rows())) }
    }
}

struct ToRows<'a, 'b, F, const N: usize, const W: usize> {
    function: &'b F,
    inputs: [&'b [f32]; N],
    out: &'b mut ViewMut<'a, f32>,
    rows: Range<usize>,
    column: usize,
}

impl<F: LaneFn<N, 1>, const N: usize, const W: usize> Kernel for ToRows<'_, '_, F, N, W> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (at, row) in self.rows.enumerate() {
            let out = &mut self.out.row_mut(row)[self.column..][..W];
            let inputs = self.inputs.map(|x| &x[at * W..][..W]);
            for i in (0..W).step_by(S::LANES) {
                // SAFETY: each slice holds `W` elements, of which whole vectors are left at `i`, as `W` is a multiple of the lanes.
                unsafe {
                    let [y] = self.function.apply(s, inputs.map(|x| s.load(x.as_ptr().add(i))));
                    s.store(out.as_mut_ptr().add(i), y);
                }
            }
        }
    }
}

/// `out = function(x…)` on rows `rows` of `out`, of which each takes `W` elements from `column` on; in `x` these rows lie side by side.
///
/// # Panics
/// When there are not so many elements, rows or columns.
pub fn to_rows<F: LaneFn<N, 1>, const N: usize, const W: usize>(
    isa: Isa,
    function: &F,
    inputs: [&[f32]; N],
    out: &mut ViewMut<f32>,
    (rows, column): (Range<usize>, usize),
) {
    const { assert!(W.is_multiple_of(LINE), "whole vectors of any instruction set") };
    dispatch(isa, ToRows::<F, N, W> { function, inputs, out, rows, column });
}

/// `io = function(io)` row by row.
pub fn rows_inplace<F: LaneFn<1, 1>>(isa: Isa, function: &F, io: &mut InOut<f32>) {
    for i in 0..io.rows() {
        inplace(isa, function, io.row_mut(i));
    }
}

/// `io = function(io, x)` row by row.
///
/// # Panics
/// When rows or widths differ.
pub fn rows_inplace2<F: LaneFn<2, 1>>(isa: Isa, function: &F, io: &mut InOut<f32>, x: &View<f32>) {
    assert!(x.rows() == io.rows() && x.width() == io.width(), "elementwise operands of different shapes");
    for i in 0..io.rows() {
        let p = io.row_ptr(i);
        // SAFETY: rows of the same width; the first input is the output, the second is disjoint.
        unsafe {
            map_row(isa, function, [p.cast_const(), x.row_ptr(i)], [(p, Write::Overwrite)], (x.width(), x.rows()));
        }
    }
}

/// `(first, second) = function(x…)` row by row.
///
/// # Panics
/// When rows or widths differ.
pub fn rows_two<F: LaneFn<N, 2>, const N: usize>(
    isa: Isa,
    function: &F,
    x: [&View<f32>; N],
    first: &mut ViewMut<f32>,
    second: &mut ViewMut<f32>,
    write: Write,
) {
    let (rows, width) = (first.rows(), first.width());
    assert!(second.rows() == rows && second.width() == width, "elementwise results of different shapes");
    assert!(x.iter().all(|x| x.rows() == rows && x.width() == width), "elementwise operands of different shapes");
    for i in 0..rows {
        let outputs = [(first.row_ptr(i), write), (second.row_ptr(i), write)];
        // SAFETY: views of the same width, the two exclusive ones disjoint from each other and from the shared ones.
        unsafe { map_row(isa, function, x.map(|x| x.row_ptr(i)), outputs, (width, rows)) }
    }
}

struct Widen<'a, E> {
    x: &'a [E],
    out: *mut f32,
    write: Write,
}

impl<E: Stored> Kernel for Widen<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (n, x, out) = (self.x.len(), self.x.as_ptr(), self.out);
        let add = self.write == Write::Add;
        let mut i = 0;
        // SAFETY: `widen` promises as many outputs as inputs, and i + count ≤ n.
        unsafe {
            while i + S::LANES <= n {
                let y = E::load(s, x.add(i));
                s.store(out.add(i), if add { s.add(s.load(out.add(i)), y) } else { y });
                i += S::LANES;
            }
            if i < n {
                let y = E::load_partial(s, x.add(i), n - i);
                let y = if add { s.add(s.load_partial(out.add(i), n - i), y) } else { y };
                s.store_partial(out.add(i), y, n - i);
            }
        }
    }
}

/// `out[i] = x[i]` as f32.
///
/// # Panics
/// When the lengths differ.
pub fn widen<E: Stored>(isa: Isa, x: &[E], out: &mut [f32], write: Write) {
    assert!(x.len() == out.len(), "widening {} elements into {}", x.len(), out.len());
    dispatch(isa, Widen { x, out: out.as_mut_ptr(), write });
}
