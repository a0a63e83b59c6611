//! `low_rank.d_weight`: the gradient of A or B, a sum over rows.

use super::{factor, widths};
use crate::graph::Attrs;
use crate::kernels::low_rank::{COLUMNS, outer_sums};
use crate::ops::{Capacity, Cost, Kernel, Op, Operands, RowDep, Scratch, Signature, rule};
use crate::tensor::TensorType;
use std::ops::Range;

/// `low_rank.d_weight(low, x…[, d])`: with `parts = n` x is n parts side by side and the result is xᵀ·low [N, rank], the gradient of B; without, it
/// is factor·lowᵀ·x [rank, K], the gradient of A. Sums continue those of d when given.
pub struct LowRankDWeight;

/// A node, resolved.
struct Form {
    rank: usize,
    /// Operands that are x.
    parts: Range<usize>,
    widths: Vec<usize>,
    /// Whether the result has a row for each column of x.
    by_column: bool,
    /// Operand whose sums are continued.
    existing: Option<usize>,
}

impl Form {
    fn of(attrs: &Attrs, operands: &[TensorType]) -> Result<Form, String> {
        let rank = rule::width(operands, 0)?;
        let by_column = attrs.get("parts").is_some();
        let count = if by_column { attrs.size("parts")? } else { 1 };
        if count == 0 || count > operands.len() {
            return Err(format!("parts = {count} must be the number of operands that are x"));
        }
        let parts = 1..1 + count;
        if operands.len() != parts.end + 1 {
            rule::arity(operands, parts.end)?;
        }
        let existing = (operands.len() > parts.end).then_some(parts.end);
        let form = Form { rank, widths: widths(operands, parts.clone())?, parts, by_column, existing };
        existing.map_or(Ok(()), |i| rule::fixed(operands, i, &form.shape()))?;
        Ok(form)
    }

    fn width(&self) -> usize {
        self.widths.iter().sum()
    }

    fn shape(&self) -> [usize; 2] {
        if self.by_column { [self.width(), self.rank] } else { [self.rank, self.width()] }
    }
}

impl Op for LowRankDWeight {
    fn keyword(&self) -> &'static str {
        "low_rank.d_weight"
    }
    fn doc(&self) -> &'static str {
        "low_rank.d_weight(low, x…[, d], parts = n, factor = …): factor·lowᵀ·x over all rows, or with parts its transpose, continuing the sums of d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["parts", "factor"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        factor(attrs)?;
        Ok(vec![rule::fixed_type(&Form::of(attrs, operands)?.shape())])
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn must_alias(&self, sig: &Signature, _output: usize) -> Option<usize> {
        Form::of(&sig.attrs, &sig.operands).ok()?.existing
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let Ok(form) = Form::of(&sig.attrs, &sig.operands) else { return Cost::default() };
        let n = (rows * form.width()) as f64;
        Cost { flops: 2.0 * n * form.rank as f64, bytes: 4.0 * n }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(DWeightKernel { form: Form::of(&sig.attrs, &sig.operands)?, factor: factor(&sig.attrs)? }))
    }
}

/// Tiles split the columns of x.
struct DWeightKernel {
    form: Form,
    factor: f32,
}

impl Kernel for DWeightKernel {
    fn scratch(&self, _capacity: &Capacity) -> Scratch {
        Scratch { shared: 0, per_worker: 4 * COLUMNS * self.form.rank }
    }

    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        if o.rows().is_empty() { 0 } else { self.form.widths.iter().map(|w| w.div_ceil(COLUMNS)).sum() }
    }

    fn run(&self, o: &dyn Operands, _phase: usize, mut tile: usize) {
        let Form { rank, parts, widths, by_column, existing } = &self.form;
        let (rank, mut first) = (*rank, 0);
        for (operand, &width) in parts.clone().zip(widths) {
            let tiles = width.div_ceil(COLUMNS);
            if tile >= tiles {
                (tile, first) = (tile - tiles, first + width);
                continue;
            }
            let here = tile * COLUMNS..((tile + 1) * COLUMNS).min(width);
            let columns = first + here.start..first + here.end;
            let mut scratch = o.scratch();
            let sums = &mut scratch.row_mut(0)[..COLUMNS * rank];
            let (out_rows, out_columns) = if *by_column { (columns, 0..rank) } else { (0..rank, columns) };
            let mut out = o.fixed_output_block(0, out_rows, out_columns);
            if existing.is_none() {
                sums.fill(0.0);
            }
            let exchange = |sums: &mut [f32], out: &mut crate::kernels::view::ViewMut<'_, f32>, load: bool| {
                for j in 0..rank {
                    for c in 0..here.len() {
                        let (row, column) = if *by_column { (c, j) } else { (j, c) };
                        let (sum, value) = (&mut sums[j * COLUMNS + c], &mut out.row_mut(row)[column]);
                        if load { *sum = *value } else { *value = *sum }
                    }
                }
            };
            if existing.is_some() {
                exchange(sums, &mut out, true);
            }
            let x = o.input(operand).columns(here.start, here.len());
            outer_sums(o.isa(), &o.input(0), &x, self.factor, 0..rank, sums);
            return exchange(sums, &mut out, false);
        }
        unreachable!("tile {tile} beyond the columns");
    }
}
