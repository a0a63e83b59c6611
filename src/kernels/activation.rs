//! GELU (tanh form), SiLU, SiLU(gate) · up, and their derivatives.
//!
//! GELU is `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))` (Hendrycks and Gimpel, 2016), computed as the identical
//! `x / (1 + e^−2u)` with u the argument of tanh: no cancellation for negative x.

mod lanes;

use super::isa::Isa;
use super::vector::map::{self, Write};
use super::view::{InOut, View, ViewMut};
use lanes::{Gelu, GeluBackward, GeluTable, Silu, SiluBackward, SiluMul, SiluMulBackward, gelu_table};
use std::ops::Range;

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
pub fn silu_mul_slices(isa: Isa, gate: &mut [f32], up: &[f32]) {
    let n = gate.len();
    silu_mul_inplace(isa, &mut InOut::new(gate, 1, n, n), &View::new(up, 1, up.len(), up.len()));
}

/// `out = SiLU(gate) · up` on rows `rows` of `out`, of which each takes `W` elements from `column` on; in `gate` and `up` these rows lie side by
/// side.
///
/// # Panics
/// When there are not so many elements, rows or columns.
pub fn silu_mul_to_rows<const W: usize>(
    isa: Isa,
    [gate, up]: [&[f32]; 2],
    out: &mut ViewMut<f32>,
    to: (Range<usize>, usize),
) {
    map::to_rows::<_, 2, W>(isa, &SiluMul, [gate, up], out, to);
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
    use super::lanes::{CUBIC, SQRT_2_OVER_PI};
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
    fn rows_that_lie_side_by_side_go_to_their_columns() {
        let (rows, width, column) = (1..4, 70, 35);
        let values = |from: f32| -> Vec<f32> { (0..3 * 32).map(|i| (from + i as f32 * 0.7).sin() * 4.0).collect() };
        let (gate, up) = (values(0.3), values(2.0));
        for isa in Isa::available() {
            let mut want = gate.clone();
            silu_mul_slices(isa, &mut want, &up);
            let mut out = vec![0.25; 5 * width];
            let mut view = ViewMut::new(&mut out, 5, width, width);
            silu_mul_to_rows::<32>(isa, [&gate, &up], &mut view, (rows.clone(), column));
            for (at, got) in out.iter().enumerate() {
                let (row, c) = (at / width, at % width);
                let inside = rows.contains(&row) && (column..column + 32).contains(&c);
                let want = if inside { want[(row - rows.start) * 32 + c - column] } else { 0.25 };
                assert_eq!(got.to_bits(), want.to_bits(), "{isa:?} row {row} column {c}");
            }
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
