//! Batches of tokens, in an order that depends on the seed and the position alone.

use std::sync::Arc;

use super::tokens::TokenSource;
use crate::error::{Error, Result};
use crate::kernels::philox::{Philox, Purpose};

/// Where a loader is; a checkpoint stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Passes over the data so far.
    pub epoch: u64,
    /// Windows taken in this epoch.
    pub index: u64,
}

/// Fills batches of inputs and targets; a target is the token after its input. Never allocates after construction.
///
/// A row of a batch is a window of `context` tokens. Each epoch goes through all windows in an order of its own, cut at an offset of its own;
/// batches take consecutive windows of this endless stream, so that several micro-batches hold what one big batch would.
pub struct Loader {
    tokens: Arc<TokenSource>,
    context: usize,
    /// Of orders and offsets.
    seed: u64,
    position: Position,
    /// Windows per epoch.
    windows: u64,
}

/// From this many windows on, epochs leave one out to have room for their offset.
const WINDOWS_FOR_OFFSETS: u64 = 8;

impl Loader {
    /// A loader at the start of epoch 0. Errors if there are too few tokens for one window.
    pub fn new(tokens: Arc<TokenSource>, context: usize, seed: u64) -> Result<Self> {
        let mut windows = window_count(&tokens, context)? as u64;
        if windows >= WINDOWS_FOR_OFFSETS {
            windows -= 1;
        }
        Ok(Self { tokens, context, seed, position: Position::default(), windows })
    }

    /// Where the next batch starts.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Continues from a stored position.
    pub fn seek(&mut self, position: Position) {
        self.position = position;
    }

    /// Fills the next batch and moves on. Both slices hold rows × context tokens; a batch may be larger than an epoch.
    pub fn fill(&mut self, inputs: &mut [i32], targets: &mut [i32]) {
        assert!(inputs.len() == targets.len() && inputs.len().is_multiple_of(self.context), "rows of whole windows");
        for (inputs, targets) in inputs.chunks_exact_mut(self.context).zip(targets.chunks_exact_mut(self.context)) {
            let start = self.next_start();
            fill_window(&self.tokens, start, inputs, targets);
        }
    }

    fn next_start(&mut self) -> usize {
        let (context, seed) = (self.context, self.seed);
        if self.position.index >= self.windows {
            self.position = Position { epoch: self.position.epoch + 1, index: 0 };
        }
        let Position { epoch, index } = self.position;
        self.position.index += 1;
        let room = (self.tokens.len() - 1 - self.windows as usize * context).min(context - 1) as u64;
        let random = Philox::new(seed).derive(Purpose::Shuffle, epoch, 0);
        let offset = (random.unit_f64(0) * (room + 1) as f64) as usize;
        offset + permute(seed, epoch, index, self.windows) as usize * context
    }
}

