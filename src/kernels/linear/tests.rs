use super::store::Store;
use super::*;
use crate::kernels::isa::Isa;
use crate::kernels::quant;
use crate::kernels::view::{View, ViewMut};
use crate::tensor::DType;
use half::{bf16, f16};

mod same_bits;

const TYPES: [DType; 11] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
];

/// Deterministic values in -1 .. 1.
pub(super) fn noise(seed: u64, count: usize) -> Vec<f32> {
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

/// Stored weights of any type: random bytes with sane scales.
pub(super) fn stored(dtype: DType, n: usize, k: usize, seed: u64) -> Vec<u8> {
    let values = noise(seed, n * k);
    match dtype {
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => {
            let mut bytes: Vec<u8> =
                noise(seed, dtype.bytes_for(n * k).unwrap()).iter().map(|v| (v * 128.0) as i32 as u8).collect();
            for (i, block) in bytes.chunks_exact_mut(dtype.block_bytes()).enumerate() {
                let mut put = |at: usize, v: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(v).to_le_bytes());
                let d = 0.01 + values[i].abs() * 0.02;
                match dtype {
                    DType::Q6K => put(208, d / 50.0),
                    DType::Q4K | DType::Q5K => {
                        put(0, d / 30.0);
                        put(2, values[i + 1].abs() / 100.0);
                    }
                    DType::Q4_1 | DType::Q5_1 => {
                        put(0, d);
                        put(2, values[i + 1] / 4.0);
                    }
                    _ => put(0, d),
                }
            }
            bytes
        }
    }
}

pub(super) struct Case {
    dtype: DType,
    n: usize,
    k: usize,
    packed: Vec<u8>,
    values: Vec<f32>,
}

impl Case {
    pub(super) fn new(dtype: DType, n: usize, k: usize) -> Case {
        Case::of(dtype, n, k, &stored(dtype, n, k, (n * 1000 + k) as u64))
    }

    pub(super) fn of(dtype: DType, n: usize, k: usize, bytes: &[u8]) -> Case {
        let mut values = vec![0.0; n * k];
        quant::dequantize(dtype, bytes, &mut values);
        let mut packed = vec![0xff; packed_bytes(dtype, n, k).unwrap() + 1];
        // An odd address: kernels assume no alignment of weights.
        pack(dtype, n, k, &Source::Stored(bytes), 0..n.div_ceil(PANEL), &mut packed[1..]).unwrap();
        Case { dtype, n, k, packed, values }
    }

    pub(super) fn matrix(&self) -> PackedMatrix<'_> {
        PackedMatrix::new(self.dtype, self.n, self.k, &self.packed[1..]).unwrap()
    }

    /// Runs the whole product tile by tile, with `x` of stride `k + 3`.
    fn run(&self, isa: Isa, x: &[f32], rows: usize) -> Vec<f32> {
        let x = View::new(x, rows, self.k + 3, self.k);
        let blocks = RowBlocks::new(isa, self.dtype, rows, self.k);
        let mut prepared = vec![0u32; blocks.bytes() / 4];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut prepared);
        for b in 0..blocks.count() {
            blocks.prepare(&x, b..b + 1, &mut bytes[blocks.bytes_of(b..b + 1)]);
        }
        let x = Prepared::new(blocks, bytes);
        let mut out = vec![f32::NAN; rows * (self.n + 1)];
        let grid = Grid::new(isa, self.dtype, self.n, self.k, rows);
        for tile in (0..grid.tiles()).rev() {
            let (panels, blocks) = grid.tile(tile);
            let mut stored = Store(ViewMut::new(&mut out, rows, self.n + 1, self.n));
            product(&self.matrix(), panels, &x, blocks, &mut stored);
        }
        (0..rows).flat_map(|r| out[r * (self.n + 1)..][..self.n].to_vec()).collect()
    }
}

