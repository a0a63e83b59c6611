//! Memory placement from outside: against brute force, on hard and on large instances, and for what must never vary.

#[path = "placement/brute_force.rs"]
mod brute_force;
#[path = "placement/generate.rs"]
mod generate;

use std::path::Path;

use proptest::prelude::*;
use staticgrad::plan::placement::{Buffer, Options, Placement, Status, csv, max_load, place, verify};

/// Cases of the comparison with brute force: a hundred thousand, or fewer where nothing is optimised.
const CASES: u32 = if cfg!(debug_assertions) { 2000 } else { 100_000 };

/// Places, and checks what holds for every placement.
fn checked(buffers: &[Buffer], options: &Options) -> Placement {
    let placed = place(buffers, options).expect("valid buffers");
    assert_eq!(verify(buffers, &placed.offsets, placed.arena), Ok(()));
    assert!(max_load(buffers) <= placed.bound && placed.bound <= placed.proved && placed.proved <= placed.arena);
    assert_eq!(placed.status == Status::Optimal, placed.arena == placed.bound);
    assert_eq!(placed.status == Status::Gap, placed.arena > placed.proved);
    placed
}

fn minimised(buffers: &[Buffer]) -> Placement {
    checked(buffers, &Options::default())
}

fn satisfied(buffers: &[Buffer], capacity: u64) -> Placement {
    checked(buffers, &Options { capacity: Some(capacity), ..Options::default() })
}

