//! Products of many rows and long reductions, chunk by chunk of the reduction.
//!
//! A row block of f32 is read once for each panel. Row blocks that the second-level cache cannot hold beside a panel come from further away
//! every time; a chunk of their inputs stays there while a group of panels passes by. Between chunks sums wait as f32, from which the chain of
//! additions continues: the bits are those of one call over everything.

#![allow(unsafe_code)]

use super::grid::TILE_BLOCKS;
use super::layout::{Layout, PANEL};
use super::matrix::PackedMatrix;
use super::product::{self};
use super::rows::Prepared;
use super::{AHEAD_INPUTS, Ahead, Epilogue, Place, Sums};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Bytes of row blocks that stay in the second-level cache beside a panel, the one that follows and sums.
const RESIDENT_BYTES: usize = 640 << 10;
/// Most inputs of a chunk.
const CHUNK: usize = 768;
/// Panels that share a chunk of the row blocks.
const GROUP: usize = 4;
/// Rows of the largest register block of f32.
const MOST_ROWS: usize = 12;
/// Row blocks whose sums there is room for.
const MOST_BLOCKS: usize = TILE_BLOCKS;

/// Sums of one row block and one panel.
#[repr(align(64))]
struct BlockSums([f32; MOST_ROWS * PANEL]);

/// Inputs of a chunk, a multiple of [`AHEAD_INPUTS`]; `None` when the product is better computed in one.
pub(super) fn chunk(weights: &PackedMatrix, x: &Prepared, blocks: &Range<usize>) -> Option<usize> {
    let k = weights.k();
    let bytes = x.blocks().bytes_of(blocks.clone()).len();
    let cut =
        input_bytes(weights.layout()).is_some() && bytes > RESIDENT_BYTES && k > CHUNK && blocks.len() <= MOST_BLOCKS;
    cut.then(|| k.div_ceil(k.div_ceil(CHUNK)).next_multiple_of(AHEAD_INPUTS))
}

/// Bytes of one input in a panel of a layout whose inputs follow each other.
fn input_bytes(layout: Layout) -> Option<usize> {
    match layout {
        Layout::F32 => Some(4 * PANEL),
        Layout::F16 => Some(2 * PANEL),
        _ => None,
    }
}

/// As [`product::product`] in chunks of `chunk` inputs. Never inlined: its sums would make every call of a single row touch all their pages.
#[inline(never)]
pub(super) fn product(
    weights: &PackedMatrix,
    panels: Range<usize>,
    x: &Prepared,
    blocks: Range<usize>,
    chunk: usize,
    out: &mut dyn Epilogue,
) {
    assert!(x.blocks().k() == weights.k() && x.blocks().form() == weights.layout().form(), "activations and weights");
    let mut sums = [const { [const { MaybeUninit::<BlockSums>::uninit() }; MOST_BLOCKS] }; GROUP];
    let chunks = weights.k().div_ceil(chunk);
    for first in panels.clone().step_by(GROUP) {
        let group = first..panels.end.min(first + GROUP);
        for part in 0..chunks {
            for panel in group.clone() {
                let next = if panel + 1 < group.end {
                    (panel + 1, part)
                } else if part + 1 < chunks {
                    (group.start, part + 1)
                } else {
                    (group.end.min(weights.panels() - 1), 0)
                };
                let next = piece(weights, next.0, next.1, chunk);
                let columns = product::columns_of(weights, panel);
                for block in blocks.clone() {
                    let rows = x.blocks().rows_of(block);
                    let before = block - blocks.start;
                    let sums = &mut sums[panel - group.start][before];
                    let ahead = Ahead::share(next, before, blocks.len(), chunk.div_ceil(AHEAD_INPUTS));
                    let place = match part + 1 == chunks {
                        true => out.place(rows.clone(), columns.clone()),
                        false => Place::NOWHERE,
                    };
                    multiply(weights, panel, x, block, (part, chunk), (ahead, place), sums);
                    if part + 1 == chunks {
                        // SAFETY: every chunk has written the sums of all rows of the block, `rows × PANEL` of them.
                        let sums = unsafe { &mut sums.assume_init_mut().0[..rows.len() * PANEL] };
                        out.rows(rows, columns.clone(), sums);
                    }
                }
            }
        }
    }
}

/// Bytes of chunk `part` of a panel.
fn piece<'a>(weights: &PackedMatrix<'a>, panel: usize, part: usize, chunk: usize) -> &'a [u8] {
    let input = input_bytes(weights.layout()).expect("a layout that is cut");
    &weights.panel(panel)[part * chunk * input..weights.k().min((part + 1) * chunk) * input]
}

/// Adds the products of chunk `part` to `sums`, which the first chunk starts.
fn multiply(
    weights: &PackedMatrix,
    panel: usize,
    x: &Prepared,
    block: usize,
    (part, chunk): (usize, usize),
    (ahead, place): (Ahead, Place),
    sums: &mut MaybeUninit<BlockSums>,
) {
    let rows = x.blocks().rows_of(block).len();
    assert!(rows <= MOST_ROWS, "a row block of {rows}");
    let inputs = part * chunk..weights.k().min((part + 1) * chunk);
    let kernel = product::kernel(x.blocks().isa(), weights.layout(), rows);
    let block = &x.block(block)[4 * rows * inputs.start..4 * rows * inputs.end];
    let at = sums.as_mut_ptr().cast::<f32>();
    let out = Sums { at, stride: PANEL, fresh: part == 0, next: place };
    let panel = piece(weights, panel, part, chunk).as_ptr();
    // SAFETY: the pieces of the panel and of the prepared block hold the inputs of the chunk (sliced above) in the layouts of the kernel, in which
    // inputs follow each other; `sums` has room for `rows × PANEL` values and holds them after the first chunk; the instruction set was
    // detected before an `Isa` was handed out.
    unsafe { kernel(panel, block.as_ptr(), inputs.len(), out, ahead) }
}
