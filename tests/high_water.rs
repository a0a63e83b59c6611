//! The bytes that runs touch are those that the plan counts: the highest byte written is the plan's last one.

mod common;

use common::{open, planned, session, tokens};
use staticgrad::exec::{Executor, Trainer, Update, Want};
use staticgrad::ops::Capacity;
use staticgrad::passes::lora::{self, Lora};
use staticgrad::passes::{Layout, Mode, Training, optimizer::AdamW, train};
use staticgrad::plan::budget::{self, FuseOptimizer};
use staticgrad::plan::{ALIGN, Plan, compile};
use staticgrad::weights::WeightsType;

/// One past the highest byte that was written, of kept rows, of the transient region, and of the scratch of worker 0. `run` fills
/// with a value, runs at full size, and gives the filled ranges.
fn high_water(plan: &Plan, mut run: impl FnMut(u8) -> Vec<(u64, Vec<u8>)>) -> [u64; 3] {
    let (first, second) = (run(0xa5), run(0x5a));
    let transient = plan.totals.persistent..plan.totals.persistent + plan.totals.transient;
    let mut highest = [0; 3];
    for ((start, a), (_, b)) in first.iter().zip(&second) {
        for i in (0..a.len()).filter(|&i| a[i] != 0xa5 || b[i] != 0x5a) {
            let at = start + i as u64;
            let region = if at < transient.start { 0 } else { 1 + usize::from(at >= transient.end) };
            highest[region] = at + 1;
        }
    }
    highest.map(|h| h.next_multiple_of(ALIGN))
}

fn bytes(executor: &Executor) -> Vec<(u64, Vec<u8>)> {
    executor.filled().into_iter().map(|(start, bytes)| (start, bytes.to_vec())).collect()
}

fn check(name: &str, plan: &Plan, kept: bool, [kept_end, transient_end, scratch_end]: [u64; 3]) {
    let totals = &plan.totals;
    let transient = totals.persistent + totals.transient;
    if kept {
        assert_eq!(kept_end, totals.persistent, "{name}: kept rows");
    }
    assert_eq!(transient_end, transient, "{name}: the transient region");
    // Scratch is planned for the instruction set that needs most.
    assert!(scratch_end <= totals.arena(1), "{name}: scratch");
    assert!(totals.scratch_per_worker == 0 || scratch_end > transient, "{name}: scratch");
}

#[test]
fn inference_reaches_the_last_planned_byte_and_no_further() {
    for model in ["gpt2-tiny", "llama-tiny"] {
        for layout in [Layout::Compact, Layout::Full] {
            let capacity = Capacity { slots: 2, context: 24, step_rows: 48, wanted_rows: 48 };
            let (plan, store) = planned(model, layout, capacity, WeightsType::Native);
            let text = tokens(24, 97);
            let highest = high_water(&plan, |value| {
                let mut session = session(&plan, &store, 1);
                session.executor_mut().fill_unwritten(value);
                session.run(&[(0, &text), (1, &text)], Want::All).expect("fits");
                bytes(session.executor())
            });
            check(&format!("{model} {layout:?}"), &plan, true, highest);
        }
    }
}

fn training_high_water(plan: &Plan) -> [u64; 3] {
    let text = tokens(49, 97);
    high_water(plan, |value| {
        let mut trainer = Trainer::new(plan, 1).expect("binds");
        for (p, name) in trainer.parameters().collect::<Vec<_>>().into_iter().enumerate() {
            let values = trainer.parameter_mut(name).expect("f32");
            values.iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 37 + p * 101) as f32).sin() * 0.2);
        }
        trainer.executor_mut().fill_unwritten(value);
        let update = Update { step: 1, learning_rate: 1e-3, max_norm: None };
        trainer.begin(1);
        trainer.prepare_update(&update);
        trainer.micro_step(&text[..48], &text[1..], 1.0 / 48.0).expect("fits");
        trainer.update(&update);
        bytes(trainer.executor())
    })
}

#[test]
fn training_reaches_the_last_planned_byte_and_no_further() {
    let capacity = Capacity { slots: 2, context: 24, step_rows: 48, wanted_rows: 48 };
    for model in ["gpt2-tiny", "llama-tiny"] {
        let (_, graph) = open(model);
        let training = Training { optimizer: Some(AdamW::default()), ..Training::default() };
        let plain = train(&graph, &training).expect("differentiates");
        let adapted = lora::attach(&graph, &Lora { rank: 4, alpha: 8.0, modules: Vec::new() }).expect("adapts");
        let adapted = train(&adapted, &training).expect("differentiates");
        let whole = compile(plain.clone(), Mode::Train, capacity).expect("plans");
        let fit = |budget, fuse| budget::fit(plain.clone(), capacity, budget, 1, fuse).expect("fits");
        let least = fit(u64::MAX, FuseOptimizer::Never).curve.iter().map(|c| c.bytes).min().expect("choices");
        let plans = [
            ("whole", whole),
            ("budgeted", fit(least, FuseOptimizer::Never).plan),
            ("updates inside", fit(u64::MAX, FuseOptimizer::Always).plan),
            ("adapters", compile(adapted, Mode::Train, capacity).expect("plans")),
        ];
        for (name, plan) in plans {
            check(&format!("{model}, {name}"), &plan, false, training_high_water(&plan));
        }
    }
}
