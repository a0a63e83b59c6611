//! The model that is part of the program; `graph-specs/README.md` says how it was trained.

use crate::error::Result;
use crate::weights::Checkpoint;

/// What messages call it.
const NAME: &str = "shakespeare";
const CONFIG: &str = include_str!("../../graph-specs/shakespeare/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../graph-specs/shakespeare/model.safetensors");

/// Opens it.
///
/// # Errors
/// Overrides that do not fit it.
pub fn checkpoint(overrides: &[(String, String)]) -> Result<Checkpoint> {
    Checkpoint::embedded(NAME, CONFIG, WEIGHTS, overrides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_and_is_small() {
        let checkpoint = checkpoint(&[]).unwrap();
        assert_eq!(checkpoint.config().dim("V").unwrap(), 256);
        assert!(checkpoint.weight_bytes() <= 8_000_000);
    }
}
