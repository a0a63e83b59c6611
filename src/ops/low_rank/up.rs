//! `low_rank_up(y…, low; B)`: y + low·Bᵀ, and the gradient of low.

use super::{tile_rows, transpose_row, turned_tiles, widths};
use crate::graph::{Attr, Attrs, Init, Layout, TensorId};
use crate::kernels::elementwise::copy;
use crate::kernels::low_rank::{add_product, project};
use crate::kernels::vector::map::Write;
use crate::ops::{
    Capacity, Case, Cost, GradBuilder, Kernel, Op, Operands, ParamSpec, RefTensor, Scratch, Signature, rule,
};
use crate::tensor::{RowExtent, Shape, TensorType};

/// The product with B, added to y.
pub struct LowRankUp;
/// `low_rank_up.d_low(B, d…)`: d·B, where the parts of d stand side by side.
pub struct LowRankDLow;

/// Widths of the parts of y and the rank.
fn form(operands: &[TensorType]) -> Result<(Vec<usize>, usize), String> {
    if operands.len() < 3 {
        return Err(format!("takes at least 3 operands, not {}", operands.len()));
    }
    let parts = operands.len() - 2;
    let (widths, rank) = (widths(operands, 0..parts)?, rule::width(operands, parts)?);
    rule::fixed(operands, parts + 1, &[widths.iter().sum(), rank])?;
    Ok((widths, rank))
}

impl Op for LowRankUp {
    fn keyword(&self) -> &'static str {
        "low_rank_up"
    }
    fn doc(&self) -> &'static str {
        "low_rank_up(y…, low, PATH): y + low·Bᵀ with B [N, R], the second half of an adapter; one result for each y."
    }
    fn params(&self, _attrs: &Attrs, inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        let parts = inputs.len().saturating_sub(1);
        let n = widths(inputs, 0..parts)?.iter().sum();
        let shape = Shape::new([n, rule::width(inputs, parts)?]);
        Ok(vec![ParamSpec { suffix: "weight", shape, init: Init::Zeros, decay: true, layout: Layout::Plain }])
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(form(operands)?.0.into_iter().map(|w| rule::rows_like(operands, w)).collect())
    }
    fn may_alias(&self, _sig: &Signature, operand: usize, output: usize) -> bool {
        operand == output
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let operands = g.forward().operands.len();
        let mut grads = vec![None; operands];
        if g.d_outputs.iter().all(Option::is_none) {
            return Ok(grads);
        }
        let d: Vec<TensorId> = g.d_outputs.iter().flatten().copied().collect();
        if d.len() != g.d_outputs.len() {
            return Err("a part of its outputs has no gradient; leave the part out of the split".into());
        }
        let (low, weight) = (operands - 2, operands - 1);
        d.iter().enumerate().for_each(|(i, &d)| grads[i] = Some(d));
        if g.wants[weight] {
            let mut inputs = vec![g.operand(low)];
            inputs.extend(&d);
            inputs.extend(g.take_existing(weight));
            let attrs = Attrs::new().with("parts", Attr::Int(d.len() as i64));
            grads[weight] = Some(g.emit("low_rank.d_weight", inputs, attrs)?[0]);
        }
        if g.wants[low] {
            let mut inputs = vec![g.operand(weight)];
            inputs.extend(&d);
            grads[low] = Some(g.emit("low_rank_up.d_low", inputs, Attrs::new())?[0]);
        }
        Ok(grads)
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let Ok((widths, rank)) = form(&sig.operands) else { return Cost::default() };
        let n = (rows * widths.iter().sum::<usize>()) as f64;
        Cost { flops: 2.0 * n * rank as f64, bytes: 8.0 * n }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let (widths, rank) = form(&sig.operands)?;
        Ok(Box::new(UpKernel { widths, rank }))
    }
    fn reference(&self, _sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let parts = x.len() - 2;
        let (low, b, mut first) = (&x[parts], &x[parts + 1], 0);
        let mut results = x[..parts].to_vec();
        for y in &mut results {
            for (i, value) in y.data.iter_mut().enumerate() {
                let (t, n) = (i / y.width, first + i % y.width);
                let (low, b) = (&low.data[t * low.width..][..low.width], &b.data[n * low.width..][..low.width]);
                *value += low.iter().zip(b).map(|(l, b)| l * b).sum::<f64>();
            }
            first += y.width;
        }
        Some(results)
    }
    fn cases(&self) -> Vec<Case> {
        let rows = |n: usize| TensorType { extent: RowExtent::Step, ..rule::fixed_type(&[n]) };
        let case = |name, inputs: &[usize]| Case {
            name,
            attrs: Attrs::new(),
            inputs: inputs.iter().map(|&n| rows(n)).collect(),
            slots: 2,
            rows: 29,
            int_limit: 0,
        };
        vec![case("rank_8", &[45, 8]), case("parts", &[16, 21, 3])]
    }
}

