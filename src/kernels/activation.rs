//! GELU (tanh form), SiLU, SiLU(gate) · up, and their derivatives.
//!
//! GELU is `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))` (Hendrycks and Gimpel, 2016), computed as the identical
//! `x / (1 + e^−2u)` with u the argument of tanh: no cancellation for negative x.

use std::sync::OnceLock;

use super::isa::Isa;
use super::vector::Simd;
use super::vector::map::{self, LaneFn, Write};
use super::vector::math::{exp, sigmoid};
use super::view::{InOut, View, ViewMut};

/// √(2/π)
const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;
/// −2u = x (LINEAR + CUBE x²)
const LINEAR: f32 = (-2.0 * SQRT_2_OVER_PI) as f32;
const CUBE: f32 = (-2.0 * SQRT_2_OVER_PI * CUBIC) as f32;

/// GELU of each lane.
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.mul(x, s.fma(s.mul(x, x), s.splat(CUBE), s.splat(LINEAR))));
    s.div(x, s.add(s.splat(1.0), e))
}

/// Derivative of [`gelu`] at each lane.
#[inline(always)]
pub fn gelu_derivative<S: Simd>(s: S, x: S::V) -> S::V {
    // Beyond ±100 the derivative is 0 or 1; the limit keeps x² finite.
    let x = s.max(s.splat(-100.0), s.min(s.splat(100.0), x));
    let square = s.mul(x, x);
    let z = s.mul(x, s.fma(square, s.splat(CUBE), s.splat(LINEAR)));
    let one = s.splat(1.0);
    let gate = s.div(one, s.add(one, exp(s, z)));
    // d(x g) = g + x g (1 − g) · d(2u)
    let slope = s.fma(square, s.splat(-3.0 * CUBE), s.splat(-LINEAR));
    let bend = s.mul(s.mul(x, s.mul(gate, s.sub(one, gate))), slope);
    s.add(gate, bend)
}

/// x · sigmoid(x) of each lane.
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    s.div(x, s.add(s.splat(1.0), exp(s, s.sub(s.splat(0.0), x))))
}

/// sigmoid(x) and the derivative of [`silu`], of each lane.
#[inline(always)]
fn silu_parts<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let gate = sigmoid(s, x);
    let one = s.splat(1.0);
    (gate, s.mul(gate, s.fma(x, s.sub(one, gate), one)))
}

/// GELU of every f16 value, rounded to f16: entry `i` belongs to the value with bits `i`.
pub fn gelu_table() -> &'static [u16; 1 << 16] {
    static TABLE: OnceLock<Box<[u16; 1 << 16]>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let entries: Vec<u16> = (0..=u16::MAX)
            .map(|bits| {
                let x = half::f16::from_bits(bits).to_f64();
                let y = 0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + CUBIC * x * x * x)).tanh());
                half::f16::from_f64(y).to_bits()
            })
            .collect();
        entries.try_into().expect("there are 2^16 values")
    })
}

/// GELU through [`gelu_table`]: 0 for x ≤ −10, x for x ≥ 10, else the entry of x rounded to f16.
struct GeluTable(&'static [u16; 1 << 16]);
impl LaneFn<1, 1> for GeluTable {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        let y = s.lookup_f16(self.0, x);
        let y = s.select_lt(s.splat(-10.0), x, y, s.splat(0.0));
        // NaN fails every comparison: keep it.
        let y = s.select_lt(x, s.splat(10.0), y, x);
        [y]
    }
}

struct Gelu;
impl LaneFn<1, 1> for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        [gelu(s, x)]
    }
}

struct Silu;
impl LaneFn<1, 1> for Silu {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        [silu(s, x)]
    }
}

struct GeluBackward;
impl LaneFn<2, 1> for GeluBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [d, x]: [S::V; 2]) -> [S::V; 1] {
        [s.mul(d, gelu_derivative(s, x))]
    }
}

struct SiluBackward;
impl LaneFn<2, 1> for SiluBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [d, x]: [S::V; 2]) -> [S::V; 1] {
        [s.mul(d, silu_parts(s, x).1)]
    }
}

