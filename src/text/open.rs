//! Tokenizers from files and directories.

use std::path::Path;

use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::hugging_face::HuggingFace;
use super::tokenizer::{Marks, Tokenizer};
use crate::error::{Error, Result};
use crate::weights::Checkpoint;

const END_OF_TEXT: &str = "<|endoftext|>";

impl Tokenizer {
    /// What `--tokenizer` names: `gpt2`, `bytes`, a GGUF file, or what [`Tokenizer::open`] takes.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "gpt2" => Ok(Self::gpt2()),
            "bytes" => Ok(Self::bytes()),
            path if path.ends_with(".gguf") => Self::for_checkpoint(&Checkpoint::open(Path::new(path), &[])?),
            path if Path::new(path).exists() => Self::open(Path::new(path)),
            other => Err(Error::Tokenizer(format!(
                "'{other}' is neither gpt2 nor bytes, and there is no such file or directory"
            ))),
        }
    }

    /// Reads a tokenizer from a directory (`tokenizer.json`, else `vocab.json` with `merges.txt`, else llm.c's
    /// `gpt2_tokenizer.bin`), from one of these files, or from the C++ ancestor's vocabulary file. Configuration files beside
    /// it (`generation_config.json`, `config.json`, `tokenizer_config.json`) say which tokens end a text.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::find_in(path)?.ok_or_else(|| {
                Error::file(
                    path,
                    "no tokenizer here: expected tokenizer.json, vocab.json with merges.txt, or gpt2_tokenizer.bin",
                )
            });
        }
        match path.file_name().and_then(|name| name.to_str()) {
            Some("vocab.json" | "merges.txt") => open_merges(path.parent().unwrap_or(Path::new("."))),
            Some(name) if name.ends_with(".json") => open_json(path),
            _ => Self::from_vocabulary_bytes(path, &read(path)?),
        }
    }

    /// The tokenizer of a model directory, or `None` if it brings none (then see [`Tokenizer::for_vocab_size`]).
    pub fn find_in(directory: &Path) -> Result<Option<Self>> {
        let file = |name: &str| directory.join(name);
        if file("tokenizer.json").exists() {
            return open_json(&file("tokenizer.json")).map(Some);
        }
        if file("vocab.json").exists() && file("merges.txt").exists() {
            return open_merges(directory).map(Some);
        }
        if file("gpt2_tokenizer.bin").exists() {
            let path = file("gpt2_tokenizer.bin");
            return Self::from_vocabulary_bytes(&path, &read(&path)?).map(Some);
        }
        Ok(None)
    }
}

fn open_json(path: &Path) -> Result<Tokenizer> {
    let (engine, table, special, prefix) =
        HuggingFace::from_json(&read(path)?).map_err(|error| Error::file(path, error.to_string()))?;
    let end = end_tokens(path.parent().unwrap_or(Path::new(".")), &engine)?;
    let separator = engine.id_of(END_OF_TEXT).or(end.first().copied());
    Ok(Tokenizer::from_hugging_face(
        &path.display().to_string(),
        engine,
        table,
        Marks { special, end, prefix, separator },
    ))
}

fn open_merges(directory: &Path) -> Result<Tokenizer> {
    let vocabulary = directory.join("vocab.json");
    let (vocabulary_name, merges_name) = (path_str(&vocabulary)?.to_owned(), directory.join("merges.txt"));
    let broken = |error: tokenizers::Error| Error::file(&vocabulary, format!("with merges.txt beside it: {error}"));
    let model = BPE::from_file(&vocabulary_name, path_str(&merges_name)?).build().map_err(broken)?;
    let added: Vec<AddedToken> =
        model.get_vocab().contains_key(END_OF_TEXT).then(|| special(END_OF_TEXT)).into_iter().collect();
    let splits = vec![PreTokenizerWrapper::from(ByteLevel::new(false, true, true))];
    let (engine, table, special) =
        HuggingFace::from_bpe(model, splits, &added).map_err(|error| Error::file(&vocabulary, error.to_string()))?;
    let end = end_tokens(directory, &engine)?;
    let separator = engine.id_of(END_OF_TEXT).or(end.first().copied());
    let marks = Marks { special, end, prefix: Vec::new(), separator };
    Ok(Tokenizer::from_hugging_face(&vocabulary_name, engine, table, marks))
}

fn special(token: &str) -> AddedToken {
    AddedToken::from(token, true).normalized(false)
}

