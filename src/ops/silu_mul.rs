//! `silu_mul(gate, up)`: y = SiLU(gate)·up, element by element: the gate of a gated MLP in one pass over memory.
//!
//! gate, up, y: rows × C. d_gate = dy·up·SiLU'(gate), d_up = dy·SiLU(gate).

use super::pointwise::{BinaryKernel, pointwise_cost, row_case};
use super::tiling::{row_tiles, tile_rows};
use super::{Case, Cost, GradBuilder, Kernel, Op, Operands, RefTensor, Signature, rule};
use crate::graph::{Attrs, TensorId};
use crate::kernels::activation;
use crate::kernels::vector::map::Write;
use crate::tensor::TensorType;

/// SiLU of one tensor times another.
pub struct SiluMul;
/// `silu_mul.d_inputs(d_out, gate, up)`: gradients of both.
pub struct SiluMulDInputs;

impl Op for SiluMul {
    fn keyword(&self) -> &'static str {
        "silu_mul"
    }
    fn doc(&self) -> &'static str {
        "silu_mul(gate, up): silu(gate) · up, element by element."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 2)?;
        Ok(vec![rule::rows_like(operands, rule::same_width(operands, 0, 1)?)])
    }
    fn may_alias(&self, _sig: &Signature, operand: usize, _output: usize) -> bool {
        operand == 0
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None; 2]) };
        let operands = vec![d, g.operand(0), g.operand(1)];
        let gradients = g.emit("silu_mul.d_inputs", operands, Attrs::new())?;
        Ok(gradients.into_iter().zip(&g.wants).map(|(d, &wanted)| wanted.then_some(d)).collect())
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 16.0, 3.0)
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(BinaryKernel {
            rows: activation::silu_mul,
            in_place: activation::silu_mul_inplace,
            commutes: false,
        }))
    }
    fn reference(&self, _sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let silu = |v: f64| v / (1.0 + (-v).exp());
        let data = x[0].data.iter().zip(&x[1].data).map(|(&gate, up)| silu(gate) * up).collect();
        Some(vec![RefTensor { data, ..x[0].clone() }])
    }
    fn cases(&self) -> Vec<Case> {
        row_case(2)
    }
}

impl Op for SiluMulDInputs {
    fn keyword(&self) -> &'static str {
        "silu_mul.d_inputs"
    }
    fn doc(&self) -> &'static str {
        "silu_mul.d_inputs(d_out, gate, up): d_out · up · silu'(gate) and d_out · silu(gate)."
    }
    fn infer(&self, _attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 3)?;
        rule::same_width(operands, 0, 2)?;
        let ty = rule::rows_like(operands, rule::same_width(operands, 0, 1)?);
        Ok(vec![ty.clone(), ty])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 22.0, 5.0)
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(DInputsKernel))
    }
}

struct DInputsKernel;

impl Kernel for DInputsKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let operand = |i: usize| o.input(i).slice_rows(rows.clone());
        let output = |i: usize| o.fresh_output(i, rows.clone(), 0..o.output_width(i));
        let (d, gate, up) = (operand(0), operand(1), operand(2));
        activation::silu_mul_backward(o.isa(), &gate, &up, &d, &mut output(0), &mut output(1), Write::Overwrite);
    }
}
