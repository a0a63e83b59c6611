use super::math::*;
use super::*;

/// Distance in units in the last place of the (f32) reference.
fn ulps(got: f32, exact: f64) -> f64 {
    let near = exact as f32;
    if got == near || (got.is_nan() && near.is_nan()) {
        return 0.0;
    }
    let unit = f64::from(f32::from_bits(near.abs().to_bits() + 1)) - f64::from(near.abs());
    (f64::from(got) - exact).abs() / unit.max(f64::from(f32::MIN_POSITIVE) * f64::from(f32::EPSILON))
}

fn worst(isa: Isa, run: fn(Isa, &mut [f32]), exact: fn(f64) -> f64, low: f32, high: f32) -> f64 {
    let inputs: Vec<f32> = (0..400_003).map(|i| low + (high - low) * (i as f32 / 400_002.0)).collect();
    let mut got = inputs.clone();
    run(isa, &mut got);
    inputs.iter().zip(&got).map(|(&x, &y)| ulps(y, exact(f64::from(x)))).fold(0.0, f64::max)
}

#[test]
fn functions_keep_their_error_bounds() {
    for isa in Isa::available() {
        let slack = if isa == Isa::Portable { 1.0 } else { 0.0 };
        assert!(worst(isa, exp_inplace, f64::exp, -87.3, 88.72) <= 1.5 + slack, "exp {isa:?}");
        assert!(worst(isa, exp_inplace, f64::exp, -1.0, 1.0) <= 1.5 + slack, "exp near 0 {isa:?}");
        assert!(
            worst(isa, sigmoid_inplace, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0) <= 3.0 + slack,
            "sigmoid {isa:?}"
        );
        assert!(worst(isa, tanh_inplace, f64::tanh, -12.0, 12.0) <= 3.0, "tanh {isa:?}");
        assert!(worst(isa, tanh_inplace, f64::tanh, -0.7, 0.7) <= 3.0, "tanh near 0 {isa:?}");
    }
}

#[test]
fn exp_at_the_edges() {
    for isa in Isa::available() {
        let mut x = [f32::NEG_INFINITY, -1e30, -104.0, 0.0, -0.0, 88.73, 1e30, f32::INFINITY, f32::NAN, -100.0, 88.7];
        exp_inplace(isa, &mut x);
        assert_eq!(x[..3], [0.0; 3], "{isa:?}");
        assert_eq!(x[3..8], [1.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY], "{isa:?}");
        assert!(x[8].is_nan());
        assert!((x[9] - (-100.0f64).exp() as f32).abs() <= f32::from_bits(1), "subnormal {isa:?}");
        assert!(x[10].is_finite());
        let mut t = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -0.0];
        tanh_inplace(isa, &mut t);
        assert_eq!(t[..2], [-1.0, 1.0]);
        assert!(t[2].is_nan() && t[3].to_bits() == (-0.0f32).to_bits());
    }
}

#[test]
fn a_value_has_the_same_bits_in_any_lane_and_at_any_alignment() {
    for isa in Isa::available() {
        let all: Vec<f32> = (0..257).map(|i| (i as f32 - 128.0) * 0.37).collect();
        let mut whole = all.clone();
        tanh_inplace(isa, &mut whole);
        for start in [0, 1, 3, 7, 15] {
            for len in [0, 1, 2, 5, 8, 15, 16, 17, 31, 33, 100] {
                let mut part = all.clone();
                tanh_inplace(isa, &mut part[start..start + len]);
                for i in 0..all.len() {
                    let want = if (start..start + len).contains(&i) { whole[i] } else { all[i] };
                    assert_eq!(part[i].to_bits(), want.to_bits(), "{isa:?} start {start} len {len} at {i}");
                }
            }
        }
        assert_eq!(max(isa, &all), all[256]);
        assert_eq!(max(isa, &all[..7]), all[6]);
        assert_eq!(max(isa, &[]), f32::NEG_INFINITY);
    }
}

struct Transpose<'a> {
    rows: &'a [*const half::bf16],
    count: usize,
    out: &'a mut [f32],
}
impl Kernel for Transpose<'_> {
    type Output = usize;
    fn run<S: Simd>(self, s: S) -> usize {
        let n = self.rows.len().min(S::LANES);
        let count = self.count.min(S::LANES);
        // SAFETY: the test's rows are 16 long and `out` holds 16 rows of 16.
        unsafe {
            let block = s.load_transposed(&self.rows[..n], 0, count);
            for j in 0..count {
                s.store(self.out[j * 16..].as_mut_ptr(), block.as_ref()[j]);
            }
        }
        S::LANES
    }
}

#[test]
fn transpose_moves_every_element_and_zeroes_missing_rows() {
    let data: Vec<half::bf16> = (0..256).map(|i| half::bf16::from_f32(i as f32)).collect();
    for isa in Isa::available() {
        for (valid, count) in [(16, 16), (8, 8), (5, 16), (16, 3), (0, 16), (7, 5)] {
            let rows: Vec<*const half::bf16> = (0..valid).map(|i| data[i * 16..].as_ptr()).collect();
            let mut out = vec![-1.0; 256];
            let lanes = dispatch(isa, Transpose { rows: &rows, count, out: &mut out });
            for j in 0..16 {
                for i in 0..lanes {
                    let want = match () {
                        () if j >= count.min(lanes) => -1.0,
                        () if i >= valid => 0.0,
                        () => (i * 16 + j) as f32,
                    };
                    assert_eq!(out[j * 16 + i], want, "{isa:?} rows {valid} columns {count} at {i},{j}");
                }
            }
        }
    }
}
