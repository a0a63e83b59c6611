//! exp and sigmoid on vectors.
//!
//! Error against the exact value, for every float: exp at most 1.5 ulp (2.5 portable), sigmoid 3 ulp (4 portable), where results are normal
//! numbers. NaN gives NaN. The polynomials are minimax fits (Remez exchange, relative error).
#![allow(unsafe_code)]

use super::Simd;

/// e^x. Below −104 it is 0, from 88.73 on infinity; subnormal results are rounded like normal ones.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // x = n ln 2 + r with |r| ≤ ln 2 / 2, the subtraction in two parts (Cody and Waite) of which n · LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // The argument order of min and max passes a NaN on.
    let x = s.max(s.splat(-104.0), s.min(s.splat(89.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fnma(n, s.splat(LN2_HIGH), x);
    let r = s.fnma(n, s.splat(LN2_LOW), r);
    // e^r = 1 + r + r² p(r)
    let p = s.splat(0.001_381_446_7);
    let p = s.fma(p, r, s.splat(0.008_368_781));
    let p = s.fma(p, r, s.splat(0.041_668_393));
    let p = s.fma(p, r, s.splat(0.166_665_2));
    let p = s.fma(p, r, s.splat(0.499_999_94));
    let y = s.fma(s.mul(r, r), p, r);
    s.scale2(s.add(y, s.splat(1.0)), n)
}

/// 2^x for x ≤ 0 (0 below −126), the exponential of softmax: relative error at most 2e-7, with `COARSE` 3e-6 for results that are
/// rounded to bf16. 2^0 is exactly 1; NaN gives NaN.
#[inline(always)]
pub fn exp2_falling<S: Simd, const COARSE: bool>(s: S, x: S::V) -> S::V {
    let n = s.round(x);
    let r = s.sub(x, n);
    let p = if COARSE {
        let p = s.fma(s.splat(0.009_582_853), r, s.splat(0.055_906_426));
        let p = s.fma(p, r, s.splat(0.240_240_99));
        s.fma(p, r, s.splat(0.693_124_2))
    } else {
        let p = s.fma(s.splat(0.001_330_060_5), r, s.splat(0.009_669_691));
        let p = s.fma(p, r, s.splat(0.055_505_585));
        let p = s.fma(p, r, s.splat(0.240_222_83));
        s.fma(p, r, s.splat(std::f32::consts::LN_2))
    };
    s.scale2_from(s.fma(p, r, s.splat(1.0)), n, x, -126.0)
}

/// 1 / (1 + e^−x)
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// Largest element of a row inside a kernel.
#[inline(always)]
pub fn row_max<S: Simd>(s: S, x: &[f32]) -> f32 {
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut most = [lowest; 4];
    let (n, p) = (x.len(), x.as_ptr());
    let mut i = 0;
    // SAFETY: every access is inside the slice by the loop bounds.
    unsafe {
        while i + 4 * S::LANES <= n {
            for (k, m) in most.iter_mut().enumerate() {
                *m = s.max(*m, s.load(p.add(i + k * S::LANES)));
            }
            i += 4 * S::LANES;
        }
        while i < n {
            let count = S::LANES.min(n - i);
            most[0] = s.max(most[0], s.keep_first(s.load_partial(p.add(i), count), count, lowest));
            i += count;
        }
    }
    s.reduce_max(s.max(s.max(most[0], most[1]), s.max(most[2], most[3])))
}