/// Element `index` of a pseudo-random permutation of `0..count`: a Feistel network over the next power of four, walked until
/// it lands inside (Black and Rogaway, 2002).
fn permute(seed: u64, epoch: u64, index: u64, count: u64) -> u64 {
    const ROUNDS: u32 = 6;
    let half = (64 - (count - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let random = Philox::new(seed);
    let keys: [Philox; ROUNDS as usize] = std::array::from_fn(|i| random.derive(Purpose::Shuffle, epoch, 1 + i as u32));
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for key in &keys {
            let word = u64::from(key.block([right as u32, (right >> 32) as u32, 0, 0])[0]);
            (left, right) = (right, left ^ (word & mask));
        }
        at = left << half | right;
        if at < count {
            return at;
        }
    }
}

/// The fixed, non-overlapping windows of a validation set.
pub struct ValidationWindows {
    tokens: Arc<TokenSource>,
    context: usize,
    count: usize,
}

impl ValidationWindows {
    /// All whole windows. Errors if there is none.
    pub fn new(tokens: Arc<TokenSource>, context: usize) -> Result<Self> {
        let count = window_count(&tokens, context)?;
        Ok(Self { tokens, context, count })
    }

    /// How many windows there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Fills as many windows from `first` on as there are and the slices hold; returns their number. The rest of the slices
    /// is left as it was.
    pub fn fill(&self, first: usize, inputs: &mut [i32], targets: &mut [i32]) -> usize {
        assert!(inputs.len() == targets.len() && inputs.len().is_multiple_of(self.context), "rows of whole windows");
        let rows = inputs.chunks_exact_mut(self.context).zip(targets.chunks_exact_mut(self.context));
        let mut filled = 0;
        for ((inputs, targets), window) in rows.zip(first..self.count) {
            fill_window(&self.tokens, window * self.context, inputs, targets);
            filled += 1;
        }
        filled
    }
}

fn window_count(tokens: &TokenSource, context: usize) -> Result<usize> {
    match (tokens.len().saturating_sub(1)).checked_div(context) {
        None => Err(Error::Usage("a context of 0 tokens: it must be at least 1".into())),
        Some(0) => Err(Error::file(
            tokens.path(),
            format!(
                "{} tokens are too few for one window of {context} and its last target; give more text, or a smaller --context or --val-fraction",
                tokens.len()
            ),
        )),
        Some(count) => Ok(count),
    }
}

/// Tokens are below a vocabulary size that fits i32, as `TokenSource::check_vocab_size` makes sure.
fn fill_window(tokens: &TokenSource, start: usize, inputs: &mut [i32], targets: &mut [i32]) {
    for (i, (input, target)) in inputs.iter_mut().zip(targets).enumerate() {
        *input = tokens.get(start + i) as i32;
        *target = tokens.get(start + i + 1) as i32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token `i` is `i`, so that a window tells where it started.
    fn source(count: u32) -> Arc<TokenSource> {
        Arc::new(TokenSource::from_tokens("counting", (0..count).collect()))
    }

    fn starts(loader: &mut Loader, rows: usize) -> Vec<i32> {
        let (mut inputs, mut targets) = (vec![0; rows * loader.context], vec![0; rows * loader.context]);
        loader.fill(&mut inputs, &mut targets);
        assert!(inputs.iter().zip(&targets).all(|(i, t)| i + 1 == *t));
        inputs.chunks(loader.context).for_each(|w| assert!(w.windows(2).all(|p| p[0] + 1 == p[1])));
        inputs.chunks(loader.context).map(|window| window[0]).collect()
    }

    #[test]
    fn every_epoch_visits_every_window_once() {
        for count in [2, 9, 70, 1000] {
            let mut loader = Loader::new(source(count), 1, 3).unwrap();
            let windows = loader.windows as usize;
            let mut epochs: Vec<Vec<i32>> = (0..3).map(|_| starts(&mut loader, windows)).collect();
            if windows > 50 {
                assert!(epochs[0] != epochs[1] && !epochs[0].is_sorted(), "{epochs:?}");
            }
            for epoch in &mut epochs {
                epoch.sort_unstable();
                assert_eq!(*epoch, (0..windows as i32).map(|w| w + epoch[0]).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn windows_shift_from_epoch_to_epoch() {
        let mut loader = Loader::new(source(1001), 10, 5).unwrap();
        let phases: Vec<i32> = (0..20).map(|_| starts(&mut loader, 99)[0] % 10).collect();
        assert!(phases.iter().any(|phase| *phase != phases[0]), "{phases:?}");
    }

    #[test]
    fn micro_batches_hold_what_the_big_batch_holds_and_positions_resume() {
        let seed = 9;
        let mut big = Loader::new(source(100), 5, seed).unwrap();
        let mut small = Loader::new(source(100), 5, seed).unwrap();
        for _ in 0..10 {
            let halves = [starts(&mut small, 4), starts(&mut small, 4)].concat();
            assert_eq!(starts(&mut big, 8), halves);
            let mut resumed = Loader::new(source(100), 5, seed).unwrap();
            resumed.seek(big.position());
            let next = starts(&mut resumed, 8);
            assert_eq!(next, starts(&mut big, 8));
            assert_eq!(next, starts(&mut small, 8));
        }
        let other = starts(&mut Loader::new(source(100), 5, 10).unwrap(), 8);
        assert_ne!(other, starts(&mut Loader::new(source(100), 5, seed).unwrap(), 8));
    }

    #[test]
    fn validation_windows_are_fixed() {
        let windows = ValidationWindows::new(source(18), 4).unwrap();
        assert_eq!(windows.count(), 4);
        let (mut inputs, mut targets) = ([-1; 12], [-1; 12]);
        assert_eq!(windows.fill(0, &mut inputs, &mut targets), 3);
        assert_eq!((inputs[0], targets[11]), (0, 12));
        assert_eq!(windows.fill(3, &mut inputs, &mut targets), 1);
        assert_eq!((inputs[0], inputs[4]), (12, 4), "what is not filled stays");
    }

    #[test]
    fn too_few_tokens_are_an_error() {
        assert!(Loader::new(source(4), 4, 0).err().unwrap().to_string().contains("4 tokens are too few"));
        assert!(Loader::new(source(0), 4, 0).is_err());
        assert!(Loader::new(source(9), 0, 0).is_err());
        assert!(ValidationWindows::new(source(3), 8).is_err());
    }
}
