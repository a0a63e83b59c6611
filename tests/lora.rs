//! Finetuning with low-rank adapters: what is frozen, what is stored, resuming.

#[path = "common/adapters.rs"]
mod adapters;

use adapters::*;
use staticgrad::graph::Section;
use staticgrad::spec;
use staticgrad::train::Log;
use staticgrad::train::checkpoint::Saved;
use staticgrad::weights::Checkpoint;
use std::path::Path;

fn names(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut names: Vec<String> = file.names().into_iter().map(str::to_string).collect();
    names.sort();
    names
}

#[test]
fn only_adapters_are_trained_and_stored() {
    let place = place();
    let model = fixture("gpt2-tiny");
    let targets = ["--lora-targets", "c_attn,mlp.c_proj", "--lora-alpha", "3"];
    succeeded(adapt(&place, &model, "out", &[&targets[..], &["--steps", "3"]].concat()));
    let expected = |prefix: &str, endings: &[&str]| {
        let mut all = Vec::new();
        for layer in 0..2 {
            for linear in ["attn.c_attn", "mlp.c_proj"] {
                let half =
                    |half| endings.iter().map(move |e| format!("{prefix}h.{layer}.{linear}.lora_{half}.weight{e}"));
                all.extend(half("A").chain(half("B")));
            }
        }
        all.sort();
        all
    };
    let moments = ["", ".first_moment", ".second_moment"];
    assert_eq!(names(&place.path("out/checkpoint.safetensors")), expected("", &moments));
    let adapter = place.path("out/adapter_model.safetensors");
    assert_eq!(names(&adapter), expected("base_model.model.transformer.", &[""]));
    assert!(!place.path("out/model.safetensors").exists());
    let config = std::fs::read(place.path("out/adapter_config.json")).expect("a configuration");
    let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["target_modules"], serde_json::json!(["c_attn", "mlp.c_proj"]));
    assert_eq!((&config["r"], &config["lora_alpha"]), (&4.into(), &3.0.into()));
    assert_eq!(config["fan_in_fan_out"], serde_json::json!(true));
    // Backward computes no gradient of what is frozen and ends at the lowest adapter.
    let state = Saved::open(&place.path("out/checkpoint.safetensors")).expect("a checkpoint").state().clone();
    let checkpoint = Checkpoint::open(Path::new(&model), &[]).expect("the fixture");
    let sets: Vec<(String, String)> =
        checkpoint.config().dims.iter().map(|(n, v)| (n.clone(), v.to_string())).collect();
    let graph = spec::compile(&spec::builtin("gpt2").expect("built in"), &sets, None).expect("compiles");
    let plan = |targets: &[&str]| {
        let mut settings = state.settings.clone();
        settings.lora.as_mut().expect("adapters").targets = targets.iter().map(|t| t.to_string()).collect();
        let graph = staticgrad::train::planning::adapted(&graph, &settings).expect("adapters fit");
        staticgrad::train::planning::plan(&graph, &settings, 1).expect("plans").plan
    };
    let backward = |targets: &[&str]| -> Vec<String> {
        let plan = plan(targets);
        let nodes = plan.graph.nodes.iter().filter(|n| n.section == Section::Backward && !n.recomputed);
        nodes.map(|n| format!("{} {}", n.op, n.name)).collect()
    };
    let all = backward(&["c_attn"]);
    assert!(
        all.iter().all(|n| !n.contains("linear.d_weight") && !n.contains("d_bias") && !n.contains("d_table")),
        "{all:?}"
    );
    assert!(all.iter().all(|n| !n.contains("h.0.attn.c_attn.d_input") && !n.contains("h.0.ln_1")), "{all:?}");
    let upper = backward(&["h.1.mlp.c_proj"]);
    assert!(upper.iter().all(|n| !n.contains(" h.0.") && !n.contains("h.1.attn")), "{upper:?}");
}

#[test]
fn resumed_adapters_have_the_bits_of_an_uninterrupted_run_on_the_same_base_only() {
    let place = place();
    for (name, model) in [("gpt2", fixture("gpt2-tiny")), ("llama", fixture("gguf-mini/llama.gguf"))] {
        let out = |end: &str| format!("{name}-{end}");
        let steps = ["--steps", "12", "--checkpoint-every", "5", "--log-every", "1"];
        succeeded(adapt(&place, &model, &out("whole"), &steps));
        let mut child = adapt(&place, &model, &out("killed"), &steps).spawn().expect("the program starts");
        std::thread::sleep(std::time::Duration::from_millis(60));
        let _ = child.kill();
        child.wait().expect("it ends");
        if place.path(&out("killed")).join("checkpoint.safetensors").exists() {
            succeeded(place.train(&out("killed"), &["--resume", "--threads", "1"]));
        } else {
            succeeded(adapt(&place, &model, &out("killed"), &steps));
        }
        for file in ["checkpoint.safetensors", "adapter_model.safetensors"] {
            let bytes = |end: &str| values(&place.path(&out(end)).join(file));
            assert!(bytes("whole") == bytes("killed"), "{name}: {file}");
        }
        let losses: Vec<f64> = Log::read(&place.path(&out("whole")).join("log.jsonl"))
            .expect("a log")
            .iter()
            .filter_map(|r| r.loss)
            .collect();
        assert!(losses[11] < losses[0] - 0.05, "{name}: {losses:?}");
    }
    // The base is found again, and another one is refused.
    let base = place.path("base");
    std::fs::create_dir(&base).expect("a directory");
    let copy = |from: &str| {
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(Path::new(&fixture(from)).join(file), base.join(file)).expect("copied");
        }
    };
    copy("gpt2-tiny");
    succeeded(adapt(&place, "base", "moved", &["--steps", "2"]));
    let refused = |options: &[&str]| {
        let output = output(place.train("moved", options));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, message) = refused(&["--resume", "--lora-rank", "8"]);
    assert!(code == Some(2) && message.contains("--lora-rank differs"), "{message}");
    let mut weights = std::fs::read(base.join("model.safetensors")).expect("weights");
    let last = weights.len() - 3;
    weights[last] ^= 1;
    std::fs::write(base.join("model.safetensors"), weights).expect("written");
    let (code, message) = refused(&["--resume"]);
    assert!(code == Some(1) && message.contains("other frozen parameters"), "{message}");
    std::fs::remove_dir_all(&base).expect("removed");
    let (code, message) = refused(&["--resume"]);
    assert!(code == Some(1) || code == Some(2), "{message}");
    assert!(message.contains("base"), "{message}");
}