/// Phase 0 turns B round; phase 1 adds products.
struct UpKernel {
    widths: Vec<usize>,
    rank: usize,
}

impl Kernel for UpKernel {
    fn scratch(&self, _capacity: &Capacity) -> Scratch {
        Scratch { shared: 4 * self.rank * self.widths.iter().sum::<usize>(), per_worker: 0 }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        turned_tiles(o, self.rank, phase)
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let (parts, n) = (self.widths.len(), self.widths.iter().sum());
        if phase == 0 {
            return transpose_row(o, parts + 1, n, tile);
        }
        let rows = tile_rows(tile, o.rows().len());
        let (low, b) = (o.input(parts).slice_rows(rows.clone()), o.shared_rows(0, self.rank, n));
        let mut first = 0;
        for (part, &width) in self.widths.iter().enumerate() {
            let mut y = o.output(part, rows.clone(), 0..width);
            if !o.in_place(part, part) {
                copy(&o.input(part).slice_rows(rows.clone()), &mut y);
            }
            add_product(o.isa(), &low, &b.columns(first, width), 1.0, y, Write::Add);
            first += width;
        }
    }
}

impl Op for LowRankDLow {
    fn keyword(&self) -> &'static str {
        "low_rank_up.d_low"
    }
    fn doc(&self) -> &'static str {
        "low_rank_up.d_low(B, d…): d·B, where the parts of d stand side by side."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let n: usize = widths(operands, 1..operands.len())?.iter().sum();
        let rank = match operands.first().map(|t| t.shape.dims()) {
            Some(&[rows, rank]) if rows == n && rank > 0 && operands.len() > 1 => rank,
            _ => return Err(format!("B must have shape [{n}, rank], with d after it")),
        };
        rule::fixed(operands, 0, &[n, rank])?;
        Ok(vec![rule::rows_like(&operands[1..], rank)])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let n = sig.operands[0].shape.elements();
        Cost { flops: 2.0 * (rows * n) as f64, bytes: 4.0 * (rows * sig.operands[0].shape.dims()[0]) as f64 }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let widths = widths(&sig.operands, 1..sig.operands.len())?;
        Ok(Box::new(DLowKernel { widths, rank: sig.outputs[0].shape.elements() }))
    }
}

/// Phase 0 turns B round; phase 1 projects.
struct DLowKernel {
    widths: Vec<usize>,
    rank: usize,
}

impl Kernel for DLowKernel {
    fn scratch(&self, _capacity: &Capacity) -> Scratch {
        let n: usize = self.widths.iter().sum();
        // One part of d after the other is projected on its own and added, so a worker holds the projection of a tile.
        let sums = if self.widths.len() > 1 { super::ROWS * self.rank } else { 0 };
        Scratch { shared: 4 * self.rank * n, per_worker: 4 * sums }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        turned_tiles(o, self.rank, phase)
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let n = self.widths.iter().sum();
        if phase == 0 {
            return transpose_row(o, 0, n, tile);
        }
        let rows = tile_rows(tile, o.rows().len());
        let b = o.shared_rows(0, self.rank, n);
        let mut first = 0;
        for (part, &width) in self.widths.iter().enumerate() {
            let d = o.input(1 + part).slice_rows(rows.clone());
            let mut out = o.output(0, rows.clone(), 0..self.rank);
            if part == 0 {
                project(o.isa(), &d, &b.columns(first, width), 1.0, out);
            } else {
                let mut scratch = o.scratch();
                let sums = &mut scratch.row_mut(0)[..rows.len() * self.rank];
                let view = crate::kernels::view::ViewMut::new(sums, rows.len(), self.rank, self.rank);
                project(o.isa(), &d, &b.columns(first, width), 1.0, view);
                for (i, sums) in sums.chunks(self.rank).enumerate() {
                    crate::kernels::elementwise::add_slices(o.isa(), out.row_mut(i), sums);
                }
            }
            first += width;
        }
    }
}
