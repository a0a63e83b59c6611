//! Tile registers: one panel by many rows, with the bits of the kernels on VNNI.
//!
//! A panel is [unpacked](super::unpack) [`STEPS`] steps at a time, which all row blocks then use from the first-level cache. Of a row block of
//! up to 16 rows, tiles make the exact dot products of these steps, and AVX-512 scales and adds them. The two take turns instead of being
//! mixed, because 512-bit multiply-adds start every cycle, not twice a cycle, while tiles are in use, and a stored tile keeps other
//! instructions from starting for 16 cycles (measured on a Xeon of 480 MB L3).
#![allow(unsafe_code)]

use super::add_minima_avx512;
use super::minima::{self, SPAN};
use super::minima_avx512::{self, Minima};
use super::unpack::{Step, steps_per_block, unpack};
use super::{LAYOUTS, ROW_BLOCK_BYTES, by_layout};
use crate::kernels::linear::layout::{BLOCK, Layout, PANEL};
use crate::kernels::linear::{PackedMatrix, Prepared};
use crate::kernels::tiles::{self, Config, ROW_BYTES, ROWS};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Steps (see [`Step`]) that are multiplied at a time: with their dot products of one row block they leave a third of a first-level cache.
const STEPS: usize = 8;
// So a span of minima ends with the steps of a turn.
const _: () = assert!(SPAN.is_multiple_of(STEPS));

/// Multiplies panel `panel` of `weights` with row blocks `blocks`, which become `[rows][PANEL]` at `sums`.
///
/// # Safety
/// Tiles are allowed, the CPU has AVX-512 F, BW, VL and VNNI; `x` is as wide as `weights` and was prepared for tiles; `sums` has room for [`PANEL`]
/// sums of each row of `blocks`.
pub(super) unsafe fn multiply(
    weights: &PackedMatrix,
    panel: usize,
    x: &Prepared,
    blocks: Range<usize>,
    sums: *mut f32,
) {
    macro_rules! table {
        ($code:literal) => {
            multiply_layout::<$code>
        };
    }
    let kernel = by_layout!(weights.layout(), table);
    // SAFETY: the caller's; `x` has the form of the layout.
    unsafe { kernel(weights, panel, x, blocks, sums) }
}

/// # Safety
/// Tiles are allowed, the CPU has AVX-512 F, BW, VL and VNNI; `weights` are of layout `LAYOUT` and as wide as `x`, which was prepared for tiles;
/// `sums` has room for `PANEL` sums of each row of `blocks`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply_layout<const LAYOUT: usize>(
    weights: &PackedMatrix,
    panel: usize,
    x: &Prepared,
    blocks: Range<usize>,
    sums: *mut f32,
) {
    let parts = const { steps_per_block(LAYOUTS[LAYOUT]) };
    let (per_chunk, k_blocks) = (STEPS / parts, weights.k() / BLOCK);
    let mut steps = [const { MaybeUninit::<Step>::uninit() }; STEPS];
    let mut dots = MaybeUninit::<Dots>::uninit();
    let dots = dots.as_mut_ptr().cast::<i32>();
    let mut minima_of_span = MaybeUninit::<Minima>::uninit();
    let mut next = Next::of(weights, panel, k_blocks.div_ceil(per_chunk) * blocks.len());
    let mut shape = 0;
    for chunk in (0..k_blocks).step_by(per_chunk) {
        let chunk = chunk..k_blocks.min(chunk + per_chunk);
        // SAFETY: the panel has these blocks, `steps` room for them.
        unsafe { unpack::<LAYOUT>(weights.panel(panel).as_ptr(), chunk.clone(), &mut steps) }
        let ends_span = const { LAYOUTS[LAYOUT].has_min() } && (chunk.end % SPAN == 0 || chunk.end == k_blocks);
        let span_first = (chunk.end - 1) / SPAN * SPAN;
        if ends_span {
            let layout = const { LAYOUTS[LAYOUT] };
            let at = &weights.panel(panel)[layout.block_offset(span_first).0 - layout.super_header_bytes()..];
            // SAFETY: the panel has these blocks, from the start of the panel or of 256 inputs on.
            unsafe { minima_avx512::write(layout, at.as_ptr(), chunk.end - span_first, minima_of_span.as_mut_ptr()) }
        }
        let work = Work { steps: steps.as_ptr().cast(), count: chunk.len() * parts, fresh: chunk.start == 0 };
        let mut sums = sums;
        for block in blocks.clone() {
            let rows = x.blocks().rows_of(block).len();
            let x = x.block(block);
            let at = x[chunk.start * ROW_BLOCK_BYTES * rows..chunk.end * ROW_BLOCK_BYTES * rows].as_ptr();
            let tile_rows = if rows * ROW_BLOCK_BYTES >= ROWS * BLOCK { ROWS } else { rows };
            // SAFETY: 16 rows of 32 bytes lie inside 32 prepared inputs of the block, be they rows of it or not, or else the tile has as many
            // rows as the block. Steps and sums are the caller's; `dots` has room for `STEPS` steps.
            unsafe {
                if shape != tile_rows {
                    shape = tile_rows;
                    config(tile_rows, parts).load();
                }
                multiply_steps::<LAYOUT>(&work, at, rows, dots);
                let first = rows.div_ceil(2);
                add(first, parts)(&work, dots, Scales { at, rows, first: 0 }, sums);
                let (lower, dots) = (sums.add(first * PANEL), dots.add(first * PANEL));
                add(rows - first, parts)(&work, dots, Scales { at, rows, first }, lower);
                if ends_span {
                    let blocks = chunk.end - span_first;
                    let y =
                        x[minima::place(k_blocks, span_first) * rows..][..minima::row_bytes(blocks) * rows].as_ptr();
                    add_minima_avx512::add_rows(rows, minima_of_span.as_ptr(), blocks, y, sums);
                }
                sums = sums.add(rows * PANEL);
            }
            next.fetch();
        }
    }
    // SAFETY: tiles are allowed.
    unsafe { tiles::release() }
}

