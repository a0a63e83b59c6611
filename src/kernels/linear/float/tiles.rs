//! Tile registers: up to 32 rows by 32 outputs of bf16 products in four tiles of sums.
//!
//! A panel is two tiles side by side for each 32 inputs, as it is packed; a prepared block (see [`super::tile_rows`]) is one tile of up to 16
//! rows and one of the rest. Each row of a tile is computed alone, so that its bits do not depend on how many there are. Inputs past `k` are
//! zero on both sides and add nothing.
#![allow(unsafe_code)]

use super::HELD_ROWS;
use super::avx512::Rows;
use crate::kernels::interleave::LINE;
use crate::kernels::linear::layout::PANEL;
use crate::kernels::linear::{AHEAD_INPUTS, Ahead, Kernel, ROWS_AT_MEMORY_SPEED, Sums, kernels_by_rows};
use crate::kernels::tiles::{self, Config, ROW_BYTES, ROWS};

/// Inputs of one step: a row of a tile.
pub(super) const STEP: usize = LINE;
/// Bytes of the panel for two inputs.
pub(super) const PAIR_BYTES: usize = 4 * PANEL;
/// Bytes of the panel for one step.
pub(super) const STEP_BYTES: usize = STEP / 2 * PAIR_BYTES;

/// The kernel for `rows` rows (1 to 32).
#[rustfmt::skip]
pub(super) fn kernel(rows: usize) -> Kernel {
    kernels_by_rows!(
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32],
        multiply, []
    )[rows - 1]
}

/// Sums of the first rows in registers 0 and 1, of the others in 2 and 3; activations in 4 and 5, weights in 6 and 7.
const fn config(rows: usize) -> Config {
    let upper = if rows < ROWS { rows } else { ROWS };
    let mut config = Config::new()
        .with(0, upper, ROW_BYTES)
        .with(1, upper, ROW_BYTES)
        .with(4, upper, ROW_BYTES)
        .with(6, ROWS, ROW_BYTES)
        .with(7, ROWS, ROW_BYTES);
    if rows > ROWS {
        let lower = rows - ROWS;
        config = config.with(2, lower, ROW_BYTES).with(3, lower, ROW_BYTES).with(5, lower, ROW_BYTES);
    }
    config
}

/// The last inputs of a panel, filled up with zeros to a whole step.
#[repr(align(64))]
pub(super) struct Tail([u8; STEP_BYTES]);

impl Tail {
    /// For `inputs` inputs, fewer than [`STEP`].
    ///
    /// # Safety
    /// The panel has so many inputs at `at`.
    #[inline(always)]
    pub(super) unsafe fn of(at: *const u8, inputs: usize) -> Self {
        let mut tail = Tail([0; STEP_BYTES]);
        // SAFETY: pairs of inputs that the panel has, an odd one with its padding; fewer bytes than a step.
        unsafe { at.copy_to_nonoverlapping(tail.0.as_mut_ptr(), inputs.div_ceil(2) * PAIR_BYTES) }
        tail
    }

    pub(super) fn at(&self) -> *const u8 {
        self.0.as_ptr()
    }
}

/// # Safety
/// Tiles are allowed and the CPU has AVX-512 F; `panel` holds the panel of `k` bf16 inputs that the layout prescribes, `x` a prepared block of
/// `R` rows, `out` addresses `R` rows of `PANEL` values.
#[target_feature(enable = "avx512f")]
unsafe fn multiply<const R: usize>(panel: *const u8, x: *const u8, k: usize, out: Sums, ahead: Ahead) {
    // SAFETY: tiles are allowed; the rest is the caller's.
    unsafe {
        const { &config(R) }.load();
        multiply_held::<R>(panel, x, k, out, ahead);
        tiles::release();
    }
}

/// The registers while many full row blocks are multiplied one after another by [`Held::kernel`]: loading their shapes takes as long as
/// multiplying 128 inputs.
pub(in crate::kernels) struct Held(());

impl Held {
    /// Loads the shapes for blocks of [`HELD_ROWS`] rows.
    ///
    /// # Safety
    /// Tiles are allowed, and until the value is dropped this thread uses tile registers by [`Held::kernel`] only.
    pub(in crate::kernels) unsafe fn new() -> Self {
        // SAFETY: the caller's.
        unsafe { const { &config(HELD_ROWS) }.load() }
        Held(())
    }

