//! One tile of a product.

#![allow(unsafe_code)]

use super::epilogue::{Epilogue, PairEpilogue};
use super::few_rows::{self, PanelsKernel};
use super::layout::{BLOCK, Form, Layout, PANEL};
use super::matrix::PackedMatrix;
use super::rows::Prepared;
use super::{AHEAD_INPUTS, Ahead, Kernel, Place, ROWS_AT_MEMORY_SPEED, Sums, chunks, float, int8};
use crate::kernels::isa::Isa;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most rows of any register block; those of quantised weights have fewer.
const MAX_ROWS: usize = float::MOST_BLOCK_ROWS;

/// Sums of one row block and one panel, or of one row and several panels: not cleared, as a product of one panel and row uses a thirty-second of it.
#[repr(align(64))]
struct TileSums([MaybeUninit<f32>; MAX_ROWS * PANEL]);

impl TileSums {
    fn new() -> Self {
        TileSums([MaybeUninit::uninit(); MAX_ROWS * PANEL])
    }
}

const _: () = assert!(few_rows::MOST_PANELS <= MAX_ROWS);

/// Sums of few rows and a few panels.
#[repr(align(64))]
struct FewSums([f32; few_rows::MOST_SUMS]);

/// Multiplies panels `panels` of `weights` with row blocks `blocks` of `x` and hands every finished piece of a row to `out`.
///
/// # Panics
/// When `x` was prepared for another width or another kind of weights, or a range is out of bounds.
pub fn product(
    weights: &PackedMatrix,
    panels: Range<usize>,
    x: &Prepared,
    blocks: Range<usize>,
    out: &mut dyn Epilogue,
) {
    let kernels = kernels_of_few_rows(weights, x, &blocks);
    if !kernels.is_empty() {
        let mut sums = FewSums([0.0; few_rows::MOST_SUMS]);
        let (rows, piece) = (x.blocks().rows(), x.blocks().rows() * PANEL);
        for group in few_rows::groups(panels, kernels.len()) {
            let sums = &mut sums.0[..group.len() * piece];
            few_rows::multiply(kernels[group.len() - 1], weights, group.clone(), x, sums);
            if rows == 1 {
                out.wide_row(0, weights.columns(group), sums);
                continue;
            }
            for (panel, sums) in group.zip(sums.chunks_exact_mut(piece)) {
                out.rows(0..rows, columns_of(weights, panel), sums);
            }
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if int8::in_groups(weights, x, &blocks) {
        return product_in_groups(weights, panels, x, blocks, out);
    }
    if let Some(chunk) = chunks::chunk(weights, x, &blocks) {
        return chunks::product(weights, panels, x, blocks, chunk, out);
    }
    let mut sums = TileSums::new();
    if is_one_row(x, &blocks) {
        for group in few_rows::groups(panels, few_rows::MOST_PANELS) {
            out.wide_row(0, weights.columns(group.clone()), multiply_row(weights, group, x, &mut sums));
        }
        return;
    }
    for panel in panels {
        let columns = columns_of(weights, panel);
        for block in blocks.clone() {
            let rows = x.blocks().rows_of(block);
            let place = place(rows.len(), || out.place(rows.clone(), columns.clone()));
            let sums = multiply(weights, panel, x, (block, block - blocks.start, blocks.len()), place, &mut sums.0);
            out.rows(rows, columns.clone(), sums);
        }
    }
}

/// As [`product`] for two matrices of the same shape at once, such as gate and up.
///
/// # Panics
/// As [`product`], or when the matrices differ in shape.
pub fn product_pair(
    weights: [&PackedMatrix; 2],
    panels: Range<usize>,
    x: &Prepared,
    blocks: Range<usize>,
    out: &mut dyn PairEpilogue,
) {
    let [a, b] = weights;
    assert!(a.n() == b.n(), "a pair of {} and {} outputs", a.n(), b.n());
    let kernels = weights.map(|weights| kernels_of_few_rows(weights, x, &blocks));
    if kernels.iter().all(|kernels| !kernels.is_empty()) {
        let mut sums = [FewSums([0.0; few_rows::MOST_SUMS]), FewSums([0.0; few_rows::MOST_SUMS])];
        let (rows, piece) = (x.blocks().rows(), x.blocks().rows() * PANEL);
        for group in few_rows::groups(panels, kernels[0].len().min(kernels[1].len())) {
            let [sums_a, sums_b] = sums.each_mut().map(|sums| &mut sums.0[..group.len() * piece]);
            few_rows::multiply(kernels[0][group.len() - 1], a, group.clone(), x, sums_a);
            few_rows::multiply(kernels[1][group.len() - 1], b, group.clone(), x, sums_b);
            if rows == 1 {
                out.wide_row(0, a.columns(group), sums_a, sums_b);
                continue;
            }
            let pieces = sums_a.chunks_exact_mut(piece).zip(sums_b.chunks_exact_mut(piece));
            for (panel, (sums_a, sums_b)) in group.zip(pieces) {
                out.rows(0..rows, columns_of(a, panel), sums_a, sums_b);
            }
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if int8::in_groups(a, x, &blocks) && int8::in_groups(b, x, &blocks) {
        return pair_in_groups(weights, panels, x, blocks, out);
    }
    let [mut sums_a, mut sums_b] = [TileSums::new(), TileSums::new()];
    if is_one_row(x, &blocks) {
        for group in few_rows::groups(panels, few_rows::MOST_PANELS) {
            let first = multiply_row(a, group.clone(), x, &mut sums_a);
            let second = multiply_row(b, group.clone(), x, &mut sums_b);
            out.wide_row(0, a.columns(group), first, second);
        }
        return;
    }
    for panel in panels {
        let columns = columns_of(a, panel);
        for block in blocks.clone() {
            let rows = x.blocks().rows_of(block);
            let place = place(rows.len(), || out.place(rows.clone(), columns.clone()));
            let a = multiply(a, panel, x, (block, block - blocks.start, blocks.len()), place, &mut sums_a.0);
            let b = multiply(b, panel, x, (block, block - blocks.start, blocks.len()), Place::NOWHERE, &mut sums_b.0);
            out.rows(rows, columns.clone(), a, b);
        }
    }
}

/// [`product`] of quantised weights in groups of row blocks. Never inlined: its sums would make every call of a single row touch all their pages.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn product_in_groups(
    weights: &PackedMatrix,
    panels: Range<usize>,
    x: &Prepared,
    blocks: Range<usize>,
    out: &mut dyn Epilogue,
) {
    let mut sums = int8::GroupSums::new();
    for (panel, group) in groups(panels, blocks) {
        let columns = columns_of(weights, panel);
        let place = |block| out.place(x.blocks().rows_of(block), columns.clone());
        let mut sums = sums.multiply(weights, panel, x, group.clone(), place);
        for block in group {
            let rows = x.blocks().rows_of(block);
            let (here, after) = sums.split_at_mut(rows.len() * PANEL);
            out.rows(rows, columns.clone(), here);
            sums = after;
        }
    }
}

/// [`product_pair`], as [`product_in_groups`].
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn pair_in_groups(
    [a, b]: [&PackedMatrix; 2],
    panels: Range<usize>,
    x: &Prepared,
    blocks: Range<usize>,
    out: &mut dyn PairEpilogue,
) {
    let mut sums = [int8::GroupSums::new(), int8::GroupSums::new()];
    for (panel, group) in groups(panels, blocks) {
        let columns = columns_of(a, panel);
        let [sums_a, sums_b] = &mut sums;
        let mut sums_a = sums_a.multiply(a, panel, x, group.clone(), |_| Place::NOWHERE);
        let place = |block| out.place(x.blocks().rows_of(block), columns.clone());
        let mut sums_b = sums_b.multiply(b, panel, x, group.clone(), place);
        for block in group {
            let rows = x.blocks().rows_of(block);
            let (here_a, after_a) = sums_a.split_at_mut(rows.len() * PANEL);
            let (here_b, after_b) = sums_b.split_at_mut(rows.len() * PANEL);
            out.rows(rows, columns.clone(), here_a, here_b);
            (sums_a, sums_b) = (after_a, after_b);
        }
    }
}

/// Panels `panels`, each with all of `blocks` in groups that go through it at once.
#[cfg(target_arch = "x86_64")]
fn groups(panels: Range<usize>, blocks: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    use int8::GROUP;
    panels.flat_map(move |panel| {
        blocks.clone().step_by(GROUP).map({
            let end = blocks.end;
            move |first| (panel, first..end.min(first + GROUP))
        })
    })
}

/// Outputs of panel `panel`.
pub(super) fn columns_of(weights: &PackedMatrix, panel: usize) -> Range<usize> {
    weights.columns(panel..panel + 1)
}

/// Where the outputs of a row block of `rows` rows go, which an epilogue is asked for if they are worth prefetching.
fn place(rows: usize, ask: impl FnOnce() -> Place) -> Place {
    if rows > ROWS_AT_MEMORY_SPEED { ask() } else { Place::NOWHERE }
}

/// The kernels for adjacent panels when row blocks `blocks` are the only one.
fn kernels_of_few_rows(weights: &PackedMatrix, x: &Prepared, blocks: &Range<usize>) -> &'static [PanelsKernel] {
    if x.blocks().count() != 1 || *blocks != (0..1) {
        return &[];
    }
    few_rows::kernels(x.blocks().isa(), weights.layout(), x.blocks().rows())
}

/// Whether row blocks `blocks` are the only row.
fn is_one_row(x: &Prepared, blocks: &Range<usize>) -> bool {
    x.blocks().rows() == 1 && *blocks == (0..1)
}

/// Multiplies panels `group`, at most [`few_rows::MOST_PANELS`], with the only row; gives `PANEL` sums of each.
fn multiply_row<'s>(
    weights: &PackedMatrix,
    group: Range<usize>,
    x: &Prepared,
    sums: &'s mut TileSums,
) -> &'s mut [f32] {
    let count = group.len();
    let mut pieces = sums.0.chunks_exact_mut(PANEL);
    for panel in group {
        let sums = pieces.next().expect("room for the sums of every panel");
        multiply(weights, panel, x, (0, 0, 1), Place::NOWHERE, sums);
    }
    // SAFETY: `multiply` has written `PANEL` values of each of the first `count` pieces, which follow one another.
    unsafe { std::slice::from_raw_parts_mut(sums.0.as_mut_ptr().cast::<f32>(), count * PANEL) }
}

