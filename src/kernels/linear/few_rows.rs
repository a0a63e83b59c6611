//! Products of few rows, which run at the speed of memory: adjacent panels at once.

#![allow(unsafe_code)]

use super::float;
use super::layout::{Layout, PANEL};
use super::matrix::PackedMatrix;
use super::rows::Prepared;
use crate::kernels::isa::Isa;
use std::ops::Range;

/// Multiplies adjacent panels with one row block over the whole of `k`.
///
/// Arguments: panels, prepared row-block bytes, `k`, where `panels × rows × PANEL` sums go.
pub(super) type PanelsKernel = unsafe fn(Panels, *const u8, usize, *mut f32);

/// Most panels of one row that one call multiplies; of several rows as many fewer.
pub(super) const MOST_PANELS: usize = 24;

/// Most sums of one call.
pub(super) const MOST_SUMS: usize = MOST_PANELS * PANEL;

/// Adjacent panels.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    /// The first.
    pub at: *const u8,
    /// From one to the next, in bytes.
    pub stride: usize,
    /// How many.
    pub count: usize,
    /// Those that are probably read next, the first bytes of which are prefetched. Any address is allowed.
    pub next: *const u8,
}

/// Kernels for a row block of `rows` rows by number of panels, one panel first; none where the product goes panel by panel, as with quantised
/// weights: their kernels keep up with memory on one stream.
pub(super) fn kernels(isa: Isa, layout: Layout, rows: usize) -> &'static [PanelsKernel] {
    match layout {
        Layout::F32 | Layout::F16 | Layout::Bf16 => float::panels_kernels(isa, layout, rows),
        _ => &[],
    }
}

/// Splits `panels` into groups of nearly equal size, at most `most` panels each.
pub(super) fn groups(panels: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let (count, groups) = (panels.len(), panels.len().div_ceil(most));
    (0..groups).map(move |i| panels.start + i * count / groups..panels.start + (i + 1) * count / groups)
}

/// Multiplies panels `group` of `weights` with the only row block of `x` by the kernel for so many panels; `sums` become those of the first
/// panel row by row, then those of the next.
pub(super) fn multiply(
    kernel: PanelsKernel,
    weights: &PackedMatrix,
    group: Range<usize>,
    x: &Prepared,
    sums: &mut [f32],
) {
    let blocks = x.blocks();
    assert!(
        blocks.k() == weights.k() && blocks.form() == weights.layout().form() && blocks.count() == 1,
        "{} blocks of activations of width {} for {} weights of {} inputs",
        blocks.count(),
        blocks.k(),
        weights.dtype(),
        weights.k()
    );
    assert_eq!(sums.len(), group.len() * blocks.rows() * PANEL, "sums");
    let bytes = weights.panel_bytes(group.clone());
    let next = group.end.min(weights.panels() - group.len());
    let (stride, next) = (bytes.len() / group.len(), weights.panel(next).as_ptr());
    let panels = Panels { at: bytes.as_ptr(), stride, count: group.len(), next };
    // SAFETY: panels and a prepared block have the sizes that their layouts prescribe for `k` (checked when they were made), `sums` holds as
    // many values as were asserted, and the instruction set was detected before an `Isa` was handed out.
    unsafe { kernel(panels, x.block(0).as_ptr(), weights.k(), sums.as_mut_ptr()) }
}
