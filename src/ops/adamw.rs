//! `adamw(p, g, m, v, hyper, counters[, norm])`: one update of a parameter and its moments, in place (Loshchilov and Hutter, 2019).
//!
//! All tensors have the parameter's shape. With `moments = "bf16"` m and v are bf16, rounded stochastically with random numbers that depend on
//! seed, step, `number` (of the parameter) and element alone. With `norm` (of `grad_norm`) the gradient is scaled for clipping. `clear = true`
//! zeroes the gradient on the way, for gradients that add up over micro-batches.

use super::{Cost, Kernel, Op, Operands, Signature, hyper, rule};
use crate::graph::Attrs;
use crate::kernels::adamw::{AdamW, AdamWSettings, adamw, adamw_and_clear, adamw_bf16};
use crate::kernels::philox::{Philox, Purpose};
use crate::tensor::{DType, TensorType};
use std::ops::Range;

/// The optimiser's update.
pub struct AdamWOp;

/// Elements of one tile: few enough that a matrix of 10^5 elements is shared evenly. Adjacent tiles are updated in one go.
const TILE: usize = 1 << 13;

/// Element type of the moments.
fn moments(attrs: &Attrs) -> Result<DType, String> {
    match attrs.str_or("moments", "f32")? {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        other => Err(format!("moments = \"{other}\" is unknown; use \"f32\" or \"bf16\"")),
    }
}

fn settings(attrs: &Attrs) -> Result<AdamWSettings, String> {
    let number = |name: &str, least: f64, below: f64| match attrs.float(name)? {
        x if x >= least && x < below => Ok(x),
        x => Err(format!("{name} = {x} must be at least {least} and below {below}")),
    };
    Ok(AdamWSettings {
        learning_rate: 0.0,
        beta1: number("beta1", 0.0, 1.0)?,
        beta2: number("beta2", 0.0, 1.0)?,
        eps: number("eps", 0.0, f64::INFINITY)?,
        weight_decay: number("weight_decay", 0.0, f64::INFINITY)?,
        step: 1,
        gradient_scale: 1.0,
    })
}

impl Op for AdamWOp {
    fn keyword(&self) -> &'static str {
        "adamw"
    }
    fn doc(&self) -> &'static str {
        "adamw(p, g, m, v, hyper, counters[, norm], beta1, beta2, eps, weight_decay, clear, moments, number): updates p, m and v in place. Made by passes."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["beta1", "beta2", "eps", "weight_decay", "clear", "moments", "number"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        settings(attrs)?;
        attrs.bool_or("clear", false)?;
        if operands.len() != 7 {
            rule::arity(operands, 6)?;
        }
        let dims = operands[0].shape.dims();
        (0..2).try_for_each(|i| rule::fixed(operands, i, dims))?;
        let stored = moments(attrs)?;
        (2..4).try_for_each(|i| rule::fixed_as(operands, i, stored, dims))?;
        attrs.size_or("number", 0)?;
        hyper::is_hyper(operands, 4)?;
        hyper::is_counters(operands, 5)?;
        if operands.len() == 7 {
            rule::fixed(operands, 6, &[2])?;
        }
        Ok(Vec::new())
    }
    fn mutates(&self, sig: &Signature, operand: usize) -> bool {
        match operand {
            0 | 2 | 3 => true,
            1 => sig.attrs.bool_or("clear", false) == Ok(true),
            _ => false,
        }
    }
    fn cost(&self, sig: &Signature, _rows: usize, _context: usize) -> Cost {
        let n = sig.operands[0].shape.elements() as f64;
        let moments = if sig.operands[2].dtype == DType::BF16 { 8.0 } else { 16.0 };
        Cost { flops: 15.0 * n, bytes: (12.0 + moments) * n }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(UpdateKernel {
            settings: settings(&sig.attrs)?,
            clear: sig.attrs.bool_or("clear", false)?,
            clip: sig.operands.len() == 7,
            len: sig.operands[0].shape.elements(),
            random: match moments(&sig.attrs)? {
                DType::BF16 => Some(sig.attrs.size_or("number", 0)? as u32),
                _ => None,
            },
        }))
    }
}

struct UpdateKernel {
    settings: AdamWSettings,
    clear: bool,
    clip: bool,
    len: usize,
    /// With moments in bf16: whose random numbers they are rounded with.
    random: Option<u32>,
}

impl UpdateKernel {
    fn run_bf16(&self, o: &dyn Operands, constants: &AdamW, number: u32, elements: Range<usize>) {
        let counters = o.fixed_integers(5);
        let half = |i: usize| u64::from(counters[i] as u32);
        let step = counters[hyper::STEP].max(1) as u64;
        let seed = half(hyper::SEED_HIGH) << 32 | half(hyper::SEED_LOW);
        let random = Philox::new(seed).derive(Purpose::Rounding, step, number);
        let mut p = o.fixed_in_place(0, elements.clone());
        let [mut m, mut v] = [2, 3].map(|i| o.fixed_in_place_bf16(i, elements.clone()));
        let (p, m, v, first) = (p.row_mut(0), m.row_mut(0), v.row_mut(0), elements.start as u64);
        if self.clear {
            let mut g = o.fixed_in_place(1, elements);
            adamw_bf16(o.isa(), constants, p, g.row(0), m, v, &random, first);
            g.row_mut(0).fill(0.0);
        } else {
            adamw_bf16(o.isa(), constants, p, &o.fixed(1)[elements], m, v, &random, first);
        }
    }
}

impl Kernel for UpdateKernel {
    fn tiles(&self, _o: &dyn Operands, _phase: usize) -> usize {
        self.len.div_ceil(TILE)
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        self.run_tiles(o, phase, tile..tile + 1);
    }

    fn run_tiles(&self, o: &dyn Operands, _phase: usize, tiles: Range<usize>) {
        let elements = tiles.start * TILE..(tiles.end * TILE).min(self.len);
        let constants = AdamW::new(&AdamWSettings {
            learning_rate: f64::from(o.fixed(4)[hyper::LEARNING_RATE]),
            step: o.fixed_integers(5)[hyper::STEP].max(1) as u64,
            gradient_scale: if self.clip { o.fixed(6)[1] } else { 1.0 },
            ..self.settings
        });
        if let Some(number) = self.random {
            return self.run_bf16(o, &constants, number, elements);
        }
        let [mut p, mut m, mut v] = [0, 2, 3].map(|i| o.fixed_in_place(i, elements.clone()));
        if self.clear {
            let mut g = o.fixed_in_place(1, elements);
            adamw_and_clear(o.isa(), &constants, p.row_mut(0), g.row_mut(0), m.row_mut(0), v.row_mut(0));
        } else {
            let g = &o.fixed(1)[elements];
            adamw(o.isa(), &constants, p.row_mut(0), g, m.row_mut(0), v.row_mut(0));
        }
    }
}
