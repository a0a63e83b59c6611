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

struct Exp;
impl map::LaneFn<1, 1> for Exp {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        [exp(s, x)]
    }
}

struct Sigmoid;
impl map::LaneFn<1, 1> for Sigmoid {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        [sigmoid(s, x)]
    }
}

struct Max<'a>(&'a [f32]);
impl Kernel for Max<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        row_max(s, self.0)
    }
}

fn worst<F: map::LaneFn<1, 1>>(isa: Isa, function: &F, exact: fn(f64) -> f64, low: f32, high: f32) -> f64 {
    let inputs: Vec<f32> = (0..400_003).map(|i| low + (high - low) * (i as f32 / 400_002.0)).collect();
    let mut got = inputs.clone();
    map::inplace(isa, function, &mut got);
    inputs.iter().zip(&got).map(|(&x, &y)| ulps(y, exact(f64::from(x)))).fold(0.0, f64::max)
}

#[test]
fn functions_keep_their_error_bounds() {
    for isa in Isa::available() {
        let slack = if isa == Isa::Portable { 1.0 } else { 0.0 };
        assert!(worst(isa, &Exp, f64::exp, -87.3, 88.72) <= 1.5 + slack, "exp {isa:?}");
        assert!(worst(isa, &Exp, f64::exp, -1.0, 1.0) <= 1.5 + slack, "exp near 0 {isa:?}");
        assert!(worst(isa, &Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0) <= 3.0 + slack, "sigmoid {isa:?}");
    }
}

struct Exp2<'a, const COARSE: bool>(&'a mut [f32]);
impl<const COARSE: bool> Kernel for Exp2<'_, COARSE> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.0.chunks_mut(S::LANES) {
            // SAFETY: partial accesses end with the chunk.
            unsafe {
                let y = exp2_falling::<S, COARSE>(s, s.load_partial(x.as_ptr(), x.len()));
                s.store_partial(x.as_mut_ptr(), y, x.len());
            }
        }
    }
}

#[test]
fn falling_powers_of_two_keep_their_error_bounds() {
    for isa in Isa::available() {
        let inputs: Vec<f32> = (0..400_003).map(|i| -125.9 * (i as f32 / 400_002.0)).collect();
        for (coarse, bound) in [(false, 2e-7), (true, 3e-6)] {
            let run =
                |x: &mut [f32]| if coarse { dispatch(isa, Exp2::<true>(x)) } else { dispatch(isa, Exp2::<false>(x)) };
            let mut got = inputs.clone();
            run(&mut got);
            for (&x, &y) in inputs.iter().zip(&got) {
                let exact = f64::from(x).exp2();
                assert!((f64::from(y) - exact).abs() <= bound * exact, "{isa:?} coarse {coarse}: 2^{x} = {y}");
            }
            let mut edges =
                [0.0, -0.0, -126.0, f32::NEG_INFINITY, -1e30, -150.0, (-126.0f32).next_down(), f32::NAN, -1.0];
            run(&mut edges);
            let want = [1.0, 1.0, f32::MIN_POSITIVE, 0.0, 0.0, 0.0, 0.0];
            assert_eq!(edges[..7], want, "{isa:?} coarse {coarse}");
            assert!(edges[7].is_nan() && edges[8] == 0.5, "{isa:?} coarse {coarse}: {edges:?}");
        }
    }
}

struct Pairs<'a>(&'a [f32; 32], &'a [half::bf16; 32], &'a mut Vec<f32>);
impl Kernel for Pairs<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pairs(x, y, results) = self;
        for at in (0..16).step_by(S::LANES) {
            let (mut narrow, mut zipped, mut dots) = ([0.0; 16], [0.0; 16], [0.0; 16]);
            // SAFETY: the arrays hold 32 values and 16 words.
            unsafe {
                let words = s.narrow(s.load(x.as_ptr().add(2 * at)), s.load(x.as_ptr().add(2 * at + S::LANES)));
                let pairs = s.zip_bf16(y.as_ptr().add(at).cast(), y.as_ptr().add(16 + at).cast());
                s.store(narrow.as_mut_ptr(), words);
                s.store(zipped.as_mut_ptr(), pairs);
                s.store(dots.as_mut_ptr(), s.dot_pairs(words, pairs, s.splat(0.25)));
            }
            for i in 0..S::LANES {
                results.extend([narrow[i], zipped[i], dots[i]]);
            }
        }
    }
}

