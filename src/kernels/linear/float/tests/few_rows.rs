//! Products of few rows: panels side by side and one after the other, of which one CPU uses only one, have the same bits.

use super::pairs;
use crate::kernels::isa::Isa;
use crate::kernels::linear::few_rows::{Panels, PanelsKernel};
use crate::kernels::linear::float::{few_rows_avx512, few_rows_stream_avx512};
use crate::kernels::linear::{Layout, PANEL};
use half::f16;

/// Bytes of `panels` panels of `k` inputs and of a block of `rows` rows.
fn operands(layout: Layout, panels: usize, rows: usize, k: usize) -> (Vec<u8>, Vec<u32>) {
    if layout == Layout::Bf16 {
        let bytes = (0..panels).flat_map(|p| bytemuck::cast_slice(&pairs(p, PANEL, k)).to_vec());
        return (bytes.collect(), pairs(100, rows, k));
    }
    let weights = (0..panels * k * PANEL).map(|i| super::value(1, i));
    let bytes = match layout {
        Layout::F32 => weights.flat_map(|w| w.to_le_bytes().to_vec()).collect(),
        _ => weights.flat_map(|w| f16::from_f32(w).to_le_bytes().to_vec()).collect(),
    };
    (bytes, (0..k * rows).map(|i| super::value(2, i).sin().to_bits()).collect())
}

/// Bits of the sums of all panels, in calls of at most as many panels as there are kernels for.
fn sums(kernels: &[PanelsKernel], (bytes, x): &(Vec<u8>, Vec<u32>), panels: usize, rows: usize, k: usize) -> Vec<u32> {
    let stride = bytes.len() / panels;
    let mut out = vec![f32::NAN; panels * rows * PANEL];
    for (i, out) in out.chunks_mut(kernels.len() * rows * PANEL).enumerate() {
        let count = out.len() / (rows * PANEL);
        let at = bytes[i * kernels.len() * stride..][..count * stride].as_ptr();
        let panels = Panels { at, stride, count, next: at };
        // SAFETY: the CPU has AVX-512, and BF16 where dots are used; panels, block and sums have the sizes that the layout prescribes.
        unsafe { kernels[count - 1](panels, x.as_ptr().cast(), k, out.as_mut_ptr()) }
    }
    out.into_iter().map(f32::to_bits).collect()
}

#[test]
fn panels_have_the_same_bits_side_by_side_and_one_after_the_other() {
    if !Isa::available().contains(&Isa::Avx512) {
        return;
    }
    let kinds: &[bool] = if is_x86_feature_detected!("avx512bf16") { &[false, true] } else { &[false] };
    for layout in [Layout::F32, Layout::F16, Layout::Bf16] {
        for (&dots, rows) in kinds.iter().flat_map(|dots| (1..=4).map(move |rows| (dots, rows))) {
            let beside = few_rows_avx512::kernels(layout, rows, dots);
            let after = few_rows_stream_avx512::kernels(layout, rows, dots);
            for (panels, k) in [(1, 0), (1, 1), (2, 7), (5, 64), (25, 33), (3, 2100)] {
                let operands = operands(layout, panels, rows, k);
                let [beside, after] = [beside, after].map(|kernels| sums(kernels, &operands, panels, rows, k));
                assert!(beside == after, "{layout:?}, dots {dots}, {rows} rows, {panels} panels, k {k}");
            }
        }
    }
    assert!(few_rows_stream_avx512::kernels(Layout::F32, 5, false).is_empty());
}
