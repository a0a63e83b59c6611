//! Philox4x32-10, the counter-based random generator (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011). A value is a pure function of key and counter, so dropout, initialisation, shuffling and sampling
//! draw the same numbers whatever the thread count, the split into calls, or the moment of a resume.

/// Round multipliers and key increments of the paper (section 4.3).
const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;

/// What a stream of random numbers is for; streams of different purposes never share values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Dropout masks: `derive(Dropout, step, node)`, then `block([sample, row, element / 4, 0])`.
    Dropout = 1,
    /// Parameter initialisation: `derive(Init, parameter, 0)`.
    Init = 2,
    /// Order of training windows: `derive(Shuffle, epoch, round)`.
    Shuffle = 3,
    /// Sampling of generated tokens: `derive(Sample, slot, 0)`.
    Sample = 4,
    /// Stochastic rounding of moments: `derive(Rounding, step, parameter)`, element `i` is word `i`.
    Rounding = 5,
}

/// A keyed generator without state: copy it freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The root generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// An independent generator for one purpose, whose key is the first half of a block of this one.
    pub fn derive(&self, purpose: Purpose, a: u64, b: u32) -> Self {
        let block = self.block([a as u32, (a >> 32) as u32, b, purpose as u32]);
        Self { key: [block[0], block[1]] }
    }

    /// Four random words at a counter: ten rounds.
    #[inline]
    pub fn block(&self, counter: [u32; 4]) -> [u32; 4] {
        let [mut c0, mut c1, mut c2, mut c3] = counter;
        let [mut k0, mut k1] = self.key;
        for round in 0..10 {
            if round > 0 {
                k0 = k0.wrapping_add(W0);
                k1 = k1.wrapping_add(W1);
            }
            let p0 = u64::from(M0) * u64::from(c0);
            let p1 = u64::from(M1) * u64::from(c2);
            (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        }
        [c0, c1, c2, c3]
    }

    /// Uniform in [0, 1) with 53 random bits: number `index` of the stream.
    #[inline]
    pub fn unit_f64(&self, index: u64) -> f64 {
        let [a, b, ..] = self.block([index as u32, (index >> 32) as u32, 1, 0]);
        let bits = (u64::from(a) << 21) ^ (u64::from(b) >> 11);
        bits as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal, number `index` of the stream (Box and Muller, 1958, in f64).
    pub fn normal_f32(&self, index: u64) -> f32 {
        let block = index / 2;
        let [a, b, c, d] = self.block([block as u32, (block >> 32) as u32, 2, 0]);
        // The radius takes a uniform in (0, 1], so that its logarithm is finite.
        let u = ((u64::from(a) << 21 ^ u64::from(b) >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64);
        let angle = std::f64::consts::TAU * ((u64::from(c) << 21 ^ u64::from(d) >> 11) as f64 / (1u64 << 53) as f64);
        let radius = (-2.0 * u.ln()).sqrt();
        (radius * if index.is_multiple_of(2) { angle.cos() } else { angle.sin() }) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors that the authors publish with Random123 (`kat_vectors`).
    #[test]
    fn known_answers() {
        let cases = [
            ([0, 0], [0; 4], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([!0, !0], [!0; 4], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0xa4093822, 0x299f31d0],
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (key, counter, expected) in cases {
            assert_eq!(Philox { key }.block(counter), expected);
        }
    }

    #[test]
    fn streams_are_uniform_normal_and_distinct() {
        let root = Philox::new(7);
        let (a, b) = (root.derive(Purpose::Init, 3, 0), root.derive(Purpose::Dropout, 3, 0));
        assert_ne!(a, b);
        assert_ne!(a, root.derive(Purpose::Init, 4, 0));
        let n = 20_000;
        let mean = (0..n).map(|i| a.unit_f64(i)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let normals: Vec<f64> = (0..n).map(|i| f64::from(b.normal_f32(i))).collect();
        let mean = normals.iter().sum::<f64>() / n as f64;
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