/// Every token that a configuration beside the tokenizer names as the end of a text; `<|endoftext|>` if none does.
fn end_tokens(directory: &Path, engine: &HuggingFace) -> Result<Vec<u32>> {
    let mut end = Vec::new();
    for name in ["generation_config.json", "config.json"] {
        match read_json(&directory.join(name))?["eos_token_id"] {
            Value::Array(ref ids) => end.extend(ids.iter().filter_map(token_id)),
            ref id => end.extend(token_id(id)),
        }
    }
    let configuration = read_json(&directory.join("tokenizer_config.json"))?;
    let token = &configuration["eos_token"];
    let token = token.as_str().or_else(|| token["content"].as_str());
    end.extend(token.and_then(|token| engine.id_of(token)));
    if end.is_empty() {
        end.extend(engine.id_of(END_OF_TEXT));
    }
    end.sort_unstable();
    end.dedup();
    Ok(end)
}

fn token_id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// `null` if the file does not exist.
fn read_json(path: &Path) -> Result<Value> {
    if !path.exists() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&read(path)?).map_err(|error| Error::file(path, format!("not valid JSON: {error}")))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(path, "read", error))
}

fn path_str(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::file(path, "the path is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::super::token_table::byte_to_char;
    use super::super::tokenizer::EncodeOptions;
    use super::*;
    use serde_json::json;

    /// The bytes, `he`, `hel`, and `<|endoftext|>`, with their two merges.
    fn write_merges(directory: &Path) -> serde_json::Map<String, Value> {
        let mut vocabulary: serde_json::Map<String, Value> =
            (0..=255u8).map(|b| (byte_to_char(b).to_string(), json!(b))).collect();
        for (id, token) in (256..).zip(["he", "hel", END_OF_TEXT]) {
            vocabulary.insert(token.into(), json!(id));
        }
        std::fs::write(directory.join("vocab.json"), serde_json::to_vec(&vocabulary).unwrap()).unwrap();
        std::fs::write(directory.join("merges.txt"), "#version: 0.2\nh e\nhe l\n").unwrap();
        vocabulary
    }

    #[test]
    fn a_vocabulary_with_merges() {
        let directory = tempfile::tempdir().unwrap();
        write_merges(directory.path());
        let tokenizer = Tokenizer::open(directory.path()).unwrap();
        assert_eq!(tokenizer.encode("hello<|endoftext|>", EncodeOptions::PROMPT).unwrap(), [257, 108, 111, 258]);
        assert_eq!((tokenizer.end_tokens(), tokenizer.separator()), (&[258][..], Some(258)));
        std::fs::write(directory.path().join("merges.txt"), "#version: 0.2\nh x\n").unwrap();
        assert!(Tokenizer::open(&directory.path().join("vocab.json")).is_err());
    }

    #[test]
    fn a_tokenizer_json() {
        let directory = tempfile::tempdir().unwrap();
        let vocabulary = write_merges(directory.path());
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [{"id": 258, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false,
                              "normalized": false, "special": true}],
            "pre_tokenizer": byte_level, "decoder": byte_level,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [258], "tokens": [END_OF_TEXT]}}},
            "model": {"type": "BPE", "vocab": vocabulary, "merges": ["h e", "he l"]},
        });
        let path = directory.path().join("tokenizer.json");
        std::fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
        std::fs::write(directory.path().join("config.json"), r#"{"eos_token_id": [7, 258]}"#).unwrap();
        let tokenizer = Tokenizer::open(&path).unwrap();
        assert_eq!(tokenizer.encode("hel hel", EncodeOptions::PROMPT).unwrap(), [258, 257, 32, 257]);
        assert!(!tokenizer.encode(END_OF_TEXT, EncodeOptions::TEXT).unwrap().contains(&258));
        assert_eq!(tokenizer.decode(&[257, 108, 111]).unwrap(), "hello");
        assert_eq!(tokenizer.end_tokens(), [7, 258]);
    }

    #[test]
    fn missing_and_broken_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Tokenizer::find_in(directory.path()).unwrap().is_none());
        assert!(Tokenizer::open(directory.path()).err().unwrap().to_string().contains("no tokenizer here"));
        assert!(Tokenizer::open(&directory.path().join("absent.bin")).is_err());
        assert!(Tokenizer::named("gpt3").err().unwrap().to_string().contains("neither gpt2 nor bytes"));
        assert_eq!(Tokenizer::named("bytes").unwrap().vocab_size(), 256);
        std::fs::write(directory.path().join("tokenizer.json"), "{").unwrap();
        let message = || Tokenizer::open(directory.path()).err().unwrap().to_string();
        assert!(message().contains("tokenizer.json"), "{}", message());
        let write = |json: &[u8]| std::fs::write(directory.path().join("tokenizer.json"), json).unwrap();
        write(b"{\"decoder\": {\"type\": \"Byte\xffLevel\"}}");
        assert!(message().contains("invalid unicode"), "{}", message());
        write(br#"{"normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "AA"}]}}"#);
        assert!(message().contains("tokenizer.json"), "{}", message());
    }
}
