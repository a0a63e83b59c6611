//! Tokenizers that the `tokenizers` crate runs: `tokenizer.json`, and byte-level BPE from a vocabulary and a merge list.

use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Engine};

use super::token_table::{TokenTable, byte_level_bytes};
use crate::error::{Error, Result};

/// Refuses what the crate panics on instead: a decoder or normalizer that is no JSON, a precompiled normalizer that is damaged.
fn check_parts(json: &[u8]) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Parts {
        #[serde(default, rename = "decoder")]
        _decoder: Value,
        #[serde(default)]
        normalizer: Value,
    }
    fn check(normalizer: &Value) -> serde_json::Result<()> {
        match normalizer {
            Value::Object(fields) if fields.get("type").is_some_and(|t| t == "Precompiled") => {
                serde_json::from_value::<Precompiled>(normalizer.clone()).map(drop)
            }
            Value::Object(fields) => fields.values().try_for_each(check),
            Value::Array(several) => several.iter().try_for_each(check),
            _ => Ok(()),
        }
    }
    let parts: serde_json::Result<Parts> = serde_json::from_slice(json);
    let checked = parts.and_then(|parts| check(&parts.normalizer));
    checked.map_err(|e| Error::Tokenizer(format!("not a tokenizer.json: {e}")))
}

/// An engine of the crate, in both ways of treating special tokens.
pub(super) struct HuggingFace {
    parsing: Engine,
    /// The same, with special tokens read as plain text; made on first use.
    plain: OnceLock<Engine>,
    /// The tokens of a text add up to exactly its bytes. The crate drops what a vocabulary cannot express; with this set
    /// that is an error.
    exact: bool,
}

/// How the strings of a vocabulary spell bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// GPT-2's byte alphabet.
    ByteLevel,
    /// `▁` is a space, `<0x0A>` a byte (SentencePiece).
    SentencePiece,
}

impl HuggingFace {
    /// Reads the content of a `tokenizer.json`: the engine, its tokens, its special ids, and what it puts before a text.
    pub fn from_json(json: &[u8]) -> Result<(Self, TokenTable, Vec<u32>, Vec<u32>)> {
        check_parts(json)?;
        let mut engine =
            Engine::from_bytes(json).map_err(|e| Error::Tokenizer(format!("not a tokenizer.json: {e}")))?;
        // Prompts are neither cut nor filled up, whatever the file was saved with.
        engine.with_truncation(None).map_err(crate_error)?.with_padding(None);
        let spelling = spelling_of(&serde_json::to_value(engine.get_decoder()).unwrap_or(Value::Null))?;
        let prefix = prefix_of(&engine)?;
        let (table, special) = table_of(&engine, spelling)?;
        Ok((Self { parsing: engine, plain: OnceLock::new(), exact: false }, table, special, prefix))
    }

    /// A byte-level BPE: pre-splits run first, then the byte alphabet, then the merges.
    pub fn from_bpe(
        model: BPE,
        splits: Vec<PreTokenizerWrapper>,
        added: &[AddedToken],
    ) -> Result<(Self, TokenTable, Vec<u32>)> {
        let mut engine = Engine::new(model);
        engine.with_pre_tokenizer(Some(PreTokenizerWrapper::from(
            tokenizers::pre_tokenizers::sequence::Sequence::new(splits),
        )));
        engine.with_decoder(Some(ByteLevel::default()));
        engine.add_tokens(added);
        let (table, special) = table_of(&engine, Spelling::ByteLevel)?;
        Ok((Self { parsing: engine, plain: OnceLock::new(), exact: true }, table, special))
    }

    /// The id of a token by its text.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.parsing.token_to_id(token)
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, text: &str, parse_special: bool, table: &TokenTable, ids: &mut Vec<u32>) -> Result<()> {
        let engine =
            if parse_special { &self.parsing } else { self.plain.get_or_init(|| reading_all_as_text(&self.parsing)) };
        let encoding = engine.encode_fast(text, false).map_err(crate_error)?;
        if self.exact {
            check_exact(text, encoding.get_ids(), table)?;
        }
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }
}

fn reading_all_as_text(engine: &Engine) -> Engine {
    let mut plain = engine.clone();
    plain.set_encode_special_tokens(true);
    plain
}

