//! Byte-level BPE tokenizers between Hugging Face's files and GGUF's metadata.

mod byte_level;
mod read;
mod write;

pub(super) use read::as_gguf;
use serde_json::{Value, json};
pub(super) use write::from_gguf;

/// Token types of GGUF.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Llama 3's pre-split, as its `tokenizer.json` has it.
const LLAMA_BPE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pre-tokenizers that GGUF's name `pre` stands for.
fn pre_tokenizers(pre: &str) -> Option<Vec<Value>> {
    let byte_level =
        |split: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": split});
    Some(match pre {
        "gpt-2" => vec![byte_level(true)],
        "smollm" => vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)],
        "llama-bpe" => vec![
            json!({"type": "Split", "pattern": {"Regex": LLAMA_BPE}, "behavior": "Isolated", "invert": false}),
            byte_level(false),
        ],
        _ => return None,
    })
}

/// Whether llama.cpp starts a text with `bos` when a file with this `pre` does not say.
fn adds_bos(pre: &str) -> bool {
    pre == "llama-bpe"
}
