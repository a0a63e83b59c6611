//! Quants of a panel as signed bytes, and scales as f32: one form for all layouts, made once for many row blocks.
#![allow(unsafe_code)]

use super::LAYOUTS;
use super::weights_avx512::{quants, scale};
use crate::kernels::linear::layout::{BLOCK, Layout, PANEL};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Inputs that share a scale, with all outputs of a panel.
#[repr(C, align(64))]
pub(super) struct Step {
    /// `[inputs / 4][32 outputs][4 inputs]`, zero standing for zero; 16 times the quants of [`Layout::Nibble`].
    pub quants: [i8; BLOCK * PANEL],
    /// Scale of each output, in the unit of the quants.
    pub scales: [f32; PANEL],
}

/// Steps of one block of 32 inputs.
pub(super) const fn steps_per_block(layout: Layout) -> usize {
    if matches!(layout, Layout::Byte16) { 2 } else { 1 }
}

/// Writes the steps of blocks `blocks` of 32 inputs. What is not written (half the quants of steps of 16 inputs) is not to be
/// read.
///
/// # Safety
/// The CPU has AVX-512 F and BW; `panel` holds a panel with these blocks of layout `LAYOUT`, `steps` is long enough for them.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn unpack<const LAYOUT: usize>(
    panel: *const u8,
    blocks: Range<usize>,
    steps: &mut [MaybeUninit<Step>],
) {
    let layout = const { LAYOUTS[LAYOUT] };
    let parts = steps_per_block(layout);
    let zero = _mm512_set1_epi8(if layout.has_min() {
        0
    } else if layout == Layout::Byte16 {
        32
    } else {
        -128
    });
    for (b, steps) in blocks.zip(steps.chunks_exact_mut(parts)) {
        let (at, header) = layout.block_offset(b);
        let (block, header) = (panel.wrapping_add(at), panel.wrapping_add(header));
        let scales = block.wrapping_add(layout.quant_bytes());
        for (part, step) in steps.iter_mut().enumerate() {
            let step = step.as_mut_ptr();
            // SAFETY: the block is in the panel, the step in `steps`; places of a step are written by address only.
            unsafe {
                let (to, to_scales) = (&raw mut (*step).quants, &raw mut (*step).scales);
                for group in 0..8 / parts {
                    for half in 0..2 {
                        let q = _mm512_sub_epi8(quants(block, layout, part * 8 / parts + group, half), zero);
                        _mm512_storeu_si512(to.cast::<u8>().add((group * 2 + half) * 64).cast(), q);
                    }
                }
                for half in 0..2 {
                    let d = scale(scales, header, layout, part, half);
                    _mm512_storeu_ps(to_scales.cast::<f32>().add(half * 16), d);
                }
            }
        }
    }
}
