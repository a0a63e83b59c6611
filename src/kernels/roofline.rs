//! What the machine can do: read bandwidth, an optimiser-like stream, and multiply-add peaks, each measured in well under a second.
//!
//! Buffers are allocated and touched before any clock starts. Every measurement is of several passes, of which the best counts unless said otherwise.

mod loops;

use super::isa::Isa;
use crate::tensor::DType;
use loops::{arithmetic, read, update};
use memmap2::MmapMut;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The arithmetic whose peak is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32 multiply-adds, two operations each.
    F32,
    /// Products of bf16 values as kernels compute them: of tiles where the CPU has them, else dot products of pairs into f32 where
    /// [`Isa::uses_bf16_dots`], else multiply-adds of widened values.
    Bf16,
    /// Dot products of four bytes into i32, of tiles where the CPU has them; where the instruction set has none, 16-bit multiply-adds.
    Int8,
}

impl Arithmetic {
    /// What products with weights of `dtype` compute in.
    pub const fn of(dtype: DType) -> Self {
        match dtype {
            DType::BF16 => Arithmetic::Bf16,
            _ if dtype.is_quantized() => Arithmetic::Int8,
            _ => Arithmetic::F32,
        }
    }
}

/// Buffers for bandwidth: larger than any last-level cache of interest.
pub struct Streams {
    arrays: [MmapMut; 4],
}

/// Bytes of each of the four arrays.
const ARRAY_BYTES: usize = 96 << 20;
/// Passes over memory, of which the best counts.
const PASSES: usize = 8;
/// Length of one arithmetic pass.
const ARITHMETIC_PASS: Duration = Duration::from_millis(25);

impl Streams {
    /// Allocates and touches the buffers (384 MiB), in large pages where the system has them, as weights and arena are.
    ///
    /// # Panics
    /// When there is not so much memory.
    pub fn allocate() -> Self {
        let arrays = std::array::from_fn(|i| {
            let mut map = MmapMut::map_anon(ARRAY_BYTES).expect("384 MiB of memory for measuring bandwidth");
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            bytemuck::cast_slice_mut::<u8, f32>(&mut map).fill(i as f32 + 1.0);
            map
        });
        Streams { arrays }
    }

    fn array(&self, i: usize) -> &[f32] {
        bytemuck::cast_slice(&self.arrays[i])
    }

    /// Bytes per second that `threads` threads read, best of several passes over all four arrays.
    pub fn read_bandwidth(&self, isa: Isa, threads: usize) -> f64 {
        let seconds = best(threads, PASSES, |t| {
            for i in 0..self.arrays.len() {
                black_box(read(isa, part(self.array(i), t, threads)));
            }
        });
        (4 * ARRAY_BYTES) as f64 / seconds
    }

    /// Bytes per second of a stream that reads four arrays and writes three of them back, as AdamW does.
    pub fn update_bandwidth(&mut self, isa: Isa, threads: usize) -> f64 {
        let parts = self.update_parts(ARRAY_BYTES / size_of::<f32>() / threads);
        let seconds = best(threads, PASSES, |t| parts[t].update(isa));
        Self::UPDATE_BYTES as f64 / seconds
    }

    /// Bytes that one update of all parts reads and writes.
    pub const UPDATE_BYTES: usize = 7 * ARRAY_BYTES;

    /// The four arrays in parts of `elements` elements (the last one of as many as are left), to be updated by whichever threads.
    pub fn update_parts(&mut self, elements: usize) -> Vec<UpdatePart<'_>> {
        let count = (ARRAY_BYTES / size_of::<f32>() / elements).max(1);
        let mut rest = self.arrays.each_mut().map(|a| bytemuck::cast_slice_mut::<u8, f32>(a));
        let mut parts = Vec::with_capacity(count);
        for part in (1..=count).rev() {
            let len = if part == 1 { rest[0].len() } else { elements };
            let slices = rest.each_mut().map(|r| {
                let (head, tail) = std::mem::take(r).split_at_mut(len);
                *r = tail;
                head
            });
            parts.push(UpdatePart(Mutex::new(slices)));
        }
        parts
    }
}

/// A part of the four arrays of [`Streams`].
pub struct UpdatePart<'a>(Mutex<[&'a mut [f32]; 4]>);

impl UpdatePart<'_> {
    /// Reads all four arrays and writes three of them back.
    pub fn update(&self, isa: Isa) {
        let mut slices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [p, g, m, v] = &mut *slices;
        update(isa, p, g, m, v);
    }
}

/// How much some passes did a second: bytes over memory, operations in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Passes {
    /// The fastest pass.
    pub best: f64,
    /// All passes together.
    pub mean: f64,
}

