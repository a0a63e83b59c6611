//! `staticgrad train`: resuming, kills, interrupts, thread counts, refusals.

#[path = "common/training_run.rs"]
mod training_run;

use staticgrad::train::checkpoint::Saved;
use staticgrad::train::{Log, Run, Settings, TokenWidth, TokenWriter, init};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use training_run::*;

#[test]
fn a_resumed_run_has_the_bits_of_an_uninterrupted_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("checkpoint.safetensors");
    for accumulate in [1, 2] {
        let settings = settings(accumulate);
        let plan = compiled(&settings);
        let new = |threads| Run::new(&plan, threads, settings.clone(), tokens(), Some(tokens())).expect("a run");
        let mut whole = new(1);
        init::initialise(whole.trainer_mut(), settings.seed);
        let losses: Vec<f64> = (0..12).map(|_| whole.step().expect("a step").loss).collect();
        assert!(losses[11] < losses[0]);
        let mut first = new(2);
        init::initialise(first.trainer_mut(), settings.seed);
        let mut halves: Vec<f64> = (0..6).map(|_| first.step().expect("a step").loss).collect();
        first.validate(Some(3)).expect("a loss");
        first.save(&path).expect("saved");
        let mut second = new(3);
        second.resume(&path, Saved::open(&path).expect("a checkpoint")).expect("it fits");
        halves.extend((0..6).map(|_| second.step().expect("a step").loss));
        assert_eq!(losses, halves);
        assert!(bits(&whole) == bits(&second));
        assert_eq!(whole.validate(None).expect("a loss"), second.validate(None).expect("a loss"));
        let mut other = Run::new(&plan, 1, Settings { lr: 1e-3, ..settings.clone() }, tokens(), None).expect("a run");
        let refused = other.resume(&path, Saved::open(&path).expect("a checkpoint")).expect_err("other options");
        assert!(refused.to_string().contains("other options"), "{refused}");
    }
    let bytes = std::fs::read(&path).expect("it was saved");
    let last = bytes.len() - 5;
    let step = bytes.windows(8).position(|w| w == b"step\\\":6").expect("the state is text") + 7;
    let settings = settings(2);
    let plan = compiled(&settings);
    for (at, what) in [(last, "a value"), (step, "the step")] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).expect("written");
        let mut run = Run::new(&plan, 1, settings.clone(), tokens(), None).expect("a run");
        let refused = run.resume(&path, Saved::open(&path).expect("its header is whole")).expect_err(what);
        assert!(refused.to_string().contains("checksum"), "{what}: {refused}");
    }
    for length in [0, 5, 100, last] {
        std::fs::write(&path, &bytes[..length]).expect("written");
        let refused = Saved::open(&path).err().expect("a part of a checkpoint").to_string();
        assert!(refused.contains("it is truncated or damaged"), "{length} bytes: {refused}");
    }
}

#[test]
fn kills_at_random_moments_leave_a_run_that_resumes_to_the_same_bits() {
    let place = Place::new();
    let options = ["--steps", "30", "--checkpoint-every", "1", "--sample-every", "7", "--eval-every", "5"];
    succeeded(place.tiny("whole", &options));
    let kills = if std::env::var_os("STATICGRAD_SLOW").is_some() { 50 } else { 4 };
    let (mut done, mut random, mut round) = (0, 12345u64, 0);
    while done < kills {
        let out = format!("killed{round}");
        round += 1;
        loop {
            let resumed: Vec<&str> = options.iter().copied().chain(["--resume"]).collect();
            let mut child = place.tiny(&out, &resumed).spawn().expect("the program starts");
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let finished = wait(&mut child, Duration::from_millis(20 + (random >> 33) % 400));
            match finished {
                Some(success) => {
                    assert!(success, "resuming failed after {done} kills");
                    break;
                }
                None if done == kills => {
                    assert!(child.wait().expect("it ends").success());
                    break;
                }
                None => {
                    child.kill().expect("it can be killed");
                    child.wait().expect("it ends");
                    done += 1;
                }
            }
        }
        for name in ["checkpoint.safetensors", "model.safetensors"] {
            assert!(values(&place.path("whole").join(name)) == values(&place.path(&out).join(name)), "{out}: {name}");
        }
        let steps = |name: &str| -> Vec<(u64, Option<f64>, Option<f64>)> {
            let log = Log::read(&place.path(name).join("log.jsonl")).expect("a log");
            log.iter().filter(|r| r.val_loss.is_some()).map(|r| (r.step, r.loss, r.val_loss)).collect()
        };
        assert_eq!(steps("whole"), steps(&out));
    }
}