prop_compose! {
    fn buffer()(
        lower in 0u64..8,
        duration in 1u64..6,
        size in 0u64..9,
        unit in prop::sample::select(vec![1u64, 1, 1, 4, 6]),
        align in prop::sample::select(vec![1u64, 1, 1, 1, 2, 8]),
        fixed in prop::option::weighted(0.08, 0u64..5),
    ) -> Buffer {
        Buffer { lower, upper: lower + duration, size: size * unit, align, fixed: fixed.map(|offset| 8 * offset) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn small_instances_are_solved_like_brute_force(buffers in prop::collection::vec(buffer(), 0..9)) {
        match brute_force::lowest_arena(&buffers) {
            None => prop_assert!(place(&buffers, &Options::default()).is_err(), "fixed buffers collide"),
            Some(lowest) => {
                let placed = minimised(&buffers);
                prop_assert_eq!(placed.arena, lowest);
                prop_assert!(placed.status != Status::Gap);
                if lowest > 0 {
                    let refused = satisfied(&buffers, lowest - 1);
                    prop_assert!(refused.proved >= lowest, "a capacity one byte short is refuted");
                    prop_assert!(satisfied(&buffers, lowest).arena <= lowest);
                }
            }
        }
    }
}

#[test]
fn degenerate_inputs_have_a_defined_result() {
    let empty = minimised(&[]);
    assert_eq!((empty.arena, empty.bound, empty.status), (0, 0, Status::Optimal));
    let nothing = minimised(&[Buffer::new(0, 3, 0), Buffer::new(1, 2, 0).aligned(64)]);
    assert_eq!((nothing.offsets.as_slice(), nothing.arena), (&[0, 0][..], 0));
    let one = minimised(&[Buffer::new(u64::MAX - 1, u64::MAX, 1 << 62)]);
    assert_eq!((one.offsets.as_slice(), one.arena), (&[0][..], 1 << 62));
    let fixed = minimised(&[Buffer::new(0, 2, 8).at(24), Buffer::new(0, 2, 16), Buffer::new(1, 3, 0).at(64)]);
    assert_eq!((fixed.offsets.as_slice(), fixed.arena, fixed.status), (&[24, 0, 64][..], 64, Status::Optimal));
}

#[test]
fn bad_input_is_refused_not_placed() {
    let bad = [
        Buffer::new(2, 2, 1),
        Buffer::new(3, 2, 1),
        Buffer::new(0, 1, 1).aligned(0),
        Buffer::new(0, 1, 1).aligned(12),
        Buffer::new(0, 1, u64::MAX),
        Buffer::new(0, 1, 8).at(u64::MAX - 7),
        Buffer::new(0, 1, 8).aligned(16).at(8),
    ];
    for buffer in bad {
        assert!(place(&[buffer, Buffer::new(0, 5, 3)], &Options::default()).is_err(), "{buffer:?}");
    }
}

#[test]
fn a_proof_closes_what_no_placement_reaches() {
    // The alignment of the third wastes three bytes; it still goes between the others.
    let buffers = [Buffer::new(6, 7, 5).aligned(8), Buffer::new(2, 7, 6), Buffer::new(5, 7, 3).aligned(8)];
    let placed = minimised(&buffers);
    assert_eq!((placed.bound, placed.arena, placed.status), (14, 17, Status::Proved));
    // Ends meet only in a way that leaves a hole, whatever the scale of the sizes.
    let spans = [(0, 2, 2), (0, 1, 1), (1, 4, 1), (2, 5, 1), (4, 6, 2), (5, 6, 1), (0, 6, 1), (3, 4, 1)];
    let buffers: Vec<Buffer> = spans.iter().map(|&(l, u, size)| Buffer::new(l, u, 999_983 * size + l)).collect();
    let placed = minimised(&buffers);
    assert_ne!(placed.status, Status::Gap);
    assert_eq!(Some(placed.arena), brute_force::lowest_arena(&buffers));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for seed in 0..3 {
        let buffers = generate::guillotine(120, 500, 1 << 20, 1024, 8, seed);
        let options = Options { effort: 5000, ..Options::default() };
        assert_eq!(checked(&buffers, &options), checked(&buffers, &options));
    }
}

#[test]
fn a_time_limit_marks_its_results() {
    let buffers = generate::guillotine(400, 2000, 1 << 20, 1, 30, 3);
    let options = Options { time_limit: Some(std::time::Duration::ZERO), ..Options::default() };
    let placed = checked(&buffers, &options);
    assert!(placed.timed_out || placed.status == Status::Optimal);
}

#[test]
fn graphs_of_models_reach_the_bound() {
    for layers in [1, 2, 6, 12, 24, 32] {
        let placed = minimised(&generate::inference_graph(layers, layers));
        assert_ne!(placed.status, Status::Gap, "{layers} layers");
    }
    for count in [60, 150, 400] {
        for gradients in [false, true] {
            let placed = minimised(&generate::training_graph(count, gradients, count as u64));
            assert_ne!(placed.status, Status::Gap, "{count} buffers, gradients {gradients}");
        }
    }
}

#[test]
fn deep_training_graphs_stay_at_the_bound() {
    for gradients in [false, true] {
        let placed = minimised(&generate::training_graph(60_000, gradients, 1));
        assert!(placed.arena as f64 <= 1.00001 * placed.bound as f64, "{}", placed.describe_status());
    }
}

/// Buffers that already lie somewhere stay there, and as many others as in a deep training graph find room around them.
#[test]
fn fixed_buffers_hold_at_any_size() {
    for (count, fixed) in [(300, 4), (3_000, 20), (60_000, 50)] {
        let mut buffers = generate::training_graph(count, true, 5);
        let steps = buffers.iter().map(|b| b.upper).max().unwrap_or(1);
        buffers
            .extend((0..fixed).map(|i| Buffer::new(i * steps / fixed, (i + 1) * steps / fixed, 640).at(4096 + 64 * i)));
        buffers.iter_mut().step_by(3).for_each(|b| b.align = 64);
        let placed = minimised(&buffers);
        let above = placed.arena - placed.bound;
        assert!(above <= 4096 + 64 * fixed + 640, "{count} buffers end {above} bytes above the bound");
    }
}

#[test]
fn perfect_packings_are_found_again() {
    for (count, seed) in [(100, 1), (150, 2), (200, 3), (250, 4), (300, 5)] {
        let buffers = generate::guillotine(count, 1 << 20, 1 << 20, 1024, 0, seed);
        let placed = satisfied(&buffers, 1 << 20);
        assert_eq!(placed.arena, 1 << 20, "{count} buffers: {} nodes", placed.nodes);
    }
}

#[test]
fn the_challenging_instances_fit_their_capacity_and_end_at_their_bound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/planner");
    for (name, lowest) in [("A", 1_048_576), ("B", 1_048_576), ("C", 1_039_360), ("D", 1_048_576), ("E", 1_048_576)] {
        let path = folder.join(format!("{name}.1048576.csv"));
        let Ok(text) = std::fs::read_to_string(&path) else {
            eprintln!("skipped: {} is not there", path.display());
            continue;
        };
        let table = csv::read(&path, &text).expect("a MiniMalloc file");
        let placed = satisfied(&table.buffers, lowest);
        assert!(placed.arena <= lowest, "{name}: {} after {} nodes", placed.arena, placed.nodes);
        let placed = checked(&table.buffers, &Options { effort: 400_000, ..Options::default() });
        assert_eq!(placed.status, Status::Optimal, "{name}: {} after {} nodes", placed.arena, placed.nodes);
    }
}
