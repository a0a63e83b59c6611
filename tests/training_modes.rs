//! What training steps can do beside the plain one: dropout, bf16, adapters, padding; and what they refuse or name.

#[path = "common/tiny_training.rs"]
mod tiny;

use staticgrad::exec::Trainer;
use staticgrad::passes::Training;
use staticgrad::passes::lora::{self, Lora};
use staticgrad::train::init;
use tiny::*;

#[test]
fn dropout_depends_on_the_step_alone_and_rests_in_evaluation() {
    let model = model_with("gpt2-tiny", &[("dropout", "0.2")]);
    let (tokens, targets) = larger_batch();
    let mut results = Vec::new();
    for (accumulate, slots, parts, threads) in [(false, 4, 1, 1), (false, 4, 1, 3), (true, 2, 2, 2)] {
        let plan = model.plan(&with_adamw(accumulate), slots, 32);
        assert_eq!(plan.graph.nodes.iter().filter(|n| n.op == "dropout").count(), 10);
        let mut trainer = model.trainer(&plan, threads);
        trainer.set_seed(0x1234_5678_9abc_def0);
        let steps = ten_steps(&mut trainer, &tokens, &targets, parts);
        results.push((steps, snapshot(&trainer)));
    }
    assert!(results.iter().all(|r| *r == results[0]), "dropout depends on threads or micro-batches");
    let plan = model.plan(&with_adamw(false), 4, 32);
    let losses: Vec<f64> = [1u64, 1, 2]
        .into_iter()
        .map(|seed| {
            let mut trainer = model.trainer(&plan, 2);
            trainer.set_seed(seed);
            trainer.begin(1);
            trainer.micro_step(&tokens, &targets, 1.0 / 128.0).expect("a valid batch");
            trainer.loss()
        })
        .collect();
    assert!(losses[0] == losses[1] && losses[0] != losses[2], "{losses:?}");
    let (still, dropless) = (model.trainer(&plan, 2).evaluate(&tokens, &targets), {
        let without = tiny::model("gpt2-tiny");
        let plan = without.plan(&with_adamw(false), 4, 32);
        let result = without.trainer(&plan, 2).evaluate(&tokens, &targets);
        result.expect("a valid batch")
    });
    assert_eq!(still.expect("a valid batch"), dropless);
}

#[test]
fn bf16_products_stay_close_and_keep_the_promises_about_bits() {
    for name in ["gpt2-tiny", "llama-tiny"] {
        let model = model(name);
        let (tokens, targets) = larger_batch();
        let mut results = Vec::new();
        for (accumulate, slots, parts, threads) in [(false, 4, 1, 1), (false, 4, 1, 2), (true, 2, 2, 2)] {
            let plan = model.plan(&Training { bf16: true, ..with_adamw(accumulate) }, slots, 32);
            let mut trainer = model.trainer(&plan, threads);
            let steps = ten_steps(&mut trainer, &tokens, &targets, parts);
            results.push((steps, snapshot(&trainer)));
        }
        assert!(results.iter().all(|r| *r == results[0]), "{name}: bits depend on threads or micro-batches");
        let plan = model.plan(&with_adamw(false), 4, 32);
        let exact = ten_steps(&mut model.trainer(&plan, 2), &tokens, &targets, 1);
        for ((loss, _), (want, _)) in results[0].0.iter().zip(&exact) {
            assert!((loss / want - 1.0).abs() < 0.01 && loss != want, "{name}: {loss} in bf16, {want} in f32");
        }
    }
}

#[test]
fn adapters_train_while_the_base_is_frozen() {
    for (name, modules) in [("gpt2-tiny", vec!["c_attn".to_string(), "mlp.c_proj".into()]), ("llama-tiny", Vec::new())]
    {
        let base = model(name);
        let lora = Lora { rank: 4, alpha: 8.0, modules: modules.clone() };
        let graph = lora::attach(&base.graph, &lora).expect("adapters fit");
        let adapted = Model { graph, ..model(name) };
        let (tokens, targets) = base.batch();
        let base_plan = base.plan(&with_adamw(false), 2, 16);
        let before = base.trainer(&base_plan, 2).evaluate(&tokens, &targets).expect("a valid batch");
        let plan = adapted.plan(&with_adamw(false), 2, 16);
        let mut trainer = adapted.trainer(&plan, 2);
        assert_eq!(trainer.evaluate(&tokens, &targets).expect("a valid batch"), before, "B = 0 changes nothing");
        ten_steps(&mut trainer, &tokens, &targets, 1);
        let after = trainer.evaluate(&tokens, &targets).expect("a valid batch");
        assert!(after.0 < 0.98 * before.0, "{name}: {} after ten steps, {} before", after.0, before.0);
        let mut adapters = 0;
        let untouched = base.trainer(&base_plan, 1);
        for parameter in trainer.parameters() {
            match untouched.parameter(parameter) {
                Some(values) => assert_eq!(trainer.parameter(parameter).expect("a parameter"), values, "{parameter}"),
                None => adapters += 1,
            }
            assert_eq!(trainer.moments(parameter).is_some(), untouched.parameter(parameter).is_none(), "{parameter}");
        }
        assert_eq!(adapters, if modules.is_empty() { 2 * 2 * 7 } else { 2 * 2 * 2 });
        assert!(plan.totals.persistent < base_plan.totals.persistent / 2);
    }
    let unknown = Lora { rank: 4, alpha: 8.0, modules: vec!["nothing".into()] };
    assert!(lora::attach(&model("gpt2-tiny").graph, &unknown).is_err());
}

