//! Row skipping: for every split of a sequence into calls, every thread count, any neighbour in another slot and both layouts, results
//! equal full recomputation bit for bit.

mod common;

use common::{planned, planned_keeping, session, tokens};
use staticgrad::exec::{Session, Want};
use staticgrad::ops::Capacity;
use staticgrad::passes::Layout;
use staticgrad::plan::BufferKind;
use staticgrad::tensor::DType;
use staticgrad::weights::WeightsType;

const F32: WeightsType = WeightsType::Only(DType::F32);
const MODELS: [&str; 2] = ["gpt2-tiny", "llama-tiny"];

fn capacity(slots: usize, rows: usize) -> Capacity {
    Capacity { slots, context: rows, step_rows: rows, wanted_rows: rows }
}

/// Bits of all rows' logits, computed in calls of the given lengths.
fn logits(session: &mut Session, slot: usize, tokens: &[i32], parts: &[usize]) -> Vec<u32> {
    session.truncate(slot, 0);
    let mut bits = Vec::new();
    let mut rest = tokens;
    for &n in parts {
        let (now, later) = rest.split_at(n);
        session.run(&[(slot, now)], Want::All).expect("the rows fit");
        (0..n).for_each(|i| bits.extend(session.logits(i).iter().map(|x| x.to_bits())));
        rest = later;
    }
    bits
}

/// Every way to write `n` as an ordered sum.
fn compositions(n: usize) -> Vec<Vec<usize>> {
    (0..1usize << (n - 1))
        .map(|cuts| {
            let mut parts = vec![1];
            for i in 0..n - 1 {
                if cuts >> i & 1 == 1 { parts.push(1) } else { *parts.last_mut().expect("not empty") += 1 }
            }
            parts
        })
        .collect()
}

#[test]
fn every_split_of_a_sequence_gives_the_same_bits() {
    for model in MODELS {
        for types in
            [F32, WeightsType::Only(DType::BF16), WeightsType::Only(DType::Q8_0), WeightsType::Only(DType::Q4_0)]
        {
            let (plan, store) = planned(model, Layout::Compact, capacity(1, 10), types);
            let mut session = session(&plan, &store, 2);
            let text = tokens(10, 97);
            let whole = logits(&mut session, 0, &text, &[10]);
            assert!(whole.iter().any(|&b| b != 0));
            for parts in compositions(10) {
                assert_eq!(logits(&mut session, 0, &text, &parts), whole, "{model} {types:?} in calls of {parts:?}");
            }
        }
    }
}

#[test]
fn keys_and_values_in_half_precision_keep_every_promise() {
    for model in MODELS {
        let text = tokens(24, 97);
        let exact = {
            let (plan, store) = planned(model, Layout::Compact, capacity(1, 24), F32);
            logits(&mut session(&plan, &store, 2), 0, &text, &[24])
        };
        for kept in [DType::F16, DType::BF16] {
            let mut reference = None;
            for (layout, threads) in
                [(Layout::Compact, 2), (Layout::Compact, 1), (Layout::Compact, 7), (Layout::Full, 3)]
            {
                let (plan, store) = planned_keeping(model, layout, capacity(1, 24), F32, kept);
                let mut session = session(&plan, &store, threads);
                for parts in [vec![24], vec![1; 24], vec![7, 17], vec![23, 1], vec![3, 1, 4, 1, 5, 9, 1]] {
                    let bits = logits(&mut session, 0, &text, &parts);
                    let expected = reference.get_or_insert_with(|| bits.clone());
                    assert!(bits == *expected, "{model}, {kept}, {layout:?}, {threads} threads, in calls of {parts:?}");
                }
            }
            let (plan, store) = planned_keeping(model, Layout::Compact, capacity(1, 10), F32, kept);
            let mut session = session(&plan, &store, 2);
            let whole = logits(&mut session, 0, &text[..10], &[10]);
            for parts in compositions(10) {
                assert_eq!(logits(&mut session, 0, &text[..10], &parts), whole, "{model} {kept} in calls of {parts:?}");
            }
            let rounded = reference.expect("computed");
            assert_ne!(rounded, exact, "{model}: keeping {kept} rounds nothing");
            let most = exact.iter().map(|&b| f32::from_bits(b).abs()).fold(0.0, f32::max);
            let differs = rounded.iter().zip(&exact).map(|(&a, &b)| (f32::from_bits(a) - f32::from_bits(b)).abs());
            let differs = differs.fold(0.0, f32::max) / most;
            assert!(differs < if kept == DType::F16 { 2e-3 } else { 2e-2 }, "{model} {kept}: {differs}");
        }
    }
}

