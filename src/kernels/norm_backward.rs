//! Gradients of [`layer_norm`](super::norm::layer_norm) and [`rms_norm`](super::norm::rms_norm) from the saved statistics.
//!
//! With x̂ the normalised row and g = d_out · weight: `d_input = (g − mean(g) − x̂ · mean(g x̂)) / σ` (RMS norm has no
//! mean(g)), `d_weight = Σ_rows d_out · x̂`, `d_bias = Σ_rows d_out`.
#![allow(unsafe_code)]

use super::isa::Isa;
use super::norm::{LAYER_NORM_STATISTICS, RMS_NORM_STATISTICS};
use super::reduce::{ColumnTerms, row_sums, tile_sums_of};
use super::vector::map::{self, LaneFn, Write};
use super::vector::{Kernel, Simd, dispatch};
use super::view::{InOut, View, ViewMut};

/// x̂ = (x − mean) · scale for one row.
#[derive(Clone, Copy)]
struct Normalise {
    mean: f32,
    scale: f32,
}

impl Normalise {
    /// From a row of saved statistics.
    fn saved(row: &[f32]) -> Self {
        match *row {
            [mean, scale] => Normalise { mean, scale },
            [scale] => Normalise { mean: 0.0, scale },
            _ => unreachable!("norm statistics are one or two values"),
        }
    }
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.mul(s.sub(x, s.splat(self.mean)), s.splat(self.scale))
    }
}

/// (g, g · x̂)
struct Projections(Normalise);
impl LaneFn<3, 2> for Projections {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [d, x, w]: [S::V; 3]) -> [S::V; 2] {
        let g = s.mul(d, w);
        [g, s.mul(g, self.0.apply(s, x))]
    }
}

/// The gradient of the input.
struct InputGradient {
    normalise: Normalise,
    mean_g: f32,
    mean_gx: f32,
}
impl LaneFn<3, 1> for InputGradient {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [d, x, w]: [S::V; 3]) -> [S::V; 1] {
        let g = s.sub(s.mul(d, w), s.splat(self.mean_g));
        let y = s.fnma(self.normalise.apply(s, x), s.splat(self.mean_gx), g);
        [s.mul(y, s.splat(self.normalise.scale))]
    }
}

struct RowProjections {
    inputs: [*const f32; 3],
    len: usize,
    normalise: Normalise,
}
impl Kernel for RowProjections {
    type Output = [f32; 2];
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f32; 2] {
        // SAFETY: `input_row` passes rows of `len` elements.
        unsafe { row_sums(s, &Projections(self.normalise), self.inputs, self.len) }
    }
}

/// One of `rows` rows.
///
/// # Safety
/// `d`, `x` and `out` hold as many elements as `weight`; `out` may be `d`.
#[expect(clippy::too_many_arguments, reason = "the operands of one row")]
unsafe fn input_row(
    isa: Isa,
    d: *const f32,
    x: *const f32,
    statistics: &[f32],
    weight: &[f32],
    out: *mut f32,
    write: Write,
    rows: usize,
) {
    let normalise = Normalise::saved(statistics);
    let (inputs, len) = ([d, x, weight.as_ptr()], weight.len());
    let [sum_g, sum_gx] = dispatch(isa, RowProjections { inputs, len, normalise });
    let count = len as f32;
    let mean_g = if statistics.len() == LAYER_NORM_STATISTICS { sum_g / count } else { 0.0 };
    // SAFETY: the caller's contract.
    unsafe {
        let gradient = InputGradient { normalise, mean_g, mean_gx: sum_gx / count };
        map::map_row(isa, &gradient, inputs, [(out, write)], (len, rows));
    }
}

fn check(x: &View<f32>, statistics: &View<f32>, width: usize) {
    assert!(statistics.rows() == x.rows() && x.width() == width, "norm gradient operands of different shapes");
    assert!([LAYER_NORM_STATISTICS, RMS_NORM_STATISTICS].contains(&statistics.width()), "norm statistics width");
}

