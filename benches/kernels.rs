//! Speed of single kernels on one thread, for the instruction set that the program would choose (`STATICGRAD_ISA` forces another).
//! `cargo bench --bench kernels` runs all in about half a minute; a word after `--` picks benchmarks by name.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use half::{bf16, f16};
use staticgrad::kernels::attention::{AttentionInput, attention_forward_heads, attention_forward_scratch};
use staticgrad::kernels::isa::Isa;
use staticgrad::kernels::linear::{Epilogue, PackedMatrix, Prepared, RowBlocks, Source, pack, packed_bytes, product};
use staticgrad::kernels::narrow::{Narrow, narrow_rows};
use staticgrad::kernels::norm::{NormParameters, layer_norm, rms_norm};
use staticgrad::kernels::vector::stored::Stored;
use staticgrad::kernels::view::{View, ViewMut};
use staticgrad::kernels::{activation, softmax};
use staticgrad::tensor::DType;

fn main() {
    divan::main();
}

/// Deterministic values in −1..1.
fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + i / 97) % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// Inputs and outputs of a product: the inner layer of GPT-2 124M.
const K: usize = 768;
const N: usize = 3072;

/// Adds up what it is given, so that nothing but the product takes time.
struct Sink(f32);

impl Epilogue for Sink {
    fn row(&mut self, _row: usize, _first_column: usize, values: &mut [f32]) {
        self.0 += values[0];
    }
}

/// A product of `ROWS` rows; items are multiplications and additions.
#[divan::bench(args = [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1], consts = [1, 64])]
fn linear<const ROWS: usize>(bencher: Bencher, dtype: DType) {
    let isa = Isa::current();
    let weights = values(N * K);
    let mut packed = vec![0; packed_bytes(dtype, N, K).expect("a weight type")];
    let source = Source::OutIn(View::new(&weights, N, K, K));
    pack(dtype, N, K, &source, 0..N.div_ceil(32), &mut packed).expect("values fit the type");
    let matrix = PackedMatrix::new(dtype, N, K, &packed).expect("packed");
    let x = values(ROWS * K);
    let blocks = RowBlocks::new(isa, dtype, ROWS, K);
    let mut prepared = vec![0u32; blocks.bytes().div_ceil(4)];
    let bytes = &mut bytemuck::cast_slice_mut(&mut prepared)[..blocks.bytes()];
    blocks.prepare(&View::new(&x, ROWS, K, K), 0..blocks.count(), bytes);
    let prepared = Prepared::new(blocks, &bytemuck::cast_slice(&prepared)[..blocks.bytes()]);
    bencher.counter(ItemsCount::new(2 * ROWS * N * K)).counter(BytesCount::new(packed.len())).bench_local(|| {
        let mut out = Sink(0.0);
        product(&matrix, 0..matrix.panels(), &prepared, 0..blocks.count(), &mut out);
        black_box(out.0)
    });
}

/// Bringing 64 rows into the form that a product wants.
#[divan::bench(args = [DType::F32, DType::BF16, DType::Q8_0])]
fn prepare_rows(bencher: Bencher, dtype: DType) {
    let x = values(64 * K);
    let blocks = RowBlocks::new(Isa::current(), dtype, 64, K);
    let mut prepared = vec![0u32; blocks.bytes().div_ceil(4)];
    bencher.counter(BytesCount::of_many::<f32>(64 * K)).bench_local(|| {
        let bytes = &mut bytemuck::cast_slice_mut(&mut prepared)[..blocks.bytes()];
        blocks.prepare(&View::new(&x, 64, K, K), 0..blocks.count(), bytes);
    });
}

/// Rows of the context that attention benchmarks read.
const CONTEXT: usize = 1024;
const HEADS: usize = 4;
const HEAD_DIM: usize = 64;

