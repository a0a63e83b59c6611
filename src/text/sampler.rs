//! The next token from a row of logits.

use crate::error::{Error, Result};
use crate::kernels::philox::{Philox, Purpose};

/// How to choose. The default is greedy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerOptions {
    /// Logits are divided by it; 0 takes the largest logit.
    pub temperature: f32,
    /// Only this many largest logits stay in play; 0 keeps all.
    pub top_k: usize,
    /// Of those, only the fewest whose probabilities add up to at least this; 1 keeps all (Holtzman et al., 2020).
    pub top_p: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// Draws tokens. Draw `n` depends on the seed, `n` and the logits alone. Allocates only when made.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    random: Philox,
    draws: u64,
    /// (weight, id) of the tokens still in play.
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler for rows of `vocab_size` logits. Errors on options that make no sense.
    pub fn new(options: SamplerOptions, vocab_size: usize) -> Result<Self> {
        if !(options.temperature >= 0.0 && options.temperature.is_finite()) {
            return Err(Error::Usage(format!("temperature {}: it must be 0 or more", options.temperature)));
        }
        if !(options.top_p > 0.0 && options.top_p <= 1.0) {
            return Err(Error::Usage(format!("top-p {}: it must be above 0 and at most 1", options.top_p)));
        }
        let capacity = if options.temperature == 0.0 { 0 } else { vocab_size };
        Ok(Self {
            options,
            random: Philox::new(options.seed).derive(Purpose::Sample, 0, 0),
            draws: 0,
            candidates: Vec::with_capacity(capacity),
        })
    }

    /// Chooses a token from one row of logits. Errors on NaN or positive infinity, and on a row without a finite logit.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let best = greedy(logits)?;
        if self.options.temperature == 0.0 {
            return Ok(best);
        }
        self.candidates.clear();
        self.candidates.extend(logits.iter().zip(0u32..).map(|(&logit, id)| (logit, id)));
        self.keep_top_k();
        let (largest, scale) = (logits[best as usize], 1.0 / self.options.temperature.max(f32::MIN_POSITIVE));
        for (weight, _) in &mut self.candidates {
            // The largest is exactly 1, so the sum is never zero; 0 · ∞ cannot arise as the scale is finite.
            *weight = ((*weight - largest) * scale).exp();
        }
        self.keep_top_p();
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.0)).sum();
        let mut left = self.random.unit_f64(self.draws) * total;
        self.draws += 1;
        for &(weight, id) in &self.candidates {
            left -= f64::from(weight);
            if left < 0.0 {
                return Ok(id);
            }
        }
        // Rounding may leave a crumb: it belongs to the most likely token.
        Ok(best)
    }

    fn keep_top_k(&mut self) {
        let k = self.options.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, by_weight);
            self.candidates.truncate(k);
        }
    }

    fn keep_top_p(&mut self) {
        if self.options.top_p >= 1.0 {
            return;
        }
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.0)).sum();
        // Tokens below this weight, all together, weigh less than the share to be dropped: no need to sort them.
        let negligible = total * (1.0 - f64::from(self.options.top_p)) / self.candidates.len() as f64;
        self.candidates.retain(|c| f64::from(c.0) >= negligible);
        self.candidates.sort_unstable_by(by_weight);
        let wanted = total * f64::from(self.options.top_p);
        let mut reached = 0.0;
        let kept = self.candidates.iter().position(|c| {
            reached += f64::from(c.0);
            reached >= wanted
        });
        self.candidates.truncate(kept.map_or(self.candidates.len(), |i| i + 1));
    }
}

/// Heaviest first, then lowest id: a total order, so that the outcome does not hang on the sorting algorithm.
fn by_weight(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// The token of the largest logit, the lowest id among equals. Errors as [`Sampler::sample`] does.
pub fn greedy(logits: &[f32]) -> Result<u32> {
    let mut best = (f32::NEG_INFINITY, None);
    for (&logit, id) in logits.iter().zip(0u32..) {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(Error::Request(format!(
                "the logit of token {id} is {logit}: the model's weights or activations overflowed; no token can be chosen"
            )));
        }
        if logit > best.0 {
            best = (logit, Some(id));
        }
    }
    best.1.ok_or_else(|| Error::Request("no token can be chosen: the row has no finite logit".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_k: usize, top_p: f32) -> Sampler {
        Sampler::new(SamplerOptions { temperature, top_k, top_p, seed: 11 }, 8).unwrap()
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        assert_eq!(greedy(&[0.0, 3.0, f32::NEG_INFINITY, 3.0]).unwrap(), 1);
        assert!(greedy(&[0.0, f32::NAN]).unwrap_err().to_string().contains("token 1 is NaN"));
        assert!(greedy(&[f32::NEG_INFINITY]).is_err() && greedy(&[]).is_err() && greedy(&[f32::INFINITY]).is_err());
        assert!(sampler(1.0, 0, 1.0).sample(&[f32::NAN, 0.0]).is_err());
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].iter().map(|p| p.ln()).collect();
        let count = |mut sampler: Sampler| {
            let mut counts = [0u32; 4];
            (0..8000).for_each(|_| counts[sampler.sample(&logits).unwrap() as usize] += 1);
            counts.map(|c| c as f64 / 8000.0)
        };
        let near = |got: [f64; 4], want: [f64; 4]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 0.02), "{got:?} {want:?}");
        };
        near(count(sampler(1.0, 0, 1.0)), [0.5, 0.25, 0.125, 0.125]);
        near(count(sampler(0.5, 0, 1.0)), [16.0 / 22.0, 4.0 / 22.0, 1.0 / 22.0, 1.0 / 22.0]);
        near(count(sampler(1.0, 2, 1.0)), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        near(count(sampler(1.0, 0, 0.7)), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        near(count(sampler(1.0, 0, 1e-6)), [1.0, 0.0, 0.0, 0.0]);
        // Of the two equal tokens the lower id stays.
        near(count(sampler(1.0, 3, 1.0)), [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0]);
        near(count(sampler(1e-30, 0, 1.0)), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_seed_decides() {
        let run = |seed| {
            let options = SamplerOptions { temperature: 1.0, seed, ..Default::default() };
            let mut sampler = Sampler::new(options, 8).unwrap();
            (0..32).map(|_| sampler.sample(&[0.0; 8]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn nothing_is_allocated_per_token() {
        let mut sampler = sampler(1.0, 5, 0.9);
        let capacity = sampler.candidates.capacity();
        (0..50).for_each(|_| assert!(sampler.sample(&[0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 1.0, 1.0]).is_ok()));
        assert_eq!(sampler.candidates.capacity(), capacity);
    }

    #[test]
    fn senseless_options_are_refused() {
        for (temperature, top_p) in [(-1.0, 1.0), (f32::NAN, 1.0), (1.0, 0.0), (1.0, 1.5), (f32::INFINITY, 1.0)] {
            assert!(Sampler::new(SamplerOptions { temperature, top_p, ..Default::default() }, 8).is_err());
        }
    }
}
