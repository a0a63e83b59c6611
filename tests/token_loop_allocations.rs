//! What runs for every token or step beside the model allocates nothing: sampling, decoding, loading batches.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use staticgrad::text::{Sampler, SamplerOptions, StreamDecoder, Tokenizer};
use staticgrad::train::{Loader, TokenFile, TokenSource, TokenWidth, TokenWriter, ValidationWindows};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged; counting touches only a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc`, that is from the system allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn sampling_and_decoding_allocate_nothing() {
    let tokenizer = Tokenizer::gpt2();
    let logits: Vec<f32> = (0..50_257).map(|i| ((i * 7919) % 1000) as f32 / 100.0).collect();
    let mut decoder = StreamDecoder::new();
    let mut text = String::with_capacity(4096);
    for (temperature, top_k, top_p) in [(0.0, 0, 1.0), (0.8, 0, 1.0), (1.0, 40, 0.9), (1.0, 0, 0.95)] {
        let options = SamplerOptions { temperature, top_k, top_p, seed: 1 };
        let mut sampler = Sampler::new(options, logits.len()).unwrap();
        let count = allocations(|| {
            for _ in 0..20 {
                let token = sampler.sample(&logits).unwrap();
                decoder.push(tokenizer.token_bytes(token).unwrap(), &mut text);
            }
        });
        assert_eq!(count, 0, "temperature {temperature}, top-k {top_k}, top-p {top_p}");
    }
    assert!(!text.is_empty());
    assert_eq!(allocations(|| drop(vec![1u8])), 1, "the counter counts");
}

#[test]
fn loading_batches_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.bin");
    let mut writer = TokenWriter::create(&path, TokenWidth::U16).unwrap();
    writer.push(&(0..1000).collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    let source = Arc::new(TokenSource::from(TokenFile::open(&path).unwrap()));
    let (mut inputs, mut targets) = (vec![0; 64], vec![0; 64]);
    let mut loader = Loader::new(source.clone(), 16, 4).unwrap();
    assert_eq!(allocations(|| (0..100).for_each(|_| loader.fill(&mut inputs, &mut targets))), 0);
    let windows = ValidationWindows::new(source, 16).unwrap();
    assert_eq!(allocations(|| assert_eq!(windows.fill(3, &mut inputs, &mut targets), 4)), 0);
}
