//! After start-up, generating tokens and training steps allocate nothing on the heap, on any thread.

mod common;

use common::{open, planned, session, tokens};
use staticgrad::exec::{Trainer, Update, Want};
use staticgrad::ops::Capacity;
use staticgrad::passes::lora::{self, Lora};
use staticgrad::passes::optimizer::AdamW;
use staticgrad::passes::{self, Layout, Mode, Training, storage};
use staticgrad::tensor::DType;
use staticgrad::text::{Sampler, SamplerOptions};
use staticgrad::weights::WeightsType;
use std::alloc::{GlobalAlloc, Layout as AllocLayout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
/// The thread that waits for the test: it allocates when the test takes long, to say so. −1 while it is not known.
static HARNESS: AtomicI32 = AtomicI32::new(-1);

thread_local! {
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

/// The system's number of this thread; 0 where Linux does not tell it, and all threads count.
#[cfg(not(target_os = "linux"))]
fn thread() -> i32 {
    0
}

/// The system's number of this thread.
#[cfg(target_os = "linux")]
fn thread() -> i32 {
    if THREAD.get() == 0 {
        // SAFETY: the call takes nothing and cannot fail.
        THREAD.set(unsafe { libc::gettid() });
    }
    THREAD.get()
}

// SAFETY: every call goes to the system allocator unchanged; counting touches only atomics and a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: AllocLayout) -> *mut u8 {
        if thread() != HARNESS.load(Ordering::SeqCst) {
            ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: AllocLayout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// One test, so that no other one allocates meanwhile. Every thread counts but the program's first, on which the harness waits; where the
/// test runs on that one itself, all do.
#[test]
fn loops_allocate_nothing() {
    let first = std::process::id() as i32;
    if thread() != first {
        HARNESS.store(first, Ordering::SeqCst);
    }
    let one = || {
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        drop(std::hint::black_box(vec![1u8]));
        ALLOCATIONS.load(Ordering::SeqCst) - before
    };
    assert_eq!((one(), std::thread::spawn(one).join().expect("it ends")), (1, 1), "this thread and later ones count");
    generation();
    training();
}

fn training() {
    for model in ["gpt2-tiny", "llama-tiny"] {
        let (_, graph) = open(model);
        let adapted = lora::attach(&graph, &Lora { rank: 4, alpha: 8.0, modules: Vec::new() }).expect("adapts");
        let adapted = storage::narrow_frozen(adapted);
        for (graph, bf16_moments, accumulate) in
            [(&graph, false, false), (&graph, true, true), (&adapted, true, false), (&adapted, false, true)]
        {
            let optimizer = Some(AdamW { bf16_moments, ..Default::default() });
            let training = Training { accumulate, optimizer, ..Default::default() };
            let graph = passes::train(graph, &training).expect("the graph can be trained");
            let capacity = Capacity { slots: 2, context: 16, step_rows: 32, wanted_rows: 1 };
            let plan = staticgrad::plan::compile(graph, Mode::Train, capacity).expect("compiles");
            let mut trainer = Trainer::new(&plan, 2).expect("the plan binds");
            let (tokens, targets) = (tokens(32, 97), tokens(32, 90));
            let mut step = || {
                let before = ALLOCATIONS.load(Ordering::SeqCst);
                trainer.begin(1);
                for _ in 0..if accumulate { 2 } else { 1 } {
                    trainer.micro_step(&tokens, &targets, 1.0 / 32.0).expect("a valid batch");
                }
                trainer.update(&Update { step: 1, learning_rate: 1e-3, max_norm: Some(1.0) });
                trainer.evaluate(&tokens, &targets).expect("a valid batch");
                ALLOCATIONS.load(Ordering::SeqCst) - before
            };
            assert_eq!([(); 4].map(|()| step()), [0; 4], "{model} accumulate = {accumulate}");
        }
    }
}

fn generation() {
    for model in ["gpt2-tiny", "llama-tiny"] {
        for types in [WeightsType::Only(DType::F32), WeightsType::Only(DType::Q8_0), WeightsType::Only(DType::BF16)] {
            let capacity = Capacity { slots: 1, context: 32, step_rows: 8, wanted_rows: 1 };
            let (plan, store) = planned(model, Layout::Compact, capacity, types);
            let mut session = session(&plan, &store, 2);
            let options = SamplerOptions { temperature: 0.8, top_k: 20, top_p: 0.9, seed: 1 };
            let mut sampler = Sampler::new(options, 97).expect("sound options");
            let prompt = tokens(12, 97);
            let mut round = || {
                let before = ALLOCATIONS.load(Ordering::SeqCst);
                session.truncate(0, 0);
                session.advance_to(0, &prompt).expect("fits");
                for _ in 0..20 {
                    let token = sampler.sample(session.logits(0)).expect("finite logits");
                    session.run(&[(0, &[token as i32])], Want::Last).expect("fits");
                }
                ALLOCATIONS.load(Ordering::SeqCst) - before
            };
            assert_eq!([(); 4].map(|()| round()), [0; 4], "{model} {types:?}");
        }
    }
}
