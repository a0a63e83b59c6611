//! What the machine can do: read bandwidth, an optimiser-like stream, and multiply-add peaks, each measured in well under a second.
//!
//! Buffers are allocated and touched before any clock starts. Every measurement is of several passes, of which the best counts unless said otherwise.
#![allow(unsafe_code)]

use super::isa::Isa;
use crate::tensor::DType;
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
    /// Products of bf16 values as kernels compute them: dot products of pairs into f32 where [`Isa::uses_bf16_dots`], else multiply-adds of
    /// widened values.
    Bf16,
    /// Dot products of four bytes into i32; where the instruction set has none, 16-bit multiply-adds.
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

/// Bytes per second of some passes over memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passes {
    /// Of the fastest pass.
    pub best: f64,
    /// Of all passes together.
    pub mean: f64,
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

/// Operations per second (a multiply and an add are two) of `threads` threads.
pub fn arithmetic_peak(isa: Isa, kind: Arithmetic, threads: usize) -> f64 {
    // Find how many rounds fill a pass, then count those.
    let mut rounds = 1 << 12;
    loop {
        let start = Instant::now();
        let operations = arithmetic(isa, kind, rounds);
        let time = start.elapsed();
        if time >= ARITHMETIC_PASS / 4 {
            let seconds = best(threads, 4, |_| {
                black_box(arithmetic(isa, kind, 4 * rounds));
            });
            return 4.0 * operations * threads as f64 / seconds;
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

/// Sums `values` in 64 lanes: enough independent additions that only memory limits.
#[inline(always)]
fn read_body(values: &[f32]) -> f32 {
    let mut sums = [0f32; 64];
    for chunk in values.chunks_exact(64) {
        for (s, v) in sums.iter_mut().zip(chunk) {
            *s += v;
        }
    }
    sums.iter().sum()
}

#[inline(always)]
fn update_body(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        *m = 0.5 * *m + 0.5 * g;
        *v = 0.5 * *v + 0.5 * g;
        *p -= 1e-9 * (*m + *v);
    }
}

/// 96 independent multiply-adds in each round.
fn multiply_add_body(rounds: usize) -> f32 {
    let mut sums = [[0f32; 16]; 6];
    let (a, b) = (black_box(0.999f32), black_box(0.001f32));
    for _ in 0..rounds {
        for sums in &mut sums {
            for s in sums {
                *s = *s * a + b;
            }
        }
    }
    sums.iter().flatten().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{read_body, update_body};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub fn read_avx512(values: &[f32]) -> f32 {
        read_body(values)
    }

    #[target_feature(enable = "avx2")]
    pub fn read_avx2(values: &[f32]) -> f32 {
        read_body(values)
    }

    #[target_feature(enable = "avx512f,fma")]
    pub fn update_avx512(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        update_body(p, g, m, v);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn update_avx2(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        update_body(p, g, m, v);
    }

    /// Independent chains of one instruction.
    macro_rules! chains {
        ($name:ident, $chains:literal, $features:literal, $zero:expr, $operand:expr, $step:expr) => {
            #[target_feature(enable = $features)]
            pub fn $name(rounds: usize) {
                let operand = black_box($operand);
                let mut sums = [$zero; $chains];
                for _ in 0..rounds {
                    for s in &mut sums {
                        *s = $step(*s, operand);
                    }
                }
                black_box(sums);
            }
        };
    }

    chains!(f32_avx2, 12, "avx2,fma", _mm256_setzero_ps(), _mm256_set1_ps(0.5), |s, a| _mm256_fmadd_ps(s, a, a));
    chains!(f32_avx512, 16, "avx512f", _mm512_setzero_ps(), _mm512_set1_ps(0.5), |s, a| _mm512_fmadd_ps(s, a, a));
    chains!(bf16_avx512, 16, "avx512f,avx512bf16", _mm512_setzero_ps(), _mm512_set1_epi32(0), |s, a| {
        // SAFETY: both are 64 bytes without invalid values.
        let a: __m512bh = unsafe { std::mem::transmute::<__m512i, __m512bh>(a) };
        _mm512_dpbf16_ps(s, a, a)
    });
    chains!(int8_avx512, 16, "avx512f,avx512vnni", _mm512_setzero_si512(), _mm512_set1_epi32(0), |s, a| {
        _mm512_dpbusd_epi32(s, a, a)
    });
    chains!(int16_avx512, 16, "avx512f,avx512bw", _mm512_setzero_si512(), _mm512_set1_epi32(0), |s, a| {
        _mm512_add_epi32(s, _mm512_madd_epi16(s, a))
    });
}

fn read(isa: Isa, values: &[f32]) -> f32 {
    match isa {
        // SAFETY: an `Isa` is only handed out when the CPU has it (here and below).
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::read_avx512(values) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::read_avx2(values) },
        _ => read_body(values),
    }
}

fn update(isa: Isa, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    match isa {
        // SAFETY: an `Isa` is only handed out when the CPU has it.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::update_avx512(p, g, m, v) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::update_avx2(p, g, m, v) },
        _ => update_body(p, g, m, v),
    }
}

/// Runs `rounds` rounds and returns how many operations that was.
fn arithmetic(isa: Isa, kind: Arithmetic, rounds: usize) -> f64 {
    let n = rounds as f64;
    match (isa, kind) {
        // SAFETY: an `Isa` is only handed out when the CPU has it; dot products and VNNI are asked for (here and below).
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Arithmetic::Bf16) if isa.uses_bf16_dots() => {
            unsafe { x86::bf16_avx512(rounds) };
            n * 16.0 * 64.0
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Arithmetic::Int8) if isa.has_vnni() => {
            unsafe { x86::int8_avx512(rounds) };
            n * 16.0 * 128.0
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Arithmetic::Int8) => {
            unsafe { x86::int16_avx512(rounds) };
            n * 16.0 * 64.0
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, _) => {
            unsafe { x86::f32_avx512(rounds) };
            n * 16.0 * 32.0
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, _) => {
            unsafe { x86::f32_avx2(rounds) };
            n * 12.0 * 16.0
        }
        _ => {
            black_box(multiply_add_body(rounds));
            n * 96.0 * 2.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_positive_and_ordered() {
        for isa in Isa::available() {
            let f32 = arithmetic_peak(isa, Arithmetic::F32, 1);
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
