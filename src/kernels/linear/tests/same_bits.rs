//! A row of a product has the same bits alone and among others, and in a pair of products.

use super::*;

#[test]
fn a_row_has_the_same_bits_alone_and_among_others() {
    for dtype in TYPES {
        let &k = widths(dtype).last().unwrap();
        let case = Case::new(dtype, 70, k);
        let x = noise(11, 40 * (k + 3));
        for isa in Isa::available() {
            let all = case.run(isa, &x, 40);
            for rows in (1..=20).chain([24, 25, 33, 36, 37]) {
                let first = 40 - rows;
                let part = case.run(isa, &x[first * (k + 3)..], rows);
                assert_eq!(part, all[first * 70..], "{dtype} {} rows={rows}", isa.name());
            }
        }
    }
}

#[test]
fn quantised_rows_of_any_size_have_the_same_bits_alone_and_among_others() {
    for dtype in TYPES.into_iter().filter(|dtype| dtype.block_len() > 1) {
        for &k in widths(dtype).iter().chain([&1280]) {
            let (n, stride, most) = (70, k + 3, 131);
            // Scales that are zero, subnormal in f16, negative or no numbers, in the first and the last panel.
            let mut bytes = stored(dtype, n, k, 23);
            let at = if dtype == DType::Q6K { 208 } else { 0 };
            let odd = [0.0, -0.0, 6e-8, -0.02, f32::NAN, f32::INFINITY].map(f16::from_f32);
            for (i, d) in odd.iter().chain(&odd[..4]).enumerate() {
                let block = (i * 12 % n) * k / dtype.block_len() + i % (k / dtype.block_len());
                bytes[block * dtype.block_bytes() + at..][..2].copy_from_slice(&d.to_le_bytes());
                // And minima, elsewhere.
                if matches!(dtype, DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K) {
                    let block = ((i * 12 + 5) % n) * k / dtype.block_len() + i % (k / dtype.block_len());
                    bytes[block * dtype.block_bytes() + 2..][..2].copy_from_slice(&d.to_le_bytes());
                }
            }
            let case = Case::of(dtype, n, k, &bytes);
            let mut x = noise(19, most * stride);
            // Some blocks of a row are far from others in size, and some hold what is not a normal number.
            for (i, v) in x.iter_mut().enumerate() {
                *v *= [1.0, 1e-20, 3e4, 1.1, 1e-38, 1e30, 0.0][(i / 32 + i / stride) % 7];
            }
            (x[3 * stride + 5], x[9 * stride + 40 % k], x[20 * stride]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
            for isa in Isa::available() {
                // Row blocks of 10 and of 12 rows on VNNI; two halves of many blocks, there and on tile registers.
                for rows in [40, 36, 101, 131] {
                    let all = case.run(isa, &x, rows);
                    for row in (0..rows).step_by(if rows > 40 { 7 } else { 1 }) {
                        let alone = case.run(isa, &x[row * stride..], 1);
                        let others = &all[row * n..][..n];
                        let same = alone
                            .iter()
                            .zip(others)
                            .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
                        assert!(same, "{dtype} {} of {k} inputs, row {row} of {rows}", isa.name());
                    }
                }
            }
        }
    }
}

#[test]
fn tile_registers_give_the_bits_of_vnni() {
    if !Isa::available().contains(&Isa::Amx) {
        return;
    }
    for dtype in TYPES.into_iter().filter(|dtype| dtype.block_len() > 1) {
        for &k in widths(dtype).iter().chain([&1280]) {
            let case = Case::new(dtype, 70, k);
            let x = noise(17, 40 * (k + 3));
            for rows in [1, 8, 9, 10, 11, 16, 17, 21, 33, 40] {
                let [vnni, tiles] = [Isa::Avx512, Isa::Amx].map(|isa| case.run(isa, &x, rows));
                let same = vnni.iter().zip(&tiles).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{dtype} of {k} inputs, {rows} rows");
            }
        }
    }
}

#[test]
fn few_rows_have_the_same_bits_as_among_others_whatever_the_number_of_panels() {
    for dtype in TYPES {
        let longest = if dtype.block_len() == 1 { 1100 } else { 1024 };
        for &k in widths(dtype).iter().chain([&longest]) {
            for panels in 1..=9 {
                let case = Case::new(dtype, panels * PANEL - panels % 2, k);
                let x = noise(13, 13 * (k + 3));
                for isa in Isa::available() {
                    let all = case.run(isa, &x, 13);
                    for rows in 1..=4 {
                        let part = case.run(isa, &x[(13 - rows) * (k + 3)..], rows);
                        let same =
                            part.iter().zip(&all[(13 - rows) * case.n..]).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{dtype} {} {panels} panels of {k} inputs, {rows} rows", isa.name());
                    }
                }
            }
        }
    }
}

#[test]
fn pairs_equal_two_products() {
    struct Collect(Vec<[f32; 2]>, usize);
    impl PairEpilogue for Collect {
        fn row(&mut self, row: usize, first_column: usize, first: &mut [f32], second: &mut [f32]) {
            for (i, (a, b)) in first.iter().zip(second).enumerate() {
                self.0[row * self.1 + first_column + i] = [*a, *b];
            }
        }
    }
    let (n, k) = (141, 64);
    let x = noise(1, 400 * (k + 3));
    let pairs = [[DType::Q4_0, DType::Q8_0], [DType::F16, DType::F32], [DType::BF16, DType::BF16]];
    for (isa, pair) in Isa::available().into_iter().flat_map(|isa| pairs.map(|pair| (isa, pair))) {
        let [gate, up] = pair.map(|dtype| Case::new(dtype, n, k));
        for rows in [1, 3, 7, 273, 400] {
            let blocks = RowBlocks::new(isa, gate.dtype, rows, k);
            let mut prepared = vec![0f32; blocks.bytes() / 4];
            let rows_of_x = View::new(&x, rows, k + 3, k);
            blocks.prepare(&rows_of_x, 0..blocks.count(), bytemuck::cast_slice_mut(&mut prepared));
            let prepared = Prepared::new(blocks, bytemuck::cast_slice(&prepared));
            let mut out = Collect(vec![[0.0; 2]; rows * n], n);
            product_pair([&gate.matrix(), &up.matrix()], 0..5, &prepared, 0..blocks.count(), &mut out);
            let (a, b) = (gate.run(isa, &x, rows), up.run(isa, &x, rows));
            let same = out.0.iter().zip(a.iter().zip(&b)).all(|(got, (a, b))| got == &[*a, *b]);
            assert!(same, "{pair:?} {} rows={rows}", isa.name());
        }
    }
}