/// `rows` query rows at the end of the context over four heads of 64; bytes are keys and values.
fn attend<E: Stored>(bencher: Bencher, rows: usize, narrow: fn(f32) -> E) {
    let width = HEADS * HEAD_DIM;
    let (q, kv) = (values(rows * width), values(CONTEXT * width));
    let kept: Vec<E> = kv.into_iter().map(narrow).collect();
    let positions: Vec<u32> = (CONTEXT - rows..CONTEXT).map(|p| p as u32).collect();
    let mut out = vec![0.0; rows * width];
    let mut scratch = vec![0.0; attention_forward_scratch(rows, HEADS, HEAD_DIM)];
    let input = AttentionInput {
        q: View::new(&q, rows, width, width),
        positions: &positions,
        keys: View::new(&kept, CONTEXT, width, width),
        values: View::new(&kept, CONTEXT, width, width),
        head_dim: HEAD_DIM,
        scale: 0.125,
    };
    let work = ItemsCount::new(4 * rows * CONTEXT * width);
    bencher.counter(work).counter(BytesCount::of_many::<E>(2 * CONTEXT * width)).bench_local(|| {
        let mut out = ViewMut::new(&mut out, rows, width, width);
        attention_forward_heads(Isa::current(), &input, &mut out, None, &mut scratch);
    });
}

#[divan::bench(args = [1, 64])]
fn attention_f32(bencher: Bencher, rows: usize) {
    attend(bencher, rows, |x| x);
}

#[divan::bench(args = [1, 64])]
fn attention_bf16(bencher: Bencher, rows: usize) {
    attend(bencher, rows, bf16::from_f32);
}

#[divan::bench(args = [1, 64])]
fn attention_f16(bencher: Bencher, rows: usize) {
    attend(bencher, rows, f16::from_f32);
}

/// Runs `work` over 64 rows of `K` values.
fn per_row(bencher: Bencher, mut work: impl FnMut(&View<f32>, &mut ViewMut<f32>)) {
    let x = values(64 * K);
    let mut out = vec![0.0; 64 * K];
    bencher.counter(BytesCount::of_many::<f32>(64 * K)).bench_local(|| {
        work(&View::new(&x, 64, K, K), &mut ViewMut::new(&mut out, 64, K, K));
    });
}

#[divan::bench]
fn layer_norm_rows(bencher: Bencher) {
    let (weight, bias) = (values(K), values(K));
    let parameters = NormParameters { weight: &weight, bias: Some(&bias), eps: 1e-5 };
    per_row(bencher, |x, out| layer_norm(Isa::current(), x, parameters, out, None));
}

#[divan::bench]
fn rms_norm_rows(bencher: Bencher) {
    let weight = values(K);
    let parameters = NormParameters { weight: &weight, bias: None, eps: 1e-5 };
    per_row(bencher, |x, out| rms_norm(Isa::current(), x, parameters, out, None));
}

/// Runs `work` in place on `N` values, restored before each run.
fn in_place(bencher: Bencher, work: fn(Isa, &mut [f32])) {
    let x = values(N);
    bencher
        .counter(BytesCount::of_many::<f32>(N))
        .with_inputs(|| x.clone())
        .bench_local_refs(|x| work(Isa::current(), x));
}

#[divan::bench]
fn gelu(bencher: Bencher) {
    in_place(bencher, activation::gelu_inplace);
}

#[divan::bench]
fn gelu_by_table(bencher: Bencher) {
    in_place(bencher, activation::gelu_table_inplace);
}

#[divan::bench]
fn silu(bencher: Bencher) {
    in_place(bencher, activation::silu_inplace);
}

#[divan::bench]
fn softmax_in_place(bencher: Bencher) {
    in_place(bencher, |isa, x| {
        softmax::softmax_inplace(isa, x);
    });
}

#[divan::bench(types = [f16, bf16])]
fn narrow<T: Narrow + Default>(bencher: Bencher) {
    let x = values(64 * K);
    let mut out = vec![T::default(); 64 * K];
    bencher.counter(BytesCount::of_many::<f32>(64 * K)).bench_local(|| {
        narrow_rows(Isa::current(), &View::new(&x, 64, K, K), &mut ViewMut::new(&mut out, 64, K, K));
    });
}
