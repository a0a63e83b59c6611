//! NaN-fills whatever is dead after every step: results are unchanged bit for bit, so no step reads memory that the plan calls dead.

mod common;

use common::{planned, session, tokens};
use staticgrad::exec::Want;
use staticgrad::ops::Capacity;
use staticgrad::passes::Layout;
use staticgrad::weights::WeightsType;

#[test]
fn dead_regions_are_never_read() {
    for model in ["gpt2-tiny", "llama-tiny"] {
        for layout in [Layout::Compact, Layout::Full] {
            let capacity = Capacity { slots: 1, context: 24, step_rows: 24, wanted_rows: 24 };
            let (plan, store) = planned(model, layout, capacity, WeightsType::Native);
            let text = tokens(24, 97);
            let mut clean = session(&plan, &store, 2);
            let mut poisoned = session(&plan, &store, 2);
            poisoned.set_poison(true);
            for part in text.chunks(9) {
                clean.run(&[(0, part)], Want::All).expect("fits");
                poisoned.run(&[(0, part)], Want::All).expect("fits");
                for i in 0..part.len() {
                    let (a, b) = (clean.logits(i), poisoned.logits(i));
                    assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{model} {layout:?} row {i}");
                    assert!(a.iter().all(|x| x.is_finite()));
                }
            }
        }
    }
}