/// Multiplies one panel with row block `block`, number `before` of `of` that take the panel; gives `rows × PANEL` sums, which go to `place`.
fn multiply<'s>(
    weights: &PackedMatrix,
    panel: usize,
    x: &Prepared,
    (block, before, of): (usize, usize, usize),
    place: Place,
    sums: &'s mut [MaybeUninit<f32>],
) -> &'s mut [f32] {
    let blocks = x.blocks();
    let rows = blocks.rows_of(block).len();
    assert!(
        blocks.k() == weights.k() && blocks.form() == weights.layout().form() && rows * PANEL <= sums.len(),
        "activations of width {} for {} weights of {} inputs",
        blocks.k(),
        weights.dtype(),
        weights.k()
    );
    let kernel = kernel(blocks.isa(), weights.layout(), rows);
    // While the row blocks pass by, the next panel comes into the second-level cache bit by bit.
    let next = weights.panel((panel + 1).min(weights.panels() - 1));
    let ahead = Ahead::share(next, before, of, prefetches(weights.layout(), weights.k()));
    let at = sums.as_mut_ptr().cast::<f32>();
    // Those of AVX-512 prefetch it while they multiply.
    let next = if blocks.isa().has_avx512() { place } else { place.prefetch(rows) };
    let out = Sums { at, stride: PANEL, fresh: true, next };
    // SAFETY: a panel and a prepared block have the sizes that their layouts prescribe for `k` (checked when they were made),
    // `sums` holds at least `rows × PANEL` values, all of which a kernel that starts afresh writes, and the instruction set was detected
    // before an `Isa` was handed out.
    unsafe {
        kernel(weights.panel(panel).as_ptr(), x.block(block).as_ptr(), weights.k(), out, ahead);
        std::slice::from_raw_parts_mut(at, rows * PANEL)
    }
}

/// How often a kernel prefetches what is [`Ahead`].
fn prefetches(layout: Layout, k: usize) -> usize {
    match layout.form() {
        Form::Int8 => k / BLOCK,
        _ => k.div_ceil(AHEAD_INPUTS),
    }
}

pub(super) fn kernel(isa: Isa, layout: Layout, rows: usize) -> Kernel {
    match layout {
        Layout::F32 | Layout::F16 | Layout::Bf16 => float::kernel(isa, layout, rows),
        _ => int8::kernel(isa, layout, rows),
    }
}
