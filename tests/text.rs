//! Tokenizers against ids made by other implementations.

use staticgrad::text::{EncodeOptions, Tokenizer};

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
