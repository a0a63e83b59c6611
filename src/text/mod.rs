//! Text in and out: tokenizers, streaming of decoded UTF-8, sampling.
//!
//! * [`Tokenizer`]: one type for every vocabulary (embedded GPT-2, bytes, Hugging Face files, GGUF metadata, llm.c files).
//! * [`StreamDecoder`]: token bytes to text that never splits a character.
//! * [`Sampler`]: the next token from a row of logits.

mod checkpoint_tokenizer;
mod gguf_vocabulary;
mod hugging_face;
mod open;
mod rank_bpe;
mod sampler;
mod stream;
mod token_table;
mod tokenizer;
mod vocabulary_file;

pub use sampler::{Sampler, SamplerOptions, greedy};
pub use stream::StreamDecoder;
pub use tokenizer::{EncodeOptions, Tokenizer};
