#![allow(unsafe_code)]

use super::*;
use crate::kernels::isa::Isa;
use crate::kernels::linear::store::Store;
use crate::kernels::linear::{Caching, Direct, Epilogue, PANEL};
use crate::kernels::view::{View, ViewMut};
use half::bf16;

fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A stored matrix with padding between its rows.
struct Matrix {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Matrix {
    fn new(seed: u64, rows: usize, columns: usize) -> Self {
        Matrix { values: noise(seed, rows * (columns + 5)), rows, columns }
    }

    fn view(&self) -> View<'_, f32> {
        View::new(&self.values, self.rows, self.columns + 5, self.columns)
    }

    fn operand(&self, transposed: bool) -> Operand<'_> {
        if transposed { Operand::transposed(self.view()) } else { Operand::plain(self.view()) }
    }

    /// (row stride, column stride) of the operand.
    fn strides(&self, transposed: bool) -> (isize, isize) {
        let stride = (self.columns + 5) as isize;
        if transposed { (1, stride) } else { (stride, 1) }
    }

    fn rounded(&self) -> Matrix {
        let values = self.values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
        Matrix { values, ..*self }
    }
}

fn run(gemm: &Gemm, out: &mut dyn Epilogue) {
    let shape = gemm.shape();
    let mut shared = vec![0x7fff_ffffu32; shape.shared_bytes() / 4];
    let shared: &mut [u8] = bytemuck::cast_slice_mut(&mut shared);
    for tile in (0..gemm.pack_tiles()).rev() {
        assert!(gemm.pack_range(tile).len() <= shape.worker_bytes(), "a packing tile fits a worker's scratch");
        gemm.pack_tile(tile, &mut shared[gemm.pack_range(tile)]);
    }
    for tile in (0..gemm.tiles()).rev() {
        let mut worker = vec![0x7fff_ffffu32; shape.worker_bytes() / 4];
        gemm.tile(tile, shared, bytemuck::cast_slice_mut(&mut worker), out);
    }
}

fn store(gemm: &Gemm) -> Vec<f32> {
    let (m, n) = (gemm.shape().m, gemm.shape().n);
    let mut c = vec![f32::NAN; m * n];
    run(gemm, &mut Store(ViewMut::new(&mut c, m, n, n)));
    c
}

/// Both operands either way round, sizes that are multiples of nothing.
fn cases(mut check: impl FnMut(Isa, Precision, &Matrix, bool, &Matrix, bool)) {
    for (m, k, n) in [(1, 1, 1), (13, 7, 33), (25, 64, 32), (37, 31, 70), (12, 130, 5), (400, 3, 40), (14, 1601, 71)] {
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            let a = if ta { Matrix::new(1, k, m) } else { Matrix::new(1, m, k) };
            let b = if tb { Matrix::new(2, n, k) } else { Matrix::new(2, k, n) };
            for isa in Isa::available() {
                for precision in [Precision::F32, Precision::Bf16] {
                    check(isa, precision, &a, ta, &b, tb);
                }
            }
        }
    }
}

#[test]
fn products_match_matrixmultiply() {
    cases(|isa, precision, a, ta, b, tb| {
        let (x, y) = if precision == Precision::Bf16 { (&a.rounded(), &b.rounded()) } else { (a, b) };
        let gemm = Gemm::new(isa, precision, a.operand(ta), b.operand(tb), Shared::A);
        let Shape { m, n, k, .. } = gemm.shape();
        let mut expected = vec![0f32; m * n];
        let ((rsa, csa), (rsb, csb)) = (x.strides(ta), y.strides(tb));
        // SAFETY: the strides address elements of the matrices.
        unsafe {
            let (pa, pb, pc) = (x.values.as_ptr(), y.values.as_ptr(), expected.as_mut_ptr());
            matrixmultiply::sgemm(m, k, n, 1.0, pa, rsa, csa, pb, rsb, csb, 0.0, pc, n as isize, 1);
        }
        for (i, (got, want)) in store(&gemm).iter().zip(&expected).enumerate() {
            assert!(
                (got - want).abs() <= 1e-6 * k as f32,
                "{precision:?} {} {m}×{k}×{n} {i}: {got} {want}",
                isa.name()
            );
        }
    });
}

#[test]
fn sharing_either_operand_gives_the_same_bits() {
    cases(|isa, precision, a, ta, b, tb| {
        let one = Gemm::new(isa, precision, a.operand(ta), b.operand(tb), Shared::A);
        let other = Gemm::new(isa, precision, a.operand(ta), b.operand(tb), Shared::B);
        assert_eq!(store(&one), store(&other), "{precision:?} {} {:?}", isa.name(), one.shape());
    });
}

