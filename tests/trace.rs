//! Traces that `--profile` writes, read as a viewer of Chrome's trace-event format reads them.

#[path = "common/program.rs"]
mod program;

use program::Bench;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A slice: nanoseconds from and until, and the op.
type Slice = (u64, u64, String);

/// Nanoseconds of a field in microseconds.
fn nanoseconds(event: &Value, field: &str) -> u64 {
    let us = event[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {event}"));
    assert!(us >= 0.0 && us.is_finite(), "{event}");
    (1e3 * us).round() as u64
}

/// Checks what the format asks for, and returns the slices of the only track.
fn slices(path: &Path) -> Vec<Slice> {
    let trace: Value = serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON");
    let unit = trace["displayTimeUnit"].as_str();
    assert!(unit == Some("ns") || unit == Some("ms"), "{unit:?}");
    let events = trace["traceEvents"].as_array().expect("a list");
    let (mut names, mut slices) = (BTreeMap::new(), Vec::new());
    for event in events {
        let name = event["name"].as_str().unwrap_or_else(|| panic!("no name: {event}"));
        assert!(!name.is_empty() && event["pid"] == 1 && event["tid"] == 1, "{event}");
        match event["ph"].as_str() {
            Some("M") => {
                assert!(slices.is_empty(), "names come first: {event}");
                names.insert(name.to_string(), event["args"]["name"].as_str().expect("a name").to_string());
            }
            Some("X") => {
                let op = event["args"]["op"].as_str().unwrap_or_else(|| panic!("no op: {event}"));
                assert_eq!(event["cat"], op);
                let start = nanoseconds(event, "ts");
                slices.push((start, start + nanoseconds(event, "dur"), op.to_string()));
            }
            other => panic!("an event of phase {other:?}: {event}"),
        }
    }
    assert_eq!(names.remove("process_name").as_deref(), Some("staticgrad"));
    let track = names.remove("thread_name").expect("the track has a name");
    assert!(track.contains("2 threads") && names.is_empty(), "{track}, {names:?}");
    for pair in slices.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "slices overlap on one track: {pair:?}");
    }
    slices
}

fn count(slices: &[Slice], op: &str) -> usize {
    slices.iter().filter(|s| s.2 == op).count()
}

#[test]
fn generation_writes_a_trace_of_every_step() {
    let bench = Bench::new();
    bench.succeeds("run --model model Hello --max-tokens 8 --threads 2 --profile trace.json");
    let slices = slices(&bench.path("trace.json"));
    // One layer; the prompt in one call, then seven tokens.
    assert_eq!(count(&slices, "causal_attention"), 8, "{slices:?}");
    assert!(count(&slices, "linear") >= 8 * 5, "{slices:?}");
    assert!(slices.iter().any(|s| s.1 > s.0), "all slices are empty");
}

#[test]
fn training_writes_a_trace_of_forward_backward_and_updates() {
    let bench = Bench::new();
    let sizes = "--set V=64 --set T=32 --set C=32 --set H=2 --set L=1 --batch 2 --context 16";
    bench.succeeds(&format!("bench --what train {sizes} --repeat 2 --threads 2 --profile trace.json"));
    let slices = slices(&bench.path("trace.json"));
    for op in ["causal_attention", "causal_attention.d_inputs", "cross_entropy_head", "adamw"] {
        assert!(count(&slices, op) > 0, "no {op}");
    }
}
