//! The tokenizer of a checkpoint.

use std::path::Path;

use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::weights::{Checkpoint, TokenizerSource};

impl Tokenizer {
    /// What the checkpoint brings (`tokenizer.json`, `vocab.json` with `merges.txt`, GGUF metadata); else a tokenizer file in
    /// the directory of the weights; else [`Tokenizer::for_vocab_size`].
    pub fn for_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let path = checkpoint.path();
        match checkpoint.tokenizer() {
            TokenizerSource::Json { path, .. } => Self::open(path),
            TokenizerSource::VocabularyAndMerges { vocabulary, .. } => Self::open(vocabulary),
            TokenizerSource::Gguf(metadata) => Self::from_gguf(&path.display().to_string(), metadata),
            TokenizerSource::None => beside(path, checkpoint.config().dim("V")?),
        }
    }
}

fn beside(weights: &Path, vocab_size: usize) -> Result<Tokenizer> {
    let parent = weights.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = if weights.is_dir() { weights } else { parent };
    let Some(tokenizer) = Tokenizer::find_in(directory)? else {
        return Tokenizer::for_vocab_size(vocab_size).map_err(|error| Error::file(weights, error.to_string()));
    };
    if tokenizer.vocab_size() > vocab_size {
        return Err(Error::Tokenizer(format!(
            "{} beside {} has {} tokens, but the model's vocabulary is {vocab_size}: it belongs to another model",
            tokenizer.name(),
            weights.display(),
            tokenizer.vocab_size()
        )));
    }
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_weight_file_takes_what_lies_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let weights = directory.path().join("model.bin");
        assert_eq!(beside(&weights, 256).unwrap().name(), "bytes");
        assert_eq!(beside(&weights, 50_257).unwrap().name(), "gpt2");
        let refused = beside(&weights, 97).err().unwrap().to_string();
        assert!(refused.contains("model.bin") && refused.contains("tokenizer.json"), "{refused}");
        let pairs: Vec<u8> = (0..=255u8).flat_map(|byte| [1, byte]).chain(*b"\x02ab").collect();
        let mut file: Vec<u8> = [20_240_328u32, 2, 257, 256].iter().flat_map(|word| word.to_le_bytes()).collect();
        file.resize(1024, 0);
        file.extend(pairs);
        std::fs::write(directory.path().join("gpt2_tokenizer.bin"), file).unwrap();
        assert_eq!(beside(&weights, 257).unwrap().vocab_size(), 257);
        assert!(beside(&weights, 97).err().unwrap().to_string().contains("another model"));
    }
}
