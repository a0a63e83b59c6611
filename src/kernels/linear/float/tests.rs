//! Kernels for bf16 weights: both of AVX-512, of which one CPU uses only one, and those on tile registers.
#![allow(unsafe_code)]

mod few_rows;
mod on_tiles;

use super::avx512;
use crate::kernels::isa::Isa;
use crate::kernels::linear::{Ahead, Layout, PANEL, Place, Sums};
use half::bf16;

/// Values from −1 to 1 in steps of 2^-7, all exact in bf16.
fn value(seed: usize, i: usize) -> f32 {
    let mixed = (i + 1).wrapping_mul(0x9e37_79b9).wrapping_add(seed.wrapping_mul(0x85eb_ca6b)) >> 7;
    (mixed % 257) as f32 / 128.0 - 1.0
}

/// Pairs of inputs of `lines` lines side by side, as panels and prepared blocks have them; 0 past an odd `k`.
fn pairs(seed: usize, lines: usize, k: usize) -> Vec<u32> {
    let bits = |line: usize, i: usize| {
        if i < k { u32::from(bf16::from_f32(value(seed, line * k + i)).to_bits()) } else { 0 }
    };
    let words = (0..k.div_ceil(2)).flat_map(|pair| (0..lines).map(move |line| (pair, line)));
    words.map(|(pair, line)| bits(line, 2 * pair) | bits(line, 2 * pair + 1) << 16).collect()
}

#[test]
fn sums_of_bf16_products_match_f64_with_dots_and_widened() {
    if !Isa::available().contains(&Isa::Avx512) {
        return;
    }
    let kinds: &[bool] = if is_x86_feature_detected!("avx512bf16") { &[false, true] } else { &[false] };
    for (&dots, rows) in kinds.iter().flat_map(|dots| (1..=12).map(move |rows| (dots, rows))) {
        for k in [0, 1, 2, 3, 15, 16, 17, 18, 31, 33, 64, 130, 301] {
            let (panel, block) = (pairs(1, PANEL, k), pairs(2, rows, k));
            // An odd address: kernels assume no alignment of weights.
            let mut bytes = vec![0; 4 * panel.len() + 1];
            bytes[1..].copy_from_slice(bytemuck::cast_slice(&panel));
            for fresh in [false, true] {
                let stride = PANEL + 5;
                let mut out = vec![0.5; rows * stride];
                let at = out.as_mut_ptr();
                let sums = Sums { at, stride, fresh, next: Place::NOWHERE };
                let ahead = Ahead { at: bytes.as_ptr(), step: 128, pairs: 1 };
                // SAFETY: the CPU has AVX-512, and BF16 with `dots`; panel, block and sums have the sizes that the layout prescribes.
                unsafe {
                    avx512::kernel(Layout::Bf16, rows, dots)(bytes[1..].as_ptr(), block.as_ptr().cast(), k, sums, ahead)
                }
                for (r, row) in out.chunks(stride).enumerate() {
                    assert_eq!(row[PANEL..], [0.5; 5], "wrote beyond the panel");
                    for (o, got) in row[..PANEL].iter().enumerate() {
                        let product = |i| f64::from(value(1, o * k + i)) * f64::from(value(2, r * k + i));
                        let start = if fresh { 0.0 } else { 0.5 };
                        let want = start + (0..k).map(product).sum::<f64>();
                        let near = (f64::from(*got) - want).abs() <= 1e-6 * (1.0 + k as f64);
                        assert!(near, "dots {dots}, {rows} rows, k {k}, fresh {fresh} [{r},{o}]: {got} for {want}");
                    }
                }
            }
        }
    }
}