struct SiluMul;
impl LaneFn<2, 1> for SiluMul {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [gate, up]: [S::V; 2]) -> [S::V; 1] {
        [s.mul(silu(s, gate), up)]
    }
}

struct SiluMulBackward;
impl LaneFn<3, 2> for SiluMulBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [gate, up, d]: [S::V; 3]) -> [S::V; 2] {
        let (sigmoid, slope) = silu_parts(s, gate);
        [s.mul(s.mul(d, up), slope), s.mul(d, s.mul(gate, sigmoid))]
    }
}

macro_rules! activation {
    ($name:literal, $lanes:expr, $inplace:ident, $rows:ident, $rows_inplace:ident) => {
        #[doc = concat!("Replaces every element by ", $name, " of it.")]
        pub fn $inplace(isa: Isa, x: &mut [f32]) {
            map::inplace(isa, &$lanes, x);
        }
        #[doc = concat!($name, " of every element, row by row.")]
        pub fn $rows(isa: Isa, x: &View<f32>, out: &mut ViewMut<f32>) {
            map::rows(isa, &$lanes, [x], out, Write::Overwrite);
        }
        #[doc = concat!("Replaces every element by ", $name, " of it, row by row.")]
        pub fn $rows_inplace(isa: Isa, io: &mut InOut<f32>) {
            map::rows_inplace(isa, &$lanes, io);
        }
    };
}
activation!("GELU (tanh form)", Gelu, gelu_inplace, gelu_rows, gelu_rows_inplace);
activation!(
    "GELU by the f16 table",
    GeluTable(gelu_table()),
    gelu_table_inplace,
    gelu_table_rows,
    gelu_table_rows_inplace
);
activation!("SiLU", Silu, silu_inplace, silu_rows, silu_rows_inplace);

/// `d_input = d_out · GELU'(x)`.
pub fn gelu_backward(isa: Isa, x: &View<f32>, d_out: &View<f32>, d_input: &mut ViewMut<f32>, write: Write) {
    map::rows(isa, &GeluBackward, [d_out, x], d_input, write);
}

/// `d = d · GELU'(x)`.
pub fn gelu_backward_inplace(isa: Isa, x: &View<f32>, d: &mut InOut<f32>) {
    map::rows_inplace2(isa, &GeluBackward, d, x);
}

/// `d_input = d_out · SiLU'(x)`.
pub fn silu_backward(isa: Isa, x: &View<f32>, d_out: &View<f32>, d_input: &mut ViewMut<f32>, write: Write) {
    map::rows(isa, &SiluBackward, [d_out, x], d_input, write);
}

/// `d = d · SiLU'(x)`.
pub fn silu_backward_inplace(isa: Isa, x: &View<f32>, d: &mut InOut<f32>) {
    map::rows_inplace2(isa, &SiluBackward, d, x);
}

/// `out = SiLU(gate) · up`.
pub fn silu_mul(isa: Isa, gate: &View<f32>, up: &View<f32>, out: &mut ViewMut<f32>) {
    map::rows(isa, &SiluMul, [gate, up], out, Write::Overwrite);
}

/// `gate = SiLU(gate) · up`.
pub fn silu_mul_inplace(isa: Isa, gate: &mut InOut<f32>, up: &View<f32>) {
    map::rows_inplace2(isa, &SiluMul, gate, up);
}

/// `gate[i] = SiLU(gate[i]) · up[i]` on slices.
///
/// # Panics
/// When the lengths differ.
pub fn silu_mul_slices(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    map::slices(isa, &SiluMul, [gate, up], out, Write::Overwrite);
}

