//! Softmax of rows and its cross-entropy with one target per row, with the gradient in place of the logits.
#![allow(unsafe_code)]

use super::isa::Isa;
use super::vector::math::{exp, row_max};
use super::vector::{Kernel, Simd, dispatch};
use super::view::{InOut, View};

/// Target of a row that has none: its loss and its gradient are zero.
pub const IGNORED_TARGET: i32 = -100;

/// Σ e^(x − shift) over a row, optionally replacing x by the term. The lane order depends on the length alone.
#[inline(always)]
unsafe fn exp_sum<S: Simd, const STORE: bool>(s: S, x: *mut f32, n: usize, shift: f32) -> f32 {
    let (zero, shift) = (s.splat(0.0), s.splat(shift));
    let mut sums = [zero; 4];
    let mut i = 0;
    // SAFETY: the caller's contract: n elements, writable when STORE; all accesses end at or before n.
    unsafe {
        while i + 4 * S::LANES <= n {
            for (k, sum) in sums.iter_mut().enumerate() {
                let p = x.add(i + k * S::LANES);
                let e = exp(s, s.sub(s.load(p), shift));
                if STORE {
                    s.store(p, e);
                }
                *sum = s.add(*sum, e);
            }
            i += 4 * S::LANES;
        }
        while i < n {
            let count = S::LANES.min(n - i);
            let e = exp(s, s.sub(s.load_partial(x.add(i), count), shift));
            if STORE {
                s.store_partial(x.add(i), e, count);
            }
            sums[0] = s.add(sums[0], s.keep_first(e, count, zero));
            i += count;
        }
    }
    s.reduce_add(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// log Σ e^x of a row.
struct LogSumExp<'a>(&'a [f32]);
impl Kernel for LogSumExp<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let most = row_max(s, self.0);
        // SAFETY: nothing is stored, so the shared slice is only read.
        let sum = unsafe { exp_sum::<S, false>(s, self.0.as_ptr().cast_mut(), self.0.len(), most) };
        most + sum.ln()
    }
}

/// Replaces a row by factor · softmax of it; returns log Σ e^x.
struct ScaledSoftmax<'a> {
    row: &'a mut [f32],
    factor: f32,
}
impl Kernel for ScaledSoftmax<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let most = row_max(s, self.row);
        let (p, n) = (self.row.as_mut_ptr(), self.row.len());
        // SAFETY: the pointer and length are the exclusive slice's.
        unsafe {
            let sum = exp_sum::<S, true>(s, p, n, most);
            let factor = s.splat(self.factor / sum);
            let mut i = 0;
            while i + S::LANES <= n {
                s.store(p.add(i), s.mul(s.load(p.add(i)), factor));
                i += S::LANES;
            }
            if i < n {
                s.store_partial(p.add(i), s.mul(s.load_partial(p.add(i), n - i), factor), n - i);
            }
            most + sum.ln()
        }
    }
}

/// Replaces `row` by its softmax; returns log Σ e^x.
pub fn softmax_inplace(isa: Isa, row: &mut [f32]) -> f32 {
    dispatch(isa, ScaledSoftmax { row, factor: 1.0 })
}

/// `losses[i] = log Σ e^logits[i] − logits[i][targets[i]]`, 0 for [`IGNORED_TARGET`].
///
/// # Panics
/// When the counts differ or a target is neither ignored nor below the width: callers check targets first.
pub fn cross_entropy(isa: Isa, logits: &View<f32>, targets: &[i32], losses: &mut [f32]) {
    assert!(targets.len() == logits.rows() && losses.len() == logits.rows(), "cross-entropy rows differ");
    for (i, (&target, loss)) in targets.iter().zip(losses).enumerate() {
        *loss = match target {
            IGNORED_TARGET => 0.0,
            _ => dispatch(isa, LogSumExp(logits.row(i))) - logits.row(i)[target as usize],
        };
    }
}

/// As [`cross_entropy`], and replaces the logits by `scale · (softmax − one-hot target)`, zero for [`IGNORED_TARGET`].
///
/// # Panics
/// When the counts differ or a target is neither ignored nor below the width: callers check targets first.
pub fn cross_entropy_with_gradient(isa: Isa, logits: &mut InOut<f32>, targets: &[i32], scale: f32, losses: &mut [f32]) {
    assert!(targets.len() == logits.rows() && losses.len() == logits.rows(), "cross-entropy rows differ");
    for (i, (&target, loss)) in targets.iter().zip(losses).enumerate() {
        let row = logits.row_mut(i);
        if target == IGNORED_TARGET {
            row.fill(0.0);
            *loss = 0.0;
            continue;
        }
        let wanted = row[target as usize];
        *loss = dispatch(isa, ScaledSoftmax { row, factor: scale }) - wanted;
        row[target as usize] -= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_gradients_match_f64() {
        for isa in Isa::available() {
            for width in [1, 5, 16, 50, 64, 1003] {
                let stride = width + 3;
                let x: Vec<f32> = (0..3 * stride + 1).map(|i| ((i * 31) as f32).sin() * 20.0).collect();
                let targets = [0, IGNORED_TARGET, width as i32 - 1];
                let (mut losses, mut again) = ([f32::NAN; 3], [f32::NAN; 3]);
                let mut d = x.clone();
                cross_entropy(isa, &View::new(&x[1..], 3, stride, width), &targets, &mut losses);
                let mut view = InOut::new(&mut d[1..], 3, stride, width);
                cross_entropy_with_gradient(isa, &mut view, &targets, 0.25, &mut again);
                assert_eq!(losses, again);
                for r in 0..3 {
                    let row: Vec<f64> = x[1 + r * stride..][..width].iter().map(|&v| f64::from(v)).collect();
                    let most = row.iter().copied().fold(f64::MIN, f64::max);
                    let lse = most + row.iter().map(|v| (v - most).exp()).sum::<f64>().ln();
                    for j in 0..width {
                        let hit = f64::from(u8::from(targets[r] == j as i32));
                        let want = if targets[r] < 0 { 0.0 } else { 0.25 * ((row[j] - lse).exp() - hit) };
                        let got = f64::from(d[1 + r * stride + j]);
                        assert!((got - want).abs() < 1e-6, "{isa:?} width {width} row {r}: {got} for {want}");
                    }
                    let want = if targets[r] < 0 { 0.0 } else { lse - row[targets[r] as usize] };
                    assert!((f64::from(losses[r]) - want).abs() < 1e-5 * (1.0 + want), "{isa:?} width {width}");
                    assert_eq!(d[1 + r * stride + width], x[1 + r * stride + width]);
                }
            }
        }
    }

    #[test]
    fn softmax_takes_masked_and_huge_logits() {
        for isa in Isa::available() {
            let mut x = [1e30, f32::NEG_INFINITY, 1e30, -1e30];
            softmax_inplace(isa, &mut x);
            assert_eq!(x, [0.5, 0.0, 0.5, 0.0]);
            let mut x = vec![f32::NAN; 40];
            x[..39].fill(1.0);
            let mut loss = [0.0];
            cross_entropy(isa, &View::new(&x, 1, 40, 40), &[3], &mut loss);
            assert!(loss[0].is_nan(), "a NaN logit must not be hidden");
        }
    }
}
