//! What a checkpoint brings to build its tokenizer from.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the tokenizer of a checkpoint is.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerSource {
    /// The checkpoint brings none.
    None,
    /// A Hugging Face `tokenizer.json`.
    Json {
        /// The model's directory, with `tokenizer_config.json` and the like.
        directory: PathBuf,
        /// The file.
        path: PathBuf,
    },
    /// GPT-2's pair of files.
    VocabularyAndMerges {
        /// The model's directory.
        directory: PathBuf,
        /// `vocab.json`.
        vocabulary: PathBuf,
        /// `merges.txt`.
        merges: PathBuf,
    },
    /// Metadata of a GGUF file.
    Gguf(Box<GgufTokenizer>),
}

/// The `tokenizer.ggml.*` metadata of a GGUF file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GgufTokenizer {
    /// `tokenizer.ggml.model`: `gpt2` for byte-level BPE, `llama` for SentencePiece.
    pub model: String,
    /// `tokenizer.ggml.pre`: the pre-split (`gpt-2`, `smollm`, `llama-bpe`, …).
    pub pre: Option<String>,
    /// Token texts by id; byte-level ones in GPT-2's printable alphabet.
    pub tokens: Vec<String>,
    /// Type of each token (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte); empty when absent.
    pub token_types: Vec<i32>,
    /// SentencePiece scores; empty when absent.
    pub scores: Vec<f32>,
    /// Merge rules, `left right`, best first; empty when absent.
    pub merges: Vec<String>,
    /// Token that starts a sequence.
    pub bos: Option<u32>,
    /// Token that ends a sequence.
    pub eos: Option<u32>,
    /// Token that ends a turn of a conversation.
    pub end_of_turn: Option<u32>,
    /// Token that ends a message that calls a tool.
    pub end_of_message: Option<u32>,
    /// Token for text outside the vocabulary.
    pub unknown: Option<u32>,
    /// Token that pads a batch.
    pub padding: Option<u32>,
    /// Whether a sequence starts with `bos`, when the file says.
    pub add_bos: Option<bool>,
    /// Whether a space goes before the text, when the file says.
    pub add_space_prefix: Option<bool>,
    /// Jinja template of a conversation.
    pub chat_template: Option<String>,
}
