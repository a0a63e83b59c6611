//! Products with f32, f16 and bf16 weights.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
mod few_rows_avx512;
#[cfg(target_arch = "x86_64")]
mod few_rows_stream_avx512;
#[cfg(target_arch = "x86_64")]
mod few_rows_tiles;
mod portable;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
pub(in crate::kernels) mod tile_rows;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod widened;

#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) use tiles::Held;

/// Rows in a full register block on tile registers, those that [`hold`] is for.
pub(in crate::kernels) const HELD_ROWS: usize = 32;

use super::Kernel;
use super::few_rows::PanelsKernel;
use super::layout::Layout;
use crate::kernels::isa::Isa;

/// Most rows in a register block of any instruction set.
pub(in crate::kernels) const MOST_BLOCK_ROWS: usize = HELD_ROWS;

/// Whether products with weights of `layout` run on tile registers, for which activations take the form of [`tile_rows`].
pub(in crate::kernels) fn uses_tiles(isa: Isa, layout: Layout) -> bool {
    isa == Isa::Amx && layout == Layout::Bf16
}

/// Rows in a full register block: with two vectors of 16 outputs, 12 rows leave 8 of the 32 registers of AVX-512 for operands; on tile registers
/// two tiles of rows by two of outputs take half of the loads from memory that one by one would.
pub(in crate::kernels) fn block_rows(isa: Isa, layout: Layout) -> usize {
    match isa {
        _ if uses_tiles(isa, layout) => HELD_ROWS,
        _ if isa.has_avx512() => 12,
        _ => 6,
    }
}

/// The kernel for a row block of `rows` rows.
pub(in crate::kernels) fn kernel(isa: Isa, layout: Layout, rows: usize) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        _ if uses_tiles(isa, layout) => tiles::kernel(rows),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => avx512::kernel(layout, rows, isa.uses_bf16_dots()),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernel(layout, rows),
        _ => portable::kernel(layout, rows),
    }
}

/// State of the CPU in which kernels of full row blocks run one after another; see `tiles.rs`.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::kernels) enum Held {}

#[cfg(not(target_arch = "x86_64"))]
impl Held {
    pub(in crate::kernels) fn kernel(&self) -> Kernel {
        match *self {}
    }
}

/// What full row blocks have in common on tile registers, to be held while they are multiplied; nothing on vector registers.
///
/// # Safety
/// While the value lives, this thread uses tile registers by [`Held::kernel`] only.
#[allow(unsafe_code)]
pub(in crate::kernels) unsafe fn hold(isa: Isa, layout: Layout) -> Option<Held> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` is only handed out when the CPU has it; the rest is the caller's.
        _ if uses_tiles(isa, layout) => Some(unsafe { Held::new() }),
        _ => None,
    }
}

/// Kernels for a row block of `rows` rows by number of panels; see [`super::few_rows`].
pub(super) fn panels_kernels(isa: Isa, layout: Layout, rows: usize) -> &'static [PanelsKernel] {
    match isa {
        #[cfg(target_arch = "x86_64")]
        _ if uses_tiles(isa, layout) => few_rows_tiles::kernels(rows),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx if isa.reads_one_stream_fastest() => {
            few_rows_stream_avx512::kernels(layout, rows, isa.uses_bf16_dots())
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => few_rows_avx512::kernels(layout, rows, isa.uses_bf16_dots()),
        _ => &[],
    }
}
