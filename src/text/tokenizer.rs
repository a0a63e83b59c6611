//! The one tokenizer type, whatever the vocabulary came from.

use std::path::Path;
use std::sync::Arc;

use super::hugging_face::HuggingFace;
use super::rank_bpe::RankBpe;
use super::token_table::TokenTable;
use super::vocabulary_file;
use crate::error::{Error, Result};

/// GPT-2's vocabulary (Radford et al., 2019; MIT licence, see `gpt2_tokenizer.LICENSE`) in llm.c's tokenizer format.
const GPT2_VOCABULARY: &[u8] = include_bytes!("gpt2_tokenizer.bin");
/// GPT-2's vocabulary, and the size llm.c pads it to.
const GPT2_SIZE: usize = 50_257;
const GPT2_PADDED_SIZE: usize = 50_304;

/// What [`Tokenizer::encode`] does beyond the plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Special tokens written out in the text (`<|endoftext|>`, `<|im_start|>`) become their id; else they are plain text.
    pub parse_special: bool,
    /// Put the beginning-of-sequence token first, if the model was made with one.
    pub add_bos: bool,
}

impl EncodeOptions {
    /// For prompts: special tokens are recognised, and the text begins as the model expects.
    pub const PROMPT: Self = Self { parse_special: true, add_bos: true };
    /// For data: the text is nothing but text.
    pub const TEXT: Self = Self { parse_special: false, add_bos: false };
}

/// Text to token ids and back. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    engine: Engine,
    table: TokenTable,
    marks: Marks,
}

enum Engine {
    Bytes,
    Ranks(RankBpe),
    HuggingFace(Box<HuggingFace>),
}

/// Tokens with a meaning of their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    /// Never part of plain text, in ascending order.
    pub special: Vec<u32>,
    /// Any of these ends a text.
    pub end: Vec<u32>,
    /// What a prompt begins with, if the model was made with it.
    pub prefix: Vec<u32>,
    /// Stands between documents in training data.
    pub separator: Option<u32>,
}

impl Tokenizer {
    /// GPT-2's own vocabulary, 50257 tokens, embedded in the program.
    pub fn gpt2() -> Self {
        Self::gpt2_padded_to(GPT2_SIZE)
    }

    fn gpt2_padded_to(size: usize) -> Self {
        let file =
            vocabulary_file::parse(Path::new("gpt2_tokenizer.bin"), GPT2_VOCABULARY).expect("embedded and tested");
        Self::from_ranks("gpt2", file, size).expect("embedded and tested")
    }

    /// A token per byte: ids 0 to 255.
    pub fn bytes() -> Self {
        let table = (0..=255u8).map(|byte| [byte]).collect();
        Self::assemble("bytes", Engine::Bytes, table, Marks::default())
    }

    /// For a model that brings no tokenizer: GPT-2's vocabulary at 50257 (or padded to 50304), bytes at 256, else an error.
    pub fn for_vocab_size(vocab_size: usize) -> Result<Self> {
        match vocab_size {
            GPT2_SIZE | GPT2_PADDED_SIZE => Ok(Self::gpt2_padded_to(vocab_size)),
            256 => Ok(Self::bytes()),
            other => Err(Error::Tokenizer(format!(
                "the model brings no tokenizer and its vocabulary of {other} is neither GPT-2's (50257, padded 50304) nor \
                 bytes (256): put its tokenizer.json beside the weights"
            ))),
        }
    }