#[test]
fn what_is_not_finite_is_named() {
    let model = model("gpt2-tiny");
    let plan = model.plan(&with_adamw(false), 2, 16);
    let mut trainer = model.trainer(&plan, 2);
    let (tokens, targets) = model.batch();
    trainer.parameter_mut("h.0.mlp.c_fc.bias").expect("a parameter")[3] = 3e38;
    trainer.parameter_mut("h.0.mlp.c_proj.weight").expect("a parameter").fill(1e3);
    trainer.begin(1);
    trainer.micro_step(&tokens, &targets, 1.0 / 32.0).expect("a valid batch");
    assert!(!trainer.loss().is_finite());
    let first = trainer.find_non_finite().expect("something is not finite");
    assert!(first.starts_with("linear '"), "{first}");
    trainer.parameter_mut("ln_f.weight").expect("a parameter")[0] = f32::NAN;
    assert_eq!(trainer.find_non_finite().as_deref(), Some("parameter ln_f.weight"));
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let model = model("gpt2-tiny");
    let plan = model.plan(&with_adamw(false), 2, 16);
    let mut trainer = model.trainer(&plan, 1);
    let (tokens, mut targets) = model.batch();
    assert!(trainer.micro_step(&tokens[1..], &targets, 1.0).is_err());
    targets[0] = 97;
    assert!(trainer.micro_step(&tokens, &targets, 1.0).is_err());
    targets[0] = -1;
    assert!(trainer.micro_step(&tokens, &targets, 1.0).is_err());
    targets[0] = -100;
    trainer.begin(1);
    trainer.micro_step(&tokens, &targets, 1.0).expect("an ignored target is valid");
    assert!(trainer.micro_step(&tokens, &targets, 1.0).is_err(), "a second micro-batch without accumulation");
}

/// Token 3 as padding: its row of the table learns nothing from being read, whether the head shares the table or not, and no other
/// gradient changes.
#[test]
fn a_padding_token_learns_nothing_from_being_read() {
    const TOKEN: usize = 3;
    for tied in ["true", "false"] {
        let gradients = |pad: &str| {
            let model = model_with("llama-tiny", &[("pad", pad), ("tied", tied)]);
            let plan = model.plan(&Training { keep_gradients: true, ..Default::default() }, 2, 16);
            let mut trainer = Trainer::new(&plan, 2).expect("the plan binds");
            init::initialise(&mut trainer, 1);
            let tokens: Vec<i32> = (0..32).map(|i| if i % 5 == 0 { TOKEN as i32 } else { i }).collect();
            trainer.begin(1);
            trainer.micro_step(&tokens, &tokens, 1.0 / 32.0).expect("a valid batch");
            let gradient = |name: &str| trainer.gradient(name).expect("a gradient").to_vec();
            trainer.parameters().map(|name| (name.to_string(), gradient(name))).collect::<Vec<_>>()
        };
        let (with, without) = (gradients("3"), gradients("-1"));
        for ((name, with), (_, without)) in with.iter().zip(&without) {
            let is_table = name == "model.embed_tokens.weight";
            let row = if is_table { TOKEN * 64..(TOKEN + 1) * 64 } else { 0..0 };
            assert!(!is_table || with[row.clone()] != without[row.clone()], "{name}");
            assert!(!is_table || tied == "true" || with[row.clone()].iter().all(|g| *g == 0.0), "{name}");
            assert!((0..with.len()).all(|i| row.contains(&i) || with[i] == without[i]), "{name}");
        }
    }
}
