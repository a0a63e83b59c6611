//! `dropout(x; rate)`: y = x·mask / (1 − rate), with a mask of independent bits that are 0 with probability `rate`.
//!
//! x, y: rows × C. In a training graph the op also takes the run-time inputs `hyper` and `counters` and a number `node`; the mask is a
//! function of (seed, step, node, sample, position, element). dx = dy·mask / (1 − rate): the same op on the gradient.
//! Without these operands (inference), or when the run does not train, y = x.

use super::pointwise::{output_with, pointwise_cost, row_case};
use super::tiling::{row_tiles, tile_rows};
use super::{Case, Cost, GradBuilder, Kernel, Op, Operands, RefTensor, Signature, hyper, rule};
use crate::graph::{Attr, Attrs, TensorId};
use crate::kernels::dropout::{Dropout, dropout_inplace};
use crate::kernels::philox::{Philox, Purpose};
use crate::kernels::view::InOut;
use crate::tensor::TensorType;

/// Dropout.
pub struct DropoutOp;

fn rate(attrs: &Attrs) -> Result<f64, String> {
    match attrs.float("rate")? {
        r if (0.0..1.0).contains(&r) => Ok(r),
        r => Err(format!("rate = {r} must be at least 0 and below 1")),
    }
}

/// The generator of one node in one step.
fn generator(counters: &[i32], node: usize) -> Philox {
    let half = |i: usize| u64::from(counters[i] as u32);
    let seed = half(hyper::SEED_LOW) | half(hyper::SEED_HIGH) << 32;
    Philox::new(seed).derive(Purpose::Dropout, half(hyper::STEP), node as u32)
}

impl Op for DropoutOp {
    fn keyword(&self) -> &'static str {
        "dropout"
    }
    fn doc(&self) -> &'static str {
        "dropout(x, rate = …): zeroes elements with this probability while training and scales the others by 1 / (1 − rate)."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["rate", "node"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rate(attrs)?;
        attrs.size_or("node", 0)?;
        if operands.len() > 1 {
            rule::arity(operands, 3)?;
            hyper::is_hyper(operands, 1)?;
            hyper::is_counters(operands, 2)?;
        }
        Ok(vec![rule::rows_like(operands, rule::width(operands, 0)?)])
    }
    fn may_alias(&self, _sig: &Signature, operand: usize, _output: usize) -> bool {
        operand == 0
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let mut grads = vec![None; g.forward().operands.len()];
        if let Some(d) = g.d_outputs[0] {
            let mut operands = g.forward().operands.clone();
            operands[0] = d;
            let attrs = g.attrs();
            grads[0] = Some(g.emit("dropout", operands, attrs)?[0]);
        }
        Ok(grads)
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        pointwise_cost(sig, rows, 15.0, 2.0)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let counted = sig.operands.len() == 3;
        Ok(Box::new(DropoutKernel { rate: rate(&sig.attrs)?, node: sig.attrs.size_or("node", 0)?, counted }))
    }
    fn reference(&self, sig: &Signature, case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let (rate, node) = (rate(&sig.attrs).ok()?, sig.attrs.size_or("node", 0).ok()?);
        let mut y = x[0].clone();
        if x.len() == 1 || x[1].data[hyper::TRAINING] == 0.0 {
            return Some(vec![y]);
        }
        let counters: Vec<i32> = x[2].data.iter().map(|&c| c as i32).collect();
        let generator = generator(&counters, node);
        let threshold = (rate * (1u64 << 32) as f64).round() as u64;
        for (row, values) in y.data.chunks_mut(x[0].width).enumerate() {
            let sample = counters[hyper::FIRST_SAMPLE] as u32 + (row / case.rows) as u32;
            for (i, v) in values.iter_mut().enumerate() {
                let word = generator.block([sample, (row % case.rows) as u32, (i / 4) as u32, 0])[i % 4];
                *v = if u64::from(word) < threshold { 0.0 } else { *v / (1.0 - rate) };
            }
        }
        Some(vec![y])
    }
    fn cases(&self) -> Vec<Case> {
        let mut cases = row_case(1);
        cases[0].attrs = Attrs::new().with("rate", Attr::Float(0.3)).with("node", Attr::Int(5));
        let mut counted = cases[0].clone();
        counted.name = "counted";
        counted.inputs.extend([hyper::hyper_type(), hyper::counters_type()]);
        counted.int_limit = 1000;
        cases.push(counted);
        cases
    }
}

struct DropoutKernel {
    rate: f64,
    node: usize,
    counted: bool,
}

impl Kernel for DropoutKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let mut out = output_with(o, 0, rows.clone());
        if !self.counted || o.fixed(1)[hyper::TRAINING] == 0.0 {
            return;
        }
        let counters = o.fixed_integers(2);
        let node = Dropout::new(generator(counters, self.node), self.rate);
        let first = counters[hyper::FIRST_SAMPLE] as u32;
        for (i, row) in rows.enumerate() {
            let sample = first + o.rows().kept()[row] / o.context() as u32;
            let values = out.row_mut(i);
            let n = values.len();
            let position = &o.rows().positions()[row..row + 1];
            dropout_inplace(o.isa(), &node, &[sample], position, &mut InOut::new(values, 1, n, n));
        }
    }
}
