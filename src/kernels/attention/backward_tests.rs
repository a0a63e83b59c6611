use super::tests::values;
use super::*;
use crate::kernels::isa::Isa;
use crate::kernels::view::{View, ViewMut};

/// Buffers of one key-value head; rows have a gap of 2 that must stay untouched.
struct Case {
    d: usize,
    group: usize,
    t: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_out: Vec<f32>,
}

const GAP: usize = 2;

impl Case {
    fn new(d: usize, group: usize, t: usize) -> Self {
        let (wide, narrow) = (t * (group * d + GAP), t * (d + GAP));
        Case { d, group, t, q: values(wide, 1), k: values(narrow, 2), v: values(narrow, 3), d_out: values(wide, 4) }
    }

    fn wide<'a>(&self, x: &'a [f32]) -> View<'a, f32> {
        View::new(x, self.t, self.group * self.d + GAP, self.group * self.d)
    }
    fn narrow<'a>(&self, x: &'a [f32]) -> View<'a, f32> {
        View::new(x, self.t, self.d + GAP, self.d)
    }

    /// d_q, d_k, d_v from the parts in this order.
    fn run(&self, isa: Isa, parts: &[AttentionPart]) -> [Vec<f32>; 3] {
        let (d, group, t) = (self.d, self.group, self.t);
        let scale = 1.0 / (d as f32).sqrt();
        let (mut out, mut lse) = (vec![0.0; self.q.len()], vec![0.0; t * group]);
        let positions: Vec<u32> = (0..t as u32).collect();
        attention_forward(
            isa,
            &self.wide(&self.q),
            &positions,
            &self.narrow(&self.k),
            &self.narrow(&self.v),
            scale,
            &mut ViewMut::new(&mut out, t, group * d + GAP, group * d),
            Some(&mut ViewMut::new(&mut lse, t, group, group)),
            &mut vec![f32::NAN; attention_forward_scratch(t, group, d)],
        );
        let saved = AttentionSaved {
            q: self.wide(&self.q),
            keys: self.narrow(&self.k),
            values: self.narrow(&self.v),
            out: self.wide(&out),
            log_sum_exp: View::new(&lse, t, group, group),
            d_out: self.wide(&self.d_out),
            scale,
        };
        let mut grads = [vec![f32::NAN; self.q.len()], vec![f32::NAN; self.k.len()], vec![f32::NAN; self.k.len()]];
        let [d_q, d_k, d_v] = &mut grads;
        for &part in parts {
            let mut scratch = vec![f32::NAN; attention_backward_scratch(d)];
            let mut d_q = ViewMut::new(d_q, t, group * d + GAP, group * d);
            let mut d_k = ViewMut::new(d_k, t, d + GAP, d);
            let mut d_v = ViewMut::new(d_v, t, d + GAP, d);
            attention_backward(isa, &saved, part, &mut d_q, &mut d_k, &mut d_v, &mut scratch);
        }
        grads
    }

    /// The gradients from their definition, in f64, without gaps.
    fn reference(&self) -> [Vec<f64>; 3] {
        let (d, group, t) = (self.d, self.group, self.t);
        let scale = 1.0 / (d as f64).sqrt();
        let mut grads = [vec![0.0; t * group * d], vec![0.0; t * d], vec![0.0; t * d]];
        let at = |x: &[f32], width: usize, row: usize, j: usize| f64::from(x[row * (width + GAP) + j]);
        for head in 0..group {
            for row in 0..t {
                let q = |j: usize| at(&self.q, group * d, row, head * d + j);
                let up = |j: usize| at(&self.d_out, group * d, row, head * d + j);
                let scores: Vec<f64> =
                    (0..=row).map(|key| scale * (0..d).map(|j| q(j) * at(&self.k, d, key, j)).sum::<f64>()).collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|x| (x - most).exp()).sum();
                let p: Vec<f64> = scores.iter().map(|x| (x - most).exp() / sum).collect();
                let dp: Vec<f64> =
                    (0..=row).map(|key| (0..d).map(|j| up(j) * at(&self.v, d, key, j)).sum::<f64>()).collect();
                let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for key in 0..=row {
                    let ds = p[key] * (dp[key] - delta) * scale;
                    for j in 0..d {
                        grads[0][row * group * d + head * d + j] += ds * at(&self.k, d, key, j);
                        grads[1][key * d + j] += ds * q(j);
                        grads[2][key * d + j] += p[key] * up(j);
                    }
                }
            }
        }
        grads
    }
}

#[test]
fn gradients_match_f64() {
    for (d, group, t) in [(64, 1, 130), (16, 3, 70), (20, 2, 65), (13, 1, 64), (80, 1, 5), (1, 2, 66), (9, 2, 600)] {
        let case = Case::new(d, group, t);
        let want = case.reference();
        for isa in Isa::available() {
            let got = case.run(isa, &[AttentionPart::All]);
            for (k, width) in [group * d, d, d].into_iter().enumerate() {
                for row in 0..t {
                    for j in 0..width {
                        let (got, want) = (f64::from(got[k][row * (width + GAP) + j]), want[k][row * width + j]);
                        let ok = (got - want).abs() < 2e-5 * (1.0 + want.abs());
                        assert!(ok, "{isa:?} gradient {k} d {d} group {group} row {row}: {got} for {want}");
                    }
                    let gap = &got[k][row * (width + GAP) + width..][..GAP];
                    assert!(gap.iter().all(|x| x.is_nan()), "wrote beyond the row");
                }
            }
        }
    }
}

#[test]
fn any_split_into_parts_gives_the_same_bits() {
    for (d, group, t) in [(64, 1, 150), (24, 3, 129), (8, 2, 600), (8, 1, 1100)] {
        let case = Case::new(d, group, t);
        for isa in Isa::available() {
            let whole = case.run(isa, &[AttentionPart::All]);
            let tiles = t.div_ceil(GRADIENT_TILE);
            let mut parts: Vec<AttentionPart> = (0..tiles).rev().map(AttentionPart::Queries).collect();
            parts.extend((0..tiles).rev().map(AttentionPart::Keys));
            let pieces = case.run(isa, &parts);
            for (a, b) in whole.iter().zip(&pieces) {
                assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa:?} d {d} group {group}");
            }
        }
    }
}