#[test]
fn adapters_have_the_same_bits_for_any_threads_and_micro_batches() {
    let place = place();
    for (name, model) in [("gpt2", fixture("gpt2-tiny")), ("llama", fixture("llama-tiny"))] {
        let run = |end: &str, options: &[&str]| {
            let common =
                ["--model", &model, "--lora-rank", "9", "--data", "train.bin", "--context", "16", "--steps", "4"];
            let rest = ["--lr", "1e-2", "--warmup", "0", "--sample-every", "0", "--moments", "bf16"];
            let out = format!("{name}-{end}");
            succeeded(place.train(&out, &[&common[..], &rest[..], options].concat()));
            values(&place.path(&out).join("checkpoint.safetensors"))
        };
        let whole = run("whole", &["--batch", "8", "--threads", "1"]);
        assert!(whole == run("threads", &["--batch", "8", "--threads", "3"]), "{name}: threads");
        assert!(whole == run("parts", &["--batch", "4", "--accumulate", "2"]), "{name}: micro-batches of 64 rows");
        let budget = ["--batch", "8", "--memory-budget", "100MiB"];
        assert!(whole == run("budget", &budget), "{name}: nothing recomputed");
        let unclipped = ["--batch", "8", "--clip", "0"];
        let inside = run("inside", &[&unclipped[..], &["--fuse-optimizer"]].concat());
        assert!(run("unclipped", &unclipped) == inside, "{name}: updates inside backward");
    }
}

#[test]
fn a_base_in_bf16_computes_what_its_rounded_weights_compute() {
    let place = place();
    for (name, model) in [("gpt2", fixture("gpt2-tiny")), ("llama", fixture("llama-tiny"))] {
        let rounded = format!("{name}-rounded");
        staticgrad(&place, &["export", "--model", &model, "--to", "hf", "--type", "bf16", "--out", &rounded]);
        for precision in ["f32", "bf16"] {
            let steps = ["--steps", "6", "--checkpoint-every", "3"];
            let options = [&steps[..], &["--precision", precision]].concat();
            let (wide, narrow) = (format!("{name}-{precision}-wide"), format!("{name}-{precision}-narrow"));
            let first = succeeded(adapt(&place, &rounded, &wide, &options));
            let second =
                succeeded(adapt(&place, &rounded, &narrow, &[&options[..], &["--base-type", "bf16"]].concat()));
            let bytes = |out: &str| values(&place.path(out).join("checkpoint.safetensors"));
            assert!(bytes(&wide) == bytes(&narrow), "{name} {precision}");
            let parameters = |printed: &str| -> u64 {
                let line = printed.lines().find(|l| l.trim_start().starts_with("parameters")).expect("a line");
                line.split_whitespace().nth(1).expect("bytes").parse().expect("a number")
            };
            assert!(parameters(&second) < parameters(&first) * 3 / 4, "{first}{second}");
        }
    }
}

#[test]
fn adapters_that_cannot_be_are_refused() {
    let place = place();
    let refused = |model: &str, options: &[&str], code: i32, words: &str| {
        let output = output(place.train("a", &[&["--model", model, "--steps", "2"], &OPTIONS[..], options].concat()));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{options:?}: {message}");
        assert!(message.contains(words) && message.trim_end().lines().count() == 1, "{options:?}: {message}");
    };
    let tiny = fixture("gpt2-tiny");
    refused(&tiny, &["--lora-rank", "0"], 2, "--lora-rank 0");
    refused(&tiny, &["--lora-rank", "2", "--lora-alpha", "0"], 2, "--lora-alpha 0");
    refused(&tiny, &["--lora-alpha", "2"], 2, "--lora-alpha needs --lora-rank");
    refused(&tiny, &["--lora-rank", "2", "--lora-targets", "q_proj"], 1, "there are c_attn, c_fc, c_proj");
    refused("gpt2", &["--lora-rank", "2", "--set", "L=1"], 2, "is a spec");
    assert!(!place.path("a").join("checkpoint.safetensors").exists());
}
