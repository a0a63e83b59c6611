//! Commands that measure and convert: gradients, llm.c's debug state, perplexity, multiple choice, export.

#[path = "common/program.rs"]
mod program;

use program::{Bench, fixture};
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

/// Text with which every byte is one token.
fn text(bytes: usize) -> String {
    (0..bytes).map(|i| char::from(b' ' + (i * i * 7 % 90) as u8)).collect()
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

#[test]
fn training_is_measured_by_section_and_op() {
    let bench = Bench::new();
    let command = "bench --what train --set V=64 --set T=32 --set C=32 --set H=2 --set L=1 --batch 2 --context 16 --repeat 2 --threads 2";
    let json = bench.run(&format!("{command} --scaling --profile trace.json --json"));
    let table = String::from_utf8(json.stderr.clone()).unwrap();
    let measured: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|e| panic!("{e}: {table}"));
    let number = |field: &str| measured[field].as_f64().unwrap_or_else(|| panic!("no {field} in {measured}"));
    assert_eq!((number("batch"), number("context"), number("rows"), number("threads")), (2.0, 16.0, 32.0, 2.0));
    assert!(number("best") > 0.0 && number("best") <= number("median"), "{measured}");
    let sections = ["forward_ms", "backward_ms", "optimiser_ms"].map(number);
    assert!(sections.iter().all(|&ms| ms > 0.0) && sections.iter().sum::<f64>() > 0.9 * number("best"), "{measured}");
    for field in
        ["percent_of_limit", "products_percent_of_peak", "optimiser_percent_of_stream", "scaling_of_peak_scaling"]
    {
        assert!(number(field) > 0.0, "{field} in {measured}");
    }
    for op in ["linear", "linear.d_weight", "causal_attention.d_inputs", "cross_entropy_head", "adamw", "grad_norm"] {
        assert!(table.lines().any(|l| l.split_whitespace().next() == Some(op)), "{op}: {table}");
    }
    assert!(std::fs::read_to_string(bench.path("trace.json")).unwrap().contains("adamw"));
    bench.refuses(&format!("{command} --precision f64"), 2, &["f64", "bf16"]);
    bench.refuses("bench --what train --set T=32 --context 33", 2, &["--context 33", "32"]);
    bench.refuses("bench --what train --model nowhere.sg", 1, &["nowhere.sg"]);
}

#[test]
fn prefill_is_measured_by_op() {
    let bench = Bench::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("graph-specs/shakespeare").display().to_string();
    let command = format!("bench --what prefill --model {model} --rows 64");
    let json = bench.run(&format!("{command} --repeat 5 --profile trace.json --json"));
    let table = String::from_utf8(json.stderr.clone()).unwrap();
    let measured: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|e| panic!("{e}: {table}"));
    let number = |field: &str| measured[field].as_f64().unwrap_or_else(|| panic!("no {field} in {measured}"));
    let (mut milliseconds, mut operations) = (0.0, 0.0);
    for op in ["linear", "causal_attention"] {
        let line = table.lines().find(|l| l.split_whitespace().next() == Some(op));
        let column = |i| line.and_then(|l| l.split_whitespace().nth(i)?.parse::<f64>().ok());
        let (ms, rate) = (column(1).unwrap_or_else(|| panic!("{op}: {table}")), column(4).unwrap());
        (milliseconds, operations) = (milliseconds + ms, operations + 1e6 * ms * rate);
    }
    // The table is of one run in the mean of five: its operations are those of 64 rows, in no less time than a share of the fastest run.
    let (best, per_run) = (64.0 / number("best"), 64.0 * 1e9 * number("gflops") / number("best"));
    assert!((operations / per_run - 1.0).abs() < 0.05, "{operations} of {per_run} operations: {table}");
    assert!(milliseconds > 0.3e3 * best && milliseconds < 4e3 * best, "a run takes {best} s: {table}");
    assert!(std::fs::read_to_string(bench.path("trace.json")).unwrap().contains("causal_attention"));
    bench.refuses("bench --what decode --model model --profile", 2, &["--profile", "prefill", "run --profile"]);
}

