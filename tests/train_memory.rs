//! `staticgrad train` takes the bytes that it prints before step 0: peak resident memory of the whole process, from start to the
//! closing export, is within 3% of the total.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bytes that `train` printed as total, and the most that were resident.
struct Bytes {
    printed: f64,
    peak: f64,
}

impl Bytes {
    #[track_caller]
    fn agree(&self, what: &str) {
        let ratio = self.peak / self.printed;
        eprintln!("{what}: peak {:.1} MiB, {ratio:.4} of the total", self.peak / 1048576.0);
        assert!((0.97..1.03).contains(&ratio), "{what}: peak {} B, printed {} B", self.peak, self.printed);
    }
}

struct Place {
    directory: tempfile::TempDir,
    /// The spec to train from scratch, with its options.
    model: &'static str,
    batch: &'static str,
}

impl Place {
    fn new(model: &'static str, batch: &'static str) -> Self {
        let place = Place { directory: tempfile::tempdir().expect("a directory"), model, batch };
        let text: String = (0..20_000).map(|i| format!("Line {} of {}.\n", i * i % 9973, i % 13)).collect();
        std::fs::write(place.path("text.txt"), text).expect("written");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_staticgrad"));
        command.current_dir(self.directory.path()).args(line.split(' '));
        command
    }

    fn train_new(&self, out: &str, steps: u32) -> Bytes {
        self.train(&format!("--model {} --tokenizer gpt2 --steps {steps} --out {out}", self.model))
    }

    fn finetuned(&self, model: &str, out: &str) -> Bytes {
        self.train(&format!("--model {model} --tokenizer gpt2 --steps 1 --out {out}"))
    }

    /// A run of two steps that is killed when its first checkpoint is there.
    fn killed(&self, out: &str) {
        let line = format!("train --model {} --tokenizer gpt2 --steps 2 --data text.txt {}", self.model, self.batch);
        let mut command = self.command(&format!("{line} --val-fraction 0.005 --out {out}"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        while !self.path(out).join("checkpoint.safetensors").exists() {
            assert!(child.try_wait().expect("a status").is_none(), "it ended before its first checkpoint");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Runs `train` and watches its memory. Samples, validation and checkpoints all come.
    fn train(&self, options: &str) -> Bytes {
        let always =
            "--sample-every 1 --sample-tokens 8 --checkpoint-every 1 --eval-every 1 --eval-windows 2 --lr 1e-4";
        let data = format!("--data text.txt --val-fraction 0.005 {} {always}", self.batch);
        self.watch(&format!("train {options} {data}"))
    }

    fn watch(&self, line: &str) -> Bytes {
        let out = self.path("stdout");
        let file = std::fs::File::create(&out).expect("created");
        let mut child = self.command(line).stdout(file).stderr(Stdio::inherit()).spawn().expect("the program starts");
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut peak = 0.0f64;
        let ended = loop {
            peak = peak.max(high_water_mark(&status).unwrap_or(0.0));
            if let Some(ended) = child.try_wait().expect("a status") {
                break ended;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let text = std::fs::read_to_string(&out).expect("text");
        assert!(ended.success(), "{line}: {text}");
        let total = text.lines().find_map(|l| l.trim().strip_prefix("total ")).expect("a total is printed");
        let printed = total.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number of bytes");
        Bytes { printed, peak }
    }
}

/// Most resident bytes of a process so far.
fn high_water_mark(status: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(1024.0 * line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()?)
}

fn every_kind_of_run(place: &Place) {
    place.train_new("out", 2).agree("from scratch");
    let export = "export --model out --to gguf --type q8_0 --out model.gguf";
    assert!(place.command(export).stdout(Stdio::null()).status().expect("it runs").success());
    place.finetuned("out", "tuned").agree("finetuned from safetensors");
    place.finetuned("model.gguf", "tuned-gguf").agree("finetuned from q8_0 in GGUF");
    place.train("--model out --lora-rank 4 --tokenizer gpt2 --steps 1 --out adapter").agree("an adapter");
    place.killed("killed");
    place.watch("train --resume --out killed --sample-every 1 --eval-windows 2").agree("resumed");
}

/// The vocabulary of GPT-2, whose table is by far the largest tensor, on few and narrow layers.
#[test]
fn a_model_with_a_large_table_takes_what_is_printed() {
    let model = "gpt2 --set C=128 --set H=4 --set L=2 --set T=128";
    every_kind_of_run(&Place::new(model, "--batch 2 --context 64"));
}

#[test]
fn the_published_gpt2_takes_what_is_printed() {
    if std::env::var_os("STATICGRAD_SLOW").is_none() {
        eprintln!("skipped: STATICGRAD_SLOW is not set");
        return;
    }
    every_kind_of_run(&Place::new("gpt2", "--batch 4 --context 64"));
}