#[test]
fn a_reduction_in_parts_has_the_bits_of_the_whole() {
    let (m, n, rows) = (37, 45, 192);
    let (d_out, x) = (Matrix::new(3, rows, m), Matrix::new(4, rows, n));
    for isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            for shared in [Shared::A, Shared::B] {
                let whole = store(&Gemm::new(isa, precision, d_out.operand(true), x.operand(false), shared));
                let mut parts = vec![0f32; m * n];
                for rows in [0..64, 64..128, 128..192] {
                    let slice = |matrix: &'_ Matrix| matrix.values[rows.start * (matrix.columns + 5)..].to_vec();
                    let (d, x_rows) = (slice(&d_out), slice(&x));
                    let d = Operand::transposed(View::new(&d, rows.len(), m + 5, m));
                    let x_rows = Operand::plain(View::new(&x_rows, rows.len(), n + 5, n));
                    let gemm = Gemm::new(isa, precision, d, x_rows, shared);
                    run(&gemm, &mut Accumulate { out: ViewMut::new(&mut parts, m, n, n) });
                }
                assert_eq!(parts, whole, "{precision:?} {} {shared:?}", isa.name());
            }
        }
    }
}

/// Stores rows one by one.
struct Aside<'a>(ViewMut<'a, f32>);

impl Epilogue for Aside<'_> {
    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        self.0.row_mut(row)[first_column..first_column + values.len()].copy_from_slice(values);
    }
}

#[test]
fn sums_of_chunks_wait_in_the_output_or_in_scratch_with_the_same_bits() {
    let (m, n, k) = (50, 140, 1601);
    let (x, w) = (Matrix::new(7, m, k), Matrix::new(8, n, k));
    for isa in Isa::available() {
        for (precision, shared) in
            [Precision::F32, Precision::Bf16].into_iter().flat_map(|p| [(p, Shared::A), (p, Shared::B)])
        {
            let gemm = Gemm::new(isa, precision, x.operand(false), w.operand(true), shared);
            assert!(gemm.chunks() > 1);
            let mut aside = vec![f32::NAN; m * n];
            run(&gemm, &mut Aside(ViewMut::new(&mut aside, m, n, n)));
            assert_eq!(store(&gemm), aside, "{precision:?} {} {shared:?}", isa.name());
        }
    }
}

/// Stores whole panels as `caching` says, added to what is there or with a bias.
struct Streamed<'a> {
    out: ViewMut<'a, f32>,
    accumulate: bool,
    bias: Option<&'a [f32]>,
    caching: Caching,
}

impl Epilogue for Streamed<'_> {
    fn start(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        let old = &self.out.row(row)[first_column..first_column + values.len()];
        if self.accumulate { values.copy_from_slice(old) } else { values.fill(0.0) }
    }

    fn row(&mut self, row: usize, first_column: usize, values: &mut [f32]) {
        for (i, value) in values.iter_mut().enumerate() {
            *value += self.bias.map_or(0.0, |bias| bias[first_column + i]);
        }
        self.out.row_mut(row)[first_column..first_column + values.len()].copy_from_slice(values);
    }

    fn direct(&mut self, columns: std::ops::Range<usize>) -> Option<Direct<'_>> {
        let out = (columns.len() == PANEL).then(|| self.out.columns(columns.start, PANEL))?;
        let bias = self.bias.map(|bias| &bias[columns]);
        Some(Direct { out, accumulate: self.accumulate, bias, caching: self.caching })
    }
}