/// `d_gate = d_out · up · SiLU'(gate)` and `d_up = d_out · SiLU(gate)`.
///
/// # Panics
/// When rows or widths differ.
pub fn silu_mul_backward(
    isa: Isa,
    gate: &View<f32>,
    up: &View<f32>,
    d_out: &View<f32>,
    d_gate: &mut ViewMut<f32>,
    d_up: &mut ViewMut<f32>,
    write: Write,
) {
    map::rows_two(isa, &SiluMulBackward, [gate, up, d_out], d_gate, d_up, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gelu_f64(x: f64) -> f64 {
        0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + CUBIC * x * x * x)).tanh())
    }
    fn silu_f64(x: f64) -> f64 {
        x / (1.0 + (-x).exp())
    }
    fn slope(f: fn(f64) -> f64, x: f64) -> f64 {
        (f(x + 1e-5) - f(x - 1e-5)) / 2e-5
    }
    fn inputs() -> Vec<f32> {
        (0..4003).map(|i| (i as f32 - 2001.0) * 0.006).collect()
    }
    fn close(got: f32, want: f64, what: &str) {
        assert!((f64::from(got) - want).abs() <= 2e-6 * (1.0 + want.abs()), "{what}: {got} for {want}");
    }

    #[test]
    fn activations_match_f64() {
        for isa in Isa::available() {
            let x = inputs();
            let (mut g, mut s) = (x.clone(), x.clone());
            gelu_inplace(isa, &mut g);
            silu_inplace(isa, &mut s);
            for i in 0..x.len() {
                close(g[i], gelu_f64(f64::from(x[i])), "gelu");
                close(s[i], silu_f64(f64::from(x[i])), "silu");
            }
            let mut edge = [1e25, -1e25, f32::NAN, 0.0, f32::INFINITY];
            gelu_inplace(isa, &mut edge);
            assert!(
                edge[0] == 1e25 && edge[1] == 0.0 && edge[2].is_nan() && edge[3] == 0.0 && edge[4] == f32::INFINITY
            );
        }
    }

    #[test]
    fn the_table_follows_its_definition() {
        for isa in Isa::available() {
            let mut x = inputs();
            x.extend([-10.0, 10.0, 1e9, -1e9, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            let mut y = x.clone();
            gelu_table_inplace(isa, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let want = match x {
                    x if x <= -10.0 => 0.0,
                    x if x >= 10.0 => x,
                    x => half::f16::from_f64(gelu_f64(half::f16::from_f32(x).to_f64())).to_f32(),
                };
                assert!(y == want || (x.is_nan() && y.is_nan()), "{isa:?}: table gelu({x}) = {y}, not {want}");
            }
        }
    }

    #[test]
    fn derivatives_match_finite_differences() {
        let x = inputs();
        let n = x.len();
        let d: Vec<f32> = (0..n).map(|i| 0.5 + (i % 7) as f32).collect();
        let up: Vec<f32> = (0..n).map(|i| 1.0 - (i % 5) as f32).collect();
        for isa in Isa::available() {
            let (mut dg, mut ds) = (vec![1.0; n], d.clone());
            let (xv, dv, uv) = (View::new(&x, 1, n, n), View::new(&d, 1, n, n), View::new(&up, 1, n, n));
            gelu_backward(isa, &xv, &dv, &mut ViewMut::new(&mut dg, 1, n, n), Write::Add);
            silu_backward_inplace(isa, &xv, &mut ViewMut::new(&mut ds, 1, n, n));
            let (mut d_gate, mut d_up) = (vec![f32::NAN; n], vec![f32::NAN; n]);
            let mut gate_view = ViewMut::new(&mut d_gate, 1, n, n);
            let mut up_view = ViewMut::new(&mut d_up, 1, n, n);
            silu_mul_backward(isa, &xv, &uv, &dv, &mut gate_view, &mut up_view, Write::Overwrite);
            for i in 0..n {
                let (xi, di, ui) = (f64::from(x[i]), f64::from(d[i]), f64::from(up[i]));
                close(dg[i], 1.0 + di * slope(gelu_f64, xi), "gelu'");
                close(ds[i], di * slope(silu_f64, xi), "silu'");
                close(d_gate[i], di * ui * slope(silu_f64, xi), "d_gate");
                close(d_up[i], di * silu_f64(xi), "d_up");
            }
            let mut big = vec![1e25f32, -1e25];
            let ones = [1.0, 1.0];
            let bv = big.clone();
            gelu_backward(
                isa,
                &View::new(&bv, 1, 2, 2),
                &View::new(&ones, 1, 2, 2),
                &mut ViewMut::new(&mut big, 1, 2, 2),
                Write::Overwrite,
            );
            assert_eq!(big, [1.0, 0.0]);
        }
    }
}
