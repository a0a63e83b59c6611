//! Thin products against f64.

use super::*;
use crate::kernels::isa::Isa;
use crate::kernels::vector::map::Write;
use crate::kernels::view::{View, ViewMut};

fn data(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| ((i as f32 + seed) * 0.7).sin()).collect()
}

fn close(a: f32, b: f64) {
    assert!((f64::from(a) - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} {b}");
}

#[test]
fn products_match_f64_and_do_not_depend_on_blocks() {
    for isa in Isa::available() {
        for (rows, k, rank) in [(1, 5, 1), (7, 37, 8), (12, 64, 11), (9, 100, 16)] {
            let (x, a, low) = (data(rows * k, 0.1), data(rank * k, 0.5), data(rows * rank, 0.9));
            let xv = View::new(&x, rows, k, k);
            let av = View::new(&a, rank, k, k);
            let lv = View::new(&low, rows, rank, rank);
            let mut out = vec![f32::NAN; rows * rank];
            project(isa, &xv, &av, 0.5, ViewMut::new(&mut out, rows, rank, rank));
            for t in 0..rows {
                for j in 0..rank {
                    let sum: f64 = (0..k).map(|i| f64::from(x[t * k + i]) * f64::from(a[j * k + i])).sum();
                    close(out[t * rank + j], 0.5 * sum);
                }
                let mut one = vec![f32::NAN; rank];
                project(isa, &xv.slice_rows(t..t + 1), &av, 0.5, ViewMut::new(&mut one, 1, rank, rank));
                assert_eq!(one, out[t * rank..(t + 1) * rank]);
            }
            let mut y = vec![f32::NAN; rows * k];
            add_product(isa, &lv, &av, 2.0, ViewMut::new(&mut y, rows, k, k), Write::Overwrite);
            let fresh = y.clone();
            add_product(isa, &lv, &av, 2.0, ViewMut::new(&mut y, rows, k, k), Write::Add);
            for i in 0..rows * k {
                let (t, c) = (i / k, i % k);
                let sum: f64 =
                    (0..rank).map(|j| f64::from(low[t * rank + j]) * f64::from(a[j * k + c])).sum::<f64>() * 2.0;
                close(fresh[i], sum);
                close(y[i], 2.0 * sum);
            }
            let columns = k.min(COLUMNS);
            let mut sums = vec![0.0; rank * COLUMNS];
            outer_sums(isa, &lv, &xv.columns(0, columns), 3.0, 0..rank, &mut sums);
            let mut parts = vec![0.0; rank * COLUMNS];
            for part in [0..rows / 2, rows / 2..rows] {
                let (l, x) = (lv.slice_rows(part.clone()), xv.slice_rows(part).columns(0, columns));
                outer_sums(isa, &l, &x, 3.0, 0..rank, &mut parts);
            }
            assert_eq!(sums, parts, "sums continue over calls");
            for j in 0..rank {
                for c in 0..columns {
                    let sum: f64 =
                        (0..rows).map(|t| f64::from(low[t * rank + j]) * f64::from(x[t * k + c])).sum::<f64>() * 3.0;
                    close(sums[j * COLUMNS + c], sum);
                }
            }
        }
    }
}
