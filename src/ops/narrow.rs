//! `narrow(x, …; dtype)`: rows rounded to `f16` or `bf16`, to nearest even; one output per operand.
//!
//! Attention reads its keys and values in this form: half the memory and half the traffic per row that is kept. Inference only.

use super::tiling::{row_tiles, tile_rows};
use super::{Cost, HalfRows, Kernel, Op, Operands, Signature, rule};
use crate::graph::Attrs;
use crate::kernels::narrow::narrow_rows;
use crate::tensor::{DType, TensorType};

/// Rounding of keys and values.
pub struct Narrow;

/// Most operands of one node.
const MOST: usize = 8;

impl Op for Narrow {
    fn keyword(&self) -> &'static str {
        "narrow"
    }
    fn doc(&self) -> &'static str {
        "narrow(x, …, dtype = \"f16\" | \"bf16\"): rows rounded to nearest even, for attention's keys and values. Inference only."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["dtype"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.is_empty() || operands.len() > MOST {
            return Err(format!("takes 1 to {MOST} operands, not {}", operands.len()));
        }
        let dtype = match attrs.str_or("dtype", "bf16")? {
            "f16" => DType::F16,
            "bf16" => DType::BF16,
            other => return Err(format!("dtype = \"{other}\" is unknown; use \"f16\" or \"bf16\"")),
        };
        let output = |i| Ok(TensorType { dtype, ..rule::rows_like(&operands[i..=i], rule::width(operands, i)?) });
        (0..operands.len()).map(output).collect()
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let elements: usize = sig.operands.iter().map(|t| t.shape.elements()).sum();
        Cost { flops: 0.0, bytes: 6.0 * (rows * elements) as f64 }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(NarrowKernel { operands: sig.operands.len() }))
    }
}

struct NarrowKernel {
    operands: usize,
}

impl Kernel for NarrowKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        for i in 0..self.operands {
            let x = o.input(i).slice_rows(rows.clone());
            match o.half_output(i, rows.clone()) {
                HalfRows::F16(mut out) => narrow_rows(o.isa(), &x, &mut out),
                HalfRows::Bf16(mut out) => narrow_rows(o.isa(), &x, &mut out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attr;
    use crate::tensor::RowExtent;

    #[test]
    fn types_are_checked_and_named() {
        let rows = |w: usize| TensorType { extent: RowExtent::Step, ..rule::fixed_type(&[w]) };
        let attrs = |d: &str| Attrs::new().with("dtype", Attr::Str(d.into()));
        let outputs = Narrow.infer(&attrs("f16"), &[rows(8), rows(5)]).expect("fits");
        assert_eq!((outputs[0].dtype, outputs[1].shape.elements()), (DType::F16, 5));
        assert!(Narrow.infer(&attrs("q8_0"), &[rows(8)]).expect_err("no such type").contains("q8_0"));
        assert!(Narrow.infer(&attrs("f16"), &[]).expect_err("nothing to round").contains("operands"));
        assert!(Narrow.infer(&attrs("f16"), &[outputs[0].clone()]).expect_err("rounded twice").contains("f32 rows"));
    }
}
