//! A tokenizer rebuilt from the `tokenizer.ggml.*` metadata of a GGUF file.

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::hugging_face::HuggingFace;
use super::tokenizer::{Marks, Tokenizer};
use crate::error::{Error, Result};
use crate::weights::GgufTokenizer;

/// Llama 3's pre-split, as its `tokenizer.json` has it.
const LLAMA_BPE_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Values of `tokenizer.ggml.token_type`.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Control tokens that end a text or a turn, whatever `eos_token_id` says: chat models end turns with a token of their own.
const END_TEXTS: [&str; 4] = ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>"];

/// What a `pre` stands for.
struct Pre {
    splits: Vec<PreTokenizerWrapper>,
    /// A whole piece that is a token stays one, even if no merges lead to it.
    ignore_merges: bool,
    add_bos: bool,
}

impl Pre {
    fn by_name(name: &str) -> Result<Self> {
        // `true` as the last argument of ByteLevel is GPT-2's pre-split.
        let gpt2 = || PreTokenizerWrapper::from(ByteLevel::new(false, true, true));
        let (splits, ignore_merges, add_bos) = match name {
            "gpt-2" => (vec![gpt2()], false, false),
            "smollm" => (vec![PreTokenizerWrapper::from(Digits::new(true)), gpt2()], false, false),
            "llama-bpe" | "llama3" | "llama-v3" => {
                let pattern = SplitPattern::Regex(LLAMA_BPE_SPLIT.into());
                let split =
                    Split::new(pattern, SplitDelimiterBehavior::Isolated, false).expect("the pattern is constant");
                (vec![PreTokenizerWrapper::from(split), ByteLevel::new(false, true, false).into()], true, true)
            }
            other => {
                return Err(Error::Tokenizer(format!(
                    "tokenizer.ggml.pre = '{other}' is not supported; gpt-2, smollm and llama-bpe are"
                )));
            }
        };
        Ok(Self { splits, ignore_merges, add_bos })
    }
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes; `name` is the file, for messages.
    pub fn from_gguf(name: &str, metadata: &GgufTokenizer) -> Result<Self> {
        if metadata.model != "gpt2" {
            return Err(Error::Tokenizer(format!(
                "tokenizer.ggml.model = '{}' in {name} is not supported; gpt2 (byte-level BPE) is",
                metadata.model
            )));
        }
        let pre = metadata.pre.as_deref().ok_or_else(|| {
            Error::Tokenizer(format!(
                "{name} has no tokenizer.ggml.pre, so how it splits words is unknown: convert it anew"
            ))
        })?;
        let pre = Pre::by_name(pre)?;
        let model = BPE::builder()
            .vocab_and_merges(vocabulary(name, metadata)?, merges(name, metadata)?)
            .ignore_merges(pre.ignore_merges)
            .build()
            .map_err(|e| Error::Tokenizer(format!("the vocabulary of {name} is broken: {e}")))?;
        let (engine, table, special) = HuggingFace::from_bpe(model, pre.splits, &added_tokens(metadata))?;
        for id in metadata.bos.iter().chain(&metadata.eos) {
            if *id as usize >= table.len() {
                return Err(Error::Tokenizer(format!(
                    "{name} names token {id}, outside its vocabulary of {}",
                    table.len()
                )));
            }
        }
        let mut end: Vec<u32> = metadata.eos.into_iter().collect();
        end.extend(
            END_TEXTS.iter().filter_map(|text| engine.id_of(text)).filter(|id| special.binary_search(id).is_ok()),
        );
        end.sort_unstable();
        end.dedup();
        let prefix = metadata.bos.filter(|_| metadata.add_bos.unwrap_or(pre.add_bos)).into_iter().collect();
        let separator = engine.id_of(END_TEXTS[0]).or(metadata.eos);
        Ok(Self::from_hugging_face(name, engine, table, Marks { special, end, prefix, separator }))
    }
}

fn vocabulary(name: &str, metadata: &GgufTokenizer) -> Result<Vocab> {
    if !metadata.token_types.is_empty() && metadata.token_types.len() != metadata.tokens.len() {
        return Err(Error::Tokenizer(format!(
            "{name} has {} tokens but {} token types",
            metadata.tokens.len(),
            metadata.token_types.len()
        )));
    }
    let mut vocabulary = Vocab::with_capacity(metadata.tokens.len());
    for (id, token) in (0u32..).zip(&metadata.tokens) {
        if let Some(first) = vocabulary.insert(token.clone(), id) {
            return Err(Error::Tokenizer(format!("tokens {first} and {id} of {name} are both '{token}'")));
        }
    }
    Ok(vocabulary)
}

fn merges(name: &str, metadata: &GgufTokenizer) -> Result<Vec<(String, String)>> {
    let pair = |merge: &String| merge.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()));
    let pairs = metadata.merges.iter();
    pairs
        .map(|merge| pair(merge).ok_or_else(|| Error::Tokenizer(format!("merge '{merge}' of {name} is not a pair"))))
        .collect()
}

