//! AdamW (Loshchilov and Hutter, 2019) in one pass over memory.

#![allow(unsafe_code)]

use super::isa::Isa;
use super::philox::Philox;
use super::vector::map::{self, LaneFn, Write};
use super::vector::{Kernel, Simd, dispatch};

/// Constants of one update of one tensor.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// 1 − learning rate · weight decay
    decay: f32,
    /// 1 − β₁
    new_first: f32,
    /// β₂
    old_second: f32,
    /// 1 − β₂
    new_second: f32,
    /// 1 / √(1 − β₂^step)
    inverse_root: f32,
    eps: f32,
    /// learning rate / (1 − β₁^step)
    rate: f32,
    gradient_scale: f32,
}

/// Hyperparameters as the training loop has them.
#[derive(Clone, Copy, Debug)]
pub struct AdamWSettings {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; 0 for tensors that do not decay.
    pub weight_decay: f64,
    /// Updates so far, this one included: 1 for the first.
    pub step: u64,
    /// Factor on every gradient: clipping.
    pub gradient_scale: f32,
}

impl AdamW {
    /// The constants of an update, computed in f64.
    pub fn new(settings: &AdamWSettings) -> Self {
        let power = |beta: f64| 1.0 - beta.powf(settings.step as f64);
        AdamW {
            decay: (1.0 - settings.learning_rate * settings.weight_decay) as f32,
            new_first: (1.0 - settings.beta1) as f32,
            old_second: settings.beta2 as f32,
            new_second: (1.0 - settings.beta2) as f32,
            inverse_root: (1.0 / power(settings.beta2).sqrt()) as f32,
            eps: settings.eps as f32,
            rate: (settings.learning_rate / power(settings.beta1)) as f32,
            gradient_scale: settings.gradient_scale,
        }
    }

    /// New parameter and moments.
    #[inline(always)]
    fn update<S: Simd>(&self, s: S, [p, g, m, v]: [S::V; 4]) -> [S::V; 3] {
        let g = s.mul(g, s.splat(self.gradient_scale));
        let m = s.fma(s.sub(g, m), s.splat(self.new_first), m);
        let v = s.fma(s.mul(g, g), s.splat(self.new_second), s.mul(v, s.splat(self.old_second)));
        let root = s.fma(s.sqrt(v), s.splat(self.inverse_root), s.splat(self.eps));
        let p = s.fnma(s.div(m, root), s.splat(self.rate), s.mul(p, s.splat(self.decay)));
        [p, m, v]
    }
}

/// Keeps the gradient.
impl LaneFn<4, 3> for AdamW {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, x: [S::V; 4]) -> [S::V; 3] {
        self.update(s, x)
    }
}

/// Zeroes the gradient.
impl LaneFn<4, 4> for AdamW {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, x: [S::V; 4]) -> [S::V; 4] {
        let [p, m, v] = self.update(s, x);
        [p, m, v, s.splat(0.0)]
    }
}

/// Updates parameters and moments from the gradient `g`.
///
/// # Panics
/// When the lengths differ.
pub fn adamw(isa: Isa, constants: &AdamW, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let n = p.len();
    assert!(g.len() == n && m.len() == n && v.len() == n, "optimiser operands of different lengths");
    let (p, m, v) = (p.as_mut_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
    let outputs = [p, m, v].map(|o| (o, Write::Overwrite));
    // SAFETY: slices of n elements; inputs that overlap outputs are the same slice.
    unsafe { map::stream::<_, 4, 3>(isa, constants, [p.cast_const(), g.as_ptr(), m, v], outputs, n) }
}

/// As [`adamw`], and sets the gradient to zero on the way.
///
/// # Panics
/// When the lengths differ.
pub fn adamw_and_clear(isa: Isa, constants: &AdamW, p: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let n = p.len();
    assert!(g.len() == n && m.len() == n && v.len() == n, "optimiser operands of different lengths");
    let (p, g, m, v) = (p.as_mut_ptr(), g.as_mut_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
    let outputs = [p, m, v, g].map(|o| (o, Write::Overwrite));
    // SAFETY: slices of n elements; inputs that overlap outputs are the same slice.
    unsafe { map::stream::<_, 4, 4>(isa, constants, [p.cast_const(), g, m, v], outputs, n) }
}

/// Elements that [`adamw_bf16`] widens at a time.
const CHUNK: usize = 64;

/// As [`adamw`] with moments kept in bf16, rounded up or down with the probabilities that make the error zero on average.
///
/// Element i of the slices is element `first + i` of the tensor, which is the counter of its random number: give `generator`
/// derived for (step, tensor), and split tensors anywhere at multiples of 64.
///
/// # Panics
/// When the lengths differ or `first` is not a multiple of 64.
#[expect(clippy::too_many_arguments, reason = "the operands of one update")]
pub fn adamw_bf16(
    isa: Isa,
    constants: &AdamW,
    p: &mut [f32],
    g: &[f32],
    m: &mut [half::bf16],
    v: &mut [half::bf16],
    generator: &Philox,
    first: u64,
) {
    let n = p.len();
    assert!(g.len() == n && m.len() == n && v.len() == n, "optimiser operands of different lengths");
    assert!(first.is_multiple_of(CHUNK as u64), "optimiser chunk starts at {first}, not at a multiple of {CHUNK}");
    for start in (0..n).step_by(CHUNK) {
        let part = start..n.min(start + CHUNK);
        dispatch(
            isa,
            Bf16Chunk {
                isa,
                constants,
                p: &mut p[part.clone()],
                g: &g[part.clone()],
                m: &mut m[part.clone()],
                v: &mut v[part],
                generator,
                block: (first + start as u64) / 4,
            },
        );
    }
}

struct Bf16Chunk<'a> {
    isa: Isa,
    constants: &'a AdamW,
    p: &'a mut [f32],
    g: &'a [f32],
    m: &'a mut [half::bf16],
    v: &'a mut [half::bf16],
    generator: &'a Philox,
    block: u64,
}

impl Kernel for Bf16Chunk<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        let n = self.p.len();
        let (mut m, mut v) = ([0.0; CHUNK], [0.0; CHUNK]);
        for i in 0..n {
            (m[i], v[i]) = (self.m[i].to_f32(), self.v[i].to_f32());
        }
        adamw(self.isa, self.constants, self.p, self.g, &mut m[..n], &mut v[..n]);
        let mut random = [0u32; CHUNK];
        for (k, words) in random.chunks_exact_mut(4).enumerate() {
            let at = self.block + k as u64;
            words.copy_from_slice(&self.generator.block([at as u32, (at >> 32) as u32, 0, 0]));
        }
        for i in 0..n {
            self.m[i] = round_randomly(m[i], random[i] & 0xFFFF);
            self.v[i] = round_randomly(v[i], random[i] >> 16);
        }
    }
}

