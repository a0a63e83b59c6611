//! llm.c's debug states: a batch with the logits, loss and gradients that another implementation computed for it.
//!
//! A header of 256 little-endian i32: magic 20240327, version 1 or 2, B, T. Then x i32 [B, T], y i32 [B, T], logits f32 [B, T, V], loss
//! f32, and f32 gradients in the order of the model file, the token embedding with the padding rows of the vocabulary.

use super::layout::{Parameter, parameters};
use super::llmc::{HEADER_BYTES, file_order};
use super::model_config::ModelConfig;
use super::tensors::Orientation;
use crate::error::{Error, Result};
use byteorder::{ByteOrder, LittleEndian};
use std::path::Path;

const MAGIC: i32 = 20_240_327;
/// The vocabulary is padded to a multiple of this.
const ROUNDED: usize = 128;

/// What a state file holds.
pub struct DebugState {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub length: usize,
    /// Row by row.
    pub tokens: Vec<i32>,
    /// What follows each token.
    pub targets: Vec<i32>,
    /// One value per row and token of the vocabulary.
    pub logits: Vec<f32>,
    /// Mean over all rows, in nats.
    pub loss: f32,
    /// Every parameter with its gradient; linear weights are `[out, in]`, padding rows are left out.
    pub gradients: Vec<(Parameter, Vec<f32>)>,
}

impl DebugState {
    /// Reads the state of a model with configuration `config`.
    ///
    /// # Errors
    /// Not a state file, or one whose size does not fit the model.
    pub fn open(path: &Path, config: &ModelConfig) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
        Self::parse(path, &bytes, config)
    }

    fn parse(path: &Path, bytes: &[u8], config: &ModelConfig) -> Result<Self> {
        if bytes.len() < HEADER_BYTES {
            let message = format!("{} bytes are too few for the header of an llm.c debug state", bytes.len());
            return Err(Error::file(path, message));
        }
        let field = |i: usize| LittleEndian::read_i32(&bytes[4 * i..]);
        if field(0) != MAGIC || !(1..=2).contains(&field(1)) {
            let message =
                format!("magic {} version {}; an llm.c debug state has {MAGIC} version 2", field(0), field(1));
            return Err(Error::file_at(path, 0, message));
        }
        let damaged =
            |message: String| Error::file_at(path, 8, message + "; it is damaged or belongs to another model");
        let (Ok(batch @ 1..), Ok(length @ 1..)) = (usize::try_from(field(2)), usize::try_from(field(3))) else {
            return Err(damaged(format!("a batch of {} × {} tokens", field(2), field(3))));
        };
        let (v, c) = (config.dim("V")?, config.dim("C")?);
        let list = file_order(parameters(config)?);
        let count: usize = list.iter().map(|p| p.shape.elements()).sum();
        let rows = batch * length;
        let words = (bytes.len() - HEADER_BYTES) / 4;
        let before = rows.checked_mul(v + 2).and_then(|n| n.checked_add(1 + count));
        let padding = before
            .and_then(|n| words.checked_sub(n))
            .filter(|n| bytes.len().is_multiple_of(4) && n.is_multiple_of(c) && n / c < ROUNDED);
        let Some(padding) = padding else {
            return Err(damaged(format!(
                "{} bytes do not hold {batch} × {length} tokens, logits over {v} and {count} gradients",
                bytes.len()
            )));
        };
        let mut at = HEADER_BYTES;
        let mut next = |n: usize| {
            at += 4 * n;
            &bytes[at - 4 * n..at]
        };
        let integers = |b: &[u8]| b.chunks_exact(4).map(LittleEndian::read_i32).collect::<Vec<_>>();
        let floats = |b: &[u8]| b.chunks_exact(4).map(LittleEndian::read_f32).collect::<Vec<_>>();
        let (tokens, targets) = (integers(next(rows)), integers(next(rows)));
        let (logits, loss) = (floats(next(rows * v)), LittleEndian::read_f32(next(1)));
        let mut gradients = Vec::with_capacity(list.len());
        for p in list {
            let values = floats(next(p.shape.elements()));
            if p.name == "wte.weight" {
                next(padding);
            }
            let shape = p.shape_as(Orientation::OutIn);
            let orientation = p.orientation.map(|_| Orientation::OutIn);
            gradients.push((Parameter { name: p.name, shape, orientation }, values));
        }
        Ok(DebugState { batch, length, tokens, targets, logits, loss, gradients })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_sizes_are_checked() {
        let config = ModelConfig::gpt2([5, 4, 4, 2, 1, 16], 1e-5, true);
        let count: usize = parameters(&config).unwrap().iter().map(|p| p.shape.elements()).sum();
        let mut words = vec![0; 256];
        words[..4].copy_from_slice(&[MAGIC, 2, 1, 2]);
        words.extend([3, 4, 4, 1]);
        // Logits, loss, gradients with three rows of padding.
        words.extend((0..2 * 5 + 1 + count + 12).map(|i| (i as f32).to_bits() as i32));
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let parse = |bytes: &[u8]| DebugState::parse(Path::new("s.bin"), bytes, &config);
        let state = parse(&bytes).unwrap();
        assert_eq!((state.tokens, state.targets, state.loss), (vec![3, 4], vec![4, 1], 10.0));
        let (wte, wpe) = (&state.gradients[0], &state.gradients[1]);
        assert_eq!(
            (wte.0.name.as_str(), wte.1[0], wpe.0.name.as_str(), wpe.1[0]),
            ("wte.weight", 11.0, "wpe.weight", 43.0)
        );
        assert_eq!(state.gradients.last().unwrap().1.last(), Some(&((22 + count) as f32)));
        let message = |bytes: &[u8]| parse(bytes).err().unwrap().to_string();
        assert!(message(&bytes[..100]).contains("too few"));
        assert!(message(&bytes[..bytes.len() - 4]).contains("do not hold"));
        assert!(message(&bytes[..bytes.len() - 100]).contains("do not hold"));
        let with = |at: usize, value: i32| {
            let mut changed = bytes.clone();
            changed[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
            message(&changed)
        };
        assert!(with(0, 1).contains("magic 1"));
        assert!(with(2, -1).contains("-1 × 2"));
        assert!(with(3, i32::MAX).contains("do not hold"));
    }
}
