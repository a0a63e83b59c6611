//! Runs the program in a directory of its own, beside a small model.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod byte_model;

use byte_model::Stored;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Path of a fixture.
pub fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).display().to_string()
}

/// Text in which every byte is one token.
pub fn text(bytes: usize) -> String {
    (0..bytes).map(|i| char::from(b' ' + (i * i * 7 % 90) as u8)).collect()
}

/// A directory to work in, with a model in `model`.
pub struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    /// Makes the directory.
    pub fn new() -> Bench {
        let bench = Bench { directory: tempfile::tempdir().unwrap() };
        byte_model::write(&bench.path("model"), &byte_model::tensors());
        bench
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A model directory with changed tensors.
    pub fn variant(&self, name: &str, change: impl FnOnce(&mut Vec<Stored>)) {
        let mut tensors = byte_model::tensors();
        change(&mut tensors);
        byte_model::write(&self.path(name), &tensors);
    }

    /// Writes a safetensors file with tokens, and targets if given.
    pub fn tokens(&self, name: &str, shape: [usize; 2], tokens: &[i32], targets: Option<&[i32]>) {
        let mut stored = vec![byte_model::integers("tokens", shape, tokens)];
        stored.extend(targets.map(|t| byte_model::integers("targets", shape, t)));
        byte_model::safetensors_file(&self.path(name), &stored);
    }

    /// Runs the program in the directory; words are split at spaces.
    pub fn run(&self, line: &str) -> Output {
        self.run_words(&line.split(' ').map(String::from).collect::<Vec<_>>())
    }

    /// Runs the program in the directory.
    pub fn run_words(&self, words: &[String]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_staticgrad"))
            .args(words)
            .current_dir(self.directory.path())
            .output()
            .expect("the program starts")
    }

    /// As [`Bench::succeeds`], under an instruction set by name.
    pub fn succeeds_under(&self, isa: Option<&str>, line: &str) -> Vec<u8> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_staticgrad"));
        command.args(line.split(' ')).current_dir(self.directory.path());
        isa.map(|isa| command.env("STATICGRAD_ISA", isa));
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{isa:?} {line}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Asserts success and returns standard output.
    pub fn succeeds(&self, line: &str) -> Vec<u8> {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn listing(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut pending = vec![self.directory.path().to_path_buf()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path.clone());
                }
                found.insert(path);
            }
        }
        found
    }

    /// Asserts the exit code, that standard error holds all of `phrases` and no panic, and that no file appears.
    pub fn fails(&self, line: &str, code: i32, phrases: &[&str]) -> String {
        let before = self.listing();
        let output = self.run(line);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {message}");
        assert!(message.starts_with("staticgrad: ") && !message.contains("panicked"), "{line}: {message}");
        for phrase in phrases {
            assert!(message.contains(phrase), "{line}: '{phrase}' is not in: {message}");
        }
        assert_eq!(before, self.listing(), "{line}: files appeared or went");
        message
    }

    /// [`Bench::fails`] with a message of one line.
    pub fn refuses(&self, line: &str, code: i32, phrases: &[&str]) {
        let message = self.fails(line, code, phrases);
        assert_eq!(message.trim_end().lines().count(), 1, "{line}: {message}");
    }
}