/// Whether the program succeeded, or `None` when it still runs after `limit`.
fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let clock = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return Some(status.success());
        }
        if clock.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_and_ends_cleanly() {
    let place = Place::new();
    let child = place.tiny("out", &["--steps", "1000000", "--sample-every", "0"]).spawn().expect("the program starts");
    let clock = Instant::now();
    let log = place.path("out/log.jsonl");
    while std::fs::metadata(&log).map_or(0, |m| m.len()) == 0 {
        assert!(clock.elapsed() < Duration::from_secs(60), "no step was logged");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill is there");
    assert!(sent.success());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("continue with --resume"));
    let state = Saved::open(&place.path("out/checkpoint.safetensors")).expect("a checkpoint").state().clone();
    assert!(state.step > 0 && state.position.epoch * 1000 + state.position.index > 0);
    assert!(place.path("out/loss.svg").exists());
}

#[test]
fn any_number_of_threads_gives_the_same_model_which_runs_and_finetunes() {
    let place = Place::new();
    for threads in ["1", "3"] {
        let printed = succeeded(place.tiny(threads, &["--steps", "40", "--threads", threads, "--log-every", "1"]));
        assert!(printed.contains("arena") && printed.contains("40 steps in"), "{printed}");
    }
    let model = |out: &str| std::fs::read(place.path(out).join("model.safetensors")).expect("a model");
    assert!(model("1") == model("3"));
    let mut run = Command::new(env!("CARGO_BIN_EXE_staticgrad"));
    run.current_dir(place.directory.path()).args(["run", "--model", "1", "Line", "--max-tokens", "5"]);
    assert!(succeeded(run).starts_with("Line"));
    let options =
        ["--model", "1", "--data", "text.txt", "--steps", "3", "--batch", "1", "--context", "8", "--save-type", "bf16"];
    succeeded(place.train("tuned", &options));
    let header = std::fs::read(place.path("tuned/model.safetensors")).expect("a model");
    assert!(String::from_utf8_lossy(&header[8..2000]).contains("BF16"));
    let losses = |out: &str| Log::read(&place.path(out).join("log.jsonl")).expect("a log");
    let first = |out: &str| losses(out)[0].loss.expect("a loss");
    assert!(first("tuned") < first("1") - 0.3, "finetuning starts from the trained weights");
}

#[test]
fn bf16_products_follow_the_loss_curve_of_f32_over_500_steps() {
    let place = Place::new();
    let text =
        [include_str!("../LICENSE-APACHE"), include_str!("../README.md"), include_str!("../graph-specs/README.md")];
    std::fs::write(place.path("words.txt"), text.concat()).expect("written");
    let curve = |precision: &str| -> Vec<f64> {
        let model = "--model gpt2 --set V=256 --set C=64 --set H=4 --set L=2 --context 64 --batch 8 --data words.txt";
        let run = "--steps 500 --lr 1e-3 --log-every 1 --eval-every 500 --eval-windows 1 --sample-every 0";
        let options: Vec<&str> = model.split(' ').chain(run.split(' ')).chain(["--precision", precision]).collect();
        succeeded(place.train(precision, &options));
        let log = Log::read(&place.path(precision).join("log.jsonl")).expect("a log");
        log.into_iter().filter_map(|record| record.loss).collect()
    };
    let (exact, rounded) = (curve("f32"), curve("bf16"));
    assert!(exact.len() == 500 && exact[499] < 0.6 * exact[0], "{} and {}", exact[0], exact[499]);
    let off = exact.iter().zip(&rounded).map(|(f32, bf16)| (bf16 / f32 - 1.0).abs()).fold(0.0, f64::max);
    eprintln!("losses in bf16 are off by at most {:.3} %", 100.0 * off);
    assert!(off < 0.01 && rounded != exact, "off by {off}");
}