/// Dot products of [`STEPS`] steps, `[step][ROWS][PANEL]`.
#[repr(align(64))]
struct Dots(#[allow(dead_code, reason = "written and read by address")] [i32; STEPS * ROWS * PANEL]);

/// Unpacked steps to multiply with row blocks.
struct Work {
    steps: *const Step,
    count: usize,
    /// Whether sums start from zero.
    fresh: bool,
}

/// The panel that follows, which comes into the second-level cache bit by bit.
struct Next {
    at: *const u8,
    lines: usize,
    lines_each: usize,
}

impl Next {
    /// The panel after `panel`, in `times` parts.
    fn of(weights: &PackedMatrix, panel: usize, times: usize) -> Self {
        let bytes = if panel + 1 < weights.panels() { weights.panel(panel + 1) } else { &[] };
        let lines = bytes.len().div_ceil(64);
        Next { at: bytes.as_ptr(), lines, lines_each: lines.div_ceil(times) }
    }

    #[inline(always)]
    fn fetch(&mut self) {
        for _ in 0..self.lines.min(self.lines_each) {
            // SAFETY: prefetching has no effect on memory, at any address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.cast()) }
            self.at = self.at.wrapping_add(64);
            self.lines -= 1;
        }
    }
}

/// Activations in registers 0 and 1, weights in 2 and 3, dot products in 4 and 5 and in 6 and 7.
fn config(rows: usize, parts: usize) -> Config {
    let (a, b) = (BLOCK / parts, BLOCK / 4 / parts);
    let config = Config::new().with(0, rows, a).with(1, rows, a).with(2, b, ROW_BYTES).with(3, b, ROW_BYTES);
    (4..8).fold(config, |config, tile| config.with(tile, rows, ROW_BYTES))
}

/// Writes the dot products of the steps of `work` with a block of `rows` rows.
///
/// # Safety
/// A [`config`] is loaded, whose rows can be read from the block at `x`; `dots` has room for [`Dots`].
#[inline(always)]
unsafe fn multiply_steps<const LAYOUT: usize>(work: &Work, x: *const u8, rows: usize, dots: *mut i32) {
    let parts = const { steps_per_block(LAYOUTS[LAYOUT]) };
    let at = |i: usize| x.wrapping_add(i / parts * ROW_BLOCK_BYTES * rows + i % parts * (BLOCK / parts));
    let out = |i: usize| dots.wrapping_add(i * ROWS * PANEL).cast::<u8>();
    // SAFETY: the caller's; `i` stays below the number of steps.
    unsafe {
        multiply_step::<0, 4, 5>(work.steps, at(0));
        for i in (0..work.count).step_by(2) {
            if i + 1 < work.count {
                multiply_step::<1, 6, 7>(work.steps.add(i + 1), at(i + 1));
            }
            tiles::store::<4>(out(i), 4 * PANEL);
            tiles::store::<5>(out(i).add(ROW_BYTES), 4 * PANEL);
            if i + 2 < work.count {
                multiply_step::<0, 4, 5>(work.steps.add(i + 2), at(i + 2));
            }
            if i + 1 < work.count {
                tiles::store::<6>(out(i + 1), 4 * PANEL);
                tiles::store::<7>(out(i + 1).add(ROW_BYTES), 4 * PANEL);
            }
        }
    }
}

/// Multiplies one step, in registers `L` and `H` for the lower and the higher outputs.
///
/// # Safety
/// As [`multiply_steps`].
#[inline(always)]
unsafe fn multiply_step<const A: usize, const L: usize, const H: usize>(step: *const Step, x: *const u8) {
    // SAFETY: the caller's.
    unsafe {
        let quants = (&raw const (*step).quants).cast::<u8>();
        tiles::load::<A>(x, BLOCK);
        tiles::load::<2>(quants, 4 * PANEL);
        tiles::zero::<L>();
        tiles::dot_i8::<L, A, 2>();
        tiles::load::<3>(quants.add(ROW_BYTES), 4 * PANEL);
        tiles::zero::<H>();
        tiles::dot_i8::<H, A, 3>();
    }
}

/// Where the scales of some rows of a prepared block are.
#[derive(Clone, Copy)]
struct Scales {
    /// The block, at the first step.
    at: *const u8,
    /// Its rows.
    rows: usize,
    /// The first of those that are wanted.
    first: usize,
}

type Add = unsafe fn(&Work, *const i32, Scales, *mut f32);

/// The function that adds dot products of `rows` rows (4 to 8).
fn add(rows: usize, parts: usize) -> Add {
    macro_rules! table {
        ($parts:literal) => {
            [
                add_rows::<4, $parts>,
                add_rows::<5, $parts>,
                add_rows::<6, $parts>,
                add_rows::<7, $parts>,
                add_rows::<8, $parts>,
            ] as [Add; 5]
        };
    }
    let table = if parts == 1 { table!(1) } else { table!(2) };
    table[rows - 4]
}

/// Adds scaled dot products of `R` rows to their sums.
///
/// # Safety
/// The CPU has AVX-512 F; there are as many steps, dot products `[step][ROWS][PANEL]` from the first row on, and scales as `work` tells,
/// and `sums` addresses `R` rows of `PANEL` values, initialised unless they start from zero.
#[target_feature(enable = "avx512f")]
unsafe fn add_rows<const R: usize, const PARTS: usize>(work: &Work, dots: *const i32, x: Scales, sums: *mut f32) {
    let mut all = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: the caller's: `r < R`, `half < 2` and `i` below the number of steps.
    unsafe {
        if !work.fresh {
            for (r, row) in all.iter_mut().enumerate() {
                *row = [0, 16].map(|half| _mm512_loadu_ps(sums.add(r * PANEL + half)));
            }
        }
        for i in 0..work.count {
            let step = work.steps.add(i);
            let dots = dots.add(i * ROWS * PANEL);
            let block = x.at.add(i / PARTS * ROW_BLOCK_BYTES * x.rows);
            let scales = block.add(BLOCK * x.rows + 4 * x.first).cast::<f32>();
            let both =
                |values: *const [f32; PANEL]| [0, 16].map(|half| _mm512_loadu_ps(values.cast::<f32>().add(half)));
            let d = both(&raw const (*step).scales);
            for (r, row) in all.iter_mut().enumerate() {
                let scale = _mm512_set1_ps(*scales.add(r));
                for (half, sum) in row.iter_mut().enumerate() {
                    let dot = _mm512_loadu_si512(dots.add(r * PANEL + half * 16).cast());
                    *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(d[half], scale), *sum);
                }
            }
        }
        for (r, row) in all.iter().enumerate() {
            _mm512_storeu_ps(sums.add(r * PANEL), row[0]);
            _mm512_storeu_ps(sums.add(r * PANEL + 16), row[1]);
        }
    }
}
