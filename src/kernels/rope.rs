//! Rotary position embedding (Su et al., 2021): pairs of a head's elements turn by position · frequency.

use super::isa::Isa;
use super::vector::{Kernel, Simd, dispatch};
use super::view::InOut;

/// Which elements of a head form pair `i` of `half = rotary_dim / 2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// (i, i + half): Hugging Face layout.
    HalfSplit,
    /// (2i, 2i + 1): the paper's, and GGUF's for Llama.
    Adjacent,
}

/// How heads are rotated.
#[derive(Clone, Copy)]
pub struct Rope<'a> {
    /// Elements of a head; a row holds any number of heads.
    pub head_dim: usize,
    /// Elements of a head that turn, the first ones; even and at most `head_dim`.
    pub rotary_dim: usize,
    /// Which elements form a pair.
    pub pairing: Pairing,
    /// Turns backwards (the gradient of the rotation).
    pub inverse: bool,
    /// From [`rope_table`], for this `rotary_dim`.
    pub table: &'a [f32],
}

/// Frequency of pair `i`: `theta^(−2i / rotary_dim)` radians per position.
pub fn rope_frequency(theta: f64, rotary_dim: usize, i: usize) -> f64 {
    theta.powf(-2.0 * i as f64 / rotary_dim as f64)
}

/// Fills row `p` of `out` (`positions` rows of `rotary_dim`): the cosines of `p · frequency(i)`, then the sines.
///
/// # Panics
/// When `out` has another size.
pub fn rope_table(frequency: impl Fn(usize) -> f64, rotary_dim: usize, positions: usize, out: &mut [f32]) {
    assert!(rotary_dim.is_multiple_of(2) && out.len() == positions * rotary_dim, "rope table size");
    if rotary_dim == 0 {
        return;
    }
    for (position, row) in out.chunks_exact_mut(rotary_dim).enumerate() {
        let (cosines, sines) = row.split_at_mut(rotary_dim / 2);
        for (i, (c, s)) in cosines.iter_mut().zip(sines).enumerate() {
            let (sine, cosine) = (position as f64 * frequency(i)).sin_cos();
            (*c, *s) = (cosine as f32, sine as f32);
        }
    }
}

impl Rope<'_> {
    /// Cosines and sines of a position.
    fn turn(&self, position: u32) -> (&[f32], &[f32]) {
        self.table[position as usize * self.rotary_dim..][..self.rotary_dim].split_at(self.rotary_dim / 2)
    }
}

/// Rotates every head of one row in place.
struct RotateRow<'a> {
    row: &'a mut [f32],
    head_dim: usize,
    pairing: Pairing,
    inverse: bool,
    cosines: &'a [f32],
    sines: &'a [f32],
}

impl Kernel for RotateRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        // Plain loops: the compiler vectorises them for the instruction set they are inlined into.
        let half = self.cosines.len();
        let sign = if self.inverse { -1.0 } else { 1.0 };
        for head in self.row.chunks_exact_mut(self.head_dim) {
            match self.pairing {
                Pairing::HalfSplit => {
                    let (a, rest) = head.split_at_mut(half);
                    for (((a, b), c), s) in a.iter_mut().zip(&mut rest[..half]).zip(self.cosines).zip(self.sines) {
                        let (x, y, s) = (*a, *b, sign * *s);
                        *a = x * c - y * s;
                        *b = y * c + x * s;
                    }
                }
                Pairing::Adjacent => {
                    let pairs = head[..2 * half].chunks_exact_mut(2);
                    for ((pair, c), s) in pairs.zip(self.cosines).zip(self.sines) {
                        let (x, y, s) = (pair[0], pair[1], sign * *s);
                        pair[0] = x * c - y * s;
                        pair[1] = y * c + x * s;
                    }
                }
            }
        }
    }
}

/// Rotates row `i` of `io` to position `positions[i]`, in place.
///
/// # Panics
/// When a shape does not fit or a position is beyond the table.
pub fn rope_inplace(isa: Isa, io: &mut InOut<f32>, positions: &[u32], rope: &Rope) {
    assert!(positions.len() == io.rows(), "rope of {} rows with {} positions", io.rows(), positions.len());
    assert!(rope.rotary_dim <= rope.head_dim && io.width().is_multiple_of(rope.head_dim), "rope head size");
    for (i, &position) in positions.iter().enumerate() {
        let (cosines, sines) = rope.turn(position);
        let (head_dim, pairing, inverse) = (rope.head_dim, rope.pairing, rope.inverse);
        dispatch(isa, RotateRow { row: io.row_mut(i), head_dim, pairing, inverse, cosines, sines });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_matches_f64_and_the_inverse_undoes_it() {
        for isa in Isa::available() {
            for (head_dim, rotary_dim, pairing) in [
                (64, 64, Pairing::HalfSplit),
                (64, 64, Pairing::Adjacent),
                (80, 32, Pairing::HalfSplit),
                (6, 6, Pairing::Adjacent),
                (10, 4, Pairing::Adjacent),
            ] {
                let (heads, positions) = (3, [0u32, 1, 7, 1023, 500]);
                let width = heads * head_dim;
                let mut table = vec![0.0; 1024 * rotary_dim];
                rope_table(|i| rope_frequency(10_000.0, rotary_dim, i), rotary_dim, 1024, &mut table);
                let x: Vec<f32> = (0..5 * (width + 1)).map(|i| ((i * 3) as f32).sin()).collect();
                let mut out = x.clone();
                let turn = Rope { head_dim, rotary_dim, pairing, inverse: false, table: &table };
                rope_inplace(isa, &mut InOut::new(&mut out, 5, width + 1, width), &positions, &turn);
                for (r, &position) in positions.iter().enumerate() {
                    for h in 0..heads {
                        let at = r * (width + 1) + h * head_dim;
                        let half = rotary_dim / 2;
                        for i in 0..half {
                            let (a, b) = match pairing {
                                Pairing::HalfSplit => (at + i, at + i + half),
                                Pairing::Adjacent => (at + 2 * i, at + 2 * i + 1),
                            };
                            let angle = f64::from(position) * 10_000f64.powf(-2.0 * i as f64 / rotary_dim as f64);
                            let (xa, xb) = (f64::from(x[a]), f64::from(x[b]));
                            assert!((f64::from(out[a]) - (xa * angle.cos() - xb * angle.sin())).abs() < 3e-7);
                            assert!((f64::from(out[b]) - (xb * angle.cos() + xa * angle.sin())).abs() < 3e-7);
                        }
                        assert_eq!(out[at + rotary_dim..at + head_dim], x[at + rotary_dim..at + head_dim]);
                    }
                }
                let back = Rope { inverse: true, ..turn };
                rope_inplace(isa, &mut InOut::new(&mut out, 5, width + 1, width), &positions, &back);
                for r in 0..5 {
                    for j in 0..width {
                        assert!((out[r * (width + 1) + j] - x[r * (width + 1) + j]).abs() < 5e-7);
                    }
                }
            }
        }
    }
}
