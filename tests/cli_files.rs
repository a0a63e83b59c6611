//! What commands do to files and directories that are there already, and options that would be ignored.

#[path = "common/program.rs"]
mod program;

use program::{Bench, fixture};

const TRAIN: &str = "train --model gpt2 --set V=256 --set T=16 --set C=16 --set H=2 --set L=1 --batch 1 --steps 2";

#[test]
fn inputs_are_not_written_over() {
    let bench = Bench::new();
    bench.tokens("in.safetensors", [1, 2], &[1, 2], None);
    std::fs::write(bench.path("text.txt"), "Some text.").unwrap();
    std::fs::copy(fixture("gguf-mini/gpt2.gguf"), bench.path("a.gguf")).unwrap();
    let before = ["in.safetensors", "text.txt", "a.gguf"].map(|name| std::fs::read(bench.path(name)).unwrap());
    for (line, file) in [
        ("eval --model model --tokens in.safetensors --out ./in.safetensors", "in.safetensors"),
        ("eval --model a.gguf --tokens in.safetensors --out a.gguf", "a.gguf"),
        ("tokenize text.txt --tokenizer bytes -o text.txt", "text.txt"),
        ("export --model a.gguf --to gguf --out a.gguf", "a.gguf"),
        ("export --model model --to hf --out model", "model"),
        ("compile a.gguf --weights a.gguf -o a.gguf", "a.gguf"),
        ("merge --model model --adapter nowhere --out model", "model"),
        ("run --model a.gguf hi --profile a.gguf", "a.gguf"),
        ("train --model model --data text.txt --context 4 --steps 1 --out model", "model"),
    ] {
        bench.refuses(line, 2, &[file, "would be overwritten"]);
    }
    let after = ["in.safetensors", "text.txt", "a.gguf"].map(|name| std::fs::read(bench.path(name)).unwrap());
    assert!(before == after);
}

