//! Rows of f32 rounded to half-precision types, to nearest even: the same bits on every instruction set.

use super::isa::Isa;
use super::vector::{Kernel, Simd, dispatch};
use super::view::{View, ViewMut};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A type that f32 rounds to.
pub trait Narrow: Copy {
    /// Rounds each value to nearest even; overflow gives infinity, NaN stays NaN. Implement with `#[inline(always)]`.
    fn narrow(values: &[f32], out: &mut [Self]);
}

impl Narrow for f16 {
    #[inline(always)]
    fn narrow(values: &[f32], out: &mut [Self]) {
        out.convert_from_f32_slice(values);
    }
}

impl Narrow for bf16 {
    #[inline(always)]
    fn narrow(values: &[f32], out: &mut [Self]) {
        for (v, o) in values.iter().zip(out) {
            let bits = v.to_bits();
            let rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
            // Adding could carry a NaN's bits into infinity or the sign: NaN keeps its upper half, made quiet.
            let quiet = bits >> 16 | 0x40;
            *o = bf16::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded } as u16);
        }
    }
}

struct Rows<'a, 'x, 'o, T> {
    x: &'a View<'x, f32>,
    out: &'a mut ViewMut<'o, T>,
}

impl<T: Narrow> Kernel for Rows<'_, '_, '_, T> {
    type Output = ();
    /// Rounding to bf16 is plain Rust, for which the compiler uses the instructions that there are; to f16, the crate `half` looks for them.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for row in 0..self.x.rows() {
            T::narrow(self.x.row(row), self.out.row_mut(row));
        }
    }
}

/// Rounds every row of `x` into the same row of `out`.
///
/// # Panics
/// When the shapes differ.
pub fn narrow_rows<T: Narrow>(isa: Isa, x: &View<f32>, out: &mut ViewMut<T>) {
    assert!(x.rows() == out.rows() && x.width() == out.width(), "rows to round differ in shape");
    dispatch(isa, Rows { x, out });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even_for_every_exponent_and_special_value() {
        let mut bits: Vec<u32> = (0..1 << 16).map(|i: u32| i << 16 | i.wrapping_mul(40_503) & 0xffff).collect();
        let halves = (0..1 << 16).flat_map(|i: u32| [i << 16 | 0x8000, i << 16 | 0x7fff, i << 16 | 0x8001]);
        bits.extend(halves);
        let ties = (0..1 << 15).map(|i: u32| (0x3800 + (i & 0x3fff)) << 16 | i << 12 & 0xffff | 0x1000);
        bits.extend(ties);
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let n = values.len();
        let x = View::new(&values, 1, n, n);
        for isa in Isa::available() {
            let (mut b, mut h) = (vec![bf16::from_bits(0x1234); n], vec![f16::from_bits(0x1234); n]);
            narrow_rows(isa, &x, &mut ViewMut::new(&mut b, 1, n, n));
            narrow_rows(isa, &x, &mut ViewMut::new(&mut h, 1, n, n));
            for (i, &v) in values.iter().enumerate() {
                let (want_b, want_h) = (bf16::from_f32(v), f16::from_f32_const(v));
                assert!(b[i].to_bits() == want_b.to_bits() || v.is_nan() && b[i].is_nan(), "{v:e}: {}", b[i]);
                assert!(h[i].to_bits() == want_h.to_bits() || v.is_nan() && h[i].is_nan(), "{v:e}: {}", h[i]);
            }
        }
    }

    #[test]
    fn rows_lie_where_the_view_says() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut out = [f16::NAN; 8];
        narrow_rows(Isa::Portable, &View::new(&x, 2, 3, 2), &mut ViewMut::new(&mut out, 2, 4, 2));
        let got: Vec<f32> = out.iter().map(|v| v.to_f32()).collect();
        assert_eq!((got[0], got[1], got[4], got[5]), (1.0, 2.0, 4.0, 5.0));
        assert!(got[2].is_nan() && got[7].is_nan());
    }
}
