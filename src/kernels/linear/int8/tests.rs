//! Prepared activations, and minima, under all instruction sets.
#![allow(unsafe_code)]

use super::*;
use crate::kernels::linear::layout::{BLOCK, PANEL};
use crate::kernels::linear::tests::noise;
use crate::kernels::view::View;

fn prepared(isa: Isa, x: &[f32], rows: usize, k: usize, for_tiles: bool) -> Vec<u32> {
    let mut words = vec![0u32; rows * row_bytes(k) / 4];
    prepare(isa, &View::new(x, rows, k, k), 0..rows, for_tiles, bytemuck::cast_slice_mut(&mut words));
    words
}

#[test]
fn activations_are_prepared_alike_by_all_instruction_sets() {
    // Odd numbers of blocks, one and two spans of minima.
    for k in [96, 800] {
        for rows in 1..=16 {
            for size in [1.0, 1e-30, 1e-34, 1e-36, 1e30] {
                let values = noise(7, rows * k);
                // Some blocks are zero, and a row is.
                let of = |(i, v): (usize, &f32)| {
                    v * size * [1.0, 300.0, 0.0, 0.0][if i / k == 5 { 3 } else { (i / 32 + i / k) % 3 }]
                };
                let x: Vec<f32> = values.iter().enumerate().map(of).collect();
                let portable = prepared(Isa::Portable, &x, rows, k, false);
                for isa in Isa::available() {
                    assert_eq!(
                        prepared(isa, &x, rows, k, false),
                        portable,
                        "{} rows={rows} k={k} at {size}",
                        isa.name()
                    );
                }
            }
        }
    }
}

#[test]
fn rows_lie_apart_for_tiles_and_in_groups_of_four_values_otherwise() {
    let (rows, k) = (11, 64);
    let x = noise(3, rows * k);
    for isa in Isa::available().into_iter().filter(|isa| isa.has_avx512()) {
        let [plain, tiles] = [false, true].map(|for_tiles| prepared(isa, &x, rows, k, for_tiles));
        let in_blocks = rows * k / BLOCK * ROW_BLOCK_BYTES / 4;
        assert_eq!(plain[in_blocks..], tiles[in_blocks..], "what is multiplied with minima");
        for (plain, tiles) in plain[..in_blocks].chunks_exact(12 * rows).zip(tiles.chunks_exact(12 * rows)) {
            assert_eq!(plain[8 * rows..], tiles[8 * rows..], "scales and sums");
            for (r, group) in (0..rows).flat_map(|r| (0..8).map(move |group| (r, group))) {
                assert_eq!(plain[group * rows + r], tiles[r * 8 + group], "row {r}, group {group}");
            }
        }
    }
}

/// The sums of one span for `rows` rows as prepared activations have them, from `y`, `[rows][blocks]`.
fn span_sums(y: &[f32], rows: usize, blocks: usize) -> Vec<u32> {
    let mut words = vec![0u32; rows * minima::row_bytes(blocks) / 4];
    for (r, y) in y.chunks_exact(blocks).enumerate() {
        minima::write_sums(y, r, rows, bytemuck::cast_slice_mut(&mut words));
    }
    words
}

