//! Adapters merged into the model that they finetune, and what PEFT makes of them.

#[path = "common/adapters.rs"]
mod adapters;

use adapters::*;
use safetensors::tensor::{Dtype, TensorView};
use staticgrad::train::Log;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes tokens for `eval`.
fn tokens_file(path: &Path) {
    let tokens: Vec<u8> = (0..24i32).flat_map(|i| ((i * i + 5 * i) % 37).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::I32, vec![2, 12], &tokens).expect("a tensor");
    safetensors::serialize_to_file([("tokens", view)], None, path).expect("written");
}

/// Trains adapters of two models and merges them: base directory for PEFT, adapter, merged model.
fn merged(place: &Place) -> Vec<(PathBuf, PathBuf, PathBuf)> {
    let models =
        [("gpt2", fixture("gpt2-tiny")), ("llama", fixture("llama-tiny")), ("gguf", fixture("gguf-mini/llama.gguf"))];
    models
        .into_iter()
        .map(|(name, model)| {
            let (out, to, hf) = (format!("{name}-adapter"), format!("{name}-merged"), format!("{name}-base"));
            succeeded(adapt(place, &model, &out, &["--steps", "8", "--lora-alpha", "8"]));
            staticgrad(place, &["merge", "--model", &model, "--adapter", &out, "--out", &to]);
            staticgrad(place, &["export", "--model", &model, "--to", "hf", "--out", &hf]);
            (place.path(&hf), place.path(&out), place.path(&to))
        })
        .collect()
}

#[test]
fn a_merged_model_is_the_one_that_was_trained() {
    let place = place();
    for (_, adapter, merged) in merged(&place) {
        let log = Log::read(&adapter.join("log.jsonl")).expect("a log");
        let trained = log.iter().rev().find_map(|r| r.val_loss).expect("a validation");
        // One step at a learning rate of nothing measures the merged model on the same windows.
        let model = merged.display().to_string();
        let none = [
            "--model",
            &model,
            "--steps",
            "1",
            "--lr",
            "1e-30",
            "--min-lr",
            "1e-30",
            "--data",
            "train.bin",
            "--val",
            "val.bin",
        ];
        let rest = ["--batch", "2", "--context", "16", "--warmup", "0", "--weight-decay", "0", "--sample-every", "0"];
        let out = format!("{model}-measured");
        succeeded(place.train(&out, &[&none[..], &rest[..]].concat()));
        let measured = Log::read(&Path::new(&out).join("log.jsonl")).expect("a log");
        let measured = measured.iter().rev().find_map(|r| r.val_loss).expect("a validation");
        assert!((trained / measured - 1.0).abs() < 1e-5, "{model}: {trained} trained, {measured} merged");
    }
}

#[test]
fn peft_computes_the_logits_of_the_merged_model() {
    let Some(python) = std::env::var_os("PEERS") else {
        eprintln!("skipped: PEERS is not set (a Python with torch, transformers and peft)");
        return;
    };
    let place = place();
    let tokens = place.path("tokens.safetensors");
    tokens_file(&tokens);
    for (base, adapter, merged) in merged(&place) {
        let logits = place.path("logits.safetensors");
        let text = |path: &Path| path.display().to_string();
        staticgrad(&place, &["eval", "--model", &text(&merged), "--tokens", &text(&tokens), "--out", &text(&logits)]);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/adapter_logits.py");
        let printed =
            Command::new(&python).arg(script).args([&base, &adapter, &tokens, &logits]).output().expect("it runs");
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let numbers: Vec<f64> =
            String::from_utf8_lossy(&printed.stdout).lines().map(|l| l.parse().expect("a number")).collect();
        eprintln!(
            "{}: PEFT {:.1e} from the merged model, {:.1e} from the base",
            merged.display(),
            numbers[0],
            numbers[1]
        );
        assert!(numbers[0] < 1e-5 && numbers[1] > 1e-2, "{}: {numbers:?}", merged.display());
    }
}
