//! The program itself: what works, and what bad input gets — one clear line, the exit code, no panic, no partial file.

#[path = "common/program.rs"]
mod program;

use program::byte_model::{self, Stored};
use program::{Bench, fixture};

const SMALL: &str = "--set V=256 --set T=32 --set C=16 --set H=2 --set L=1";

#[test]
fn files_that_are_missing_or_something_else() {
    let bench = Bench::new();
    bench.refuses("run --model nowhere hi", 1, &["nowhere", "No such file"]);
    std::fs::create_dir(bench.path("empty")).unwrap();
    bench.refuses("run --model empty hi", 1, &["empty", "model.safetensors"]);
    std::fs::write(bench.path("text.gguf"), "hello world, this is no model").unwrap();
    bench.refuses("run --model text.gguf hi", 1, &["text.gguf", "magic", "68 65 6c 6c 6f"]);
    std::fs::write(bench.path("nothing.bin"), "").unwrap();
    bench.refuses("run --model nothing.bin hi", 1, &["nothing.bin"]);
    bench.tokens("in.safetensors", [1, 2], &[1, 2], None);
    let eval = |model: &str, tokens: &str| format!("eval --model {model} --tokens {tokens} --out out.safetensors");
    bench.refuses(&eval("nowhere", "in.safetensors"), 1, &["nowhere", "No such file"]);
    bench.refuses(&eval("model", "nothing.bin"), 1, &["nothing.bin", "not a safetensors file"]);
    bench.refuses(&eval("model", "model/model.safetensors"), 1, &["no tensor 'tokens'"]);
    bench.refuses("compile gpt3", 1, &["gpt3", "did you mean 'gpt2'"]);
    bench.refuses("compile nowhere.sg", 1, &["nowhere.sg", "No such file"]);
    std::fs::write(bench.path("model/config.json"), "{ \"model_type\": ").unwrap();
    bench.refuses("run --model model hi", 1, &["config.json"]);
}

#[test]
fn files_cut_short_or_with_lying_headers() {
    let bench = Bench::new();
    bench.tokens("in.safetensors", [1, 2], &[1, 2], None);
    let sources = [
        ("gpt2-tiny/model.safetensors", "cut/model.safetensors"),
        ("gpt2-tiny/llmc_model.bin", "cut/llmc_model.bin"),
        ("gpt2-tiny/seed_weights.bin", "cut/seed_weights.bin"),
        ("gguf-mini/gpt2.gguf", "cut/gpt2.gguf"),
        ("gguf-mini/llama.gguf", "cut/llama.gguf"),
    ];
    std::fs::create_dir(bench.path("cut")).unwrap();
    std::fs::copy(fixture("gpt2-tiny/config.json"), bench.path("cut/config.json")).unwrap();
    for (source, name) in sources {
        let whole = std::fs::read(fixture(source)).unwrap();
        let eval = format!("eval --model {name} --tokens in.safetensors --out out.safetensors");
        for len in [3, 100, whole.len() / 2, whole.len() - 4] {
            std::fs::write(bench.path(name), &whole[..len]).unwrap();
            bench.refuses(&eval, 1, &[name]);
        }
        // Sizes and offsets near the top of their range.
        let mut lying = whole.clone();
        lying[8..16].fill(0xff);
        std::fs::write(bench.path(name), &lying).unwrap();
        if !name.contains("seed_weights") {
            bench.refuses(&eval, 1, &[name]);
        }
    }
    let gguf = std::fs::read(fixture("gguf-mini/llama.gguf")).unwrap();
    let name = b"blk.0.ffn_down.weight";
    let at = gguf.windows(name.len()).position(|w| w == name).unwrap() + name.len();
    // After a name: rank (4 bytes), two dimensions (16), type (4), offset.
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = gguf.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(bench.path("changed.gguf"), changed).unwrap();
    };
    let eval = "eval --model changed.gguf --tokens in.safetensors --out out.safetensors";
    with(at + 20, &[77]);
    bench.refuses(eval, 1, &["changed.gguf", "blk.0.ffn_down.weight", "type number 77"]);
    with(at + 24, &(1u64 << 40).to_le_bytes());
    bench.refuses(eval, 1, &["changed.gguf", "blk.0.ffn_down.weight"]);
}

