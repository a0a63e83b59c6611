//! Finetuning with adapters as the program does it, on the fixtures' models.
#![allow(dead_code, reason = "each test binary uses a part")]

#[path = "training_run.rs"]
mod training_run;

use staticgrad::train::{TokenWidth, TokenWriter};
use std::path::Path;
use std::process::Command;
pub use training_run::*;

pub fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).display().to_string()
}

/// A directory with token files.
pub fn place() -> Place {
    let place = Place::new();
    for (name, count) in [("train.bin", 900u32), ("val.bin", 120)] {
        let mut writer = TokenWriter::create(&place.path(name), TokenWidth::U16).expect("a file");
        writer.push(&(0..count).map(|i| (i * i + 7 * i) % 37).collect::<Vec<_>>()).expect("written");
        writer.finish().expect("finished");
    }
    place
}

pub const OPTIONS: [&str; 14] = [
    "--data",
    "train.bin",
    "--val",
    "val.bin",
    "--batch",
    "2",
    "--context",
    "16",
    "--lr",
    "1e-2",
    "--warmup",
    "0",
    "--sample-every",
    "0",
];

/// The command that adapts `model`.
pub fn adapt(place: &Place, model: &str, out: &str, more: &[&str]) -> Command {
    place.train(out, &[&["--model", model, "--lora-rank", "4"], &OPTIONS[..], more].concat())
}

pub fn staticgrad(place: &Place, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_staticgrad"));
    command.current_dir(place.directory.path()).args(arguments);
    succeeded(command)
}
