//! Products on tile registers have the bits that their order of accumulation gives, in every kernel.

use super::super::{few_rows_tiles, tile_rows, tiles};
use crate::kernels::isa::Isa;
use crate::kernels::linear::few_rows::Panels;
use crate::kernels::linear::{Ahead, PANEL, Place, Sums};
use crate::kernels::view::View;
use half::bf16;

/// A bf16 value of any of eleven exponents, so that sums are rounded and their order shows.
fn value(seed: usize, i: usize) -> f32 {
    bf16::from_f32(super::value(seed, i) / (1 << (i * 5 % 11)) as f32).to_f32()
}

/// Most rows of a test, most panels, and the space around sums.
const ROWS: usize = 32;
const PANELS: usize = 3;
const SPACE: usize = 5;

/// Operands of `k` inputs, and their products.
struct Case {
    k: usize,
    /// At an odd address: kernels assume no alignment of weights.
    panels: Vec<u8>,
    x: Vec<f32>,
    /// `[PANELS][ROWS][PANEL]`.
    products: Vec<f32>,
}

impl Case {
    fn new(k: usize, start: f32) -> Self {
        let w = |output: usize, i: usize| if i < k { value(1, output * k + i) } else { 0.0 };
        let mut panels = vec![0];
        for panel in 0..PANELS {
            for (pair, output) in (0..k.div_ceil(2)).flat_map(|pair| (0..PANEL).map(move |output| (pair, output))) {
                for i in [2 * pair, 2 * pair + 1] {
                    panels.extend(bf16::from_f32(w(panel * PANEL + output, i)).to_le_bytes());
                }
            }
        }
        let x: Vec<f32> = (0..ROWS * k).map(|i| value(2, i)).collect();
        let mut products = Vec::new();
        for (panel, r, o) in (0..PANELS * ROWS * PANEL).map(|i| (i / PANEL / ROWS, i / PANEL % ROWS, i % PANEL)) {
            let mut sum = start;
            for first in (0..k).step_by(32) {
                let mut chains = [0f32; 2];
                for i in first..k.min(first + 32) {
                    chains[i % 2] = x[r * k + i].mul_add(w(panel * PANEL + o, i), chains[i % 2]);
                }
                sum += chains[0] + chains[1];
            }
            products.push(sum);
        }
        Case { k, panels, x, products }
    }

    /// Rows `rows` as a prepared block.
    fn block(&self, rows: std::ops::Range<usize>) -> Vec<u8> {
        let mut block = vec![0xff; rows.len() * tile_rows::row_bytes(self.k)];
        tile_rows::prepare(&View::new(&self.x, ROWS, self.k, self.k), rows, &mut block);
        block
    }

    fn panel_bytes(&self) -> usize {
        (self.panels.len() - 1) / PANELS
    }

    fn assert(&self, got: &[f32], panel: usize, row: usize, what: &str) {
        let want = &self.products[(panel * ROWS + row) * PANEL..][..PANEL];
        let same = got.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{what}, k {}, panel {panel}, row {row}: {got:?} for {want:?}", self.k);
    }
}

const WIDTHS: [usize; 14] = [1, 2, 7, 31, 32, 33, 64, 97, 255, 256, 257, 289, 512, 530];

#[test]
fn rows_are_rounded_to_bf16_and_padded_with_zeros() {
    if !Isa::available().contains(&Isa::Amx) {
        return;
    }
    for k in WIDTHS {
        let x: Vec<f32> = (0..3 * k).map(|i| super::value(3, i) * 1.001).collect();
        let mut dst = vec![0xff; 2 * tile_rows::row_bytes(k)];
        tile_rows::prepare(&View::new(&x, 3, k, k), 1..3, &mut dst);
        for (i, got) in dst.chunks_exact(2).enumerate() {
            let (row, column) = (1 + i / 32 % 2, i / 64 * 32 + i % 32);
            let want = if column < k { bf16::from_f32(x[row * k + column]) } else { bf16::ZERO };
            assert_eq!(got, want.to_le_bytes(), "k {k}, row {row}, column {column}");
        }
    }
}

#[test]
fn one_block_has_the_bits_of_the_order_for_any_number_of_rows() {
    if !Isa::available().contains(&Isa::Amx) {
        return;
    }
    for (fresh, k) in [true, false].into_iter().flat_map(|fresh| WIDTHS.map(|k| (fresh, k))) {
        let case = Case::new(k, if fresh { 0.0 } else { 0.7 });
        for rows in 1..=ROWS {
            let block = case.block(0..rows);
            let stride = PANEL + SPACE;
            let mut out = vec![0.7; rows * stride];
            let at = out.as_mut_ptr();
            let sums = Sums { at, stride, fresh, next: Place::NOWHERE };
            let ahead = Ahead { at: case.panels.as_ptr(), step: 128, pairs: 1 };
            // SAFETY: tiles are allowed; panel, block and sums have the sizes that the layout prescribes.
            unsafe { tiles::kernel(rows)(case.panels[1..].as_ptr(), block.as_ptr(), k, sums, ahead) }
            for (r, row) in out.chunks(stride).enumerate() {
                case.assert(&row[..PANEL], 0, r, &format!("{rows} rows, fresh {fresh}"));
                assert_eq!(row[PANEL..], [0.7; SPACE], "wrote beyond the panel");
            }
        }
    }
}

#[test]
fn few_rows_of_several_panels_have_the_same_bits() {
    if !Isa::available().contains(&Isa::Amx) {
        return;
    }
    for k in WIDTHS {
        let case = Case::new(k, 0.0);
        for rows in 1..=4 {
            let block = case.block(0..rows);
            for (i, kernel) in few_rows_tiles::kernels(rows).iter().enumerate() {
                let mut out = vec![0.7; ((i + 1) * rows + 1) * PANEL];
                let at = case.panels[1..].as_ptr();
                let panels = Panels { at, stride: case.panel_bytes(), count: i + 1, next: at };
                // SAFETY: as above, for each of the panels.
                unsafe { kernel(panels, block.as_ptr(), k, out.as_mut_ptr()) }
                for (j, row) in out[..(i + 1) * rows * PANEL].chunks(PANEL).enumerate() {
                    case.assert(row, j / rows, j % rows, &format!("{} panels, {rows} rows", i + 1));
                }
                assert_eq!(out[(i + 1) * rows * PANEL..], [0.7; PANEL], "wrote beyond the sums");
            }
        }
    }
}