#[test]
fn streamed_outputs_have_the_same_bits() {
    // The second reduction takes several chunks.
    for (m, n, k) in [(135, 100, 70), (50, 100, 1601)] {
        let (d_out, x) = (Matrix::new(11, k, m), Matrix::new(12, k, n));
        let bias: Vec<f32> = (0..n).map(|i| i as f32 * 0.01 - 0.3).collect();
        let precisions = [Precision::F32, Precision::Bf16];
        for (isa, precision) in Isa::available().into_iter().flat_map(|isa| precisions.map(|p| (isa, p))) {
            let gemm = Gemm::new(isa, precision, d_out.operand(true), x.operand(false), Shared::B);
            for (stride, accumulate, biased) in
                [(112, false, false), (101, false, false), (112, true, false), (112, false, true), (112, true, true)]
            {
                let outputs = [Caching::Through, Caching::Unread, Caching::Shared].map(|caching| {
                    let mut memory = vec![f32::NAN; m * stride + 16];
                    let start = memory.as_ptr().align_offset(64);
                    let out = &mut memory[start..][..m * stride];
                    for (row, values) in out.chunks_mut(stride).enumerate() {
                        values[..n].iter_mut().enumerate().for_each(|(i, v)| *v = (row * 3 + i) as f32 * 1e-3);
                    }
                    let bias = biased.then_some(&bias[..]);
                    let view = ViewMut::new(out, m, stride, n);
                    run(&gemm, &mut Streamed { out: view, accumulate, bias, caching });
                    assert!(out.chunks(stride).all(|r| r[n..].iter().all(|v| v.is_nan())), "written beyond a row");
                    out.chunks(stride).flat_map(|row| row[..n].to_vec()).collect::<Vec<f32>>()
                });
                let what = format!("{precision:?} {} {k} {stride} {accumulate} {biased}", isa.name());
                assert!(outputs.iter().all(|o| *o == outputs[0]), "{what}");
                assert_eq!(outputs[0] == store(&gemm), !accumulate && !biased, "{what}");
            }
        }
    }
}

#[test]
fn rows_do_not_depend_on_their_neighbours() {
    let (m, n, k) = (50, 40, 61);
    let (x, w) = (Matrix::new(5, m, k), Matrix::new(6, n, k));
    for isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            let all = store(&Gemm::new(isa, precision, x.operand(false), w.operand(true), Shared::A));
            for rows in [1, 5, 13] {
                let some = Operand::plain(View::new(&x.values, rows, k + 5, k));
                let part = store(&Gemm::new(isa, precision, some, w.operand(true), Shared::A));
                assert_eq!(part, all[..rows * n], "{precision:?} {} {rows}", isa.name());
            }
        }
    }
}

#[test]
fn scratch_for_the_largest_product_is_enough_for_its_parts() {
    let f32 = Shape { m: 256, n: 50257, k: 768, precision: Precision::F32, shared: Shared::A };
    assert_eq!(f32.shared_bytes(), 256 * 768 * 4);
    let bf16 = Shape { m: 50257, n: 768, k: 255, precision: Precision::Bf16, shared: Shared::B };
    assert_eq!(bf16.shared_bytes(), 768 * 128 * 4);
    assert!(f32.worker_bytes() <= 256 * 32 * 4 + (416 << 10) && bf16.worker_bytes() <= (288 << 10) + 1024 * 32 * 4);
    let lengths = [1, 31, 200, 576, 768, 769, 1000, 1536, 1537, 1792, 2048, 3072, 3712, 4096, 11008];
    for precision in [Precision::F32, Precision::Bf16] {
        for (m, n) in [(40, 64), (700, 768), (768, 768), (768, 4096), (1024, 1024), (1792, 2048), (9000, 192)] {
            for shared in [Shared::A, Shared::B] {
                let shape = |m, k| Shape { m, n, k, precision, shared };
                let bytes = lengths.map(|k| shape(m, k).worker_bytes());
                assert!(bytes.is_sorted(), "{precision:?} {m} × {n} {shared:?}: {bytes:?}");
                let rows = [1, 20, m / 2, m - 1, m].map(|m| shape(m, 768).worker_bytes());
                assert!(rows.is_sorted(), "{precision:?} {m} × {n} {shared:?}: {rows:?}");
            }
            // With fewer rows than columns the rows are what is shared.
            for (rows, k) in
                [m, n, n / 2].into_iter().filter(|&r| r <= n && r <= m).flat_map(|r| lengths.map(|k| (r, k)))
            {
                let planned = Shape { m, n, k, precision, shared: Shared::B }.worker_bytes();
                assert!(Shape { m: rows, n, k, precision, shared: Shared::A }.worker_bytes() <= planned, "{rows} {k}");
            }
        }
    }
}

#[test]
fn packing_tiles_fit_a_workers_scratch() {
    for (isa, precision) in Isa::available().into_iter().flat_map(|i| [(i, Precision::F32), (i, Precision::Bf16)]) {
        for lines in [1, 6, 14, 33, 97, 191, 256, 500, 768, 1100] {
            let (x, w) = (Matrix::new(1, lines, 40), Matrix::new(2, lines, 40));
            for shared in [Shared::A, Shared::B] {
                let gemm = Gemm::new(isa, precision, x.operand(false), w.operand(true), shared);
                let longest = (0..gemm.pack_tiles()).map(|tile| gemm.pack_range(tile).len()).max();
                assert!(
                    longest <= Some(gemm.shape().worker_bytes()),
                    "{} {precision:?} {lines} {shared:?}",
                    isa.name()
                );
            }
        }
    }
}