    /// The kernel for blocks of [`HELD_ROWS`] rows, to be called while this lives.
    pub(in crate::kernels) fn kernel(&self) -> Kernel {
        multiply_held::<HELD_ROWS>
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: tiles are allowed, as `new` was told.
        unsafe { tiles::release() }
    }
}

/// # Safety
/// As [`multiply`], with [`config`] of `R` loaded.
#[target_feature(enable = "avx512f")]
unsafe fn multiply_held<const R: usize>(panel: *const u8, x: *const u8, k: usize, out: Sums, ahead: Ahead) {
    let (whole, steps) = (k / STEP, k.div_ceil(STEP));
    let mut ahead = ahead;
    let mut next = Rows::<R>::after(&out, steps, 1);
    // SAFETY: `out` addresses `R` rows of two times 16 values.
    unsafe { if out.fresh { zero::<R>() } else { load::<R>(&out) } }
    for step in 0..whole {
        if R > ROWS_AT_MEMORY_SPEED {
            (0..STEP / AHEAD_INPUTS).for_each(|_| ahead.fetch());
            next.fetch();
        }
        // SAFETY: the panel and the block have `whole` whole steps.
        unsafe { multiply_step::<R>(panel.add(step * STEP_BYTES), x.add(step * R * ROW_BYTES)) }
    }
    if whole < steps {
        // SAFETY: the rest of the panel; the block has another whole step.
        unsafe {
            let tail = Tail::of(panel.add(whole * STEP_BYTES), k % STEP);
            multiply_step::<R>(tail.at(), x.add(whole * R * ROW_BYTES));
        }
    }
    // SAFETY: `out` addresses `R` rows of two times 16 values; the configuration is loaded.
    unsafe { store::<R>(&out) }
}

/// # Safety
/// [`config`] of `R` is loaded.
#[inline(always)]
unsafe fn zero<const R: usize>() {
    // SAFETY: the caller's.
    unsafe {
        tiles::zero::<0>();
        tiles::zero::<1>();
        if R > ROWS {
            tiles::zero::<2>();
            tiles::zero::<3>();
        }
    }
}

/// Adds the products of 32 inputs.
///
/// # Safety
/// [`config`] of `R` is loaded; `w` holds 32 inputs of a panel, `x` as many of `R` rows.
#[inline(always)]
unsafe fn multiply_step<const R: usize>(w: *const u8, x: *const u8) {
    // SAFETY: the caller's.
    unsafe {
        tiles::load::<6>(w, PAIR_BYTES);
        tiles::load::<4>(x, ROW_BYTES);
        tiles::dot_bf16::<0, 4, 6>();
        tiles::load::<7>(w.add(ROW_BYTES), PAIR_BYTES);
        tiles::dot_bf16::<1, 4, 7>();
        if R > ROWS {
            tiles::load::<5>(x.add(ROWS * ROW_BYTES), ROW_BYTES);
            tiles::dot_bf16::<2, 5, 6>();
            tiles::dot_bf16::<3, 5, 7>();
        }
    }
}

/// # Safety
/// [`config`] of `R` is loaded; `out` addresses `R` rows of [`PANEL`] values.
#[inline(always)]
unsafe fn load<const R: usize>(out: &Sums) {
    let bytes = out.stride * size_of::<f32>();
    // SAFETY: the caller's.
    unsafe {
        tiles::load::<0>(out.value(0, 0).cast(), bytes);
        tiles::load::<1>(out.value(0, PANEL / 2).cast(), bytes);
        if R > ROWS {
            tiles::load::<2>(out.value(ROWS, 0).cast(), bytes);
            tiles::load::<3>(out.value(ROWS, PANEL / 2).cast(), bytes);
        }
    }
}

/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn store<const R: usize>(out: &Sums) {
    let bytes = out.stride * size_of::<f32>();
    // SAFETY: the caller's.
    unsafe {
        tiles::store::<0>(out.value(0, 0).cast(), bytes);
        tiles::store::<1>(out.value(0, PANEL / 2).cast(), bytes);
        if R > ROWS {
            tiles::store::<2>(out.value(ROWS, 0).cast(), bytes);
            tiles::store::<3>(out.value(ROWS, PANEL / 2).cast(), bytes);
        }
    }
}
