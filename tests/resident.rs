//! While text is generated, the whole process holds its weights, its arena and at most 25 MB more, whether the weights were packed from a
//! GGUF or are mapped from a compiled model; and packing holds no more than one tensor beside.
#![cfg(target_os = "linux")]

#[path = "common/gguf_file.rs"]
mod gguf_file;

use staticgrad::tensor::DType;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bytes beyond weights and arena.
const MOST: u64 = 25_000_000;
const PROMPT: &str = "Bytes are what this model knows.";
/// Tokens of the largest plan: enough to look often.
const TOKENS: u32 = 400;
const CHANNELS: usize = 768;

fn program(directory: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_staticgrad"));
    command.current_dir(directory).args(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A field of /proc/PID/status in bytes, while the process lives.
fn status(process: u32, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let value = text.lines().find_map(|l| l.strip_prefix(field))?.strip_prefix(':')?;
    Some(1024 * value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?)
}

/// The number before " B)" behind `label` in the program's closing note.
fn noted(note: &str, label: &str) -> u64 {
    let after = note.split_once(label).and_then(|(_, rest)| rest.split_once('(')).expect("the note names it").1;
    after.split_once(" B)").and_then(|(number, _)| number.parse().ok()).expect("a number of bytes")
}

/// Runs the model; what it holds beyond weights and arena while it decodes, and at its highest, in bytes.
fn beyond(directory: &Path, model: &str) -> (i64, i64) {
    let line = format!("run --model {model} --max-tokens {TOKENS} --threads 2");
    let mut child = program(directory, &line).arg(PROMPT).spawn().expect("the program starts");
    let (mut out, mut read) = (child.stdout.take().expect("piped"), vec![0; PROMPT.len() + 1]);
    // One byte more than the prompt: a token was decoded.
    out.read_exact(&mut read).expect("text");
    let (mut resident, mut peak, mut looks) = (0, 0, 0);
    while child.try_wait().expect("a status").is_none() {
        if let Some(now) = status(child.id(), "VmRSS") {
            (resident, looks) = (resident.max(now), looks + 1);
            peak = status(child.id(), "VmHWM").unwrap_or(0).max(peak);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended = child.wait_with_output().expect("it ends");
    let note = String::from_utf8(ended.stderr).expect("UTF-8");
    assert!(ended.status.success() && looks > 10, "{looks} looks: {note}");
    let (weights, arena) = (noted(&note, "weights "), noted(&note, "arena "));
    assert!(weights > 40_000_000 && resident > weights, "{resident} B resident: {note}");
    let beyond = |bytes: u64| bytes as i64 - (weights + arena) as i64;
    (beyond(resident), beyond(peak))
}

#[test]
fn decoding_holds_weights_arena_and_little_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    gguf_file::byte_gpt2(&directory.join("bytes.gguf"), DType::Q8_0, 6, CHANNELS, 512);
    let compiled = program(directory, "compile bytes.gguf --weights bytes.gguf -o bytes.plan").output().expect("runs");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    // The largest matrix as f32, which is more than its pages in the file.
    let tensor = 4 * 4 * CHANNELS * CHANNELS;
    for (model, loading) in [("bytes.gguf", tensor as i64), ("bytes.plan", 0)] {
        let (decoding, peak) = beyond(directory, model);
        eprintln!(
            "{model}: {:.1} MB beyond weights and arena, {:.1} at most",
            decoding as f64 / 1e6,
            peak as f64 / 1e6
        );
        assert!(decoding <= MOST as i64, "{model}: {decoding} B beyond weights and arena while decoding");
        assert!(peak <= MOST as i64 + loading, "{model}: {peak} B beyond weights and arena at most");
    }
}
