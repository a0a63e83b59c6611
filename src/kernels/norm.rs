//! Layer norm (Ba et al., 2016) and RMS norm (Zhang and Sennrich, 2019).
//!
//! Statistics are one row per activation row: (mean, 1/σ) for layer norm, (1/rms) for RMS norm. Sums over a row run in a lane
//! order that depends on the width alone.
#![allow(unsafe_code)]

use super::isa::Isa;
use super::reduce::row_sums;
use super::vector::map::{LaneFn, STREAM_AHEAD};
use super::vector::{Kernel, Simd, dispatch};
use super::view::{InOut, View, ViewMut};

/// Saved statistics of one row of a layer norm: mean and 1/σ.
pub const LAYER_NORM_STATISTICS: usize = 2;
/// Saved statistics of one row of an RMS norm: 1/rms.
pub const RMS_NORM_STATISTICS: usize = 1;

struct Identity;
impl LaneFn<1, 1> for Identity {
    #[inline(always)]
    fn apply<S: Simd>(&self, _s: S, x: [S::V; 1]) -> [S::V; 1] {
        x
    }
}

/// (x − centre)²
struct Square {
    centre: f32,
}
impl LaneFn<1, 1> for Square {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        let c = s.sub(x, s.splat(self.centre));
        [s.mul(c, c)]
    }
}

/// One row; `CENTRED` is layer norm. The output may be the input.
struct NormRow<'a, const CENTRED: bool> {
    x: *const f32,
    out: *mut f32,
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    /// Whether it is one of several rows, of which later ones are fetched.
    several: bool,
}

impl<const CENTRED: bool> Kernel for NormRow<'_, CENTRED> {
    /// Mean and reciprocal deviation.
    type Output = (f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, f32) {
        let n = self.weight.len();
        let count = n as f32;
        // SAFETY: x and out hold n elements (see `norm`), as do weight and bias; all accesses end at or before n.
        unsafe {
            let mean = if CENTRED { row_sums(s, &Identity, [self.x], n)[0] / count } else { 0.0 };
            let variance = row_sums(s, &Square { centre: mean }, [self.x], n)[0] / count;
            let scale = 1.0 / (variance + self.eps).sqrt();
            let (mean_v, scale_v) = (s.splat(mean), s.splat(scale));
            let weight = self.weight.as_ptr();
            let mut i = 0;
            while i < n {
                let lanes = S::LANES.min(n - i);
                let full = lanes == S::LANES;
                if self.several {
                    s.prefetch(self.x.wrapping_add(i + STREAM_AHEAD));
                    s.prefetch(self.out.wrapping_add(i + STREAM_AHEAD));
                }
                let (x, w) = if full {
                    (s.load(self.x.add(i)), s.load(weight.add(i)))
                } else {
                    (s.load_partial(self.x.add(i), lanes), s.load_partial(weight.add(i), lanes))
                };
                let centred = if CENTRED { s.sub(x, mean_v) } else { x };
                let mut y = s.mul(s.mul(centred, scale_v), w);
                if let Some(bias) = self.bias {
                    y = s.add(y, s.load_partial(bias.as_ptr().add(i), lanes));
                }
                if full {
                    s.store(self.out.add(i), y);
                } else {
                    s.store_partial(self.out.add(i), y, lanes);
                }
                i += lanes;
            }
            (mean, scale)
        }
    }
}

/// Row pointers of an input and its output, which may be one buffer.
trait RowPair {
    fn pair(&mut self, row: usize) -> (*const f32, *mut f32);
}
struct Apart<'a, 'b, 'c, 'd>(&'a View<'b, f32>, &'c mut ViewMut<'d, f32>);
impl RowPair for Apart<'_, '_, '_, '_> {
    fn pair(&mut self, row: usize) -> (*const f32, *mut f32) {
        (self.0.row_ptr(row), self.1.row_ptr(row))
    }
}
struct Same<'a, 'b>(&'a mut InOut<'b, f32>);
impl RowPair for Same<'_, '_> {
    fn pair(&mut self, row: usize) -> (*const f32, *mut f32) {
        let p = self.0.row_ptr(row);
        (p.cast_const(), p)
    }
}

/// Parameters of a norm: `weight` as wide as the rows, `bias` (layer norm only) likewise.
#[derive(Clone, Copy)]
pub struct NormParameters<'a> {
    /// Gain per column.
    pub weight: &'a [f32],
    /// Offset per column.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance or mean square.
    pub eps: f32,
}

/// # Safety
/// Each pair of `rows` below `count` points to as many elements as the weight has.
unsafe fn norm<const CENTRED: bool>(
    isa: Isa,
    mut rows: impl RowPair,
    count: usize,
    p: NormParameters,
    mut statistics: Option<&mut ViewMut<f32>>,
) {
    assert!(p.bias.is_none_or(|b| b.len() == p.weight.len()), "norm bias and weight differ in length");
    for row in 0..count {
        let (x, out) = rows.pair(row);
        let (weight, bias) = (p.weight, p.bias);
        let kernel = NormRow::<CENTRED> { x, out, weight, bias, eps: p.eps, several: count > 1 };
        let (mean, scale) = dispatch(isa, kernel);
        if let Some(statistics) = statistics.as_deref_mut() {
            let saved = statistics.row_mut(row);
            if CENTRED {
                saved.copy_from_slice(&[mean, scale]);
            } else {
                saved.copy_from_slice(&[scale]);
            }
        }
    }
}

