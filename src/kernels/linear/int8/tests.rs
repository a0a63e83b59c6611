//! Prepared activations under all instruction sets.

use super::*;
use crate::kernels::linear::layout::BLOCK;
use crate::kernels::linear::tests::noise;
use crate::kernels::view::View;

fn prepared(isa: Isa, x: &[f32], rows: usize, k: usize, for_tiles: bool) -> Vec<u32> {
    let mut words = vec![0u32; rows * k / BLOCK * ROW_BLOCK_BYTES / 4];
    prepare(isa, &View::new(x, rows, k, k), 0..rows, for_tiles, bytemuck::cast_slice_mut(&mut words));
    words
}

#[test]
fn activations_are_prepared_alike_by_all_instruction_sets() {
    // An odd number of blocks, one of which is zero.
    let k = 96;
    for rows in 1..=16 {
        for size in [1.0, 1e-30, 1e30] {
            let values = noise(7, rows * k);
            let x: Vec<f32> =
                values.iter().enumerate().map(|(i, v)| v * size * [1.0, 300.0, 0.0][(i / 32 + i / k) % 3]).collect();
            let portable = prepared(Isa::Portable, &x, rows, k, false);
            for isa in Isa::available() {
                assert_eq!(prepared(isa, &x, rows, k, false), portable, "{} rows={rows} at {size}", isa.name());
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
        for (plain, tiles) in plain.chunks_exact(13 * rows).zip(tiles.chunks_exact(13 * rows)) {
            assert_eq!(plain[8 * rows..], tiles[8 * rows..], "scales and sums");
            for (r, group) in (0..rows).flat_map(|r| (0..8).map(move |group| (r, group))) {
                assert_eq!(plain[group * rows + r], tiles[r * 8 + group], "row {r}, group {group}");
            }
        }
    }
}