#[test]
fn tensors_that_do_not_fit() {
    let bench = Bench::new();
    let find = |tensors: &mut Vec<Stored>, name: &str| tensors.iter().position(|t| t.name == name).unwrap();
    bench.variant("missing", |t| {
        let at = find(t, "wpe.weight");
        t[at].name = "wpee.weight".into();
    });
    bench.refuses("run --model missing hi", 1, &["wpe.weight", "wpee.weight"]);
    bench.variant("extra", |t| t.push(byte_model::integers("h.0.mlp.c_gate.weight", [2, 2], &[0; 4])));
    bench.refuses("run --model extra hi", 1, &["h.0.mlp.c_gate.weight", "h.0.mlp.c_"]);
    bench.variant("shape", |t| {
        let at = find(t, "h.0.attn.c_proj.weight");
        t[at].shape = vec![8, 32];
    });
    bench.refuses("run --model shape hi", 1, &["h.0.attn.c_proj.weight", "[8, 32]", "[16, 16]"]);
    bench.variant("dtype", |t| {
        let at = find(t, "wpe.weight");
        t[at].dtype = safetensors::Dtype::I32;
    });
    bench.refuses("run --model dtype hi", 1, &["wpe.weight", "I32"]);
}

#[test]
fn requests_that_cannot_be_served() {
    let bench = Bench::new();
    bench.tokens("in.safetensors", [1, 2], &[1, 2], None);
    bench.tokens("high.safetensors", [1, 3], &[1, 256, 2], None);
    bench.tokens("low.safetensors", [1, 3], &[1, -1, 2], None);
    bench.tokens("target.safetensors", [1, 2], &[1, 2], Some(&[-100, 999]));
    bench.tokens("long.safetensors", [1, 33], &[1; 33], None);
    let eval = |tokens: &str| format!("eval --model model --tokens {tokens}.safetensors --out out.safetensors");
    bench.refuses(&eval("high"), 1, &["token 256 is out of range", "0..256"]);
    bench.refuses(&eval("low"), 1, &["token -1 is out of range", "0..256"]);
    bench.refuses(&eval("target"), 1, &["target.safetensors", "target 999 is out of range, at index 1", "0..256"]);
    bench.tokens("none.safetensors", [1, 2], &[1, 2], Some(&[-100, -100]));
    bench.refuses(&eval("none"), 1, &["none.safetensors", "all 'targets' are -100"]);
    bench.refuses(&eval("long"), 1, &["33 tokens", "context of 32"]);
    let prompt = "x".repeat(32);
    bench.refuses(&format!("run --model model {prompt}"), 1, &["32 tokens", "context is 32 rows"]);
    let empty: Vec<String> = ["run", "--model", "model", ""].map(String::from).into();
    let output = bench.run_words(&empty);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the prompt is empty"));
    bench.refuses("run --model model hi --temperature=-1", 2, &["temperature"]);
    bench.refuses("run --model model hi --top-p 0", 2, &["top"]);
    bench.refuses(&format!("run --model {} hi", fixture("gpt2-tiny")), 1, &["tokenizer", "97", "tokenizer.json"]);
    // Destinations that cannot be written.
    let eval = "eval --model model --tokens in.safetensors --out";
    bench.refuses(&format!("{eval} nowhere/out.safetensors"), 1, &["nowhere/out.safetensors", "cannot create"]);
    std::fs::create_dir(bench.path("folder")).unwrap();
    bench.refuses(&format!("{eval} folder"), 1, &["folder", "is a directory"]);
    bench.refuses("compile model -o nowhere/m.plan", 1, &["nowhere/m.plan", "cannot create"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let bench = Bench::new();
    bench.tokens("in.safetensors", [1, 2], &[1, 2], None);
    let eval = "eval --model model --tokens in.safetensors --out out.safetensors";
    bench.refuses(&format!("{eval} --threads 0"), 2, &["--threads 0"]);
    bench.refuses("run --model model hi --threads 0", 2, &["--threads 0"]);
    bench.refuses(&format!("{eval} --step-rows 0"), 2, &["--step-rows 0"]);
    bench.refuses(&format!("{eval} --weights-type q9"), 2, &["--weights-type q9", "q8_0"]);
    bench.refuses(&format!("{eval} --set C"), 2, &["--set NAME=VALUE"]);
    bench.refuses("compile gpt2 --rows 5000", 2, &["--rows 5000", "1024"]);
    bench.refuses("compile gpt2 --slots 0", 2, &["--slots 0"]);
    bench.refuses("compile gpt2 --no-fuse magic", 2, &["--no-fuse magic", "gate-up"]);
    for line in
        ["", "frobnicate", "run --model", "eval --model model", "compile", "run --model model hi --max-tokens x"]
    {
        let output = bench.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn specs_are_reported_with_their_place() {
    let bench = Bench::new();
    bench.fails("compile gpt2 --set Q=4", 1, &["'Q' is not a dimension or constant"]);
    bench.fails("compile gpt2 --set C=63", 1, &["gpt2.sg:", "require C % H == 0", "must divide evenly"]);
    bench.fails("compile gpt2 --size huge", 1, &["there is no size 'huge'"]);
    bench.fails("eval --model model --tokens in --out out --set Q=4", 1, &["in"]);
    let spec = "model odd\ndims { V = 8  T = 4  C = 4 }\ngraph(tokens) -> logits {\n    \
                x = embedding(tokens, wte, rows = V, width = C)\n    logits = lineer(x, wte, out = V)\n}\n";
    std::fs::write(bench.path("odd.sg"), spec).unwrap();
    bench.fails("compile odd.sg", 1, &["odd.sg:5", "lineer", "linear", "^"]);
    std::fs::write(bench.path("bytes.sg"), [0xff, 0xfe, 0x00]).unwrap();
    bench.fails("compile bytes.sg", 1, &["bytes.sg"]);
}

#[test]
fn graphs_print() {
    let bench = Bench::new();
    let graph = String::from_utf8(bench.succeeds(&format!("compile gpt2 {SMALL} --emit graph"))).unwrap();
    let same = String::from_utf8(bench.succeeds("compile model --emit graph")).unwrap();
    assert_eq!(graph, same, "a checkpoint's configuration stands for the same spec");
    for word in ["embedding", "layer_norm", "causal_attention", "h.0.attn.c_attn.weight", "gelu"] {
        assert!(graph.contains(word), "{word} is not in\n{graph}");
    }
    let lowered = String::from_utf8(bench.succeeds(&format!("compile gpt2 {SMALL} --emit lowered"))).unwrap();
    assert!(lowered != graph && !lowered.is_empty());
}

#[test]
fn plans_run_like_the_model_they_were_made_of() {
    let bench = Bench::new();
    bench.succeeds("compile model --step-rows 4 -o bare.plan");
    bench.succeeds(&format!("compile gpt2 {SMALL} --step-rows 8 --wanted-rows 8 -o spec.plan"));
    bench.succeeds("compile model --weights model --step-rows 4 -o whole.plan");
    let direct = bench.succeeds("run --model model Hello --max-tokens 12");
    assert!(direct.starts_with(b"Hello") && direct.len() > 5);
    assert_eq!(direct, bench.succeeds("run --model bare.plan --weights model Hello --max-tokens 12"));
    assert_eq!(direct, bench.succeeds("run --model spec.plan --weights model Hello --max-tokens 12"));
    assert_eq!(direct, bench.succeeds("run --model whole.plan Hello --max-tokens 12"));
    assert_eq!(direct, bench.succeeds("run --model model Hello --max-tokens 12 --threads 1"));
    bench.succeeds("compile model --weights model --kv-type bf16 --step-rows 4 -o half.plan");
    let half = bench.succeeds("run --model model Hello --max-tokens 12 --kv-type bf16");
    assert_eq!(half, bench.succeeds("run --model half.plan Hello --max-tokens 12"));
    let stopped = bench.run("run --model model Hello --max-tokens 999");
    assert!(stopped.status.success());
    let note = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(note.contains("context limit") || note.contains("end-of-sequence"), "{note}");

    let tokens: Vec<i32> = (0..40).map(|i| i * 37 % 256).collect();
    bench.tokens("in.safetensors", [2, 20], &tokens, Some(&tokens));
    let eval = |rest: &str, out: &str| {
        let printed = bench.succeeds(&format!("eval {rest} --tokens in.safetensors --out {out}"));
        assert!(printed.starts_with(b"loss "));
        std::fs::read(bench.path(out)).unwrap()
    };
    let direct = eval("--model model", "a");
    assert!(direct == eval("--model model --step-rows 3 --threads 1", "b"), "splits and threads change nothing");
    assert!(direct == eval("--model bare.plan --weights model", "c"), "a plan for one wanted row");
    assert!(direct == eval("--model spec.plan --weights model --step-rows 8", "d"));
    assert!(direct == eval("--model whole.plan --step-rows 2", "e"));
    let whole = "eval --model whole.plan --tokens in.safetensors --out f";
    bench.refuses(&format!("{whole} --step-rows 5"), 1, &["--step-rows 5", "4 rows"]);
    bench.tokens("long.safetensors", [1, 33], &[1; 33], None);
    bench.refuses("eval --model whole.plan --tokens long.safetensors --out f", 1, &["33 tokens", "context of 32"]);
    let with_gradients = "eval --model model --grads --tokens long.safetensors --out f";
    bench.refuses(with_gradients, 1, &["33 tokens", "context of 32"]);
}

#[test]
fn plans_that_do_not_fit_or_are_damaged() {
    let bench = Bench::new();
    bench.tokens("in.safetensors", [1, 2], &[1, 2], None);
    bench.succeeds("compile model -o bare.plan");
    bench.succeeds("compile model --weights model -o whole.plan");
    bench.succeeds("compile model --mode train --slots 2 -o train.plan");
    bench.refuses("run --model bare.plan hi", 2, &["bare.plan", "--weights PATH"]);
    bench.refuses("run --model whole.plan hi --set C=8", 2, &["--set cannot change a compiled plan"]);
    bench.refuses("run --model whole.plan hi --weights-type f16", 2, &["--weights-type", "compile it again"]);
    bench.refuses("run --model whole.plan hi --kv-type f16", 2, &["--kv-type", "compile it again"]);
    bench.refuses("run --model model hi --kv-type q8_0", 2, &["--kv-type q8_0", "f32, f16 or bf16"]);
    bench.refuses("compile model --mode train --kv-type bf16", 2, &["--kv-type", "training needs f32"]);
    bench.refuses("run --model model --weights model hi", 2, &["--weights goes with a plan"]);
    for line in ["run --model train.plan --weights model hi", "bench --what decode --model train.plan --weights model"]
    {
        bench.refuses(line, 1, &["train.plan", "for training", "--mode infer"]);
    }
    for line in [
        "run --model bare.plan --weights whole.plan hi",
        "compile whole.plan",
        "train --model whole.plan --data in.safetensors --tokenizer bytes --steps 1 --out run",
    ] {
        bench.refuses(line, 1, &["whole.plan", "compiled plan", "checkpoint"]);
    }
    let other = fixture("llama-tiny");
    bench.refuses(
        &format!("eval --model bare.plan --weights {other} --tokens in.safetensors --out f"),
        1,
        &["weights"],
    );
    let other = fixture("gpt2-tiny");
    let phrases = ["wte.weight", "[97, 64]", "[256, 16]"];
    bench.refuses(&format!("eval --model bare.plan --weights {other} --tokens in.safetensors --out f"), 1, &phrases);
    let whole = std::fs::read(bench.path("whole.plan")).unwrap();
    for len in [8, 20, 60, whole.len() / 2, whole.len() - 1] {
        std::fs::write(bench.path("cut.plan"), &whole[..len]).unwrap();
        bench.refuses("run --model cut.plan hi", 1, &["cut.plan"]);
    }
    for at in [9, 17, 30, 50, 200, 1000] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::write(bench.path("damaged.plan"), damaged).unwrap();
        bench.refuses("run --model damaged.plan hi", 1, &["damaged.plan"]);
    }
}

/// A reader that goes away (`| head`) loses text, never the file that the command was asked to write.
#[test]
fn a_closed_pipe_drops_text_and_nothing_else() {
    let bench = Bench::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_staticgrad"))
        .args(["compile", "gpt2", "--rows", "32", "--step-rows", "8", "-o"])
        .arg(bench.path("gpt2.plan"))
        .args(SMALL.split(' '))
        .stdout(writer)
        .status()
        .expect("the program starts");
    assert_eq!(status.code(), Some(0));
    let plan = staticgrad::plan::file::load(&bench.path("gpt2.plan")).expect("the plan is whole");
    assert_eq!(plan.capacity.context, 32);
}

#[test]
fn generation_ends_quietly_when_its_reader_is_gone() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_staticgrad"))
        .args(["run", "ROMEO:", "--max-tokens", "5"])
        .stdout(writer)
        .output()
        .expect("the program starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{message}");
    assert!(message.contains("decode 1 tokens") && !message.contains("cannot"), "{message}");
}
