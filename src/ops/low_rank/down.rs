//! `low_rank_down(x; A)`: low = factor·x·Aᵀ, and the gradient of x.

use super::{factor, matrix, row_tiles, tile_rows};
use crate::graph::{Attr, Attrs, Init, Layout, TensorId};
use crate::kernels::low_rank::{add_product, project};
use crate::kernels::vector::map::Write;
use crate::ops::{Case, Cost, GradBuilder, Kernel, Op, Operands, ParamSpec, RefTensor, Signature, rule};
use crate::tensor::{RowExtent, Shape, TensorType};

/// The product with A.
pub struct LowRankDown;
/// `low_rank_down.d_input(A, d_low[, d])`: factor·d_low·A, added to d when given.
pub struct LowRankDInput;

impl Op for LowRankDown {
    fn keyword(&self) -> &'static str {
        "low_rank_down"
    }
    fn doc(&self) -> &'static str {
        "low_rank_down(x, PATH, rank = R, factor = …): factor·x·Aᵀ with A [R, K], the first half of an adapter."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["rank", "factor"]
    }
    fn params(&self, attrs: &Attrs, inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        let k = rule::width(inputs, 0)?;
        // The variance of uniform in ±1/√K, which is customary.
        let init = Init::Normal(1.0 / (3.0 * k as f64).sqrt());
        let shape = Shape::new([attrs.size("rank")?, k]);
        Ok(vec![ParamSpec { suffix: "weight", shape, init, decay: true, layout: Layout::Plain }])
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 2)?;
        factor(attrs)?;
        let (k, rank) = (rule::width(operands, 0)?, attrs.size("rank")?);
        if rank == 0 {
            return Err("rank = 0 must be at least 1".into());
        }
        rule::fixed(operands, 1, &[rank, k])?;
        Ok(vec![rule::rows_like(operands, rank)])
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None; 2]) };
        let attrs = match g.attrs().get("factor") {
            Some(factor) => Attrs::new().with("factor", factor.clone()),
            None => Attrs::new(),
        };
        let mut grads = vec![None; 2];
        if g.wants[1] {
            let operands = [Some(d), Some(g.operand(0)), g.take_existing(1)];
            grads[1] = Some(g.emit("low_rank.d_weight", operands.into_iter().flatten().collect(), attrs.clone())?[0]);
        }
        if g.wants[0] {
            let operands = [Some(g.operand(1)), Some(d), g.take_existing(0)];
            grads[0] = Some(g.emit("low_rank_down.d_input", operands.into_iter().flatten().collect(), attrs)?[0]);
        }
        Ok(grads)
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let (n, k) = ((rows * sig.operands[1].shape.elements()) as f64, sig.operands[0].shape.elements());
        Cost { flops: 2.0 * n, bytes: 4.0 * (rows * k) as f64 }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(DownKernel { factor: factor(&sig.attrs)?, k: rule::width(&sig.operands, 0)? }))
    }
    fn reference(&self, sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let (factor, k) = (sig.attrs.float("factor").ok()?, x[0].width);
        let dot = |x: &[f64], a: &[f64]| factor * x.iter().zip(a).map(|(x, a)| x * a).sum::<f64>();
        let data = x[0].data.chunks(k).flat_map(|row| x[1].data.chunks(k).map(move |a| dot(row, a))).collect();
        Some(vec![RefTensor { rows: x[0].rows, width: x[1].data.len() / k, data }])
    }
    fn cases(&self) -> Vec<Case> {
        let ty = TensorType { extent: RowExtent::Step, ..rule::fixed_type(&[37]) };
        let case = |name, rank| Case {
            name,
            attrs: Attrs::new().with("rank", Attr::Int(rank)).with("factor", Attr::Float(0.75)),
            inputs: vec![ty.clone()],
            slots: 2,
            rows: 29,
            int_limit: 0,
        };
        vec![case("rank_3", 3), case("rank_8", 8)]
    }
}

struct DownKernel {
    factor: f32,
    k: usize,
}

impl Kernel for DownKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let out = o.output(0, rows.clone(), 0..o.output_width(0));
        project(o.isa(), &o.input(0).slice_rows(rows), &matrix(o, 1, self.k), self.factor, out);
    }
}

impl Op for LowRankDInput {
    fn keyword(&self) -> &'static str {
        "low_rank_down.d_input"
    }
    fn doc(&self) -> &'static str {
        "low_rank_down.d_input(A, d_low[, d], factor = …): factor·d_low·A, added to d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["factor"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.len() != 3 {
            rule::arity(operands, 2)?;
        }
        factor(attrs)?;
        let rank = rule::width(operands, 1)?;
        let k = match operands[0].shape.dims() {
            &[r, k] if r == rank => k,
            _ => return Err(format!("A has shape {}, but d_low has features [{rank}]", operands[0].shape)),
        };
        rule::fixed(operands, 0, &[rank, k])?;
        if operands.len() == 3 && rule::width(operands, 2)? != k {
            return Err(format!("the gradient to add to has type {}, but x has features [{k}]", operands[2]));
        }
        Ok(vec![rule::rows_like(&operands[1..], k)])
    }
    fn may_alias(&self, _sig: &Signature, operand: usize, _output: usize) -> bool {
        operand == 2
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let n = rows as f64 * sig.operands[0].shape.elements() as f64;
        Cost { flops: 2.0 * n, bytes: 8.0 * (rows * sig.outputs[0].shape.elements()) as f64 }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let k = sig.outputs[0].shape.elements();
        Ok(Box::new(DInputKernel { factor: factor(&sig.attrs)?, k, existing: sig.operands.len() == 3 }))
    }
}

struct DInputKernel {
    factor: f32,
    k: usize,
    existing: bool,
}

impl Kernel for DInputKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let mut out = o.fresh_output(0, rows.clone(), 0..self.k);
        if self.existing && !o.in_place(2, 0) {
            crate::kernels::elementwise::copy(&o.input(2).slice_rows(rows.clone()), &mut out);
        }
        let write = if self.existing { Write::Add } else { Write::Overwrite };
        add_product(o.isa(), &o.input(1).slice_rows(rows), &matrix(o, 0, self.k), self.factor, out, write);
    }
}
