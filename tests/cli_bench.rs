//! `staticgrad bench`: what it measures is there, positive, and in the stated form; speeds are whatever the machine gives.

#[path = "common/program.rs"]
mod program;

use program::{Bench, text};
use std::path::Path;

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

/// Name, milliseconds and GFLOP/s of a line of the table of ops.
fn kind_of_op(line: &str) -> Option<(String, [f64; 2])> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let number = |i: usize| columns.get(i)?.parse().ok();
    Some((columns.first()?.to_string(), [number(1)?, number(4)?]))
}

#[test]
fn prefill_and_decoding_are_measured_by_op() {
    let bench = Bench::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("graph-specs/shakespeare").display().to_string();
    let command = format!("bench --what prefill --model {model} --rows 64 --json");
    // Tokens and operations a second of the fastest run; milliseconds and rate of the kinds of ops of one run in the mean.
    let measured = |options: &str| {
        let json = bench.run(&format!("{command} {options}"));
        let table = String::from_utf8(json.stderr).unwrap();
        let measured: serde_json::Value =
            serde_json::from_slice(&json.stdout).unwrap_or_else(|e| panic!("{e}: {table}"));
        let number = |field: &str| measured[field].as_f64().unwrap_or_else(|| panic!("no {field} in {measured}"));
        let kinds: Vec<(String, [f64; 2])> = table.lines().skip(1).filter_map(kind_of_op).collect();
        (number("best"), 1e9 * number("gflops"), kinds, table)
    };
    let (best, flops, kinds, table) = measured("--repeat 5 --profile trace.json");
    let (mut milliseconds, mut operations, mut rounding) = (0.0, 0.0, 0.0);
    for op in ["linear", "causal_attention"] {
        let (_, [ms, rate]) = kinds.iter().find(|(kind, _)| kind == op).unwrap_or_else(|| panic!("{op}: {table}"));
        (milliseconds, operations, rounding) =
            (milliseconds + ms, operations + 1e6 * ms * rate, rounding + 0.05e6 * ms);
    }
    // The operations of 64 rows, in no less time than a share of the fastest run. How much more is the machine's affair.
    let (seconds, per_run) = (64.0 / best, 64.0 / best * flops);
    assert!((operations - per_run).abs() < 0.05 * per_run + rounding, "{operations} of {per_run} operations: {table}");
    assert!(milliseconds > 0.3e3 * seconds, "the fastest run takes {seconds} s: {table}");
    // The trace has the phases of all five runs, in microseconds.
    let trace = std::fs::read(bench.path("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&trace).expect("a trace");
    let slices = trace["traceEvents"].as_array().expect("slices");
    let products = ["linear", "causal_attention"];
    let spent = slices.iter().filter(|s| products.iter().any(|op| s["cat"] == *op)).filter_map(|s| s["dur"].as_f64());
    let spent = spent.sum::<f64>() / 5e3;
    assert!((spent - milliseconds).abs() < 0.01, "{spent} ms a run in the trace: {table}");
    // The ops of the only run take no longer than it does, but for the third decimal of each.
    let (best, _, kinds, table) = measured("--repeat 1 --profile");
    let milliseconds: f64 = kinds.iter().map(|(_, [ms, _])| ms - 0.0005).sum();
    assert!(milliseconds < 1.001 * 64e3 / best, "a run takes {} ms: {table}", 64e3 / best);
    bench.refuses("bench --what roofline --profile", 2, &["--profile", "prefill", "run --profile"]);
    let decode = bench.run(&format!("bench --what decode --model {model} --repeat 1 --profile"));
    let table = String::from_utf8(decode.stderr).unwrap();
    assert!(["linear", "causal_attention"].iter().all(|op| table.contains(op)), "{table}");
}

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