/// Rounds to one of the two neighbouring bf16 values; `random` is uniform below 2^16.
#[inline(always)]
fn round_randomly(x: f32, random: u32) -> half::bf16 {
    let bits = x.to_bits();
    let finite = bits & 0x7F80_0000 != 0x7F80_0000;
    // A NaN keeps a set bit in the part that stays.
    let nan = u32::from(bits & 0x7FFF_FFFF > 0x7F80_0000) << 22;
    half::bf16::from_bits(((if finite { bits + random } else { bits | nan }) >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::philox::Purpose;

    fn data(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32 + seed) * 1.7).sin()).collect()
    }

    fn settings(step: u64) -> AdamWSettings {
        AdamWSettings {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step,
            gradient_scale: 0.5,
        }
    }

    #[test]
    fn ten_updates_match_f64() {
        for isa in Isa::available() {
            let n = 101;
            let (mut p, mut m, mut v) = (data(n, 0.0), vec![0.0; n], vec![0.0; n]);
            let mut exact: Vec<[f64; 3]> = p.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
            for step in 1..=10 {
                let mut g = data(n, step as f32 * 10.0);
                for (e, &g) in exact.iter_mut().zip(&g) {
                    let g = f64::from(g) * 0.5;
                    let [p, m, v] = *e;
                    let (m, v) = (0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g);
                    let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(step)), v / (1.0 - 0.95f64.powi(step)));
                    *e = [p * (1.0 - 1e-3 * 0.1) - 1e-3 * m_hat / (v_hat.sqrt() + 1e-8), m, v];
                }
                let constants = AdamW::new(&settings(step as u64));
                if step % 2 == 0 {
                    adamw(isa, &constants, &mut p, &g, &mut m, &mut v);
                } else {
                    adamw_and_clear(isa, &constants, &mut p, &mut g, &mut m, &mut v);
                    assert!(g.iter().all(|&g| g == 0.0));
                }
            }
            for i in 0..n {
                assert!((f64::from(p[i]) - exact[i][0]).abs() < 1e-6, "{isa:?}: {} for {}", p[i], exact[i][0]);
                assert!((f64::from(m[i]) - exact[i][1]).abs() < 1e-6 && (f64::from(v[i]) - exact[i][2]).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn bf16_moments_are_unbiased_and_independent_of_the_split() {
        let random = |r| round_randomly(1.001, r).to_f64();
        let mean = (0..1 << 16).map(random).sum::<f64>() / f64::from(1 << 16);
        assert!((mean - f64::from(1.001f32)).abs() < 1e-6);
        assert!(round_randomly(f32::NAN, 0xFFFF).is_nan() && round_randomly(f32::INFINITY, 0xFFFF).is_infinite());
        let generator = Philox::new(7).derive(Purpose::Init, 1, 2);
        for isa in Isa::available() {
            let n = 300;
            let g = data(n, 3.0);
            let run = |cut: usize| {
                let (mut p, mut m, mut v) = (data(n, 0.0), vec![half::bf16::ZERO; n], vec![half::bf16::ZERO; n]);
                for step in 1..4 {
                    let constants = AdamW::new(&settings(step));
                    for part in [0..cut, cut..n] {
                        let (p, m, v) = (&mut p[part.clone()], &mut m[part.clone()], &mut v[part.clone()]);
                        adamw_bf16(isa, &constants, p, &g[part.clone()], m, v, &generator, part.start as u64);
                    }
                }
                (p, m, v)
            };
            assert!(run(64) == run(192) && run(0) == run(128));
            let (p, m, _) = run(0);
            for i in 0..n {
                assert!(
                    (m[i].to_f32() - g[i] * 0.5 * (1.0 - 0.9f32.powi(3))).abs() < 0.01,
                    "moment of constant gradient"
                );
                assert!((p[i] - data(n, 0.0)[i]).abs() < 0.005);
            }
        }
    }
}