/// Tokens found in the text before it is split into words.
fn added_tokens(metadata: &GgufTokenizer) -> Vec<AddedToken> {
    let types = metadata.tokens.iter().zip(&metadata.token_types);
    types
        .filter(|(_, kind)| matches!(**kind, CONTROL | USER_DEFINED))
        .map(|(token, kind)| AddedToken::from(token.clone(), *kind == CONTROL).normalized(false))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::token_table::byte_to_char;
    use super::super::tokenizer::EncodeOptions;
    use super::*;

    /// The 256 bytes, then `merges`, then two control tokens.
    fn metadata(pre: &str, merges: &[&str]) -> GgufTokenizer {
        let mut tokens: Vec<String> = (0..=255u8).map(|b| byte_to_char(b).to_string()).collect();
        tokens.extend(merges.iter().map(|m| m.replace(' ', "")));
        tokens.extend(["<|begin|>".to_owned(), "<|im_end|>".to_owned()]);
        let mut token_types = vec![1; tokens.len()];
        let n = tokens.len();
        token_types[n - 2..].fill(CONTROL);
        GgufTokenizer {
            model: "gpt2".into(),
            pre: Some(pre.into()),
            merges: merges.iter().map(|&m| m.to_owned()).collect(),
            bos: Some(n as u32 - 2),
            tokens,
            token_types,
            ..Default::default()
        }
    }

    #[test]
    fn each_pre_splits_its_own_way() {
        let merges = ["1 2", "12 3", "123 4", "Ġ 1"];
        let lengths = |pre: &str| {
            let tokenizer = Tokenizer::from_gguf("m.gguf", &metadata(pre, &merges)).unwrap();
            let ids = tokenizer.encode("1234 1", EncodeOptions::TEXT).unwrap();
            ids.iter().map(|&id| tokenizer.token_bytes(id).unwrap().len()).collect::<Vec<_>>()
        };
        assert_eq!(lengths("gpt-2"), [4, 2], "digits stay together, a space leads them");
        assert_eq!(lengths("smollm"), [1, 1, 1, 1, 1, 1], "digits stand alone");
        assert_eq!(lengths("llama-bpe"), [3, 1, 1, 1], "at most three digits, without the space");
    }

    #[test]
    fn special_tokens_and_the_prefix() {
        let tokenizer = Tokenizer::from_gguf("m.gguf", &metadata("llama-bpe", &[])).unwrap();
        assert_eq!(tokenizer.encode("a<|im_end|>", EncodeOptions::PROMPT).unwrap(), [256, 97, 257]);
        assert_eq!(tokenizer.encode("<|im_end|>", EncodeOptions::TEXT).unwrap().len(), 10);
        assert!(tokenizer.is_end(257) && tokenizer.is_special(256) && !tokenizer.is_special(97));
        assert_eq!(tokenizer.token_bytes(257).unwrap(), b"<|im_end|>");
        let quiet = GgufTokenizer { add_bos: Some(false), ..metadata("llama-bpe", &[]) };
        assert!(Tokenizer::from_gguf("m.gguf", &quiet).unwrap().prefix().is_empty());
    }

    #[test]
    fn what_is_unknown_or_broken_is_refused_by_name() {
        let message = |change: fn(&mut GgufTokenizer)| {
            let mut metadata = metadata("gpt-2", &["a b"]);
            change(&mut metadata);
            Tokenizer::from_gguf("m.gguf", &metadata).err().expect("an error").to_string()
        };
        assert!(message(|m| m.model = "llama".into()).contains("'llama'"));
        assert!(message(|m| m.pre = Some("qwen2".into())).contains("'qwen2'"));
        assert!(message(|m| m.pre = None).contains("tokenizer.ggml.pre"));
        assert!(message(|m| m.merges.push("xy".into())).contains("'xy'"));
        assert!(message(|m| m.merges.push("x y".into())).contains("broken"));
        assert!(message(|m| m.token_types.truncate(3)).contains("3 token types"));
        assert!(message(|m| m.eos = Some(9999)).contains("9999"));
        assert!(message(|m| m.tokens[5] = m.tokens[6].clone()).contains("tokens 5 and 6"));
    }

    #[test]
    fn what_the_vocabulary_lacks_is_an_error() {
        let mut metadata = metadata("gpt-2", &[]);
        metadata.tokens[usize::from(b'z')] = "unused".into();
        let tokenizer = Tokenizer::from_gguf("m.gguf", &metadata).unwrap();
        let error = tokenizer.encode("xyz", EncodeOptions::TEXT).unwrap_err().to_string();
        assert!(error.contains("0x7a at offset 2"), "{error}");
    }
}
