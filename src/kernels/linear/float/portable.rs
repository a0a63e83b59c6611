//! Plain Rust, shaped so that the 32 sums of a row stay in vector registers.
#![allow(unsafe_code)]

use crate::kernels::linear::layout::{Layout, PANEL};
use crate::kernels::linear::{Ahead, Kernel, Sums, kernels_by_rows};

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// The kernel for `rows` rows (1 to 6).
pub(super) fn kernel(layout: Layout, rows: usize) -> Kernel {
    match layout {
        Layout::F32 => kernels_by_rows!([1, 2, 3, 4, 5, 6], multiply, [F32])[rows - 1],
        Layout::F16 => kernels_by_rows!([1, 2, 3, 4, 5, 6], multiply, [F16])[rows - 1],
        _ => kernels_by_rows!([1, 2, 3, 4, 5, 6], multiply, [BF16])[rows - 1],
    }
}

/// `sum + a·b`, fused where the target does that in one instruction.
#[inline(always)]
fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
    if cfg!(target_feature = "fma") { a.mul_add(b, sum) } else { sum + a * b }
}

/// Widens an f16, without branches: the exponent is moved by a multiplication, which also normalises subnormal values.
#[inline(always)]
fn widen(half: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(half & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    // From 2^16 on the value was infinite or not a number.
    let special = if magnitude >= 65536.0 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | u32::from(half & 0x8000) << 16)
}

/// Widens the two bf16 halves of a word.
#[inline(always)]
fn halves(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}

/// # Safety
/// `panel` holds the panel of `k` inputs that the layout prescribes, `x` a prepared block of `R` rows (aligned to 4 bytes), `out` addresses `R` rows of `PANEL` values.
unsafe fn multiply<const R: usize, const TYPE: u8>(panel: *const u8, x: *const u8, k: usize, out: Sums, _: Ahead) {
    let steps = if TYPE == BF16 { k.div_ceil(2) } else { k };
    for row in 0..R {
        let at = out.value(row, 0).cast::<[f32; PANEL]>();
        // SAFETY: `out` has a row `row`.
        let mut sums = if out.fresh { [0.0; PANEL] } else { unsafe { at.read_unaligned() } };
        for step in 0..steps {
            // SAFETY: `step` is inside the block and the panel, whose rows of 32 values or pairs lie back to back; the weights are
            // read without an assumption on alignment.
            unsafe {
                match TYPE {
                    F32 => {
                        let w = panel.cast::<[f32; PANEL]>().add(step).read_unaligned();
                        let v = *x.cast::<f32>().add(step * R + row);
                        for (s, w) in sums.iter_mut().zip(w) {
                            *s = multiply_add(v, w, *s);
                        }
                    }
                    F16 => {
                        let w = panel.cast::<[u16; PANEL]>().add(step).read_unaligned();
                        let v = *x.cast::<f32>().add(step * R + row);
                        for (s, w) in sums.iter_mut().zip(w) {
                            *s = multiply_add(v, widen(w), *s);
                        }
                    }
                    _ => {
                        let w = panel.cast::<[u32; PANEL]>().add(step).read_unaligned();
                        let v = halves(*x.cast::<u32>().add(step * R + row));
                        for (s, w) in sums.iter_mut().zip(w) {
                            let w = halves(w);
                            *s = multiply_add(v[0], w[0], multiply_add(v[1], w[1], *s));
                        }
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { at.write_unaligned(sums) }
    }
}