/// `d_input` per row. The width of `statistics` says which norm it is.
///
/// # Panics
/// When a shape does not fit.
pub fn norm_backward_input(
    isa: Isa,
    x: &View<f32>,
    statistics: &View<f32>,
    weight: &[f32],
    d_out: &View<f32>,
    d_input: &mut ViewMut<f32>,
    write: Write,
) {
    check(x, statistics, weight.len());
    assert!(d_out.rows() == x.rows() && d_input.rows() == x.rows(), "norm gradient operands of different rows");
    assert!(
        d_out.width() == weight.len() && d_input.width() == weight.len(),
        "norm gradient operands of different widths"
    );
    for i in 0..x.rows() {
        // SAFETY: the rows are as wide as the weight.
        unsafe {
            input_row(
                isa,
                d_out.row_ptr(i),
                x.row_ptr(i),
                statistics.row(i),
                weight,
                d_input.row_ptr(i),
                write,
                x.rows(),
            );
        }
    }
}

/// As [`norm_backward_input`], replacing `d_out` by `d_input`.
///
/// # Panics
/// When a shape does not fit.
pub fn norm_backward_input_inplace(
    isa: Isa,
    x: &View<f32>,
    statistics: &View<f32>,
    weight: &[f32],
    d: &mut InOut<f32>,
) {
    check(x, statistics, weight.len());
    assert!(d.rows() == x.rows() && d.width() == weight.len(), "norm gradient operands of different shapes");
    for i in 0..x.rows() {
        let p = d.row_ptr(i);
        // SAFETY: the rows are as wide as the weight; the sums are complete before the row is overwritten.
        unsafe {
            input_row(isa, p.cast_const(), x.row_ptr(i), statistics.row(i), weight, p, Write::Overwrite, x.rows());
        }
    }
}

struct WeightTerms<'a> {
    x: &'a View<'a, f32>,
    statistics: &'a View<'a, f32>,
    d_out: &'a View<'a, f32>,
}

impl<const M: usize> ColumnTerms<M> for WeightTerms<'_> {
    #[inline(always)]
    unsafe fn terms<S: Simd>(&self, s: S, row: usize, column: usize, count: usize) -> [S::V; M] {
        // SAFETY: the caller's contract: inside the views, which have one shape.
        let (x, d) = unsafe {
            (
                s.load_partial(self.x.row_ptr(row).add(column), count),
                s.load_partial(self.d_out.row_ptr(row).add(column), count),
            )
        };
        let normalised = Normalise::saved(self.statistics.row(row)).apply(s, x);
        let mut terms = [d; M];
        terms[0] = s.mul(d, normalised);
        terms
    }
    #[inline(always)]
    fn prefetch<S: Simd>(&self, s: S, row: usize, column: usize) {
        s.prefetch(self.x.row_ptr(row).wrapping_add(column));
        s.prefetch(self.d_out.row_ptr(row).wrapping_add(column));
    }
}

