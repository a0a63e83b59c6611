//! Products of one to four rows with bf16 weights on tile registers, at the speed of memory: up to three panels at once, as in
//! [`super::few_rows_avx512`], with the sums of [`super::tiles`].
#![allow(unsafe_code)]

use super::tiles::{PAIR_BYTES, STEP, STEP_BYTES, Tail};
use crate::kernels::linear::few_rows::{Panels, PanelsKernel};
use crate::kernels::linear::layout::PANEL;
use crate::kernels::tiles::{self, Config, ROW_BYTES, ROWS};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Steps of a panel between what is multiplied and what is asked for.
const STEPS_AHEAD: usize = 2;

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
    let (whole, steps) = (k / STEP, k.div_ceil(STEP));
    // SAFETY: tiles are allowed.
    unsafe { const { &config(R, P) }.load() }
    for step in 0..whole {
        let ahead = step + STEPS_AHEAD;
        // Past the end of these panels the bytes asked for are in those that follow.
        let ahead = if ahead < steps {
            panels.at.wrapping_add(ahead * STEP_BYTES)
        } else {
            panels.next.wrapping_add((ahead - steps) * STEP_BYTES)
        };
        let at = panels.at.wrapping_add(step * STEP_BYTES);
        // SAFETY: each panel and the block have `whole` whole steps.
        unsafe {
            tiles::load::<6>(x.add(step * R * ROW_BYTES), ROW_BYTES);
            for_each_panel::<P>(|p| {
                let ahead = ahead.wrapping_add(p * panels.stride);
                (0..STEP_BYTES / 64).for_each(|line| _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line).cast()));
                at.wrapping_add(p * panels.stride)
            });
        }
    }
    if whole < steps {
        // SAFETY: the rest of each panel; the block has another whole step.
        unsafe {
            tiles::load::<6>(x.add(whole * R * ROW_BYTES), ROW_BYTES);
            let mut tails = [const { None }; P];
            for_each_panel::<P>(|p| {
                let at = panels.at.add(p * panels.stride + whole * STEP_BYTES);
                tails[p].insert(Tail::of(at, k % STEP)).at()
            });
        }
    }
    // SAFETY: `out` has room for two tiles of `R` rows for each panel.
    unsafe {
        let (at, stride) = (|p: usize, column: usize| out.add(p * R * PANEL + column).cast(), 4 * PANEL);
        tiles::store::<0>(at(0, 0), stride);
        tiles::store::<1>(at(0, PANEL / 2), stride);
        if P > 1 {
            tiles::store::<2>(at(1, 0), stride);
            tiles::store::<3>(at(1, PANEL / 2), stride);
        }
        if P > 2 {
            tiles::store::<4>(at(2, 0), stride);
            tiles::store::<5>(at(2, PANEL / 2), stride);
        }
        tiles::release();
    }
}

/// Adds the products of 32 inputs of each panel, which `weights` gives.
///
/// # Safety
/// [`config`] is loaded with activations; `weights` gives 32 inputs of a panel.
#[inline(always)]
unsafe fn for_each_panel<const P: usize>(mut weights: impl FnMut(usize) -> *const u8) {
    // SAFETY: the caller's.
    unsafe {
        let w = weights(0);
        tiles::load::<7>(w, PAIR_BYTES);
        tiles::dot_bf16::<0, 6, 7>();
        tiles::load::<7>(w.wrapping_add(ROW_BYTES), PAIR_BYTES);
        tiles::dot_bf16::<1, 6, 7>();
        if P > 1 {
            let w = weights(1);
            tiles::load::<7>(w, PAIR_BYTES);
            tiles::dot_bf16::<2, 6, 7>();
            tiles::load::<7>(w.wrapping_add(ROW_BYTES), PAIR_BYTES);
            tiles::dot_bf16::<3, 6, 7>();
        }
        if P > 2 {
            let w = weights(2);
            tiles::load::<7>(w, PAIR_BYTES);
            tiles::dot_bf16::<4, 6, 7>();
            tiles::load::<7>(w.wrapping_add(ROW_BYTES), PAIR_BYTES);
            tiles::dot_bf16::<5, 6, 7>();
        }
    }
}