macro_rules! norm_entry {
    ($(#[$doc:meta])* $name:ident, $inplace:ident, $centred:literal) => {
        $(#[$doc])*
        ///
        /// # Panics
        /// When a shape does not fit.
        pub fn $name(
            isa: Isa,
            x: &View<f32>,
            parameters: NormParameters,
            out: &mut ViewMut<f32>,
            statistics: Option<&mut ViewMut<f32>>,
        ) {
            let (rows, width) = (x.rows(), parameters.weight.len());
            assert!(out.rows() == rows && x.width() == width && out.width() == width, "norm operands of different shapes");
            // SAFETY: both views are as wide as the weight.
            unsafe { norm::<$centred>(isa, Apart(x, out), rows, parameters, statistics) }
        }

        $(#[$doc])*
        /// In place.
        ///
        /// # Panics
        /// When a shape does not fit.
        pub fn $inplace(
            isa: Isa,
            io: &mut InOut<f32>,
            parameters: NormParameters,
            statistics: Option<&mut ViewMut<f32>>,
        ) {
            let rows = io.rows();
            assert!(io.width() == parameters.weight.len(), "norm operands of different shapes");
            // SAFETY: the view is as wide as the weight.
            unsafe { norm::<$centred>(isa, Same(io), rows, parameters, statistics) }
        }
    };
}
norm_entry!(
    /// `out = (x − mean) / √(variance + eps) · weight + bias` per row; saves [`LAYER_NORM_STATISTICS`] when asked.
    layer_norm, layer_norm_inplace, true
);
norm_entry!(
    /// `out = x / √(mean of x² + eps) · weight` per row; saves [`RMS_NORM_STATISTICS`] when asked.
    rms_norm, rms_norm_inplace, false
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_match_f64_and_save_statistics() {
        for isa in Isa::available() {
            for width in [1, 3, 16, 48, 64, 100, 130] {
                let (rows, stride) = (3, width + 1);
                let x: Vec<f32> = (0..rows * stride + 1).map(|i| ((i * 13) as f32).sin() * 3.0 + 0.5).collect();
                let weight: Vec<f32> = (0..width).map(|i| 1.0 + (i as f32 * 0.1).cos()).collect();
                let bias: Vec<f32> = (0..width).map(|i| (i as f32 * 0.3).sin()).collect();
                let p = NormParameters { weight: &weight, bias: Some(&bias), eps: 1e-5 };
                let view = View::new(&x[1..], rows, stride, width);
                let (mut ln, mut rms) = (vec![0.0; rows * width], vec![0.0; rows * width]);
                let (mut ln_stats, mut rms_stats) = (vec![0.0; rows * 2], vec![0.0; rows]);
                layer_norm(
                    isa,
                    &view,
                    p,
                    &mut ViewMut::new(&mut ln, rows, width, width),
                    Some(&mut ViewMut::new(&mut ln_stats, rows, 2, 2)),
                );
                let p = NormParameters { bias: None, ..p };
                rms_norm(
                    isa,
                    &view,
                    p,
                    &mut ViewMut::new(&mut rms, rows, width, width),
                    Some(&mut ViewMut::new(&mut rms_stats, rows, 1, 1)),
                );
                let mut inplace = x.clone();
                rms_norm_inplace(isa, &mut ViewMut::new(&mut inplace[1..], rows, stride, width), p, None);
                for r in 0..rows {
                    let row: Vec<f64> = view.row(r).iter().map(|&v| f64::from(v)).collect();
                    let n = width as f64;
                    let mean = row.iter().sum::<f64>() / n;
                    let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
                    let square = row.iter().map(|v| v * v).sum::<f64>() / n;
                    let (rstd, rrms) = (1.0 / (variance + 1e-5).sqrt(), 1.0 / (square + 1e-5).sqrt());
                    // A row of one column has no variance: its 1/σ magnifies the rounding of the mean.
                    let tolerance = if width == 1 { 1e-3 } else { 3e-6 };
                    for j in 0..width {
                        let want = (row[j] - mean) * rstd * f64::from(weight[j]) + f64::from(bias[j]);
                        let got = f64::from(ln[r * width + j]);
                        assert!((got - want).abs() < tolerance, "{isa:?} layer norm width {width}: {got} for {want}");
                        let want = row[j] * rrms * f64::from(weight[j]);
                        assert!((f64::from(rms[r * width + j]) - want).abs() < 3e-6, "{isa:?} rms norm width {width}");
                        assert_eq!(rms[r * width + j].to_bits(), inplace[1 + r * stride + j].to_bits());
                    }
                    assert!((f64::from(ln_stats[2 * r]) - mean).abs() < 1e-6);
                    assert!((f64::from(ln_stats[2 * r + 1]) / rstd - 1.0).abs() < tolerance);
                    assert!((f64::from(rms_stats[r]) / rrms - 1.0).abs() < 1e-6);
                }
            }
        }
    }
}