/// Speeds are whatever the machine gives; that they are there, positive and in the stated form is what this says.
#[test]
fn bench_prints_one_object_a_line() {
    let bench = Bench::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("graph-specs/shakespeare").display().to_string();
    let objects = |line: &str| -> Vec<serde_json::Value> {
        let printed = String::from_utf8(bench.succeeds(&format!("bench {line} --repeat 1 --json"))).expect("UTF-8");
        printed.lines().map(|l| serde_json::from_str(l).expect("an object a line")).collect()
    };
    let decode = &objects(&format!("--what decode --model {model} --kv-type bf16"))[0];
    for key in ["what", "model", "dtype", "threads", "rows", "best", "median", "unit", "percent_of_limit"] {
        assert!(!decode[key].is_null(), "{key} is missing from {decode}");
    }
    // Every matrix, in bf16, is read once a token: 12 · C² values of each of 5 layers of 192 channels, and the head. A value of 2 bytes
    // is multiplied and added.
    let per_token = (2 * (5 * 12 * 192 * 192 + 256 * 192)) as f64;
    let bytes = 1e9 * decode["gb_per_second"].as_f64().expect("a rate") / decode["best"].as_f64().expect("a rate");
    assert!(bytes > per_token && bytes < 1.2 * per_token, "{bytes} B a token: {decode}");
    let prefill = &objects(&format!("--what prefill --model {model} --rows 64"))[0];
    let flops = 1e9 * prefill["gflops"].as_f64().expect("a rate") / prefill["best"].as_f64().expect("a rate");
    assert!(flops > 0.8 * per_token && flops < 1.2 * per_token, "{flops} operations a token: {prefill}");
    assert!(decode["best"].as_f64() > Some(0.0) && decode["percent_of_limit"].as_f64() > Some(0.0), "{decode}");
    let disturbed = objects(&format!("--what disturbed --model {model} --rows 64"));
    assert_eq!(disturbed.len(), 4);
    assert!(disturbed.iter().all(|o| o["unit"] == "× time" && o["median"].as_f64() > Some(0.0)), "{disturbed:?}");
    let what: Vec<&str> = disturbed.iter().filter_map(|o| o["what"].as_str()).collect();
    assert_eq!(what[..2], ["decode beside a busy process", "decode with four threads a core"]);
    let rungs = objects(&format!("--what ladder --model {model} --rows 200 --chart ladder.svg"));
    let skipped: Vec<&str> = rungs.iter().filter_map(|o| o["skipped"].as_str()).collect();
    assert_eq!((skipped.len(), skipped[0], skipped[7]), (8, "nothing", "+ GELU table (f16)"), "{skipped:?}");
    let (first, last) = (rungs[0]["median"].as_f64(), rungs[7]["median"].as_f64());
    assert!(first > last && last > Some(0.0), "{first:?} ms per token without skipping, {last:?} with");
    assert!(std::fs::read_to_string(bench.path("ladder.svg")).expect("a chart").starts_with("<svg"));
    std::fs::write(bench.path("text.txt"), text(600)).expect("writes");
    let types = objects(&format!("--what types --model {model} --text text.txt"));
    let names: Vec<&str> = types.iter().filter_map(|o| o["dtype"].as_str()).collect();
    assert_eq!(names, ["f32", "f16", "bf16", "q8_0", "q4_0", "native"]);
    let bytes: Vec<u64> = types.iter().filter_map(|o| o["weights"].as_u64()).collect();
    assert!(bytes[0] > bytes[1] && bytes[1] > bytes[3] && bytes[3] > bytes[4], "{bytes:?}");
    // The text is noise to the model; what rounding does to its loss is small beside that loss.
    let nats: Vec<f64> = types.iter().filter_map(|o| o["perplexity"].as_f64()).map(f64::ln).collect();
    assert!(nats.iter().all(|n| (n - nats[0]).abs() < 0.1 * nats[0]), "{nats:?}");
    bench.refuses("bench --what types --model model", 2, &["--text"]);
    bench.refuses("bench --what decode", 2, &["--model PATH is missing"]);
    bench.refuses("bench --what decode --model model", 2, &["context of 32 rows"]);
}
