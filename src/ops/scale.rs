//! `scale(x; factor)`: y = factor·x, element by element. x, y: rows × C. dx = factor·dy.

use super::pointwise::{map, output_with, pointwise_cost, row_case};
use super::tiling::{row_tiles, tile_rows};
use super::{Case, Cost, GradBuilder, Kernel, Op, Operands, RefTensor, Signature, rule};
use crate::graph::{Attr, Attrs, TensorId};
use crate::kernels::elementwise::scale_inplace;
use crate::tensor::TensorType;

/// Product with a constant.
pub struct Scale;

fn factor(attrs: &Attrs) -> Result<f64, String> {
    match attrs.float("factor")? {
        f if f.is_finite() => Ok(f),
        f => Err(format!("factor = {f} must be finite")),
    }
}

impl Op for Scale {
    fn keyword(&self) -> &'static str {
        "scale"
    }
    fn doc(&self) -> &'static str {
        "scale(x, factor = …): factor·x, element by element."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["factor"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 1)?;
        factor(attrs)?;
        Ok(vec![rule::rows_like(operands, rule::width(operands, 0)?)])
    }
    fn may_alias(&self, _sig: &Signature, _operand: usize, _output: usize) -> bool {
        true
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None]) };
        let attrs = g.attrs();
        Ok(vec![Some(g.emit("scale", vec![d], attrs)?[0])])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 1.0, 2.0)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(ScaleKernel { factor: factor(&sig.attrs)? as f32 }))
    }
    fn reference(&self, sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let factor = factor(&sig.attrs).ok()?;
        Some(vec![map(&x[0], |v| factor * v)])
    }
    fn cases(&self) -> Vec<Case> {
        let mut cases = row_case(1);
        cases[0].attrs = Attrs::new().with("factor", Attr::Float(-0.75));
        cases
    }
}

struct ScaleKernel {
    factor: f32,
}

impl Kernel for ScaleKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        scale_inplace(o.isa(), &mut output_with(o, 0, rows), self.factor);
    }
}
