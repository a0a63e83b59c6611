//! Gradients of `linear`: of the input, the weight and the bias.
//!
//! The gradients of split outputs are read where they are, as if they stood side by side.

use super::shape;
use crate::graph::{Attr, Attrs, Layout, TensorId};
use crate::kernels::gemm::{Gemm, Precision};
use crate::kernels::reduce::{add_tiles, tile_sums};
use crate::kernels::vector::map::Write;
use crate::ops::product::{self, Finish, Start};
use crate::ops::tiling::{ADD_COLUMNS, SumTiles};
use crate::ops::{Capacity, Cost, GradBuilder, Kernel, Op, Operands, RowDep, Scratch, Signature, rule};
use crate::tensor::TensorType;
use std::ops::Range;

/// `linear.d_input(weight, d_out…[, d])`: d_out·W or d_out·Wᵀ.
pub struct LinearDInput;
/// `linear.d_weight(x, d_out…[, d])`: d_outᵀ·x or xᵀ·d_out, as the weight is stored.
pub struct LinearDWeight;
/// `linear.d_bias(d_out…[, d])`: sums of d_out over rows.
pub struct LinearDBias;

/// Emits the three; sums of gradients go into the memory of the gradient that exists.
pub fn grad(g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
    let mut grads = vec![None; g.forward().operands.len()];
    if g.d_outputs.iter().all(Option::is_none) {
        return Ok(grads);
    }
    let d: Vec<TensorId> = g.d_outputs.iter().flatten().copied().collect();
    if d.len() != g.d_outputs.len() {
        return Err("a part of its split outputs has no gradient; leave the part out of the split".into());
    }
    let types: Vec<TensorType> = g.forward().operands.iter().map(|&t| g.graph.ty(t).clone()).collect();
    let form = shape::Form::of(&g.attrs(), &types)?;
    if form.norm.is_some() || form.outs.len() != 1 || form.activation != shape::Activation::None {
        return Err("a fused linear has no derivative; differentiate before fusing".into());
    }
    let layout = if form.layout == Layout::OutIn { "out_in" } else { "in_out" };
    let mut attrs = Attrs::new().with("parts", Attr::Int(d.len() as i64)).with("layout", Attr::Str(layout.into()));
    if let Some(precision) = g.attrs().get("precision") {
        attrs.set("precision", precision.clone());
    }
    let (weight, bias) = (form.weights.start, form.biases.clone().next());
    if let Some(bias) = bias.filter(|&b| g.wants[b]) {
        let mut operands = d.clone();
        operands.extend(g.take_existing(bias));
        grads[bias] = Some(g.emit("linear.d_bias", operands, attrs.clone())?[0]);
    }
    if g.wants[weight] {
        let mut operands = vec![g.operand(0)];
        operands.extend(&d);
        operands.extend(g.take_existing(weight));
        grads[weight] = Some(g.emit("linear.d_weight", operands, attrs.clone())?[0]);
    }
    if g.wants[0] {
        let mut operands = vec![g.operand(weight)];
        operands.extend(&d);
        operands.extend(g.take_existing(0));
        grads[0] = Some(g.emit("linear.d_input", operands, attrs)?[0]);
    }
    if let Some(residual) = form.residual {
        grads[residual] = Some(d[0]);
    }
    Ok(grads)
}

/// A gradient node, resolved.
#[derive(Clone, Debug)]
struct Form {
    layout: Layout,
    precision: Precision,
    /// Operands that are gradients of outputs.
    d_outs: Range<usize>,
    /// Width of each.
    parts: Vec<usize>,
    /// Operand that the result is added to.
    existing: Option<usize>,
}

impl Form {
    fn of(attrs: &Attrs, operands: &[TensorType], first: usize) -> Result<Form, String> {
        let count = attrs.size("parts")?;
        if count == 0 || count > 8 {
            return Err(format!("parts = {count} must be 1 to 8"));
        }
        let d_outs = first..first + count;
        if operands.len() != d_outs.end + 1 {
            rule::arity(operands, d_outs.end)?;
        }
        let parts = d_outs.clone().map(|i| rule::width(operands, i)).collect::<Result<Vec<_>, _>>()?;
        let existing = (operands.len() > d_outs.end).then_some(d_outs.end);
        Ok(Form { layout: shape::layout(attrs)?, precision: product::precision(attrs)?, d_outs, parts, existing })
    }

    fn total(&self) -> usize {
        self.parts.iter().sum()
    }

    /// Column of part `part` among all outputs.
    fn first_column(&self, part: usize) -> usize {
        self.parts[..part].iter().sum()
    }
}