#[test]
fn a_run_that_cannot_begin_leaves_no_directory() {
    let bench = Bench::new();
    std::fs::write(bench.path("short.txt"), "0123456789").unwrap();
    std::fs::write(bench.path("text.txt"), "0123456789".repeat(20)).unwrap();
    bench.refuses(&format!("{TRAIN} --data short.txt --out run"), 1, &["short.txt", "too few for one window of 16"]);
    bench.refuses(&format!("{TRAIN} --data text.txt --val short.txt --out run"), 1, &["short.txt", "too few"]);
    bench.refuses(
        &format!("{TRAIN} --data text.txt --out text.txt"),
        1,
        &["text.txt", "is a file; give the name of a directory"],
    );
    let huge =
        "train --model gpt2 --data text.txt --tokenizer bytes --batch 2000000 --context 1024 --steps 1 --out run";
    bench.refuses(huge, 1, &["overflows the address space", "fewer rows or sequences"]);
    bench.refuses("export --model model --to hf --out text.txt", 1, &["text.txt", "is a file"]);
    std::fs::create_dir(bench.path("run")).unwrap();
    bench.succeeds(&format!("{TRAIN} --data text.txt --out run"));
    bench.refuses(&format!("{TRAIN} --data text.txt --out run"), 1, &["already holds a run", "--resume"]);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_text() {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bench = Bench::new();
    let name = std::ffi::OsStr::from_bytes(b"\xff.txt");
    std::fs::write(bench.path("").join(name), "0123456789".repeat(20)).unwrap();
    let run = |line: &str| {
        let words = line.split(' ').map(|word| match word {
            "TEXT" => name.to_os_string(),
            "OUT" => std::ffi::OsString::from_vec(b"\xfe.bin".to_vec()),
            word => word.into(),
        });
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_staticgrad"));
        command.args(words).current_dir(bench.path("")).output().expect("the program starts")
    };
    assert!(run("tokenize TEXT --tokenizer bytes --val-fraction 0.5 -o OUT").status.success());
    assert_eq!(std::fs::read_dir(bench.path("")).unwrap().count(), 4, "model, text and two token files");
    let refused = run(&format!("{TRAIN} --data TEXT --out run"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a path in UTF-8"));
    assert!(!bench.path("run").exists());
}

#[test]
fn options_without_effect_are_refused() {
    let bench = Bench::new();
    for (options, phrases) in [
        ("--weights model", ["--weights", "-o"]),
        ("--weights-type f16 -o a.plan", ["--weights-type", "--weights PATH"]),
        ("--emit graph -o a.plan", ["--emit", "leave out -o"]),
        ("--size medium", ["--size goes with a spec", "a checkpoint has its size"]),
        ("--accumulate", ["--accumulate", "--mode train"]),
        ("--fuse-optimizer", ["--fuse-optimizer", "--mode train"]),
        ("--memory-budget 1GiB", ["--memory-budget", "--mode train"]),
        ("--mode train --wanted-rows 2", ["--wanted-rows", "--mode infer"]),
        ("--mode train --step-rows 2", ["--step-rows", "--mode infer"]),
        ("--mode train --layout full", ["--layout", "--mode infer"]),
    ] {
        bench.refuses(&format!("compile model {options}"), 2, &phrases);
    }
    bench.refuses("bench --what prefill --model model --rows 0", 2, &["--rows 0"]);
    bench.refuses("bench --what prefill --model model --rows 33", 2, &["--rows 33", "context of 32"]);
    bench.refuses("bench --what decode --model model --set C=8", 2, &["--set", "--what train"]);
    bench.refuses("bench --what decode --model model --chart a.svg", 2, &["--chart", "--what ladder"]);
    bench.refuses("bench --what decode --model model --text a", 2, &["--text", "--what types"]);
    bench.refuses("bench --what roofline --rows 8", 2, &["--rows", "prefill"]);
    bench.refuses("bench --what ladder --model model --chart nowhere/a.svg", 1, &["nowhere", "make it first"]);
    bench.refuses("run --model model hi --profile nowhere/trace.json", 1, &["nowhere", "make it first"]);
    bench.refuses("run --model model --profile hi", 1, &["the prompt is empty", "--profile took 'hi'"]);
}

#[test]
fn negative_numbers_are_values_and_zeros_are_refused() {
    let bench = Bench::new();
    bench.refuses("run --model model hi --temperature -1", 2, &["temperature -1"]);
    std::fs::write(bench.path("text.txt"), "0123456789".repeat(20)).unwrap();
    bench.refuses(&format!("{TRAIN} --data text.txt --out run --lr -1"), 2, &["learning rate -1"]);
    for option in ["--eval-every", "--eval-windows", "--sample-tokens", "--checkpoint-every", "--log-every"] {
        bench.refuses(&format!("{TRAIN} --data text.txt --out run {option} 0"), 2, &[option, "at least 1"]);
    }
    let printed = bench.succeeds("run --model model -12 --max-tokens 1");
    assert!(printed.starts_with(b"-12"), "a prompt");
    let refused = String::from_utf8(bench.run("run --model model hi --threads -1").stderr).unwrap();
    assert!(refused.contains("'-1' for '--threads"), "{refused}");
}

/// An interrupt ends a command that writes, whose temporary file goes with it.
#[cfg(unix)]
#[test]
fn an_interrupted_command_leaves_nothing() {
    let bench = Bench::new();
    let (sequences, length) = (20_000, 32);
    bench.tokens("in.safetensors", [sequences, length], &vec![1; sequences * length], None);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_staticgrad"));
    command.args("eval --model model --tokens in.safetensors --out out.safetensors".split(' '));
    let mut child = command.current_dir(bench.path("")).spawn().expect("the program starts");
    let entries = || std::fs::read_dir(bench.path("")).unwrap().count();
    while entries() == 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it wrote");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill is there").success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(entries(), 2, "model and tokens");
}

/// A write past the limit of file sizes fails as any other: one line, no file.
#[cfg(unix)]
#[test]
fn files_past_the_limit_of_sizes_leave_nothing() {
    let bench = Bench::new();
    bench.tokens("in.safetensors", [4, 8], &[1; 32], None);
    std::fs::write(bench.path("text.txt"), "0123456789".repeat(1000)).unwrap();
    bench.succeeds("compile model -o small.plan");
    let limited = |program: &str, line: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -f 4 && exec \"$0\" \"$@\"", program]).args(line.split(' '));
        command.current_dir(bench.path("")).output().expect("a shell")
    };
    let entries = || std::fs::read_dir(bench.path("")).unwrap().count();
    let before = entries();
    let (staticgrad, plan_dump) = (env!("CARGO_BIN_EXE_staticgrad"), env!("CARGO_BIN_EXE_plan-dump"));
    for (program, line) in [
        (staticgrad, "tokenize text.txt --tokenizer bytes -o out"),
        (staticgrad, "export --model model --to gguf --out out"),
        (staticgrad, "eval --model model --tokens in.safetensors --out out"),
        (staticgrad, "compile model -o out"),
        (staticgrad, "compile model --weights model -o out"),
        (plan_dump, "show small.plan --format html -o out"),
    ] {
        let output = limited(program, line);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {:?} {message}", output.status);
        for phrase in ["out: cannot write", "ulimit -f"] {
            assert!(message.contains(phrase), "{line}: {message}");
        }
        assert!(message.lines().count() == 1 && entries() == before, "{line}: {message}");
    }
    let output = limited(staticgrad, &format!("{TRAIN} --data text.txt --out run"));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && message.contains("run/checkpoint.safetensors: cannot write"),
        "{message}"
    );
    let left: Vec<_> = std::fs::read_dir(bench.path("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["log.jsonl"]);
}
