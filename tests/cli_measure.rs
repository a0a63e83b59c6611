//! Commands that measure and convert: gradients, llm.c's debug state, perplexity, multiple choice, export.

#[path = "common/program.rs"]
mod program;

use program::{Bench, fixture, text};
use safetensors::SafeTensors;
use staticgrad::weights::{Checkpoint, Orientation, parameters};
use std::path::Path;

fn floats(bytes: &[u8], name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let t = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let values = t.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (t.shape().to_vec(), values)
}

fn integers(bytes: &[u8], name: &str) -> (Vec<usize>, Vec<i32>) {
    let (shape, values) = floats(bytes, name);
    (shape, values.into_iter().map(|x| x.to_bits() as i32).collect())
}

fn relative(got: &[f32], want: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut want.iter().map(|&b| f64::from(b))).max(1e-30)
}

/// Writes the batch of a reference file for `eval`.
fn reference_batch(bench: &Bench, model: &str) -> Vec<u8> {
    let reference = std::fs::read(Path::new(&fixture(model)).join("reference.safetensors")).unwrap();
    let ((shape, tokens), (_, targets)) = (integers(&reference, "tokens"), integers(&reference, "targets"));
    bench.tokens("batch.safetensors", [shape[0], shape[1]], &tokens, Some(&targets));
    reference
}

#[test]
fn gradients_are_those_of_pytorch_from_every_source() {
    let bench = Bench::new();
    for (model, source) in [
        ("gpt2-tiny", "gpt2-tiny"),
        ("gpt2-tiny", "gpt2-tiny/llmc_model.bin"),
        ("gpt2-tiny", "gpt2-tiny/seed_weights.bin"),
        ("llama-tiny", "llama-tiny"),
    ] {
        let reference = reference_batch(&bench, model);
        let path = fixture(source);
        bench.succeeds(&format!("eval --model {path} --tokens batch.safetensors --out out --grads"));
        let out = std::fs::read(bench.path("out")).unwrap();
        let mut compared = 0;
        for name in SafeTensors::deserialize(&reference).unwrap().names() {
            if name.starts_with("grad.") || name == "logits" {
                let (shape, want) = floats(&reference, name);
                let (found, got) = floats(&out, &name.replace("grad.transformer.", "grad."));
                assert_eq!(shape, found, "{source}: {name}");
                let off = relative(&got, &want);
                assert!(off < 1e-4, "{source}: {name} is off by {off}");
                compared += 1;
            }
        }
        assert!(compared > 20, "{source}: {compared} tensors");
    }
    bench.tokens("bare.safetensors", [1, 2], &[1, 2], None);
    bench.refuses("eval --model model --tokens bare.safetensors --out out2 --grads", 1, &["gradients need targets"]);
    bench.succeeds("compile model --weights model -o model.plan");
    let plan = "eval --model model.plan --tokens bare.safetensors --out out2 --grads";
    bench.refuses(plan, 2, &["--grads needs a checkpoint"]);
}