/// `d_weight` and, for layer norm with a bias, `d_bias` of one tile of rows; [`add_tiles`](super::reduce::add_tiles) adds up those of all. Give
/// `x`, `d_out` and the outputs the same columns.
///
/// # Panics
/// When a shape does not fit.
pub fn norm_backward_weight(
    isa: Isa,
    x: &View<f32>,
    statistics: &View<f32>,
    d_out: &View<f32>,
    d_weight: &mut [f32],
    d_bias: Option<&mut [f32]>,
) {
    check(x, statistics, d_weight.len());
    assert!(d_out.rows() == x.rows() && d_out.width() == x.width(), "norm gradient operands of different shapes");
    let terms = WeightTerms { x, statistics, d_out };
    // SAFETY: the views have these rows, and the columns of the outputs.
    unsafe {
        match d_bias {
            Some(d_bias) => tile_sums_of(isa, &terms, x.rows(), [d_weight, d_bias]),
            None => tile_sums_of(isa, &terms, x.rows(), [d_weight]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::norm::{NormParameters, layer_norm, rms_norm};

    /// Σ upstream · norm(x) in f64, whose gradient the kernels compute.
    fn objective(x: &[f64], weight: &[f64], upstream: &[f64], centred: bool) -> f64 {
        let n = x.len() as f64;
        let mean = if centred { x.iter().sum::<f64>() / n } else { 0.0 };
        let scale = 1.0 / (x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n + 1e-5).sqrt();
        (0..x.len()).map(|j| upstream[j] * (x[j] - mean) * scale * weight[j]).sum()
    }

    #[test]
    fn gradients_match_finite_differences() {
        let wide = |v: &[f32]| v.iter().map(|&a| f64::from(a)).collect::<Vec<f64>>();
        for isa in Isa::available() {
            for (width, centred) in [(5, true), (17, false), (40, true), (64, false), (70, true)] {
                let rows = 60;
                let x: Vec<f32> = (0..rows * width).map(|i| ((i * 7) as f32).sin() * 2.0 + 0.3).collect();
                let d: Vec<f32> = (0..rows * width).map(|i| ((i * 11) as f32).cos()).collect();
                let weight: Vec<f32> = (0..width).map(|i| 1.0 + 0.5 * (i as f32).sin()).collect();
                let width_s = if centred { LAYER_NORM_STATISTICS } else { RMS_NORM_STATISTICS };
                let (mut y, mut stats) = (vec![0.0; rows * width], vec![0.0; rows * width_s]);
                let (xv, dv) = (View::new(&x, rows, width, width), View::new(&d, rows, width, width));
                let p = NormParameters { weight: &weight, bias: None, eps: 1e-5 };
                let forward = if centred { layer_norm } else { rms_norm };
                let mut stats_view = ViewMut::new(&mut stats, rows, width_s, width_s);
                forward(isa, &xv, p, &mut ViewMut::new(&mut y, rows, width, width), Some(&mut stats_view));
                let sv = View::new(&stats, rows, width_s, width_s);

                let mut dx = vec![1.0; rows * width];
                let mut dx_view = ViewMut::new(&mut dx, rows, width, width);
                norm_backward_input(isa, &xv, &sv, &weight, &dv, &mut dx_view, Write::Add);
                let mut inplace = d.clone();
                let mut inplace_view = ViewMut::new(&mut inplace, rows, width, width);
                norm_backward_input_inplace(isa, &xv, &sv, &weight, &mut inplace_view);
                let (mut dw, mut db) = (vec![f32::NAN; width], vec![f32::NAN; width]);
                norm_backward_weight(isa, &xv, &sv, &dv, &mut dw, Some(&mut db));

                let (weight_d, mut want_w, mut want_b) = (wide(&weight), vec![0.0; width], vec![0.0; width]);
                for r in 0..rows {
                    let (mut row, up) = (wide(&x[r * width..][..width]), wide(&d[r * width..][..width]));
                    for j in 0..width {
                        let (keep, h) = (row[j], 1e-5);
                        row[j] = keep + h;
                        let above = objective(&row, &weight_d, &up, centred);
                        row[j] = keep - h;
                        let below = objective(&row, &weight_d, &up, centred);
                        row[j] = keep;
                        let want = (above - below) / (2.0 * h);
                        let got = f64::from(inplace[r * width + j]);
                        assert!((got - want).abs() < 1e-5, "{isa:?} width {width} row {r}: {got} for {want}");
                        assert_eq!(dx[r * width + j], 1.0 + inplace[r * width + j]);
                        let mut one = vec![0.0; width];
                        one[j] = up[j];
                        want_w[j] += objective(&row, &weight_d, &one, centred) / weight_d[j];
                        want_b[j] += up[j];
                    }
                }
                for j in 0..width {
                    assert!((f64::from(dw[j]) - want_w[j]).abs() < 1e-4, "{isa:?} d_weight width {width}");
                    assert!((f64::from(db[j]) - want_b[j]).abs() < 1e-4, "{isa:?} d_bias width {width}");
                }
            }
        }
    }
}