#[test]
fn keys_and_values_in_half_precision_take_half_the_bytes() {
    let kept = |kept| {
        let (plan, _store) = planned_keeping("llama-tiny", Layout::Compact, capacity(2, 48), F32, kept);
        let rows = plan.buffers.iter().filter(|b| b.kind == BufferKind::Kept);
        (rows.clone().count(), rows.map(|b| b.size).sum::<u64>())
    };
    let (count, bytes) = kept(DType::F32);
    assert!(count > 0);
    assert_eq!(kept(DType::F16), (count, bytes / 2));
    assert_eq!(kept(DType::BF16), (count, bytes / 2));
}

#[test]
fn long_sequences_cross_tiles_with_the_same_bits() {
    let (plan, store) = planned("llama-tiny", Layout::Compact, capacity(1, 150), F32);
    let mut session = session(&plan, &store, 2);
    let text = tokens(150, 97);
    let whole = logits(&mut session, 0, &text, &[150]);
    for parts in [vec![1; 150], vec![26, 26, 26, 26, 26, 20], vec![127, 1, 22], vec![128, 22], vec![1, 128, 21]] {
        assert_eq!(logits(&mut session, 0, &text, &parts), whole, "in calls of {parts:?}");
    }
    session.executor_mut().assume_distance(true);
    assert_eq!(logits(&mut session, 0, &text, &[150]), whole, "where cores have no cache in common");
}

#[test]
fn thread_counts_and_layouts_do_not_change_bits() {
    for model in MODELS {
        let text = tokens(24, 97);
        let mut reference = None;
        for layout in [Layout::Compact, Layout::Full] {
            for threads in [1, 2, 3, 7] {
                let (plan, store) = planned(model, layout, capacity(1, 24), F32);
                let mut session = session(&plan, &store, threads);
                let bits = logits(&mut session, 0, &text, &[7, 17]);
                let expected = reference.get_or_insert_with(|| bits.clone());
                assert!(bits == *expected, "{model}, {layout:?}, {threads} threads");
            }
        }
    }
}

/// Far into a text workers share the keys of a single row.
#[test]
fn far_into_a_text_thread_counts_do_not_change_bits() {
    let text = tokens(400, 97);
    let parts: Vec<usize> =
        [190].into_iter().chain([1; 20]).chain([46]).chain([1; 6]).chain([50]).chain([1; 88]).collect();
    assert_eq!(parts.iter().sum::<usize>(), text.len());
    for kept in [DType::F32, DType::F16, DType::BF16] {
        let (plan, store) = planned_keeping("llama-tiny", Layout::Compact, capacity(2, 400), F32, kept);
        let whole = logits(&mut session(&plan, &store, 1), 0, &text, &[400]);
        for threads in [1, 2, 3, 5] {
            let mut session = session(&plan, &store, threads);
            let bits = logits(&mut session, 1, &text, &parts);
            let row = whole.len() / text.len();
            let wrong = bits.chunks(row).zip(whole.chunks(row)).position(|(a, b)| a != b);
            assert_eq!(wrong, None, "the first row that differs, {kept}, {threads} threads");
            // The last row of many that are computed is the only one that the last layer attends for.
            session.truncate(1, 0);
            session.run(&[(1, &text)], Want::Last).expect("the rows fit");
            assert!(session.logits(0).iter().map(|x| x.to_bits()).eq(whole[whole.len() - row..].iter().copied()));
        }
    }
}

