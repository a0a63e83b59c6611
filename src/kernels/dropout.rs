//! Dropout whose mask is a function of (seed, step, node, sample, row, element): forward and backward draw the same one.
#![allow(unsafe_code)]

use super::isa::Isa;
use super::philox::Philox;
use super::vector::{Kernel, Simd, dispatch};
use super::view::InOut;

/// Elements whose random numbers are drawn at a time.
const CHUNK: usize = 64;

/// One dropout node in one step.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    generator: Philox,
    /// An element is dropped when its random number is below this.
    threshold: u32,
    /// 1 / (1 − probability)
    scale: f32,
}

impl Dropout {
    /// `generator` is derived for (dropout, step, node); `probability` of dropping an element is in 0..1.
    pub fn new(generator: Philox, probability: f64) -> Self {
        let threshold = (probability * (1u64 << 32) as f64).round().min(f64::from(u32::MAX)) as u32;
        Dropout { generator, threshold, scale: (1.0 / (1.0 - probability)) as f32 }
    }
}

struct DropRow<'a> {
    dropout: &'a Dropout,
    sample: u32,
    row: u32,
    io: &'a mut [f32],
}

impl Kernel for DropRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let zero = s.splat(0.0);
        let mut start = 0;
        while start < self.io.len() {
            let n = CHUNK.min(self.io.len() - start);
            let mut factors = [0.0f32; CHUNK];
            for (k, four) in factors.chunks_exact_mut(4).enumerate() {
                let words = self.dropout.generator.block([self.sample, self.row, (start / 4 + k) as u32, 0]);
                for (factor, word) in four.iter_mut().zip(words) {
                    *factor = if word < self.dropout.threshold { 0.0 } else { self.dropout.scale };
                }
            }
            let mut i = 0;
            while i < n {
                let count = S::LANES.min(n - i);
                let at = self.io[start + i..].as_mut_ptr();
                // SAFETY: `count` elements are left of the row and of its factors, as LANES divides CHUNK.
                unsafe {
                    // A selection, so that a dropped infinity or NaN does not survive as 0 · x.
                    let f = s.load(factors.as_ptr().add(i));
                    let y = s.select_lt(zero, f, s.mul(s.load_partial(at, count), f), zero);
                    s.store_partial(at, y, count);
                }
                i += count;
            }
            start += n;
        }
    }
}

/// `io = io · mask / (1 − p)`; the backward pass is the same call on gradients. View row i is row `rows[i]` of sample `samples[i]`.
///
/// # Panics
/// When a shape does not fit.
pub fn dropout_inplace(isa: Isa, dropout: &Dropout, samples: &[u32], rows: &[u32], io: &mut InOut<f32>) {
    assert!(samples.len() == io.rows() && rows.len() == io.rows(), "dropout of {} rows", io.rows());
    for i in 0..io.rows() {
        dispatch(isa, DropRow { dropout, sample: samples[i], row: rows[i], io: io.row_mut(i) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::philox::Purpose;

    #[test]
    fn the_mask_depends_on_coordinates_alone_and_keeps_the_mean() {
        let node = Dropout::new(Philox::new(42).derive(Purpose::Dropout, 3, 9), 0.2);
        let (rows, width) = (40, 203);
        let x = vec![1.0f32; rows * width];
        let samples: Vec<u32> = (0..rows as u32).map(|i| i / 8).collect();
        let positions: Vec<u32> = (0..rows as u32).map(|i| i % 8).collect();
        let mut first: Option<Vec<f32>> = None;
        for isa in Isa::available() {
            let mut whole = x.clone();
            dropout_inplace(isa, &node, &samples, &positions, &mut InOut::new(&mut whole, rows, width, width));
            let dropped = whole.iter().filter(|&&y| y == 0.0).count() as f64 / whole.len() as f64;
            assert!((dropped - 0.2).abs() < 0.02, "{isa:?}: dropped {dropped}");
            assert!(whole.iter().all(|&y| y == 0.0 || y == 1.25));
            let mut one = x[..width].to_vec();
            dropout_inplace(
                isa,
                &node,
                &samples[17..18],
                &positions[17..18],
                &mut InOut::new(&mut one, 1, width, width),
            );
            assert_eq!(one, whole[17 * width..18 * width]);
            assert_eq!(*first.get_or_insert_with(|| whole.clone()), whole, "masks agree between instruction sets");
        }
        let other = Dropout::new(Philox::new(42).derive(Purpose::Dropout, 4, 9), 0.2);
        let mut y = x.clone();
        dropout_inplace(Isa::Portable, &other, &samples, &positions, &mut InOut::new(&mut y, rows, width, width));
        assert_ne!(first.as_deref(), Some(&y[..]));
        let mut bad = vec![f32::INFINITY; 64];
        dropout_inplace(Isa::Portable, &node, &[0], &[0], &mut InOut::new(&mut bad, 1, 64, 64));
        assert!(bad.iter().all(|&y| y == 0.0 || y == f32::INFINITY));
    }
}
