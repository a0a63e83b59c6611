//! Products of quantised weights and quantised activations: exact integer dot products per block of 32 inputs.

#[cfg(target_arch = "x86_64")]
mod add_minima_avx512;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod groups;
#[cfg(target_arch = "x86_64")]
mod levels;
#[cfg(target_arch = "x86_64")]
mod levels_avx512;
mod minima;
#[cfg(target_arch = "x86_64")]
mod minima_avx512;
mod portable;
mod prepare;
#[cfg(target_arch = "x86_64")]
mod prepare_avx512;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod unpack;
#[cfg(target_arch = "x86_64")]
mod weights_avx512;

use super::Kernel;
use super::layout::{BLOCK, Layout};
use crate::kernels::isa::Isa;

#[cfg(target_arch = "x86_64")]
pub(super) use groups::{GroupSums, in_groups};
pub(super) use prepare::prepare;

/// Bytes of 32 prepared activations of one row: the values, scale, minus [`ZERO`] times the sum of all 32 and of the last 16, and the
/// scale's exponent (of two, as f32).
const ROW_BLOCK_BYTES: usize = 48;

/// Bytes of a prepared row of `k` inputs: all its blocks, then what is multiplied with [minima].
pub(super) const fn row_bytes(k: usize) -> usize {
    k / BLOCK * ROW_BLOCK_BYTES + minima::row_bytes(k / BLOCK)
}

/// The quant that stands for zero in [`Layout::Byte`]; others are a fraction of it.
const ZERO: i32 = 128;

/// Bits of the scale of a block of activations behind the leading one: so few that the product of a weight's scale with each of the
/// levels between powers of two can be at hand (`levels.rs`). Rounding scales up makes a quantised activation coarser by a twentieth on
/// average.
const SCALE_BITS: u32 = 3;
/// Scales of activations from 1 to below 2.
#[cfg(target_arch = "x86_64")]
const LEVELS: usize = 1 << SCALE_BITS;
/// Exponent of a scale that is zero: it makes zero of any finite number.
const ZERO_EXPONENT: f32 = -1000.0;

/// Most row blocks that go through a panel together. With fewer, what is made of a panel costs more than it saves to have the sums nearer.
pub(super) const GROUP: usize = 24;

/// Rows in a full register block.
pub(super) fn block_rows(isa: Isa) -> usize {
    match isa {
        Isa::Amx => 16,
        _ if isa.has_vnni() => 12,
        _ => 4,
    }
}

/// Most rows of a product that go without tile registers: they take a row block of the kernels on VNNI, which read a panel straight from
/// memory.
const MOST_ROWS_WITHOUT_TILES: usize = 8;

/// Bytes of a stream of panels between the weights that are multiplied with few rows and those that are asked for: two pages. Hardware
/// prefetching stops at the end of each page of 4 KB and alone leaves a core waiting, even for a shared cache.
#[cfg(target_arch = "x86_64")]
const STREAM_AHEAD: usize = 8 << 10;

/// Whether many rows take products of scales from levels (`levels.rs`); not for [`Layout::Byte16`], where scales are of 16 inputs.
pub(super) fn has_levels(isa: Isa, layout: Layout) -> bool {
    LAYOUTS.contains(&layout) && layout != Layout::Byte16 && isa.scales_beside_products()
}

/// Whether a product of `rows` rows goes on tile registers; row blocks then have at least 8 rows. The bits are the same.
pub(super) fn uses_tiles(isa: Isa, rows: usize) -> bool {
    cfg!(target_arch = "x86_64") && isa == Isa::Amx && rows > MOST_ROWS_WITHOUT_TILES
}

/// The kernel for a row block of `rows` rows, where a product does not go on tile registers.
pub(super) fn kernel(isa: Isa, layout: Layout, rows: usize) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => avx512::kernel(layout, rows, isa.has_vnni()),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernel(layout, rows),
        _ => portable::kernel(layout, rows),
    }
}

/// The parts of `rows` prepared rows of one block of 32 inputs.
struct RowBlock<const R: usize>(*const u8);

impl<const R: usize> RowBlock<R> {
    /// Four values of row `r`, inputs `4·group ..`.
    fn values(&self, group: usize, r: usize) -> *const i32 {
        self.0.wrapping_add((group * R + r) * 4).cast()
    }

    /// Scale of row `r`.
    fn scale(&self, r: usize) -> *const f32 {
        self.0.wrapping_add(32 * R + 4 * r).cast()
    }

    /// Minus [`ZERO`] times the sum of row `r`.
    fn minus_sum(&self, r: usize) -> *const i32 {
        self.0.wrapping_add(36 * R + 4 * r).cast()
    }

    /// Exponent of two of the scale of row `r`: the scale is this power times one of [`LEVELS`] from 1 to below 2.
    #[cfg(target_arch = "x86_64")]
    fn exponent(&self, r: usize) -> *const f32 {
        self.0.wrapping_add(44 * R + 4 * r).cast()
    }

    /// Minus [`ZERO`] times the sum of the last 16 values of row `r`.
    fn minus_late_sum(&self, r: usize) -> *const i32 {
        self.0.wrapping_add(40 * R + 4 * r).cast()
    }
}

/// The exponent of two of a magnitude that is no subnormal number: `of_zero` of zero, NaN where it is not finite.
#[inline(always)]
fn exponent(magnitude: f32, of_zero: f32) -> f32 {
    match magnitude.to_bits() >> 23 {
        0 => of_zero,
        255 => f32::NAN,
        biased => biased as f32 - 127.0,
    }
}

/// What is added to a magnitude below 2^22 for its nearest integer, ties to even, in the low bits.
const ROUND: f32 = 12_582_912.0;

/// The nearest integer, ties to even, of a magnitude below 2^22.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    (value + ROUND).to_bits() as i32 - ROUND.to_bits() as i32
}

/// Quantised layouts in the order of their codes, the const-generic argument of the kernels.
const LAYOUTS: [Layout; 7] =
    [Layout::Byte, Layout::ByteMin, Layout::ByteK, Layout::Byte16, Layout::Nibble, Layout::NibbleMin, Layout::NibbleK];

/// Expands `$table!(code)` for the code of a layout.
macro_rules! by_layout {
    ($layout:expr, $table:ident) => {
        match $layout {
            Layout::Byte => $table!(0),
            Layout::ByteMin => $table!(1),
            Layout::ByteK => $table!(2),
            Layout::Byte16 => $table!(3),
            Layout::Nibble => $table!(4),
            Layout::NibbleMin => $table!(5),
            Layout::NibbleK => $table!(6),
            _ => unreachable!("not a quantised layout"),
        }
    };
}
use by_layout;

#[cfg(test)]
mod tests;