impl Passes {
    /// Measurements of equally much work as one.
    ///
    /// # Panics
    /// Without any.
    pub fn together(all: impl IntoIterator<Item = Passes>) -> Passes {
        let (mut count, mut best, mut times) = (0, 0f64, 0.0);
        for passes in all {
            (count, best, times) = (count + 1, best.max(passes.best), times + 1.0 / passes.mean);
        }
        assert!(count > 0, "no measurement");
        Passes { best, mean: f64::from(count) / times }
    }
}

/// Bytes per second that `threads` threads read of `values`, each a part in order. What of it stays in the caches from pass to pass counts.
/// A first pass, in which the threads start, does not.
pub fn read_bandwidth_of(isa: Isa, threads: usize, values: &[f32]) -> Passes {
    let bytes = size_of_val(values) as f64;
    let pass = |t: usize| {
        black_box(read(isa, part(values, t, threads)));
    };
    let (best, mean) = times(threads, 1, PASSES, pass);
    Passes { best: bytes / best, mean: bytes / mean }
}

/// Operations per second (a multiply and an add are two) of `threads` threads. A first pass, in which the threads start, does not count.
pub fn arithmetic_peak(isa: Isa, kind: Arithmetic, threads: usize) -> Passes {
    // Find how many rounds fill a pass, then count those.
    let mut rounds = 1 << 12;
    loop {
        let start = Instant::now();
        let operations = arithmetic(isa, kind, rounds);
        let time = start.elapsed();
        if time >= ARITHMETIC_PASS / 4 {
            let (best, mean) = times(threads, 1, 4, |_| {
                black_box(arithmetic(isa, kind, 4 * rounds));
            });
            let all = 4.0 * operations * threads as f64;
            return Passes { best: all / best, mean: all / mean };
        }
        rounds *= 2;
    }
}

/// Holds threads until all have come, awake: waking a parked thread takes as long as reading a megabyte, and would count as reading.
struct SpinBarrier {
    threads: usize,
    arrived: AtomicUsize,
}

impl SpinBarrier {
    /// Looks at the counter before the core is offered to others.
    const SPINS: usize = 10_000;

    fn new(threads: usize) -> Self {
        SpinBarrier { threads, arrived: AtomicUsize::new(0) }
    }

    /// Returns once every thread has called it as often as this one.
    fn wait(&self) {
        let mine = self.arrived.fetch_add(1, Ordering::AcqRel);
        let all = (mine / self.threads + 1) * self.threads;
        let mut spins = 0;
        while self.arrived.load(Ordering::Acquire) < all {
            spins += 1;
            if spins < Self::SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// Shortest wall-clock time in seconds in which all threads finish one pass.
fn best(threads: usize, passes: usize, work: impl Fn(usize) + Sync) -> f64 {
    times(threads, 0, passes, work).0
}

/// Shortest and mean wall-clock time in seconds in which all threads finish one pass, after `before` passes that do not count.
fn times(threads: usize, before: usize, passes: usize, work: impl Fn(usize) + Sync) -> (f64, f64) {
    let (start, end) = (SpinBarrier::new(threads), SpinBarrier::new(threads));
    let pass = |t: usize| {
        let (mut best, mut sum) = (f64::INFINITY, 0.0);
        for pass in 0..before + passes {
            start.wait();
            let clock = Instant::now();
            work(t);
            end.wait();
            if pass >= before {
                let time = clock.elapsed().as_secs_f64();
                best = best.min(time);
                sum += time;
            }
        }
        (best, sum / passes as f64)
    };
    std::thread::scope(|scope| {
        for t in 1..threads {
            let pass = &pass;
            scope.spawn(move || pass(t));
        }
        pass(0)
    })
}

fn bounds(elements: usize, t: usize, threads: usize) -> std::ops::Range<usize> {
    let cut = |t: usize| elements / 64 * t / threads * 64;
    cut(t)..if t + 1 == threads { elements } else { cut(t + 1) }
}

fn part(array: &[f32], t: usize, threads: usize) -> &[f32] {
    &array[bounds(array.len(), t, threads)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_positive_and_ordered() {
        for isa in Isa::available() {
            let Passes { best: f32, .. } = arithmetic_peak(isa, Arithmetic::F32, 1);
            assert!(f32.is_finite() && f32 > 1e8, "{}: {f32}", isa.name());
        }
    }

    #[test]
    fn parts_cover_an_array_once() {
        let whole = ARRAY_BYTES / size_of::<f32>();
        let mut streams = Streams::allocate();
        for elements in [whole, whole / 3, 1 << 15, 2 * whole] {
            let mut parts = streams.update_parts(elements);
            let lengths = parts.iter_mut().map(|p| p.0.get_mut().unwrap().each_ref().map(|s| s.len()));
            assert_eq!(lengths.fold([0; 4], |sum, l| [0, 1, 2, 3].map(|i| sum[i] + l[i])), [whole; 4]);
        }
        for threads in 1..9 {
            let mut next = 0;
            for t in 0..threads {
                let range = bounds(1000, t, threads);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, 1000);
        }
    }
}
