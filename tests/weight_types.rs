//! Types of weights in memory: what a GGUF holds stays as it is, `--weights-type` converts at load and at compile time, and a compiled
//! file runs under every instruction set.

#[path = "common/gguf_file.rs"]
mod gguf_file;
#[path = "common/program.rs"]
mod program;

use gguf_file::KEPT;
use program::Bench;
use safetensors::SafeTensors;
use staticgrad::kernels::isa::Isa;
use staticgrad::ops::Capacity;
use staticgrad::passes::{Layout, Mode};
use staticgrad::plan::{Plan, compile, file::PlanFile};
use staticgrad::spec;
use staticgrad::tensor::DType;
use staticgrad::weights::{Checkpoint, Entry, ParamStore, WeightsType};
use std::path::Path;

/// Words of `--weights-type`, with the type that matrices then have.
const WORDS: [(&str, Option<DType>); 6] = [
    ("native", None),
    ("f32", Some(DType::F32)),
    ("f16", Some(DType::F16)),
    ("bf16", Some(DType::BF16)),
    ("q8_0", Some(DType::Q8_0)),
    ("q4_0", Some(DType::Q4_0)),
];

/// A directory with a model of all types, and tokens.
fn bench() -> Bench {
    let bench = Bench::new();
    gguf_file::mixed_llama(&bench.path("mixed.gguf"));
    let tokens: Vec<i32> = (0..40).map(|i| i * 37 % 96).collect();
    bench.tokens("in.safetensors", [1, 40], &tokens, Some(&tokens));
    bench
}

/// Logits under an instruction set by name, or under the best one.
fn logits(bench: &Bench, isa: Option<&str>, rest: &str) -> Vec<f32> {
    bench.succeeds_under(isa, &format!("eval --tokens in.safetensors --out out {rest}"));
    let bytes = std::fs::read(bench.path("out")).expect("written");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let logits = file.tensor("logits").expect("there");
    logits.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Norm of the difference over the norm of what is wanted.
fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut want.iter().map(|&b| f64::from(b)))
}

fn matrices(path: &Path) -> Vec<Entry> {
    let index = PlanFile::open(path).and_then(|f| f.weight_index::<Entry>()).expect("reads");
    index.expect("holds weights").1.into_iter().filter(|e| e.matrix.is_some()).collect()
}

fn plan_of(checkpoint: &Checkpoint) -> Plan {
    let dims = checkpoint.config().dims.iter().map(|(name, value)| (name.clone(), value.to_string()));
    let graph = spec::compile(&spec::builtin("llama").expect("built in"), &dims.collect::<Vec<_>>(), None);
    let capacity = Capacity { slots: 1, context: 16, step_rows: 4, wanted_rows: 1 };
    compile(graph.expect("compiles"), Mode::Infer(Layout::Compact), capacity).expect("plans")
}

/// Bytes of a file's mapping that are in memory.
#[cfg(target_os = "linux")]
fn resident(path: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux tells");
    let ours = maps.split_once(path.to_str().expect("UTF-8")).expect("the file is mapped").1;
    let kib = ours.lines().find_map(|l| l.strip_prefix("Rss:")).expect("a number").trim();
    1024 * kib.strip_suffix(" kB").expect("KiB").parse::<usize>().expect("a number")
}

#[test]
fn types_of_the_file_stay_in_memory_and_its_pages_go() {
    let bench = bench();
    let path = bench.path("mixed.gguf");
    let checkpoint = Checkpoint::open(&path, &[]).expect("opens");
    let plan = plan_of(&checkpoint);
    let store = ParamStore::load(&plan.graph, &checkpoint, WeightsType::Native).expect("loads");
    for dtype in KEPT {
        assert!(store.types().iter().any(|&(d, _)| d == dtype), "{dtype} is not among {:?}", store.types());
    }
    for e in store.entries() {
        let Some((n, k)) = e.matrix else { continue };
        assert_eq!(e.dtype, checkpoint.info(&e.name).expect("there").dtype, "{}", e.name);
        // Panels of 32 outputs; quants of 6 bits take a byte each, scales of 6 bits too.
        let (stored, most) = (
            e.dtype.bytes_for(n.next_multiple_of(32) * k).expect("whole blocks"),
            if e.dtype == DType::Q6K { 1.31 } else { 1.03 },
        );
        let ratio = e.len as f64 / stored as f64;
        assert!((1.0..most).contains(&ratio), "{} of {}: {} B packed, {stored} B in the file", e.name, e.dtype, e.len);
    }
    #[cfg(target_os = "linux")]
    {
        assert_eq!(resident(&path), 0, "pages of the file after packing");
        let mut values = vec![0.0; 512 * 256];
        checkpoint.read_f32("model.layers.0.mlp.up_proj.weight", &mut values).expect("reads");
        assert!(resident(&path) > 0, "reading a tensor brings its pages in");
    }
}

