//! `staticgrad train`: updates inside backward and memory budgets change what a step takes, and no bit of its result; moments in bf16.

#[path = "common/training_run.rs"]
mod training_run;

use staticgrad::plan::{BufferKind, Plan};
use staticgrad::spec;
use staticgrad::train::checkpoint::Saved;
use staticgrad::train::{Adapters, Planning, Precision, Run, Settings, init, planning};
use training_run::*;

/// Twelve steps of a run, resumed after six with `second` where that differs: losses, and bits of everything that is trained.
fn twelve_steps(first: &Settings, second: &Settings) -> (Vec<f64>, Vec<u8>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("checkpoint.safetensors");
    let plan = compiled(first);
    let mut run = Run::new(&plan, 2, first.clone(), tokens(), None).expect("a run");
    init::initialise(run.trainer_mut(), first.seed);
    let mut losses: Vec<f64> = (0..6).map(|_| run.step().expect("a step").loss).collect();
    run.save(&path).expect("saved");
    let plan = compiled(second);
    let mut resumed = Run::new(&plan, 3, second.clone(), tokens(), None).expect("a run");
    let mut saved = Saved::open(&path).expect("a checkpoint");
    saved.set_planning(second.planning);
    resumed.resume(&path, saved).expect("it fits");
    losses.extend((0..6).map(|_| resumed.step().expect("a step").loss));
    (losses, bits(&resumed))
}

#[test]
fn updates_inside_backward_and_budgets_change_no_bit() {
    let set = ["V=256", "T=16", "C=32", "H=2", "L=6"].map(String::from).to_vec();
    let plain = Settings { clip: 0.0, set, ..settings(1) };
    let with = |fuse_optimizer, memory_budget| Settings {
        planning: Planning { fuse_optimizer, memory_budget },
        ..plain.clone()
    };
    let expected = twelve_steps(&plain, &plain);
    let fused = with(true, None);
    let plan = compiled(&fused);
    assert!(plan.graph.nodes.iter().all(|n| n.section != staticgrad::graph::Section::Update));
    let transient = |plan: &Plan| plan.totals.transient + 2 * plan.totals.scratch_per_worker;
    assert!(twelve_steps(&fused, &fused) == expected, "resumed, updates inside backward");
    assert!(twelve_steps(&plain, &fused) == expected, "resumed with updates inside backward");
    let all = transient(&compiled(&plain));
    let graph = spec::compile(&spec::builtin("gpt2").expect("built in"), &sets(&plain), None).expect("compiles");
    let fit = |budget| planning::plan(&graph, &with(false, Some(budget)), 2);
    let (curve, chosen) = fit(u64::MAX).expect("all fits").budget.expect("a budget was given");
    assert!(chosen.extra == 0.0 && chosen.bytes == all);
    let mut sizes: Vec<u64> = curve.iter().map(|c| c.bytes).collect();
    sizes.sort_unstable();
    let least = *sizes.iter().find(|&&bytes| fit(bytes).is_ok()).expect("some budget fits");
    let tight = with(false, Some(least));
    let plan = compiled(&tight);
    assert!(transient(&plan) <= least && least < all && plan.graph.nodes.iter().any(|n| n.recomputed));
    assert!(twelve_steps(&tight, &tight) == expected, "within {least} B");
    assert!(twelve_steps(&fused, &tight) == expected, "resumed within {least} B");
    // With clipping, the same budget cannot be met by updates inside backward.
    let clipped = |plain: Settings| Settings { clip: 1.0, ..plain };
    assert!(planning::plan(&graph, &clipped(tight), 2).is_err());
    let expected = twelve_steps(&clipped(plain.clone()), &clipped(plain.clone()));
    let clipped = clipped(with(false, Some(all - 1)));
    assert!(twelve_steps(&clipped, &clipped) == expected);
}