#[test]
fn minima_times_sums_are_as_exact_as_their_integers() {
    // Minima and sums of one size and of sizes far apart, whole spans and shorter ones, zeros.
    for (seed, blocks) in [(1, 1), (2, 2), (3, 7), (4, 23), (5, minima::SPAN)] {
        // Around zero or, as minima of weights are, around a value below it.
        for (spread, around) in [(0.0, 0.0), (3.0, 0.0), (12.0, 0.0), (0.0, -5.0), (3.0, -5.0)] {
            let sized = |seed: u64, count: usize| -> Vec<f32> {
                let sizes = noise(seed + 100, count);
                noise(seed, count).iter().zip(sizes).map(|(v, s)| v * (spread * s).exp2()).collect()
            };
            let m: Vec<[f32; PANEL]> = (0..blocks)
                .map(|b| {
                    let mut m: [f32; PANEL] = sized(seed * 31 + b as u64, PANEL).try_into().expect("a panel");
                    m[3] = 0.0;
                    m.map(|m| m + around)
                })
                .collect();
            let rows = 3;
            let mut y = sized(seed * 77, rows * blocks);
            y[2 * blocks..].fill(0.0);
            let words = span_sums(&y, rows, blocks);
            for (r, y) in y.chunks_exact(blocks).enumerate() {
                let mut sums = [0.25; PANEL];
                minima::add(&m, &words, r, rows, &mut sums);
                let size: f64 = y.iter().map(|y| f64::from(y.abs())).sum();
                let largest = y.iter().fold(0f64, |most, y| most.max(f64::from(y.abs())));
                for (lane, &sum) in sums.iter().enumerate() {
                    let exact: f64 = m.iter().zip(y).map(|(m, y)| f64::from(m[lane]) * f64::from(*y)).sum();
                    let of_lane = || m.iter().map(|m| f64::from(m[lane]));
                    let (least, most) = (of_lane().fold(f64::MAX, f64::min), of_lane().fold(f64::MIN, f64::max));
                    let (middle, half) = ((least + most) / 2.0, (most - least) / 2.0);
                    let from_middle: f64 = of_lane().map(|m| (m - middle).abs()).sum();
                    // Half a unit of each minimum, and of each sum.
                    let unit = f64::from(minima::MARGIN) / 64.0;
                    let bound = unit / 2.0
                        * (half * size + largest * (from_middle + blocks as f64 * unit / 2.0 * half))
                        + 1e-6 * (1.0 + middle.abs() * size);
                    let error = (f64::from(sum) - 0.25 - exact).abs();
                    assert!(error <= bound, "{blocks} blocks, spread {spread}, row {r}, output {lane}: {error:e}");
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn minima_beside_tile_registers_have_the_bits_of_their_definition() {
    use crate::kernels::linear::blocks::scales;
    use crate::kernels::linear::tests::{Case, stored};
    use crate::tensor::DType;
    if !Isa::available().iter().any(|isa| isa.has_vnni()) {
        return;
    }
    for (dtype, k) in [(DType::Q4_1, 32 * 25), (DType::Q5_1, 32 * 7), (DType::Q4K, 1024), (DType::Q5K, 768)] {
        let layout = Layout::of(dtype).expect("a weight type");
        // The minima of output 4 are zero, and one of output 9 is no number.
        let mut bytes = stored(dtype, PANEL, k, 3);
        let (row, block) = (bytes.len() / PANEL, dtype.block_bytes());
        for block in bytes[4 * row..5 * row].chunks_exact_mut(block) {
            block[2..4].fill(0);
        }
        bytes[9 * row + block + 2..][..2].copy_from_slice(&half::f16::NAN.to_le_bytes());
        let case = Case::of(dtype, PANEL, k, &bytes);
        let weights = case.matrix();
        let panel = weights.panel(0);
        for first in (0..k / BLOCK).step_by(minima::SPAN) {
            let blocks = minima::SPAN.min(k / BLOCK - first);
            let of = |b: usize| std::array::from_fn(|lane| scales(layout, panel, first + b, lane).1);
            let m: Vec<[f32; PANEL]> = (0..blocks).map(of).collect();
            let at = &panel[layout.block_offset(first).0 - layout.super_header_bytes()..];
            let mut written = std::mem::MaybeUninit::uninit();
            // SAFETY: the panel has these blocks, and the CPU AVX-512.
            unsafe { minima_avx512::write(layout, at.as_ptr(), blocks, written.as_mut_ptr()) }
            for rows in 8..=16 {
                let mut y = noise(rows as u64, rows * blocks);
                y[blocks..2 * blocks].fill(0.0);
                let words = span_sums(&y, rows, blocks);
                let mut want = noise(9, rows * PANEL);
                let mut got = want.clone();
                for (r, sums) in want.chunks_exact_mut(PANEL).enumerate() {
                    minima::add(&m, &words, r, rows, sums.try_into().expect("a panel"));
                }
                // SAFETY: these minima were written, and the sums are of so many rows.
                unsafe {
                    add_minima_avx512::add_rows(
                        rows,
                        written.as_ptr(),
                        blocks,
                        words.as_ptr().cast(),
                        got.as_mut_ptr(),
                    );
                }
                let same = want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
                assert!(same, "{dtype} from block {first} on, {rows} rows");
            }
        }
    }
}
