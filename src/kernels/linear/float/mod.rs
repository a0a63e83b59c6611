//! Products with f32, f16 and bf16 weights.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::Kernel;
use super::layout::Layout;
use crate::kernels::isa::Isa;
use crate::kernels::view::View;
use half::bf16;
use std::ops::Range;

/// Rows in a full register block: with two vectors of 16 outputs, 12 rows leave 8 of the 32 registers of AVX-512 for operands.
pub(super) fn block_rows(isa: Isa) -> usize {
    if isa == Isa::Avx512 { 12 } else { 6 }
}

/// The kernel for a row block of `rows` rows.
pub(super) fn kernel(isa: Isa, layout: Layout, rows: usize) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::kernel(layout, rows, isa.has_bf16()),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernel(layout, rows),
        _ => portable::kernel(layout, rows),
    }
}

/// Writes rows of `x` as `[k][rows]`.
pub(super) fn interleave(isa: Isa, x: &View<f32>, rows: Range<usize>, dst: &mut [f32]) {
    let _ = isa;
    let r = rows.len();
    for (i, row) in rows.enumerate() {
        for (&v, at) in x.row(row).iter().zip(dst.chunks_exact_mut(r)) {
            at[i] = v;
        }
    }
}

/// Writes rows of `x`, rounded to bf16, as `[k / 2][rows][2]`.
pub(super) fn interleave_bf16(isa: Isa, x: &View<f32>, rows: Range<usize>, dst: &mut [[bf16; 2]]) {
    let _ = isa;
    let r = rows.len();
    for (i, row) in rows.enumerate() {
        for (v, at) in x.row(row).chunks(2).zip(dst.chunks_exact_mut(r)) {
            at[i] = [bf16::from_f32(v[0]), v.get(1).map_or(bf16::ZERO, |v| bf16::from_f32(*v))];
        }
    }
}