#[test]
fn every_type_is_made_at_load_and_at_compile_time_alike() {
    let bench = bench();
    let exact = logits(&bench, None, "--model mixed.gguf --weights-type f32");
    for (word, dtype) in WORDS {
        let at_load = logits(&bench, None, &format!("--model mixed.gguf --weights-type {word}"));
        let compile = format!("compile mixed.gguf --weights mixed.gguf --weights-type {word} -o {word}.plan");
        let printed = String::from_utf8(bench.succeeds(&compile)).expect("UTF-8");
        assert!(at_load == logits(&bench, None, &format!("--model {word}.plan")), "{word}: load and compile differ");
        let entries = matrices(&bench.path(&format!("{word}.plan")));
        assert_eq!(entries.len(), 15);
        assert!(entries.iter().all(|e| dtype.is_none_or(|d| e.dtype == d)), "{word}: {entries:?}");
        assert!(dtype.is_some() || KEPT.iter().all(|&d| entries.iter().any(|e| e.dtype == d)), "{entries:?}");
        let bytes = entries.iter().map(|e| e.len).sum::<usize>() + 4 * 5 * 256;
        assert!(printed.contains(&format!("({bytes} B)")), "{word}: {bytes} B of weights are not in {printed}");
        // Rounding of activations to 8 bits, and of random weights: to 4 bits for q4_0.
        let (off, most) = (relative(&at_load, &exact), if word == "q4_0" { 0.4 } else { 0.05 });
        eprintln!("{word}: logits are off by {off:.2e} of f32's");
        assert!(off < most && (word == "f32") == (off == 0.0), "{word}: logits are off by {off}");
    }
    bench.refuses("run --model mixed.gguf --weights-type q5_0 hi", 2, &["--weights-type q5_0", "q8_0"]);
}

/// Packed weights are one layout on every machine: files compiled under different instruction sets are the same to the byte, and
/// each runs under every other, with the same bits for any split into calls and within a tolerance of each other.
#[test]
fn compiled_files_run_under_every_instruction_set() {
    let bench = bench();
    let of = [
        ("portable", Isa::Portable),
        ("avx2", Isa::Avx2),
        ("avx512f", Isa::Avx512),
        ("avx512", Isa::Avx512),
        ("amx", Isa::Amx),
    ];
    let (present, missing): (Vec<_>, Vec<_>) = of.into_iter().partition(|(_, isa)| Isa::available().contains(isa));
    missing.iter().for_each(|(name, _)| eprintln!("SKIPPED: this CPU has no {name}"));
    let present: Vec<&str> = present.into_iter().map(|(name, _)| name).collect();
    for (word, dtype) in WORDS {
        let plan = |isa: &str| format!("{word}.{isa}.plan");
        for &isa in &present {
            let line = format!("compile mixed.gguf --weights mixed.gguf --weights-type {word} -o {}", plan(isa));
            bench.succeeds_under(Some(isa), &line);
        }
        // Sums in another order; where activations are rounded, a last bit now and then becomes one of their steps, and those add up to
        // no more than their rounding as such.
        let most = match dtype {
            Some(DType::F32 | DType::F16) => 1e-5,
            Some(DType::BF16) => 1e-2,
            _ => 4e-2,
        };
        let mut worst = 0.0f64;
        let read = |isa| std::fs::read(bench.path(&plan(isa))).expect("written");
        for &compiler in &present {
            assert!(read(compiler) == read("portable"), "{word}: compiled under {compiler} and portable");
            let model = format!("--model {}", plan(compiler));
            let own = logits(&bench, Some(compiler), &model);
            for &runner in present.iter().filter(|&&isa| isa != compiler) {
                let what = format!("{word} compiled under {compiler} and run under {runner}");
                let other = logits(&bench, Some(runner), &model);
                assert!(
                    other == logits(&bench, Some(runner), &format!("{model} --step-rows 1 --threads 1")),
                    "{what}: row by row"
                );
                let off = relative(&other, &own);
                worst = worst.max(off);
                assert!(off < most, "{what}: logits are off by {off}");
            }
        }
        eprintln!("{word}: logits of two instruction sets differ by at most {worst:.2e}");
    }
}

/// A compiled file needs no other: it brings the tokenizer and the token that ends a text.
#[test]
fn compiled_files_bring_tokenizer_and_stop_tokens() {
    let bench = bench();
    bench.succeeds("compile mixed.gguf --weights mixed.gguf -o model.plan");
    let run = |model: &str, seed: u32| {
        let line = format!("run --model {model} Hello,\u{a0}w\u{f6}rld! --max-tokens 40 --temperature 1 --seed {seed}");
        let output = bench.run(&line);
        let note = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && output.stdout.starts_with("Hello,\u{a0}w\u{f6}rld!".as_bytes()),
            "{line}: {note}"
        );
        (output.stdout, note.split_once("; stopped").map(|(_, why)| why.trim().to_string()))
    };
    let first: Vec<_> = (0..40).map(|seed| run("mixed.gguf", seed)).collect();
    assert!(first.iter().any(|(_, why)| why.as_deref() == Some("at the end-of-sequence token")), "{first:?}");
    std::fs::remove_file(bench.path("mixed.gguf")).expect("removed");
    for (seed, wanted) in (0..).zip(&first) {
        assert_eq!(run("model.plan", seed), *wanted, "seed {seed}");
    }
}
