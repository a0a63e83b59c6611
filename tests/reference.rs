//! Logits and loss against PyTorch's, from every weight file of the fixtures, and SmolLM2's greedy text.

mod common;

use common::fixture;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::process::Command;

fn staticgrad(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_staticgrad")).args(arguments).output().expect("the binary runs")
}

fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let t = tensors.tensor(name).unwrap_or_else(|_| panic!("tensor {name} is there"));
    t.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Norm of the difference over norm of the reference.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let squares = |x: f32| (x as f64) * (x as f64);
    let difference: f64 = got.iter().zip(want).map(|(g, w)| squares(g - w)).sum();
    (difference / want.iter().map(|&w| squares(w)).sum::<f64>()).sqrt()
}

fn eval_matches(model: &Path, reference: &Path, step_rows: &str) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let out = directory.path().join("out.safetensors");
    let path = |p: &Path| p.to_str().expect("UTF-8").to_string();
    let arguments =
        ["eval", "--model", &path(model), "--tokens", &path(reference), "--out", &path(&out), "--step-rows", step_rows];
    let run = staticgrad(&arguments);
    assert!(run.status.success(), "{}: {}", model.display(), String::from_utf8_lossy(&run.stderr));
    let (got, want) = (std::fs::read(&out).expect("written"), std::fs::read(reference).expect("the fixture"));
    let got = SafeTensors::deserialize(&got).expect("a safetensors file");
    let want = SafeTensors::deserialize(&want).expect("a safetensors file");
    assert_eq!(got.tensor("logits").expect("logits").shape(), want.tensor("logits").expect("logits").shape());
    let error = relative_error(&floats(&got, "logits"), &floats(&want, "logits"));
    assert!(error < 1e-4, "{}: logits differ by {error:e}", model.display());
    let (got, want) = (floats(&got, "loss")[0], floats(&want, "loss")[0]);
    assert!(((got - want) / want).abs() < 1e-5, "{}: loss {got}, reference {want}", model.display());
}

#[test]
fn logits_and_loss_equal_pytorch_from_every_weight_file() {
    let reference = fixture("gpt2-tiny/reference.safetensors");
    for file in ["", "llmc_model.bin", "seed_weights.bin"] {
        eval_matches(&fixture("gpt2-tiny").join(file), &reference, "128");
    }
    eval_matches(&fixture("gpt2-tiny"), &reference, "3");
    eval_matches(&fixture("llama-tiny"), &fixture("llama-tiny/reference.safetensors"), "5");
}

/// The real model, or a visible skip; in CI a missing model is a failure.
fn smollm2() -> Option<PathBuf> {
    let model = std::env::var_os("SMOLLM2_GGUF").map(PathBuf::from);
    if model.is_none() {
        assert!(std::env::var_os("CI").is_none(), "SMOLLM2_GGUF is not set; .ci/run fetches the model");
        eprintln!("SKIPPED: set SMOLLM2_GGUF to the model that tools/fetch_smollm2.sh prints");
    }
    model
}

#[test]
fn smollm2_continues_text_as_pytorch_does() {
    let Some(model) = smollm2() else { return };
    let meta: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("smollm2/reference.json")).expect("the fixture")).expect("JSON");
    let file = std::fs::read(fixture("smollm2/greedy.safetensors")).expect("the fixture");
    let reference = SafeTensors::deserialize(&file).expect("a safetensors file");
    let mut compared = 0;
    for (i, entry) in meta.as_array().expect("a list").iter().enumerate() {
        let Some(prompt) = entry["prompt"].as_str() else { continue };
        let margins = floats(&reference, &format!("{i}.greedy_margin"));
        let steps = margins.iter().position(|&m| m < 0.01).unwrap_or(margins.len());
        let want = entry["greedy_text"].as_str().expect("text").split("<|im_end|>").next().expect("a part");
        let run = staticgrad(&[
            "run",
            "--model",
            model.to_str().expect("UTF-8"),
            prompt,
            "--max-tokens",
            &steps.to_string(),
            "--weights-type",
            "f32",
        ]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let out = String::from_utf8(run.stdout).expect("UTF-8");
        let body = out.strip_prefix(prompt).expect("the prompt comes first").trim_end_matches('\n');
        assert!(
            want.starts_with(body) && body.len() >= steps.min(want.trim_end_matches('\n').len()),
            "prompt {i}: {body:?}, wanted {want:?}"
        );
        compared += 1;
    }
    assert!(compared >= 2);
}