#[test]
fn slots_do_not_disturb_each_other() {
    let (plan, store) =
        planned("llama-tiny", Layout::Compact, Capacity { slots: 3, context: 20, step_rows: 60, wanted_rows: 60 }, F32);
    let mut session = session(&plan, &store, 2);
    let texts: Vec<Vec<i32>> =
        (0..3).map(|s| tokens(12 + s, 97).into_iter().map(|t| (t + s as i32) % 97).collect()).collect();
    let alone: Vec<Vec<u32>> = texts.iter().map(|t| logits(&mut session, 1, t, &[t.len()])).collect();
    session.truncate(1, 0);
    let parts: Vec<(usize, &[i32])> = texts.iter().enumerate().map(|(s, t)| (s, t.as_slice())).collect();
    session.run(&parts, Want::All).expect("fits");
    let mut row = 0;
    for (text, expected) in texts.iter().zip(&alone) {
        let bits: Vec<u32> = (row..row + text.len())
            .flat_map(|i| session.logits(i).iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            .collect();
        assert_eq!(&bits, expected);
        row += text.len();
    }
}

#[test]
fn truncation_and_shared_prefixes_recompute_only_what_differs() {
    let (plan, store) =
        planned("gpt2-tiny", Layout::Compact, Capacity { slots: 1, context: 32, step_rows: 8, wanted_rows: 1 }, F32);
    let mut cached = session(&plan, &store, 2);
    let mut fresh = session(&plan, &store, 2);
    let first = tokens(20, 97);
    let mut second = first[..11].to_vec();
    second.extend([5, 6, 7, 8]);
    assert_eq!(cached.advance_to(0, &first).expect("fits"), 20);
    assert_eq!(cached.advance_to(0, &second).expect("fits"), 4);
    fresh.advance_to(0, &second).expect("fits");
    assert_eq!(cached.logits(0), fresh.logits(0));
    assert_eq!(cached.advance_to(0, &second).expect("fits"), 1, "an unchanged prompt recomputes its last row alone");
    assert_eq!(cached.logits(0), fresh.logits(0));
    assert_eq!(cached.tokens(0), second.as_slice());
    cached.truncate(0, 3);
    assert_eq!(cached.valid_rows(0), 3);
    assert_eq!(cached.advance_to(0, &first).expect("fits"), 17);
    fresh.truncate(0, 0);
    fresh.advance_to(0, &first).expect("fits");
    assert_eq!(cached.logits(0), fresh.logits(0));
}

#[test]
fn only_wanted_rows_get_the_head() {
    let (plan, _store) =
        planned("llama-tiny", Layout::Compact, Capacity { slots: 1, context: 32, step_rows: 32, wanted_rows: 1 }, F32);
    let wanted: Vec<&str> = plan
        .graph
        .nodes
        .iter()
        .filter(|n| n.space == staticgrad::graph::RowSpace::Wanted)
        .map(|n| n.name.as_str())
        .collect();
    assert!(wanted.contains(&"linear"), "the head runs for wanted rows: {wanted:?}");
    assert!(wanted.iter().any(|n| n.contains("layers.1.mlp")), "so does the last block's MLP: {wanted:?}");
    assert!(!wanted.iter().any(|n| n.contains("layers.0.")), "the first block runs for all rows: {wanted:?}");
}

#[test]
fn refused_calls_change_nothing() {
    let (plan, store) =
        planned("gpt2-tiny", Layout::Compact, Capacity { slots: 1, context: 8, step_rows: 4, wanted_rows: 1 }, F32);
    let mut session = session(&plan, &store, 1);
    session.run(&[(0, &[1, 2, 3])], Want::Last).expect("fits");
    let before = session.logits(0).to_vec();
    let message = |r: staticgrad::error::Result<()>| r.expect_err("must be refused").to_string();
    assert!(message(session.run(&[(0, &[97])], Want::Last)).contains("out of range"));
    assert!(message(session.run(&[(0, &[-1])], Want::Last)).contains("out of range"));
    assert!(message(session.run(&[(1, &[1])], Want::Last)).contains("slot 1"));
    assert!(message(session.run(&[(0, &[1, 2, 3, 4, 5])], Want::Last)).contains("rows"));
    assert!(message(session.run(&[(0, &[1, 2])], Want::All)).contains("wanted"));
    assert!(message(session.run(&[(0, &[1]), (0, &[1])], Want::None)).contains("twice"));
    assert_eq!(session.valid_rows(0), 3);
    assert_eq!(session.logits(0), before.as_slice());
    session.run(&[(0, &[4, 5, 6, 7])], Want::Last).expect("fits");
    assert!(message(session.run(&[(0, &[1, 2])], Want::Last)).contains("do not fit"));
}
