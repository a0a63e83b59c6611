use super::*;
use crate::kernels::isa::Isa;
use crate::kernels::vector::stored::Stored;
use crate::kernels::view::{View, ViewMut};

/// Deterministic values in about −1.5..1.5.
pub(super) fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 * 3.0 - 1.5
        })
        .collect()
}

/// Output and log-sum-exp of one head in f64.
fn reference(q: &[f32], keys: &[f32], values: &[f32], d: usize, count: usize, scale: f64) -> (Vec<f64>, f64) {
    let wide = |v: &[f32], i: usize| f64::from(v[i]);
    let scores: Vec<f64> =
        (0..count).map(|t| scale * (0..d).map(|j| wide(q, j) * wide(keys, t * d + j)).sum::<f64>()).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|x| (x - most).exp()).sum();
    let out = (0..d)
        .map(|j| scores.iter().enumerate().map(|(t, x)| (x - most).exp() / sum * wide(values, t * d + j)).sum())
        .collect();
    (out, most + sum.ln())
}

pub(super) struct Case {
    d: usize,
    group: usize,
    t: usize,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    pub fn new(d: usize, group: usize, t: usize) -> Self {
        Case { d, group, t, q: values(t * group * d, 1), k: values(t * d, 2), v: values(t * d, 3) }
    }

    fn run(&self, isa: Isa, positions: &[u32]) -> (Vec<f32>, Vec<f32>) {
        self.run_as(isa, positions, |x| x)
    }

    /// Rows `positions` in one call; keys and values are rows of a wider buffer whose other elements, and whose rows after the
    /// last position, are NaN.
    pub fn run_as<E: Stored>(&self, isa: Isa, positions: &[u32], narrow: fn(f32) -> E) -> (Vec<f32>, Vec<f32>) {
        let (d, width, gap) = (self.d, self.group * self.d, 5);
        let known = positions.iter().max().map_or(0, |&p| p as usize + 1);
        let spread = |x: &[f32]| {
            let mut wide = vec![narrow(f32::NAN); 1 + self.t * (d + gap)];
            for r in 0..known {
                for j in 0..d {
                    wide[1 + r * (d + gap) + j] = narrow(x[r * d + j]);
                }
            }
            wide
        };
        let (k, v) = (spread(&self.k), spread(&self.v));
        let rows: Vec<f32> =
            positions.iter().flat_map(|&p| self.q[p as usize * width..][..width].iter().copied()).collect();
        let n = positions.len();
        let mut out = vec![f32::NAN; n * (width + 3)];
        let mut lse = vec![f32::NAN; n * self.group];
        let mut scratch = vec![f32::NAN; attention_forward_scratch(n, self.group, d)];
        attention_forward(
            isa,
            &View::new(&rows, n, width, width),
            positions,
            &View::new(&k[1..], self.t, d + gap, d),
            &View::new(&v[1..], self.t, d + gap, d),
            1.0 / (d as f32).sqrt(),
            &mut ViewMut::new(&mut out, n, width + 3, width),
            Some(&mut ViewMut::new(&mut lse, n, self.group, self.group)),
            &mut scratch,
        );
        let mut packed = Vec::new();
        for row in out.chunks_exact(width + 3) {
            assert!(row[width..].iter().all(|x| x.is_nan()), "wrote beyond the row");
            packed.extend_from_slice(&row[..width]);
        }
        (packed, lse)
    }
}