fn widths(dtype: DType) -> &'static [usize] {
    match dtype.block_len() {
        1 => &[1, 2, 7, 64, 129],
        32 => &[32, 96, 160, 800],
        _ => &[256, 768, 1280],
    }
}

#[test]
fn packed_rows_read_back_exactly() {
    for dtype in TYPES {
        for &k in widths(dtype) {
            let case = Case::new(dtype, 45, k);
            let mut row = vec![0.0; k];
            for n in [0, 1, 31, 32, 44] {
                case.matrix().row_into(n, &mut row);
                assert_eq!(row, case.values[n * k..][..k], "{dtype} k={k} output {n}");
            }
        }
    }
}

#[test]
fn products_match_the_definition_under_every_isa() {
    for dtype in TYPES {
        for &k in widths(dtype) {
            for n in [1, 31, 32, 70] {
                let case = Case::new(dtype, n, k);
                let rows = 14;
                let x = noise(5, rows * (k + 3));
                for isa in Isa::available() {
                    let y = case.run(isa, &x, rows);
                    for r in 0..rows {
                        let x = &x[r * (k + 3)..][..k];
                        for o in 0..n {
                            let w = &case.values[o * k..][..k];
                            let exact: f64 = x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                            let size: f64 = x.iter().zip(w).map(|(a, b)| f64::from(a * b).abs()).sum();
                            // Rounding activations: 2^-9 relative for bf16; for int8 half a step of 1/127 of the largest in the
                            // block, or an eighth more where its scale is rounded up most, as not in all blocks of a row.
                            let bound = match dtype {
                                DType::F32 | DType::F16 => 1e-6 * size + 1e-6,
                                DType::BF16 => 4e-3 * size + 1e-6,
                                _ => 4e-3 * w.iter().map(|w| f64::from(w.abs())).sum::<f64>() + 1e-5,
                            };
                            let got = f64::from(y[r * n + o]);
                            assert!(
                                (got - exact).abs() <= bound,
                                "{dtype} {} n={n} k={k} [{r},{o}]: {got} is not {exact}",
                                isa.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn instruction_sets_agree_up_to_contraction() {
    for dtype in TYPES {
        let &k = widths(dtype).last().unwrap();
        let case = Case::new(dtype, 70, k);
        let x = noise(9, 13 * (k + 3));
        let portable = case.run(Isa::Portable, &x, 13);
        let scale = portable.iter().fold(0f32, |m, v| m.max(v.abs()));
        for isa in Isa::available() {
            for (a, b) in case.run(isa, &x, 13).iter().zip(&portable) {
                assert!((a - b).abs() <= 3e-6 * scale, "{dtype} {}: {a} and {b}", isa.name());
            }
        }
    }
}

#[test]
fn values_in_either_orientation_pack_alike() {
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1] {
        let (n, k) = (45, 96);
        let rows = noise(3, n * k);
        let columns: Vec<f32> = (0..k * n).map(|i| rows[i % n * k + i / n]).collect();
        let bytes = packed_bytes(dtype, n, k).unwrap();
        let packed = |source: Source| {
            let mut dst = vec![1; bytes];
            let (first, last) = dst.split_at_mut(bytes / 2);
            pack(dtype, n, k, &source, 0..1, first).unwrap();
            pack(dtype, n, k, &source, 1..2, last).unwrap();
            dst
        };
        let out_in = packed(Source::OutIn(View::new(&rows, n, k, k)));
        assert_eq!(out_in, packed(Source::InOut(View::new(&columns, k, n, n))), "{dtype}");
        assert_eq!(out_in, packed(Source::Rows(&|o, out| out.copy_from_slice(&rows[o * k..][..k]))), "{dtype}");
        let matrix = PackedMatrix::new(dtype, n, k, &out_in).unwrap();
        let mut row = vec![0.0; k];
        matrix.row_into(40, &mut row);
        let tolerance = if matches!(dtype, DType::Q4_0 | DType::Q4_1) { 0.13 } else { 0.005 };
        assert!(row.iter().zip(&rows[40 * k..]).all(|(a, b)| (a - b).abs() < tolerance), "{dtype}");
    }
}

#[test]
fn quantised_activations_keep_nan_and_zero() {
    let case = Case::new(DType::Q8_0, 3, 64);
    for isa in Isa::available() {
        let mut x = vec![0.0; 67];
        assert_eq!(case.run(isa, &x, 1), [0.0; 3]);
        x[40] = f32::NAN;
        assert!(case.run(isa, &x, 1).iter().all(|v| v.is_nan()), "{}", isa.name());
    }
}

#[test]
fn a_minimum_that_is_no_number_spoils_its_output_alone() {
    for dtype in [DType::Q4_1, DType::Q5_1, DType::Q4K, DType::Q5K] {
        let (n, k) = (40, 1024);
        let x = noise(3, 40 * (k + 3));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut bytes = stored(dtype, n, k, 5);
            // The second block of output 7; its minimum, or that of its 256 inputs.
            let at = (7 * k / dtype.block_len() + 1) * dtype.block_bytes() + 2;
            bytes[at..at + 2].copy_from_slice(&f16::from_f32(bad).to_le_bytes());
            let case = Case::of(dtype, n, k, &bytes);
            for isa in Isa::available() {
                for rows in [1, 6, 40] {
                    for (i, y) in case.run(isa, &x, rows).iter().enumerate() {
                        assert!(y.is_nan() == (i % n == 7), "{dtype} {} output {} of {rows} rows", isa.name(), i % n);
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_sizes_and_types_are_refused() {
    let message = |e: crate::error::Error| e.to_string();
    assert!(message(packed_bytes(DType::Q4_0, 4, 48).unwrap_err()).contains("multiple of 32"));
    assert!(message(packed_bytes(DType::Q6K, 4, 96).unwrap_err()).contains("multiple of 256"));
    assert!(packed_bytes(DType::I32, 4, 48).is_err());
    assert!(packed_bytes(DType::F32, usize::MAX, 48).is_err());
    assert!(PackedMatrix::new(DType::F32, 4, 8, &[0; 9]).is_err());
    let rows = [0f32; 256];
    let mut dst = vec![0; packed_bytes(DType::Q4K, 1, 256).unwrap()];
    let source = Source::OutIn(View::new(&rows, 1, 256, 256));
    assert!(message(pack(DType::Q4K, 1, 256, &source, 0..1, &mut dst).unwrap_err()).contains("cannot be rounded"));
    assert!(pack(DType::F32, 1, 255, &source, 0..1, &mut dst).is_err());
    assert!(pack(DType::F32, 1, 256, &Source::Stored(&[0; 1023]), 0..1, &mut [0; 32768]).is_err());
}

#[test]
fn long_reductions_of_many_rows_have_the_bits_of_a_row_alone() {
    // So many rows that the reduction is cut (see [`chunks`]), a last chunk that is shorter, a panel that is not full, two groups of panels.
    let (rows, n, k) = (192, 150, 1801);
    for dtype in [DType::F32, DType::F16] {
        let case = Case::new(dtype, n, k);
        let x = noise(9, rows * (k + 3));
        for isa in Isa::available() {
            let blocks = RowBlocks::new(isa, dtype, rows, k);
            let bytes = vec![0u32; blocks.bytes() / 4];
            let prepared = Prepared::new(blocks, bytemuck::cast_slice(&bytes));
            let (_, first) = Grid::new(isa, dtype, n, k, rows).tile(0);
            assert!(chunks::chunk(&case.matrix(), &prepared, &first).is_some(), "{dtype} {}", isa.name());
            let all = case.run(isa, &x, rows);
            for row in [0, 49, 191] {
                let alone = case.run(isa, &x[row * (k + 3)..], 1);
                assert_eq!(all[row * n..][..n], alone, "{dtype} {} row {row}", isa.name());
            }
        }
    }
}