fn flops(sig: &Signature, first: usize, rows: usize) -> Cost {
    let Ok(form) = Form::of(&sig.attrs, &sig.operands, first) else { return Cost::default() };
    let k = match first {
        0 => 0.5,
        _ => {
            (sig.operands[0].shape.elements() / if sig.operands[0].shape.rank() == 2 { form.total() } else { 1 }) as f64
        }
    };
    let n = form.total() as f64;
    Cost { flops: 2.0 * rows as f64 * n * k, bytes: 4.0 * rows as f64 * (n + k) }
}

impl Op for LinearDInput {
    fn keyword(&self) -> &'static str {
        "linear.d_input"
    }
    fn doc(&self) -> &'static str {
        "linear.d_input(weight, d_out…[, d], parts = n, layout = …): d_out·W or d_out·Wᵀ, added to d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["parts", "layout", "precision"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let form = Form::of(attrs, operands, 1)?;
        let k = match (form.layout, operands[0].shape.dims()) {
            (Layout::OutIn, &[n, k]) | (_, &[k, n]) if n == form.total() => k,
            _ => {
                return Err(format!(
                    "the weight has shape {}, but d_out has features {:?}",
                    operands[0].shape, form.parts
                ));
            }
        };
        rule::weight(operands, 0, operands[0].shape.dims())?;
        if let Some(i) = form.existing
            && rule::width(operands, i)? != k
        {
            return Err(format!("the gradient to add to has type {}, but x has features [{k}]", operands[i]));
        }
        Ok(vec![rule::rows_like(&operands[1..], k)])
    }
    fn may_alias(&self, sig: &Signature, operand: usize, _output: usize) -> bool {
        Form::of(&sig.attrs, &sig.operands, 1).is_ok_and(|f| f.existing == Some(operand))
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        flops(sig, 1, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let k = rule::width(&sig.outputs, 0)?;
        Ok(Box::new(DInputKernel { form: Form::of(&sig.attrs, &sig.operands, 1)?, k }))
    }
}

/// For each part two phases: pack it, then continue the sums with it.
struct DInputKernel {
    form: Form,
    k: usize,
}

impl DInputKernel {
    fn product<'a>(&self, o: &'a dyn Operands, part: usize) -> Gemm<'a> {
        let (Form { layout, precision, .. }, d) = (&self.form, o.input(self.form.d_outs.start + part));
        product::input_gradient(o, *precision, d, product::matrix(o, 0), *layout, self.form.first_column(part))
    }
}

impl Kernel for DInputKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        let widest = self.form.parts.iter().copied().max().unwrap_or(0);
        let shape = product::rows_shape(capacity.step_rows, widest, self.k, self.form.precision);
        Scratch { shared: 4 * product::shared_elements(&shape), per_worker: shape.worker_bytes() }
    }

    fn phases(&self) -> usize {
        2 * self.form.parts.len()
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        let product = self.product(o, phase / 2);
        if phase.is_multiple_of(2) { product.pack_tiles() } else { product.tiles() }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let product = self.product(o, phase / 2);
        if phase.is_multiple_of(2) {
            return product::pack(o, &product, 0, tile);
        }
        let start = match self.form.existing {
            _ if phase > 1 => Start::Output,
            None => Start::Zero,
            Some(i) if o.in_place(i, 0) => Start::Output,
            Some(i) => Start::Rows(o.input(i)),
        };
        let place = |rows: Range<usize>, columns: Range<usize>| o.output(0, rows, columns);
        let rows = product.shape().m;
        product::multiply(o, &product, 0, tile, &mut Finish { o, place, rows, bias: None, start, streamed: false });
    }
}

impl Op for LinearDWeight {
    fn keyword(&self) -> &'static str {
        "linear.d_weight"
    }
    fn doc(&self) -> &'static str {
        "linear.d_weight(x, d_out…[, d], parts = n, layout = …): d_outᵀ·x or xᵀ·d_out over all rows, continuing the sums of d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["parts", "layout", "precision"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let (form, k) = (Form::of(attrs, operands, 1)?, rule::width(operands, 0)?);
        let shape = if form.layout == Layout::OutIn { [form.total(), k] } else { [k, form.total()] };
        form.existing.map_or(Ok(()), |i| rule::fixed(operands, i, &shape))?;
        Ok(vec![rule::fixed_type(&shape)])
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn must_alias(&self, sig: &Signature, _output: usize) -> Option<usize> {
        Form::of(&sig.attrs, &sig.operands, 1).ok()?.existing
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        flops(sig, 1, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let k = rule::width(&sig.operands, 0)?;
        Ok(Box::new(DWeightKernel { form: Form::of(&sig.attrs, &sig.operands, 1)?, k }))
    }
}