fn check_exact(text: &str, ids: &[u32], table: &TokenTable) -> Result<()> {
    let mut rest = text.as_bytes();
    for &id in ids {
        let token = table.get(id).unwrap_or_default();
        let Some(after) = rest.strip_prefix(token) else { break };
        rest = after;
    }
    match rest.first() {
        None => Ok(()),
        Some(byte) => Err(Error::Tokenizer(format!(
            "the vocabulary cannot express the byte 0x{byte:02x} at offset {} of the text",
            text.len() - rest.len()
        ))),
    }
}

fn crate_error(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}

/// What the post-processor puts before a text.
fn prefix_of(engine: &Engine) -> Result<Vec<u32>> {
    let bare = engine.encode("a", false).map_err(crate_error)?;
    let full = engine.encode("a", true).map_err(crate_error)?;
    let (bare, full) = (bare.get_ids(), full.get_ids());
    let at = full.windows(bare.len().max(1)).position(|window| window == bare).unwrap_or(0);
    Ok(full[..at].to_vec())
}

/// Reads off the decoder how tokens spell bytes.
fn spelling_of(decoder: &Value) -> Result<Spelling> {
    let kind = decoder.get("type").and_then(Value::as_str).unwrap_or("none");
    match kind {
        "ByteLevel" => Ok(Spelling::ByteLevel),
        "Metaspace" | "ByteFallback" => Ok(Spelling::SentencePiece),
        "Sequence" => {
            let parts = decoder.get("decoders").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let mut spellings =
                parts.iter().filter(|p| !matches!(p["type"].as_str(), Some("Replace" | "Fuse" | "Strip")));
            spellings.next().map_or_else(|| Err(unknown_decoder("Sequence")), spelling_of)
        }
        other => Err(unknown_decoder(other)),
    }
}

fn unknown_decoder(kind: &str) -> Error {
    Error::Tokenizer(format!(
        "decoder '{kind}' in tokenizer.json is not supported; ByteLevel, Metaspace and ByteFallback are"
    ))
}

/// The bytes of every id, and the ids that are special.
fn table_of(engine: &Engine, spelling: Spelling) -> Result<(TokenTable, Vec<u32>)> {
    let vocabulary = engine.get_vocab(true);
    let added = engine.get_added_tokens_decoder();
    // An id far beyond the count is a broken file; a table of its size could exhaust memory.
    let size = vocabulary.values().map(|&id| id as usize + 1).max().unwrap_or(0);
    if size == 0 || size > 16 * vocabulary.len() + 65_536 {
        return Err(Error::Tokenizer(format!(
            "{} tokens, but ids up to {size}: the vocabulary is broken",
            vocabulary.len()
        )));
    }
    let mut tokens: Vec<Vec<u8>> = vec![Vec::new(); size];
    for (token, &id) in &vocabulary {
        tokens[id as usize] = match added.get(&id) {
            Some(_) => token.clone().into_bytes(),
            None => token_bytes(token, spelling),
        };
    }
    let mut special: Vec<u32> = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
    special.sort_unstable();
    Ok((tokens.into_iter().collect(), special))
}

/// A token that is not in the spelling's alphabet stands for its own text.
fn token_bytes(token: &str, spelling: Spelling) -> Vec<u8> {
    match spelling {
        Spelling::ByteLevel => byte_level_bytes(token).unwrap_or_else(|| token.as_bytes().to_vec()),
        Spelling::SentencePiece => {
            let byte = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')).filter(|hex| hex.len() == 2);
            match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => vec![byte],
                None => token.replace('\u{2581}', " ").into_bytes(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn decoders_tell_the_spelling() {
        assert_eq!(spelling_of(&json!({"type": "ByteLevel"})).unwrap(), Spelling::ByteLevel);
        let llama2 = json!({"type": "Sequence", "decoders": [
            {"type": "Replace"}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip"}]});
        assert_eq!(spelling_of(&llama2).unwrap(), Spelling::SentencePiece);
        assert!(spelling_of(&json!({"type": "WordPiece"})).unwrap_err().to_string().contains("WordPiece"));
        assert!(spelling_of(&Value::Null).is_err());
        assert_eq!(token_bytes("▁a", Spelling::SentencePiece), b" a");
        assert_eq!(token_bytes("<0x0A>", Spelling::SentencePiece), b"\n");
        assert_eq!(token_bytes("Ġa", Spelling::ByteLevel), b" a");
    }

    #[test]
    fn a_broken_file_is_refused() {
        assert!(HuggingFace::from_json(b"{}").is_err());
    }
}