#[test]
fn moments_in_bf16_take_half_the_memory_and_keep_the_promises_about_bits() {
    let exact = settings(1);
    let halved = Settings { moments: Precision::Bf16, ..settings(1) };
    let bytes = |settings: &Settings| {
        let plan = compiled(settings);
        let states = plan.buffers.iter().filter(|b| b.kind == BufferKind::State);
        states.map(|b| b.size).sum::<u64>()
    };
    assert_eq!(2 * bytes(&halved), bytes(&exact));
    let (losses, whole) = twelve_steps(&halved, &halved);
    let (others, _) = twelve_steps(&exact, &exact);
    assert!(
        losses != others && losses.iter().zip(&others).all(|(a, b)| (a / b - 1.0).abs() < 0.01),
        "{losses:?} {others:?}"
    );
    // Threads, updates inside backward and micro-batches draw the same random numbers.
    let plan = compiled(&halved);
    let mut single = Run::new(&plan, 1, halved.clone(), tokens(), None).expect("a run");
    init::initialise(single.trainer_mut(), halved.seed);
    let again: Vec<f64> = (0..12).map(|_| single.step().expect("a step").loss).collect();
    assert!(again == losses && bits(&single) == whole, "one thread, not resumed");
    let unclipped = Settings { clip: 0.0, ..halved.clone() };
    let planning = Planning { fuse_optimizer: true, ..Planning::default() };
    let inside = Settings { planning, ..unclipped.clone() };
    assert!(twelve_steps(&unclipped, &unclipped) == twelve_steps(&inside, &inside), "updates inside backward");
    let large = Settings { batch: 8, ..halved.clone() };
    let parts = Settings { batch: 4, accumulate: 2, ..halved.clone() };
    assert!(twelve_steps(&large, &large) == twelve_steps(&parts, &parts), "micro-batches");
    let other_seed = Settings { seed: 8, ..halved };
    assert!(twelve_steps(&other_seed, &other_seed).1 != whole);
}

#[test]
fn budgets_on_the_command_line() {
    let place = Place::new();
    let refused = |options: &[&str]| {
        let output = output(place.tiny("out", options));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let steps = ["--steps", "2"];
    let (code, message) = refused(&[&steps[..], &["--fuse-optimizer"]].concat());
    assert!(code == Some(2) && message.contains("--clip 0"), "{message}");
    let (code, message) = refused(&[&steps[..], &["--fuse-optimizer", "--clip", "0", "--accumulate", "2"]].concat());
    assert!(code == Some(2) && message.contains("--accumulate"), "{message}");
    let (code, message) = refused(&[&steps[..], &["--memory-budget", "1KiB"]].concat());
    assert!(code == Some(1) && message.contains("the smallest that would is") && message.contains("In the way is"));
    assert!(message.trim_end().lines().count() == 1, "{message}");
    assert!(!place.path("out").join("checkpoint.safetensors").exists());
    let printed = succeeded(place.tiny("out", &[&steps[..], &["--memory-budget", "1MiB"]].concat()));
    assert!(printed.contains("<- chosen"), "{printed}");
    let resumed = succeeded(place.train("out", &["--resume", "--memory-budget", "2MiB"]));
    assert!(resumed.contains("<- chosen"), "{resumed}");
}

/// SmolLM2-135M, one sequence of 512 tokens: what adapters take of the memory of training everything.
#[test]
fn adapters_take_a_fraction_of_the_memory_of_a_full_finetune() {
    let graph = spec::compile(&spec::builtin("llama").expect("built in"), &[], Some("smollm2_135m")).expect("compiles");
    let full = Settings { batch: 1, context: 512, ..settings(1) };
    let with = |base_type| {
        let lora = Adapters { rank: 8, alpha: 16.0, targets: Vec::new(), base_type };
        Settings { lora: Some(lora), ..full.clone() }
    };
    let bytes = |settings: &Settings| {
        let graph = planning::adapted(&graph, settings).expect("adapts");
        planning::plan(&graph, settings, 2).expect("plans").plan.totals.arena(2) as f64
    };
    let all = bytes(&full);
    let (wide, narrow) = (bytes(&with(Precision::F32)) / all, bytes(&with(Precision::Bf16)) / all);
    eprintln!("adapters take {wide:.4} of a full finetune's arena, {narrow:.4} on a base in bf16");
    assert!(wide <= 0.4 && narrow <= 0.3, "{wide} {narrow}");
}
