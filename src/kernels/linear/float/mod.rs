//! Products with f32, f16 and bf16 weights.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod few_rows_avx512;
mod portable;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
#[cfg(target_arch = "x86_64")]
mod widened;

use super::Kernel;
use super::few_rows::PanelsKernel;
use super::layout::Layout;
use crate::kernels::isa::Isa;

/// Most rows in a register block of any instruction set.
pub(in crate::kernels) const MOST_BLOCK_ROWS: usize = 12;

/// Rows in a full register block: with two vectors of 16 outputs, 12 rows leave 8 of the 32 registers of AVX-512 for operands.
pub(in crate::kernels) fn block_rows(isa: Isa) -> usize {
    if isa.has_avx512() { 12 } else { 6 }
}

/// The kernel for a row block of `rows` rows.
pub(in crate::kernels) fn kernel(isa: Isa, layout: Layout, rows: usize) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => avx512::kernel(layout, rows, isa.uses_bf16_dots()),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernel(layout, rows),
        _ => portable::kernel(layout, rows),
    }
}

/// Kernels for a row block of `rows` rows by number of panels; see [`super::few_rows`].
pub(super) fn panels_kernels(isa: Isa, layout: Layout, rows: usize) -> &'static [PanelsKernel] {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => few_rows_avx512::kernels(layout, rows, isa.uses_bf16_dots()),
        _ => &[],
    }
}
