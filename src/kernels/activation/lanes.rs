//! The functions of lanes.

use std::sync::OnceLock;

use crate::kernels::vector::Simd;
use crate::kernels::vector::map::LaneFn;
use crate::kernels::vector::math::{exp, sigmoid};

/// √(2/π)
pub(super) const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
pub(super) const CUBIC: f64 = 0.044_715;
/// −2u = x (LINEAR + CUBE x²)
const LINEAR: f32 = (-2.0 * SQRT_2_OVER_PI) as f32;
const CUBE: f32 = (-2.0 * SQRT_2_OVER_PI * CUBIC) as f32;

/// GELU of each lane.
#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.mul(x, s.fma(s.mul(x, x), s.splat(CUBE), s.splat(LINEAR))));
    s.div(x, s.add(s.splat(1.0), e))
}

/// Derivative of [`gelu`] at each lane.
#[inline(always)]
fn gelu_derivative<S: Simd>(s: S, x: S::V) -> S::V {
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
fn silu<S: Simd>(s: S, x: S::V) -> S::V {
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
pub(super) fn gelu_table() -> &'static [u16; 1 << 16] {
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
pub(super) struct GeluTable(pub &'static [u16; 1 << 16]);
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

pub(super) struct Gelu;
impl LaneFn<1, 1> for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        [gelu(s, x)]
    }
}

pub(super) struct Silu;
impl LaneFn<1, 1> for Silu {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [x]: [S::V; 1]) -> [S::V; 1] {
        [silu(s, x)]
    }
}

pub(super) struct GeluBackward;
impl LaneFn<2, 1> for GeluBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [d, x]: [S::V; 2]) -> [S::V; 1] {
        [s.mul(d, gelu_derivative(s, x))]
    }
}

pub(super) struct SiluBackward;
impl LaneFn<2, 1> for SiluBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [d, x]: [S::V; 2]) -> [S::V; 1] {
        [s.mul(d, silu_parts(s, x).1)]
    }
}

pub(super) struct SiluMul;
impl LaneFn<2, 1> for SiluMul {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [gate, up]: [S::V; 2]) -> [S::V; 1] {
        [s.mul(silu(s, gate), up)]
    }
}

pub(super) struct SiluMulBackward;
impl LaneFn<3, 2> for SiluMulBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [gate, up, d]: [S::V; 3]) -> [S::V; 2] {
        let (sigmoid, slope) = silu_parts(s, gate);
        [s.mul(s.mul(d, up), slope), s.mul(d, s.mul(gate, sigmoid))]
    }
}