/// Phase 0 packs x, or the only part of d_out when that is narrower; the tiles of phase 1 are those of all parts.
struct DWeightKernel {
    form: Form,
    k: usize,
}

impl DWeightKernel {
    fn shares_d(&self) -> bool {
        matches!(self.form.parts[..], [width] if width < self.k)
    }

    fn product<'a>(&self, o: &'a dyn Operands, part: usize) -> Gemm<'a> {
        let d = o.input(self.form.d_outs.start + part);
        product::weight_gradient(o, self.form.precision, o.input(0), d, self.form.layout, self.shares_d())
    }
}

impl Kernel for DWeightKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        let Form { layout, precision, .. } = self.form;
        let shape =
            product::weight_shape(capacity.step_rows, self.k, self.form.total(), layout, precision, self.shares_d());
        Scratch { shared: 4 * product::shared_elements(&shape), per_worker: shape.worker_bytes() }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        if phase == 0 {
            return self.product(o, 0).pack_tiles();
        }
        (0..self.form.parts.len()).map(|part| self.product(o, part).tiles()).sum()
    }

    fn run(&self, o: &dyn Operands, phase: usize, mut tile: usize) {
        if phase == 0 {
            return product::pack(o, &self.product(o, 0), 0, tile);
        }
        for part in 0..self.form.parts.len() {
            let product = self.product(o, part);
            if tile >= product.tiles() {
                tile -= product.tiles();
                continue;
            }
            let first = self.form.first_column(part);
            let (down, right) = if self.form.layout == Layout::OutIn { (first, 0) } else { (0, first) };
            let place = |rows: Range<usize>, columns: Range<usize>| {
                o.fixed_output_block(0, down + rows.start..down + rows.end, right + columns.start..right + columns.end)
            };
            let rows = product.shape().m;
            let start = if self.form.existing.is_some() { Start::Output } else { Start::Zero };
            let streamed = product.is_large();
            return product::multiply(
                o,
                &product,
                0,
                tile,
                &mut Finish { o, place, rows, bias: None, start, streamed },
            );
        }
        unreachable!("tile {tile} beyond the parts' tiles");
    }
}

impl Op for LinearDBias {
    fn keyword(&self) -> &'static str {
        "linear.d_bias"
    }
    fn doc(&self) -> &'static str {
        "linear.d_bias(d_out…[, d], parts = n): sums of d_out over rows, added to d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["parts", "layout", "precision"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let form = Form::of(attrs, operands, 0)?;
        form.existing.map_or(Ok(()), |i| rule::fixed(operands, i, &[form.total()]))?;
        Ok(vec![rule::fixed_type(&[form.total()])])
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn must_alias(&self, sig: &Signature, _output: usize) -> Option<usize> {
        Form::of(&sig.attrs, &sig.operands, 0).ok()?.existing
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        flops(sig, 0, rows)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let form = Form::of(&sig.attrs, &sig.operands, 0)?;
        Ok(Box::new(DBiasKernel { tiles: SumTiles::new(&form.parts), form }))
    }
}

/// Phase 0 sums tiles of rows, phase 1 adds those up.
struct DBiasKernel {
    form: Form,
    tiles: SumTiles,
}

impl Kernel for DBiasKernel {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        Scratch { shared: 4 * SumTiles::row_tiles(capacity.step_rows) * self.form.total(), per_worker: 0 }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        if phase == 0 { self.tiles.count(o.rows().len()) } else { self.form.total().div_ceil(ADD_COLUMNS) }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        let (rows, total) = (o.rows().len(), self.form.total());
        if phase == 0 {
            let (row_tile, rows, part, columns) = self.tiles.tile(tile, rows);
            let d = o.input(self.form.d_outs.start + part).slice_rows(rows).columns(columns.start, columns.len());
            let first = self.form.first_column(part);
            let sums = first + columns.start..first + columns.end;
            return tile_sums(o.isa(), &d, o.shared_block(0, total, row_tile..row_tile + 1, sums).row_mut(0));
        }
        let columns = tile * ADD_COLUMNS..((tile + 1) * ADD_COLUMNS).min(total);
        let sums = o.shared_rows(0, SumTiles::row_tiles(rows), total).columns(columns.start, columns.len());
        let write = if self.form.existing.is_some() { Write::Add } else { Write::Overwrite };
        add_tiles(o.isa(), &sums, o.fixed_output(0, columns).row_mut(0), write);
    }
}
