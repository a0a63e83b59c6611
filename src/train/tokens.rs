//! Tokens to train on or to measure, from a token file or from text.

use super::token_file::TokenFile;
use super::tokenize::encode_document;
use crate::error::{Error, Result};
use crate::text::Tokenizer;
use std::path::{Path, PathBuf};

/// A run of tokens to train on or to measure: a mapped file, or text tokenised into memory.
pub struct TokenSource {
    name: PathBuf,
    storage: Storage,
}

enum Storage {
    Mapped(TokenFile),
    Memory(Vec<u32>),
}

impl TokenSource {
    /// Opens a token file (`.bin`), or reads any other file as UTF-8 text through `tokenizer`, as `staticgrad tokenize` does.
    pub fn open(path: &Path, tokenizer: impl FnOnce() -> Result<Tokenizer>) -> Result<Self> {
        if path.extension().is_some_and(|extension| extension == "bin") {
            return Ok(TokenFile::open(path)?.into());
        }
        let mut tokens = Vec::new();
        encode_document(path, &tokenizer()?, false, &mut tokens)?;
        Ok(Self { name: path.to_path_buf(), storage: Storage::Memory(tokens) })
    }

    /// Tokens already in memory; `name` is for messages.
    pub fn from_tokens(name: impl Into<PathBuf>, tokens: Vec<u32>) -> Self {
        Self { name: name.into(), storage: Storage::Memory(tokens) }
    }

    /// Takes the last share of in-memory tokens away as validation, cut as `staticgrad tokenize --val-fraction` does. A
    /// mapped file is not split: its validation file is made beside it.
    pub fn split_validation(&mut self, fraction: f64) -> Option<Self> {
        match &mut self.storage {
            Storage::Mapped(_) => None,
            Storage::Memory(tokens) => {
                let validation = tokens.split_off(super::tokenize::train_count(tokens.len(), fraction));
                (!validation.is_empty()).then(|| Self::from_tokens(self.name.clone(), validation))
            }
        }
    }

    /// Where the tokens came from.
    pub fn path(&self) -> &Path {
        &self.name
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Mapped(file) => file.len(),
            Storage::Memory(tokens) => tokens.len(),
        }
    }

    /// Bytes in memory: of tokens read from text, or of the mapped file.
    pub fn memory_bytes(&self) -> u64 {
        match &self.storage {
            Storage::Mapped(file) => file.mapped_bytes() as u64,
            Storage::Memory(tokens) => size_of_val(tokens.as_slice()) as u64,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Token `index`. Panics at or beyond `len`.
    pub fn get(&self, index: usize) -> u32 {
        match &self.storage {
            Storage::Mapped(file) => file.get(index),
            Storage::Memory(tokens) => tokens[index],
        }
    }

    /// Errors if a token does not fit a model's vocabulary. Reads every token once.
    pub fn check_vocab_size(&self, vocab_size: usize) -> Result<()> {
        match (0..self.len()).find(|&index| self.get(index) as usize >= vocab_size) {
            None => Ok(()),
            Some(index) => Err(Error::file(
                &self.name,
                format!(
                    "token {} at index {index} is outside the model's vocabulary of {vocab_size}: tokenise with the model's tokenizer",
                    self.get(index)
                ),
            )),
        }
    }
}

impl From<TokenFile> for TokenSource {
    fn from(file: TokenFile) -> Self {
        Self { name: file.path().to_path_buf(), storage: Storage::Mapped(file) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_beyond_the_vocabulary_are_named() {
        let source = TokenSource::from_tokens("x", vec![3, 96, 97]);
        assert!(source.check_vocab_size(98).is_ok());
        assert!(source.check_vocab_size(97).unwrap_err().to_string().contains("token 97 at index 2"));
    }

    #[test]
    fn text_is_read_through_a_tokenizer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.txt");
        std::fs::write(&path, "0123456789").unwrap();
        let mut source = TokenSource::open(&path, || Ok(Tokenizer::bytes())).unwrap();
        assert_eq!((source.len(), source.get(9)), (10, u32::from(b'9')));
        let validation = source.split_validation(0.3).unwrap();
        assert_eq!((source.len(), validation.len(), validation.get(0)), (7, 3, u32::from(b'7')));
        assert!(TokenSource::open(&directory.path().join("no.bin"), || Ok(Tokenizer::bytes())).is_err());
    }
}