    /// A vocabulary whose ids are merge ranks: llm.c's `gpt2_tokenizer.bin` (versions 1 and 2) or the C++ ancestor's bare
    /// (length, bytes) pairs.
    pub(super) fn from_vocabulary_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let file = vocabulary_file::parse(path, bytes)?;
        let size = file.table.len();
        Self::from_ranks(&path.display().to_string(), file, size).map_err(|error| Error::file(path, error.to_string()))
    }

    fn from_ranks(name: &str, file: vocabulary_file::VocabularyFile, size: usize) -> Result<Self> {
        let mut table = file.table;
        let special: Vec<u32> = file.end_of_text.into_iter().collect();
        let bpe = RankBpe::new(&table, &special)?;
        // Padding tokens stand for no text.
        while table.len() < size {
            table.push(b"");
        }
        let marks = Marks { end: special.clone(), special, prefix: Vec::new(), separator: file.end_of_text };
        Ok(Self::assemble(name, Engine::Ranks(bpe), table, marks))
    }

    pub(super) fn from_hugging_face(name: &str, engine: HuggingFace, table: TokenTable, marks: Marks) -> Self {
        Self::assemble(name, Engine::HuggingFace(Box::new(engine)), table, marks)
    }

    fn assemble(name: &str, engine: Engine, table: TokenTable, marks: Marks) -> Self {
        Self { inner: Arc::new(Inner { name: name.to_owned(), engine, table, marks }) }
    }

    /// Where the vocabulary came from: `gpt2`, `bytes`, or a path.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How many ids there are, padding included. The model's own vocabulary may be larger.
    pub fn vocab_size(&self) -> usize {
        self.inner.table.len()
    }

    /// The ids of `text`. Errors if the vocabulary cannot express it.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encode_into(text, options, &mut ids)?;
        Ok(ids)
    }

    /// Like [`Tokenizer::encode`], appending to `ids`.
    pub fn encode_into(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        if options.add_bos {
            ids.extend(&self.inner.marks.prefix);
        }
        match &self.inner.engine {
            Engine::Bytes => ids.extend(text.bytes().map(u32::from)),
            Engine::Ranks(bpe) if options.parse_special => self.encode_with_separator(bpe, text, ids),
            Engine::Ranks(bpe) => bpe.encode(text, ids),
            Engine::HuggingFace(engine) => engine.encode(text, options.parse_special, &self.inner.table, ids)?,
        }
        Ok(())
    }

    fn encode_with_separator(&self, bpe: &RankBpe, text: &str, ids: &mut Vec<u32>) {
        let mark = self.separator().and_then(|id| Some((id, std::str::from_utf8(self.inner.table.get(id)?).ok()?)));
        let Some((id, mark)) = mark.filter(|(_, mark)| !mark.is_empty()) else {
            return bpe.encode(text, ids);
        };
        for (i, part) in text.split(mark).enumerate() {
            if i > 0 {
                ids.push(id);
            }
            bpe.encode(part, ids);
        }
    }

    /// The bytes of a token, which may be part of a character: see [`super::StreamDecoder`]. No allocation. A special token
    /// gives the text it is written as, padding gives nothing. Errors on an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8]> {
        self.inner.table.get(id).ok_or_else(|| {
            Error::Tokenizer(format!("token {id} is outside the vocabulary of {} ({})", self.vocab_size(), self.name()))
        })
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(self.token_bytes(id)?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Tokens that end a text; empty for bytes.
    pub fn end_tokens(&self) -> &[u32] {
        &self.inner.marks.end
    }

    /// Whether `id` ends a text.
    pub fn is_end(&self, id: u32) -> bool {
        self.inner.marks.end.contains(&id)
    }

    /// What a prompt begins with ([`EncodeOptions::add_bos`]); mostly empty.
    pub fn prefix(&self) -> &[u32] {
        &self.inner.marks.prefix
    }

    /// Whether `id` is a control token rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.marks.special.binary_search(&id).is_ok()
    }

    /// The token that stands between documents in training data (`<|endoftext|>` where there is one).
    pub fn separator(&self) -> Option<u32> {
        self.inner.marks.separator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<u32> {
        Tokenizer::gpt2().encode(text, EncodeOptions::TEXT).unwrap()
    }

    #[test]
    fn gpt2_ids_are_the_published_ones() {
        assert_eq!(ids("Hello world"), [15496, 995]);
        assert_eq!(ids(""), [0u32; 0]);
        assert_eq!(Tokenizer::gpt2().vocab_size(), 50257);
        assert_eq!(Tokenizer::gpt2().end_tokens(), [50256]);
    }

    #[test]
    fn the_separator_is_recognised_only_when_asked_for() {
        let gpt2 = Tokenizer::gpt2();
        let text = "a<|endoftext|>b";
        assert_eq!(gpt2.encode(text, EncodeOptions::PROMPT).unwrap(), [64, 50256, 65]);
        let plain = gpt2.encode(text, EncodeOptions::TEXT).unwrap();
        assert!(!plain.contains(&50256));
        assert_eq!(gpt2.decode(&plain).unwrap(), text);
    }

    #[test]
    fn tokenizers_by_vocabulary_size() {
        let padded = Tokenizer::for_vocab_size(50304).unwrap();
        assert_eq!((padded.vocab_size(), padded.token_bytes(50300).unwrap()), (50304, &b""[..]));
        let bytes = Tokenizer::for_vocab_size(256).unwrap();
        assert_eq!(bytes.encode("é", EncodeOptions::PROMPT).unwrap(), [0xC3, 0xA9]);
        assert_eq!(bytes.decode(&[0xC3, 0xA9]).unwrap(), "é");
        assert!(bytes.end_tokens().is_empty() && bytes.separator().is_none());
        assert!(Tokenizer::for_vocab_size(97).err().unwrap().to_string().contains("tokenizer.json"));
        assert!(bytes.token_bytes(256).unwrap_err().to_string().contains("outside the vocabulary of 256"));
    }
}
