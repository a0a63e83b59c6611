//! Tokenizers against ids made by other implementations.

use staticgrad::text::{EncodeOptions, Tokenizer};
use staticgrad::weights::Checkpoint;

/// `fixtures/gpt2_ids.json`: texts and the ids that tiktoken gives them with GPT-2's vocabulary.
#[test]
fn gpt2_agrees_with_tiktoken() {
    let cases: Vec<serde_json::Value> = serde_json::from_str(include_str!("fixtures/gpt2_ids.json")).unwrap();
    let gpt2 = Tokenizer::gpt2();
    assert!(cases.len() >= 40);
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(gpt2.encode(text, EncodeOptions::TEXT).unwrap(), ids, "{text:?}");
        assert_eq!(gpt2.decode(&ids).unwrap(), text);
    }
}

/// One long word must not take quadratic time: this takes a fraction of a second, or minutes.
#[test]
fn a_long_word_is_tokenised_quickly() {
    let text = "ab".repeat(200_000);
    let gpt2 = Tokenizer::gpt2();
    let ids = gpt2.encode(&text, EncodeOptions::TEXT).unwrap();
    assert_eq!(gpt2.decode(&ids).unwrap(), text);
}

/// `fixtures/smollm2_ids.json`: texts and the ids that llama.cpp gives them with SmolLM2's vocabulary, as plain text and as
/// prompts in which special tokens are recognised; the last one is a conversation as the model's template writes it.
#[test]
fn smollm2_agrees_with_llama_cpp() {
    let Some(path) = std::env::var_os("SMOLLM2_GGUF") else {
        eprintln!("skipped: SMOLLM2_GGUF does not name the SmolLM2-135M-Instruct GGUF");
        return;
    };
    let checkpoint = Checkpoint::open(path.as_ref(), &[]).unwrap();
    let tokenizer = Tokenizer::for_checkpoint(&checkpoint).unwrap();
    assert!(tokenizer.is_end(2) && tokenizer.is_special(1) && tokenizer.prefix().is_empty());
    let cases: Vec<serde_json::Value> = serde_json::from_str(include_str!("fixtures/smollm2_ids.json")).unwrap();
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        for (kind, options) in [("plain", EncodeOptions::TEXT), ("prompt", EncodeOptions::PROMPT)] {
            let Ok(ids) = serde_json::from_value::<Vec<u32>>(case[kind].clone()) else { continue };
            assert_eq!(tokenizer.encode(text, options).unwrap(), ids, "{kind} {text:?}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }
}
