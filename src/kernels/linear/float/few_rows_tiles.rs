//! Products of one to four rows with bf16 weights on tile registers, at the speed of memory: up to three panels at once, as in
//! [`super::few_rows_avx512`], with the sums of [`super::tiles`].
#![allow(unsafe_code)]

use super::tiles::{PAIR_BYTES, STEP, STEP_BYTES, Tail};
use crate::kernels::linear::few_rows::{Panels, PanelsKernel};
use crate::kernels::linear::layout::PANEL;
use crate::kernels::tiles::{self, Config, ROW_BYTES, ROWS};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Bytes of a panel that are multiplied, and asked for, at a time: those of one tile.
const TILE_BYTES: usize = STEP_BYTES / 2;
/// Bytes of a panel between what is multiplied and what is asked for.
const DISTANCE: usize = 2 * TILE_BYTES;

/// The kernels for `rows` rows by number of panels.
pub(super) fn kernels(rows: usize) -> &'static [PanelsKernel] {
    match rows {
        1 => &[multiply::<1, 1>, multiply::<1, 2>, multiply::<1, 3>],
        2 => &[multiply::<2, 1>, multiply::<2, 2>, multiply::<2, 3>],
        3 => &[multiply::<3, 1>, multiply::<3, 2>, multiply::<3, 3>],
        4 => &[multiply::<4, 1>, multiply::<4, 2>, multiply::<4, 3>],
        _ => &[],
    }
}

/// Sums of panel `p` in registers `2 p` and `2 p + 1`, activations in 6, weights in 7.
const fn config(rows: usize, panels: usize) -> Config {
    let mut config = Config::new().with(6, rows, ROW_BYTES).with(7, ROWS, ROW_BYTES);
    let mut sums = 0;
    while sums < 2 * panels {
        config = config.with(sums, rows, ROW_BYTES);
        sums += 1;
    }
    config
}

/// # Safety
/// Tiles are allowed; `panels` are `P` (1 to 3) panels of `k` bf16 inputs, `x` is a prepared block of `R` rows, `out` has room for
/// `P × R × PANEL` sums.
unsafe fn multiply<const R: usize, const P: usize>(panels: Panels, x: *const u8, k: usize, out: *mut f32) {
    let whole = k / STEP;
    let bytes = k.div_ceil(2) * PAIR_BYTES;
    // SAFETY: tiles are allowed.
    unsafe { const { &config(R, P) }.load() }
    for step in 0..whole {
        let at = panels.at.wrapping_add(step * STEP_BYTES);
        // SAFETY: each panel and the block have `whole` whole steps.
        unsafe {
            tiles::load::<6>(x.add(step * R * ROW_BYTES), ROW_BYTES);
            multiply_step::<P>(|p, half| {
                let next = step * STEP_BYTES + half * TILE_BYTES + DISTANCE;
                // Past the end of these panels the bytes asked for are in those that follow.
                let next = if next < bytes {
                    panels.at.wrapping_add(p * panels.stride + next)
                } else {
                    panels.next.wrapping_add(p * panels.stride + next - bytes)
                };
                for line in (0..TILE_BYTES).step_by(ROW_BYTES) {
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(line).cast());
                }
                at.wrapping_add(p * panels.stride + half * ROW_BYTES)
            });
        }
    }
    if !k.is_multiple_of(STEP) {
        // SAFETY: the rest of each panel; the block has another whole step.
        unsafe {
            tiles::load::<6>(x.add(whole * R * ROW_BYTES), ROW_BYTES);
            let tails: [_; P] =
                std::array::from_fn(|p| Tail::of(panels.at.add(p * panels.stride + whole * STEP_BYTES), k % STEP));
            multiply_step::<P>(|p, half| tails[p].at().add(half * ROW_BYTES));
        }
    }
    // SAFETY: `out` has room for two tiles of `R` rows for each panel.
    unsafe {
        let (at, stride) = (|p: usize, half: usize| out.add(p * R * PANEL + half * PANEL / 2).cast(), 4 * PANEL);
        tiles::store::<0>(at(0, 0), stride);
        tiles::store::<1>(at(0, 1), stride);
        if P > 1 {
            tiles::store::<2>(at(1, 0), stride);
            tiles::store::<3>(at(1, 1), stride);
        }
        if P > 2 {
            tiles::store::<4>(at(2, 0), stride);
            tiles::store::<5>(at(2, 1), stride);
        }
        tiles::release();
    }
}

/// Adds the products of 32 inputs with both halves of each panel, whose weights `weights` gives by panel and half.
///
/// # Safety
/// [`config`] is loaded with activations; `weights` gives a tile of weights.
#[inline(always)]
unsafe fn multiply_step<const P: usize>(mut weights: impl FnMut(usize, usize) -> *const u8) {
    // SAFETY: the caller's.
    unsafe {
        tiles::load::<7>(weights(0, 0), PAIR_BYTES);
        tiles::dot_bf16::<0, 6, 7>();
        tiles::load::<7>(weights(0, 1), PAIR_BYTES);
        tiles::dot_bf16::<1, 6, 7>();
        if P > 1 {
            tiles::load::<7>(weights(1, 0), PAIR_BYTES);
            tiles::dot_bf16::<2, 6, 7>();
            tiles::load::<7>(weights(1, 1), PAIR_BYTES);
            tiles::dot_bf16::<3, 6, 7>();
        }
        if P > 2 {
            tiles::load::<7>(weights(2, 0), PAIR_BYTES);
            tiles::dot_bf16::<4, 6, 7>();
            tiles::load::<7>(weights(2, 1), PAIR_BYTES);
            tiles::dot_bf16::<5, 6, 7>();
        }
    }
}
