//! A tiny training run, in this process and as the program runs it.
#![allow(dead_code, reason = "each test binary uses a part")]

use staticgrad::plan::Plan;
use staticgrad::spec;
use staticgrad::train::{Planning, Precision, Run, ScheduleKind, Settings, TokenSource, planning};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

/// Sizes of the model.
pub const TINY: [&str; 5] = ["V=256", "T=16", "C=16", "H=2", "L=1"];

/// What it learns.
pub fn text() -> String {
    (0..400).map(|i| format!("Line {} of {}.\n", i * i % 97, i % 13)).collect()
}

/// Twelve steps of it.
pub fn settings(accumulate: usize) -> Settings {
    Settings {
        model: "gpt2".into(),
        size: None,
        set: TINY.iter().map(|s| s.to_string()).collect(),
        data: "text".into(),
        val: None,
        val_fraction: 0.0,
        tokenizer: None,
        steps: 12,
        batch: 2,
        context: 16,
        accumulate,
        schedule: ScheduleKind::Cosine,
        lr: 3e-3,
        min_lr: 3e-4,
        warmup: 3,
        decay_steps: 0,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        clip: 1.0,
        precision: Precision::F32,
        moments: Precision::F32,
        seed: 7,
        lora: None,
        planning: Planning::default(),
    }
}

/// The sizes, in pairs.
pub fn sets(settings: &Settings) -> Vec<(String, String)> {
    settings.set.iter().map(|s| s.split_once('=').map(|(n, v)| (n.into(), v.into())).expect("a pair")).collect()
}

/// The plan of a run from scratch.
pub fn compiled(settings: &Settings) -> Plan {
    let graph =
        spec::compile(&spec::builtin("gpt2").expect("built in"), &sets(settings), None).expect("the spec compiles");
    planning::plan(&graph, settings, 2).expect("it compiles").plan
}

/// The text as bytes.
pub fn tokens() -> Arc<TokenSource> {
    Arc::new(TokenSource::from_tokens("text", text().bytes().map(u32::from).collect()))
}

/// Bytes of all parameters and moments.
pub fn bits(run: &Run) -> Vec<u8> {
    let trainer = run.trainer();
    let arrays = |name: &str| ["", ".first_moment", ".second_moment"].map(|suffix| format!("{name}{suffix}"));
    let stored = |name: String| trainer.stored(&name).expect("it is stored").1.to_vec();
    trainer.trained().flat_map(|name| arrays(name).into_iter().flat_map(stored)).collect()
}

/// A directory with a text and the command that trains on it.
pub struct Place {
    pub directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("text.txt"), text()).expect("written");
        Place { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn train(&self, out: &str, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_staticgrad"));
        command.current_dir(self.directory.path()).args(["train", "--out", out]).args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn tiny(&self, out: &str, options: &[&str]) -> Command {
        let mut command = self.train(out, &["--model", "gpt2", "--data", "text.txt", "--batch", "2"]);
        if !options.contains(&"--lr") {
            command.args(["--lr", "3e-3"]);
        }
        TINY.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        command.args(options);
        command
    }
}

pub fn output(mut command: Command) -> Output {
    command.output().expect("the program starts")
}

pub fn succeeded(command: Command) -> String {
    let output = output(command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out.into_owned()
}

/// Bytes of the values behind the header, which holds the time.
pub fn values(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    bytes[8 + header..].to_vec()
}