#[test]
fn forward_matches_f64() {
    for isa in Isa::available() {
        for (d, group, t) in
            [(64, 1, 258), (16, 3, 134), (80, 2, 129), (96, 1, 128), (13, 2, 154), (128, 1, 257), (1, 1, 5)]
        {
            let case = Case::new(d, group, t);
            let positions: Vec<u32> = (0..t as u32).collect();
            let (out, lse) = case.run(isa, &positions);
            for row in 0..t {
                for head in 0..group {
                    let at = (row * group + head) * d;
                    let scale = 1.0 / (d as f64).sqrt();
                    let (want, want_lse) = reference(&case.q[at..], &case.k, &case.v, d, row + 1, scale);
                    for j in 0..d {
                        let got = f64::from(out[at + j]);
                        assert!((got - want[j]).abs() < 3e-6, "{isa:?} d {d} row {row}: {got} for {}", want[j]);
                    }
                    assert!((f64::from(lse[row * group + head]) - want_lse).abs() < 3e-6, "{isa:?} d {d} row {row}");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_block() {
    same_bits_in_any_block(|x| x);
    same_bits_in_any_block(half::f16::from_f32);
    same_bits_in_any_block(half::bf16::from_f32);
}

fn same_bits_in_any_block<E: Stored>(narrow: fn(f32) -> E) {
    for isa in Isa::available() {
        for (d, group) in [(64, 1), (64, 3), (128, 2), (20, 2), (13, 1), (34, 5), (6, 2), (3, 1), (1, 1)] {
            let t = 2 * KEY_TILE as u32 + 22;
            let end = KEY_TILE as u32;
            let case = Case::new(d, group, t as usize);
            let all: Vec<u32> = (0..t).collect();
            let (whole, whole_lse) = case.run_as(isa, &all, narrow);
            let width = group * d;
            for rows in [
                vec![t - 1],
                vec![t - 2],
                vec![0],
                vec![end - 1, end],
                (end - 4..end + 7).collect::<Vec<u32>>(),
                vec![t - 10, 3, end],
                vec![7; 6],
            ] {
                let (part, part_lse) = case.run_as(isa, &rows, narrow);
                for (i, &r) in rows.iter().enumerate() {
                    let r = r as usize;
                    let same = part[i * width..][..width]
                        .iter()
                        .zip(&whole[r * width..])
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{isa:?} d {d} group {group} row {r} among {rows:?}");
                    assert_eq!(part_lse[i * group..][..group], whole_lse[r * group..][..group]);
                }
            }
        }
    }
}

#[test]
fn stored_half_precision_gives_the_bits_of_its_values_in_f32() {
    fn check<E: Stored>(narrow: fn(f32) -> E, isas: Vec<Isa>) {
        for (d, t, rows) in [(40, 134, 1), (64, 257, 1), (64, 258, 40), (13, 154, 17)] {
            let k: Vec<E> = values(t * d, 5).into_iter().map(narrow).collect();
            let wide: Vec<f32> = k.iter().map(|x| x.widen()).collect();
            let (mut out16, mut out32) = (vec![0.0; rows * d], vec![1.0; rows * d]);
            let q = values(rows * d, 9);
            let at: Vec<u32> = (t - rows..t).map(|p| p as u32).collect();
            for &isa in &isas {
                let mut scratch = vec![f32::NAN; attention_forward_scratch(rows, 1, d)];
                let (qv, kv, wv) = (View::new(&q, rows, d, d), View::new(&k, t, d, d), View::new(&wide, t, d, d));
                let mut out = ViewMut::new(&mut out16, rows, d, d);
                attention_forward(isa, &qv, &at, &kv, &kv, 0.1, &mut out, None, &mut scratch);
                let mut out = ViewMut::new(&mut out32, rows, d, d);
                attention_forward(isa, &qv, &at, &wv, &wv, 0.1, &mut out, None, &mut scratch);
                assert_eq!(out16, out32, "{isa:?} d {d}, {rows} rows");
            }
        }
    }
    check(half::f16::from_f32, Isa::available());
    check(half::bf16::from_f32, Isa::available().into_iter().filter(|isa| !isa.uses_bf16_dots()).collect());
}

/// With dot products queries (after scaling) and probabilities are rounded to bf16; products and sums never are.
#[test]
fn keys_and_values_in_bf16_match_f64() {
    let round = |x: f32| half::bf16::from_f32(x).to_f32();
    for isa in Isa::available() {
        let dots = isa.uses_bf16_dots();
        for (d, group, t) in
            [(64, 1, 258), (16, 3, 134), (80, 2, 129), (96, 1, 128), (13, 2, 154), (34, 1, 257), (1, 1, 5)]
        {
            let mut case = Case::new(d, group, t);
            let positions: Vec<u32> = (0..t as u32).collect();
            let (out, lse) = case.run_as(isa, &positions, half::bf16::from_f32);
            let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
            case.q.iter_mut().for_each(|x| *x = if dots { round(*x * scale) } else { *x * scale });
            case.k.iter_mut().for_each(|x| *x = round(*x));
            case.v.iter_mut().for_each(|x| *x = round(*x));
            for row in 0..t {
                for head in 0..group {
                    let at = (row * group + head) * d;
                    let (want, want_lse) =
                        reference(&case.q[at..], &case.k, &case.v, d, row + 1, std::f64::consts::LN_2);
                    for j in 0..d {
                        // Half a unit in the last of eight bits of each probability, times the largest value.
                        let (got, bound) = (f64::from(out[at + j]), if dots { 1.5 / 512.0 } else { 3e-6 });
                        assert!((got - want[j]).abs() < bound, "{isa:?} d {d} row {row}: {got} for {}", want[j]);
                    }
                    assert!((f64::from(lse[row * group + head]) - want_lse).abs() < 8e-6, "{isa:?} d {d} row {row}");
                }
            }
        }
    }
}

#[test]
fn instruction_sets_agree_on_keys_and_values_in_bf16() {
    let case = Case::new(64, 3, 300);
    let positions: Vec<u32> = (0..300).collect();
    let (want, _) = case.run_as(Isa::Portable, &positions, half::bf16::from_f32);
    for isa in Isa::available() {
        let (got, _) = case.run_as(isa, &positions, half::bf16::from_f32);
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Queries that are rounded for dot products move scores of a few units by half a unit in the last of eight bits.
        let bound = if isa.uses_bf16_dots() { 1e-2 } else { 1e-5 };
        assert!(worst < bound, "{isa:?}: {worst}");
    }
}

/// Also where a value row after a position, but not after all of the call's, is not a number.
#[test]
fn later_rows_of_the_call_do_not_matter() {
    fn check<E: Stored>(narrow: fn(f32) -> E) {
        for isa in Isa::available() {
            let (mut case, positions) = (Case::new(20, 2, 140), (0..140).collect::<Vec<u32>>());
            let (clean, _) = case.run_as(isa, &positions, narrow);
            for bad in [3, 24, 130] {
                case.v[bad * case.d] = f32::NAN;
                case.k[bad * case.d] = f32::INFINITY;
                let (out, _) = case.run_as(isa, &positions, narrow);
                let before = bad * case.d * case.group;
                assert_eq!(out[..before], clean[..before], "{isa:?} row {bad}");
                assert!(out[before].is_nan(), "{isa:?} row {bad}");
                case = Case::new(20, 2, 140);
            }
        }
    }
    check(|x| x);
    check(half::f16::from_f32);
    check(half::bf16::from_f32);
}

#[test]
fn heads_together_give_the_bits_of_each_alone() {
    for isa in Isa::available() {
        for (d, group, kv_heads, rows) in
            [(64, 1, 3, 1), (64, 1, 4, 4), (32, 2, 4, 2), (20, 3, 2, 1), (20, 1, 3, 3), (32, 2, 3, 40)]
        {
            let (t, width) = (2 * KEY_TILE + 22, kv_heads * d);
            let (q, k, v) = (values(rows * group * width, 1), values(t * width, 2), values(t * width, 3));
            let positions: Vec<u32> = (t - rows..t).map(|p| p as u32).collect();
            let (heads, wide) = (kv_heads * group, group * width);
            let (mut out, mut lse) = (vec![f32::NAN; rows * wide], vec![f32::NAN; rows * heads]);
            let mut scratch = vec![f32::NAN; attention_forward_scratch(rows, heads, d)];
            let input = AttentionInput {
                q: View::new(&q, rows, wide, wide),
                positions: &positions,
                keys: View::new(&k, t, width, width),
                values: View::new(&v, t, width, width),
                head_dim: d,
                scale: 0.2,
            };
            let mut lse_view = ViewMut::new(&mut lse, rows, heads, heads);
            let mut out_view = ViewMut::new(&mut out, rows, wide, wide);
            attention_forward_heads(isa, &input, &mut out_view, Some(&mut lse_view), &mut scratch);
            for head in 0..kv_heads {
                let (mut one, mut one_lse) = (vec![0.0; rows * group * d], vec![0.0; rows * group]);
                attention_forward(
                    isa,
                    &input.q.columns(head * group * d, group * d),
                    &positions,
                    &input.keys.columns(head * d, d),
                    &input.values.columns(head * d, d),
                    0.2,
                    &mut ViewMut::new(&mut one, rows, group * d, group * d),
                    Some(&mut ViewMut::new(&mut one_lse, rows, group, group)),
                    &mut scratch,
                );
                for row in 0..rows {
                    let part = &out[row * wide + head * group * d..][..group * d];
                    assert_eq!(part, &one[row * group * d..][..group * d], "{isa:?} d {d} head {head} row {row}");
                    assert_eq!(lse[row * heads + head * group..][..group], one_lse[row * group..][..group]);
                }
            }
        }
    }
}

#[test]
fn units_of_few_rows_have_as_many_heads_as_leave_enough_units() {
    let heads = |rows, group, kv_heads, units| unit_heads(rows, group, kv_heads, units);
    assert_eq!([heads(1, 1, 12, 2), heads(1, 1, 12, 5), heads(1, 1, 12, 64), heads(1, 1, 25, 2)], [6, 2, 1, 5]);
    assert_eq!([heads(4, 1, 12, 1), heads(1, 3, 3, 2), heads(1, 4, 8, 1), heads(5, 1, 12, 2)], [4, 1, 4, 1]);
    for (rows, group) in [(1, 1), (2, 2), (1, 7), (100, 1), (0, 1)] {
        assert!(rows * group * unit_heads(rows, group, 64, 1) <= query_rows(group) * group, "{rows} rows of {group}");
    }
}