/// llm.c's debug state of `gpt2-tiny` from PyTorch's reference, with the vocabulary padded to 128 rows.
fn debug_state() -> Vec<u8> {
    let reference = std::fs::read(Path::new(&fixture("gpt2-tiny")).join("reference.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(Path::new(&fixture("gpt2-tiny/llmc_model.bin")), &[]).unwrap();
    let (shape, tokens) = integers(&reference, "tokens");
    let mut words = vec![0i32; 256];
    words[..4].copy_from_slice(&[20_240_327, 2, shape[0] as i32, shape[1] as i32]);
    words.extend(tokens);
    words.extend(integers(&reference, "targets").1);
    words.extend(integers(&reference, "logits").1);
    words.extend(integers(&reference, "loss").1);
    // The checkpoint lists its tensors in the order of the file.
    let list = parameters(checkpoint.config()).unwrap();
    for t in checkpoint.tensors() {
        let p = list.iter().find(|p| p.name == t.name).unwrap();
        let names = [format!("grad.transformer.{}", p.name), format!("grad.{}", p.name)];
        let file = SafeTensors::deserialize(&reference).unwrap();
        let name = names.iter().find(|n| file.tensor(n).is_ok()).unwrap();
        let (shape, values) = integers(&reference, name);
        if p.orientation == Some(Orientation::InOut) {
            let (inputs, outputs) = (shape[0], shape[1]);
            words.extend((0..outputs * inputs).map(|i| values[(i % inputs) * outputs + i / inputs]));
        } else {
            words.extend(values);
        }
        if p.name == "wte.weight" {
            words.extend(vec![0; (128 - 97) * 64]);
        }
    }
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn a_debug_state_is_checked_tensor_by_tensor() {
    let bench = Bench::new();
    let state = debug_state();
    std::fs::write(bench.path("state.bin"), &state).unwrap();
    let model = fixture("gpt2-tiny/llmc_model.bin");
    let check = format!("check --model {model} --state state.bin");
    let table = String::from_utf8(bench.succeeds(&check)).unwrap();
    for name in ["logits", "loss", "grad.wte.weight", "grad.h.1.mlp.c_proj.weight", "grad.ln_f.bias"] {
        assert!(table.lines().any(|l| l.starts_with(name) && l.ends_with("ok")), "{name}: {table}");
    }
    assert!(table.contains("all 30 tensors agree") && !table.contains("OFF"), "{table}");
    // The sign of one element of the last gradient, and of the largest of all.
    let mut flipped = state.clone();
    let at = flipped.len() - 1;
    flipped[at] ^= 0x80;
    std::fs::write(bench.path("state.bin"), &flipped).unwrap();
    bench.refuses(&check, 1, &["1 of 30 tensors are off"]);
    let table = String::from_utf8(bench.run(&check).stdout).unwrap();
    assert!(table.lines().any(|l| l.starts_with("grad.ln_f.bias") && l.ends_with("OFF")), "{table}");
    std::fs::write(bench.path("state.bin"), &state[..state.len() - 4]).unwrap();
    bench.refuses(&check, 1, &["state.bin", "do not hold"]);
    bench.refuses(&format!("check --model {model} --state {model}"), 1, &["magic 20240326", "20240327"]);
    std::fs::write(bench.path("state.bin"), &state).unwrap();
    bench.refuses("check --model model --state state.bin", 1, &["state.bin", "another model"]);
}

/// The number after `label` in what a command printed.
fn number(printed: &[u8], label: &str) -> f64 {
    let text = String::from_utf8_lossy(printed);
    let line = text.lines().find(|l| l.starts_with(label)).unwrap_or_else(|| panic!("no '{label}' in {text}"));
    line[label.len()..].split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn perplexity_is_the_mean_loss_of_the_windows() {
    let bench = Bench::new();
    let text = text(500);
    std::fs::write(bench.path("text.txt"), &text).unwrap();
    let tokens: Vec<i32> = text.bytes().map(i32::from).collect();
    let measure = |rest: &str| bench.succeeds(&format!("perplexity --text text.txt {rest}"));
    // The loss of `eval` on the same windows.
    let eval = |tokens: &[i32], length: usize, first: usize, stride: usize, skip: usize| {
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        let mut start = first;
        while start + length < tokens.len() {
            inputs.extend(&tokens[start..start + length]);
            targets.extend((0..length).map(|i| if i < skip { -100 } else { tokens[start + i + 1] }));
            start += stride;
        }
        bench.tokens("in.safetensors", [inputs.len() / length, length], &inputs, Some(&targets));
        number(&bench.succeeds("eval --model model --tokens in.safetensors --out out"), "loss ")
    };
    let printed = measure("--model model --context 16 --stride 16");
    let nats = number(&printed, "nats per token");
    assert!((nats - eval(&tokens, 16, 0, 16, 0)).abs() < 2e-6, "{nats}");
    assert!((number(&printed, "perplexity") - nats.exp()).abs() < 1e-3 * nats.exp());
    assert!((number(&printed, "bits per byte") - nats / std::f64::consts::LN_2).abs() < 1e-5);
    assert!(String::from_utf8_lossy(&printed).starts_with("31 windows of 16 tokens, stride 16; 496 of 499 tokens"));
    // One token at a time with a whole window of context: all but the first window's first tokens.
    let strided = number(&measure("--model model --context 12 --stride 1"), "nats per token");
    let (first, later) = (eval(&tokens[..13], 12, 0, 12, 0), eval(&tokens, 12, 1, 1, 11));
    assert!((strided - (12.0 * first + 487.0 * later) / 499.0).abs() < 4e-6, "{strided}");
    let last = number(&measure("--model model --context 7 --stride 7 --last-fraction 0.1"), "nats per token");
    assert!((last - eval(&tokens[450..], 7, 0, 7, 0)).abs() < 2e-6, "{last}");
    // A plan with slots, and any number of threads, give the same bits.
    bench.succeeds("compile model --weights model --slots 3 --rows 16 --step-rows 10 --wanted-rows 10 -o model.plan");
    assert_eq!(printed, measure("--model model.plan --context 16 --stride 16 --threads 1"));
    bench.refuses("perplexity --model model --text text.txt --context 33", 2, &["--context 33", "1 to 32"]);
    bench.refuses("perplexity --model model --text text.txt --stride 0", 2, &["--stride 0"]);
    bench.refuses("perplexity --model model --text text.txt --last-fraction 2", 2, &["--last-fraction 2"]);
    std::fs::write(bench.path("one.txt"), "x").unwrap();
    bench.refuses("perplexity --model model --text one.txt", 1, &["one.txt", "too few"]);
}

#[test]
fn multiple_choice_picks_the_likeliest_ending() {
    let bench = Bench::new();
    let context = [10, 200, 30];
    let endings: [&[u16]; 4] = [&[1, 2], &[40, 50, 60], &[7], &[99, 98, 97, 96]];
    // Sums of losses, by `eval` on the context with each ending.
    let losses = endings.map(|ending| {
        let all: Vec<i32> = context.iter().chain(ending).map(|&t| i32::from(t)).collect();
        let n = all.len() - 1;
        let targets: Vec<i32> = (0..n).map(|i| if i + 1 < context.len() { -100 } else { all[i + 1] }).collect();
        bench.tokens("in.safetensors", [1, n], &all[..n], Some(&targets));
        let mean = number(&bench.succeeds("eval --model model --tokens in.safetensors --out out"), "loss ");
        mean * ending.len() as f64
    });
    let best = |losses: [f64; 4]| (0..4).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
    let by_sum = best(losses);
    let by_mean = best(std::array::from_fn(|i| losses[i] / endings[i].len() as f64));
    let mut words = vec![0i32; 256];
    words[..3].copy_from_slice(&[20_240_522, 1, 4]);
    let mut file: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    for label in 0..4u16 {
        let mut stream = vec![0xffff, 0, label, label, 4, context.len() as u16];
        stream.extend(context);
        for ending in endings {
            stream.push(ending.len() as u16);
            stream.extend(ending);
        }
        stream[1] = 2 * stream.len() as u16;
        file.extend(stream.iter().flat_map(|t| t.to_le_bytes()));
    }
    std::fs::write(bench.path("questions.bin"), file).unwrap();
    let ask = |rest: &str| bench.succeeds(format!("accuracy --model model --data questions.bin {rest}").trim_end());
    let text = String::from_utf8(ask("")).unwrap();
    assert_eq!(text.matches("1/4 = 0.2500").count(), 2, "each question has one right label in four: {text}");
    for (label, limit) in [(by_sum, "accuracy "), (by_mean, "accuracy, loss per token")] {
        let line = |rest: &str| {
            let text = String::from_utf8(ask(rest)).unwrap();
            text.lines().find(|l| l.starts_with(limit)).unwrap().to_string()
        };
        assert!(line(&format!("--limit {}", label + 1)).contains(&format!("1/{}", label + 1)));
        if label > 0 {
            assert!(line(&format!("--limit {label}")).contains(&format!("0/{label}")));
        }
    }
    bench.refuses("accuracy --model model --data model/config.json", 1, &["config.json", "too few"]);
    bench.refuses("accuracy --model model --data questions.bin --limit 0", 1, &["no questions"]);
}

#[test]
fn exported_models_compute_the_same() {
    let bench = Bench::new();
    let tokens: Vec<i32> = (0..20).map(|i| i * 37 % 97).collect();
    bench.tokens("in.safetensors", [1, 20], &tokens, None);
    let eval = |model: &str| {
        bench.succeeds(&format!("eval --model {model} --tokens in.safetensors --out out"));
        floats(&std::fs::read(bench.path("out")).unwrap(), "logits").1
    };
    for name in ["gpt2-tiny", "llama-tiny"] {
        let model = fixture(name);
        let want = eval(&model);
        bench.succeeds(&format!("export --model {model} --to hf --out {name}.hf"));
        bench.succeeds(&format!("export --model {model} --to gguf --out {name}.gguf"));
        bench.succeeds(&format!("export --model {model} --to gguf --type bf16 --out {name}-bf16.gguf"));
        assert!(want == eval(&format!("{name}.hf")) && want == eval(&format!("{name}.gguf")), "{name}");
        let off = relative(&eval(&format!("{name}-bf16.gguf")), &want);
        assert!(off > 0.0 && off < 0.05, "{name}: {off}");
    }
    let model = fixture("gpt2-tiny");
    bench.succeeds(&format!("export --model {model} --to llmc --out tiny.bin"));
    assert!(
        std::fs::read(bench.path("tiny.bin")).unwrap() == std::fs::read(fixture("gpt2-tiny/llmc_model.bin")).unwrap()
    );
    bench.refuses(&format!("export --model {model} --to llmc --type f16 --out a"), 2, &["llmc", "f16", "bf16"]);
    bench.refuses(&format!("export --model {model} --to gguf --type q9 --out a"), 2, &["--type q9", "q8_0"]);
    let llama = fixture("llama-tiny");
    bench.refuses(&format!("export --model {llama} --to llmc --out a"), 1, &["llm"]);
    bench.succeeds("compile model --weights model -o model.plan");
    bench.refuses("export --model model.plan --to hf --out a", 2, &["export needs a checkpoint"]);
}

#[test]
fn adapters_merge_into_their_linears() {
    let bench = Bench::new();
    let (rank, c) = (2, program::byte_model::CHANNELS);
    let values = |n: usize| (0..n).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>();
    let (a, b) = (values(rank * c), values(3 * c * rank));
    let stored = |name: &str, shape: [usize; 2], values: &[f32]| {
        let bits: Vec<i32> = values.iter().map(|x| x.to_bits() as i32).collect();
        let mut stored = program::byte_model::integers(name, shape, &bits);
        stored.dtype = safetensors::Dtype::F32;
        stored
    };
    let path = "base_model.model.transformer.h.0.attn.c_attn";
    let a_stored = || stored(&format!("{path}.lora_A.weight"), [rank, c], &a);
    std::fs::create_dir(bench.path("adapter")).unwrap();
    let config =
        r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["c_attn"], "fan_in_fan_out": true}"#;
    std::fs::write(bench.path("adapter/adapter_config.json"), config).unwrap();
    let file = bench.path("adapter/adapter_model.safetensors");
    program::byte_model::safetensors_file(&file, &[a_stored()]);
    bench.refuses("merge --model model --adapter adapter --out merged", 1, &["h.0.attn.c_attn", "only one of"]);
    let b_stored = stored(&format!("{path}.lora_B.weight"), [3 * c, rank], &b);
    program::byte_model::safetensors_file(&file, &[a_stored(), b_stored]);
    bench.succeeds("merge --model model --adapter adapter --out merged");
    let open = |name: &str| Checkpoint::open(&bench.path(name), &[]).unwrap();
    let (base, merged) = (open("model"), open("merged"));
    for p in parameters(base.config()).unwrap() {
        let (mut before, mut after) = (vec![0.0; p.shape.elements()], vec![0.0; p.shape.elements()]);
        base.read_parameter(&p, &mut before).unwrap();
        merged.read_parameter(&p, &mut after).unwrap();
        if p.name == "h.0.attn.c_attn.weight" {
            for (at, w) in before.iter_mut().enumerate() {
                let (i, o) = (at / (3 * c), at % (3 * c));
                *w += 4.0 * (0..rank).map(|r| b[o * rank + r] * a[r * c + i]).sum::<f32>();
            }
        }
        assert!(relative(&after, &before) < 1e-6, "{}", p.name);
    }
    bench.refuses("merge --model model --adapter model --out other", 1, &["adapter_config.json"]);
}