#[test]
fn pairs_of_bf16_are_rounded_zipped_and_multiplied() {
    let tie = 1.0 / 256.0;
    let mut x: [f32; 32] = std::array::from_fn(|i| (i as f32 - 11.0) * 0.377);
    x[..6].copy_from_slice(&[1.0 + tie, 1.0 + 3.0 * tie, -3.389e38, f32::INFINITY, f32::NAN, -0.0]);
    let y: [half::bf16; 32] = std::array::from_fn(|i| half::bf16::from_f32((i as f32 - 20.0) * 1.6));
    for isa in Isa::available() {
        for hardware in [false, true] {
            let mut results = Vec::new();
            let kernel = Pairs(&x, &y, &mut results);
            if hardware {
                dispatch_pairs(isa, kernel)
            } else {
                dispatch(isa, kernel)
            }
            for (i, result) in results.chunks(3).enumerate() {
                let halves =
                    |word: f32| [word.to_bits() as u16, (word.to_bits() >> 16) as u16].map(half::bf16::from_bits);
                let (narrow, zipped) = (halves(result[0]), halves(result[1]));
                for (got, x) in narrow.iter().zip(&x[2 * i..]) {
                    let want = half::bf16::from_f32(*x);
                    assert!(
                        got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                        "{isa:?}: {x} became {got}"
                    );
                }
                assert_eq!(zipped, [y[i], y[16 + i]], "{isa:?}");
                let products = [0, 1].map(|h| f64::from(narrow[h].to_f32()) * f64::from(zipped[h].to_f32()));
                let (got, want) = (f64::from(result[2]), 0.25 + products[0] + products[1]);
                let near = (got - want).abs() <= 1e-6 * (1.0 + products[0].abs() + products[1].abs());
                let special = !want.is_finite() || want.abs() > 3e38;
                assert!(near || special && !got.is_finite(), "{isa:?} {hardware}: {got} for {want}");
            }
        }
    }
}

#[test]
fn exp_at_the_edges() {
    for isa in Isa::available() {
        let mut x = [f32::NEG_INFINITY, -1e30, -104.0, 0.0, -0.0, 88.73, 1e30, f32::INFINITY, f32::NAN, -100.0, 88.7];
        map::inplace(isa, &Exp, &mut x);
        assert_eq!(x[..3], [0.0; 3], "{isa:?}");
        assert_eq!(x[3..8], [1.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY], "{isa:?}");
        assert!(x[8].is_nan());
        assert!((x[9] - (-100.0f64).exp() as f32).abs() <= f32::from_bits(1), "subnormal {isa:?}");
        assert!(x[10].is_finite());
    }
}

#[test]
fn a_value_has_the_same_bits_in_any_lane_and_at_any_alignment() {
    for isa in Isa::available() {
        let all: Vec<f32> = (0..257).map(|i| (i as f32 - 128.0) * 0.37).collect();
        let mut whole = all.clone();
        map::inplace(isa, &Sigmoid, &mut whole);
        for start in [0, 1, 3, 7, 15] {
            for len in [0, 1, 2, 5, 8, 15, 16, 17, 31, 33, 100] {
                let mut part = all.clone();
                map::inplace(isa, &Sigmoid, &mut part[start..start + len]);
                for i in 0..all.len() {
                    let want = if (start..start + len).contains(&i) { whole[i] } else { all[i] };
                    assert_eq!(part[i].to_bits(), want.to_bits(), "{isa:?} start {start} len {len} at {i}");
                }
            }
        }
        assert_eq!(dispatch(isa, Max(&all)), all[256]);
        assert_eq!(dispatch(isa, Max(&all[..7])), all[6]);
        assert_eq!(dispatch(isa, Max(&[])), f32::NEG_INFINITY);
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