#[test]
fn token_files_train_models_without_a_tokenizer() {
    let place = Place::new();
    for (name, count) in [("train.bin", 500), ("val.bin", 100)] {
        let mut writer = TokenWriter::create(&place.path(name), TokenWidth::U16).expect("a file");
        writer.push(&(0..count).map(|i| i * 7 % 97).collect::<Vec<_>>()).expect("written");
        writer.finish().expect("finished");
    }
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2-tiny");
    let tiny = tiny.to_str().expect("UTF-8");
    let options = ["--model", tiny, "--data", "train.bin", "--val", "val.bin", "--steps", "2", "--batch", "2"];
    succeeded(place.train("out", &options));
    let losses = Log::read(&place.path("out/log.jsonl")).expect("a log");
    assert!(losses.iter().any(|r| r.val_loss.is_some()));
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let place = Place::new();
    let refused = |out: &str, options: &[&str], code: i32, words: &str| {
        let output = output(place.tiny(out, options));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{options:?}: {message}");
        assert!(message.contains(words), "{options:?}: {message}");
    };
    refused("a", &[], 2, "--steps N is missing");
    refused("a", &["--steps", "0"], 2, "--steps 0");
    refused("a", &["--steps", "5", "--context", "17"], 2, "--context 17");
    refused("a", &["--steps", "5", "--beta1", "1"], 2, "--beta1 1");
    refused("a", &["--steps", "5", "--warmup", "6"], 2, "6 warmup steps");
    refused("a", &["--steps", "5", "--schedule", "cosin"], 2, "unknown schedule");
    refused("a", &["--steps", "5", "--eval-every", "0"], 2, "--eval-every");
    refused("a", &["--steps", "5", "--save-type", "q8_0"], 2, "--save-type q8_0");
    refused("a", &["--steps", "5", "--val", "absent.txt"], 1, "absent.txt");
    refused("a", &["--steps", "5", "--set", "V=64"], 1, "64");
    assert!(!place.path("a").join("log.jsonl").exists());
    let diverging = |lr| ["--steps", "40", "--lr", lr, "--clip", "0", "--warmup", "0"];
    refused("a", &diverging("1e25"), 1, "the loss of step 2 is NaN; first not finite: linear 'h.0");
    succeeded(place.tiny("b", &["--steps", "2"]));
    refused("b", &["--steps", "2"], 1, "--resume");
    refused("b", &["--steps", "3", "--resume"], 2, "--steps differs");
    assert!(succeeded(place.train("b", &["--resume"])).contains("done already"));
    let output = output(place.train("none", &["--resume"]));
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("none holds no checkpoint to continue, and to start a run --model"), "{message}");
}

#[test]
fn tokenize_writes_what_train_reads() {
    let place = Place::new();
    let mut tokenize = Command::new(env!("CARGO_BIN_EXE_staticgrad"));
    tokenize.current_dir(place.directory.path());
    tokenize.args(["tokenize", "text.txt", "--tokenizer", "bytes", "--val-fraction", "0.1", "-o", "train.bin"]);
    let printed = succeeded(tokenize);
    assert!(printed.contains("train.bin") && printed.contains("val.bin"), "{printed}");
    succeeded(place.tiny("text", &["--steps", "2", "--val-fraction", "0.1"]));
    let mut options = vec!["--model", "gpt2", "--data", "train.bin", "--val", "val.bin", "--steps", "2"];
    options.extend(["--batch", "2", "--lr", "3e-3"]);
    TINY.iter().for_each(|set| options.extend(["--set", set]));
    succeeded(place.train("tokens", &options));
    let model = |out: &str| std::fs::read(place.path(out).join("model.safetensors")).expect("a model");
    assert!(model("text") == model("tokens"));
}
