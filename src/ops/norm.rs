//! What layer norm and RMS norm share: shape rules, executable forms, gradients.

use super::tiling::{row_tiles, tile_rows};
use super::{Case, Cost, GradBuilder, Kernel, Operands, ParamSpec, RefTensor, Signature, rule};
use crate::graph::{Attr, Attrs, Init, Layout, TensorId};
use crate::kernels::norm::{self, NormParameters};
use crate::kernels::norm_backward as backward;
use crate::kernels::reduce::ROW_TILE;
use crate::tensor::{RowExtent, Shape, TensorType};

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Mean and variance; gain and offset.
    Layer,
    /// Root mean square; gain only.
    Rms,
}

impl NormKind {
    /// Saved statistics per row.
    pub fn statistics(self) -> usize {
        match self {
            NormKind::Layer => norm::LAYER_NORM_STATISTICS,
            NormKind::Rms => norm::RMS_NORM_STATISTICS,
        }
    }

    /// Parameters per call: gain, and offset for layer norm.
    pub fn parameters(self) -> usize {
        match self {
            NormKind::Layer => 2,
            NormKind::Rms => 1,
        }
    }

    pub(super) fn params(self, attrs: &Attrs, inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        attrs.float("eps")?;
        let shape = Shape::new([rule::width(inputs, 0)?]);
        let spec = |suffix, init| ParamSpec { suffix, shape: shape.clone(), init, decay: false, layout: Layout::Plain };
        Ok(match self {
            NormKind::Layer => vec![spec("weight", Init::Ones), spec("bias", Init::Zeros)],
            NormKind::Rms => vec![spec("weight", Init::Ones)],
        })
    }

    pub(super) fn infer(self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 1 + self.parameters())?;
        eps(attrs)?;
        let width = rule::width(operands, 0)?;
        (1..operands.len()).try_for_each(|i| rule::fixed(operands, i, &[width]))?;
        let mut outputs = vec![rule::rows_like(operands, width)];
        if attrs.bool_or("save_statistics", false)? {
            outputs.push(rule::rows_like(operands, self.statistics()));
        }
        Ok(outputs)
    }

    /// Emits d_input, d_weight and d_bias; adds to a gradient of the input that exists already.
    pub(super) fn grad(self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None; 1 + self.parameters()]) };
        let (x, weight) = (g.operand(0), g.operand(1));
        let statistics = g.save("save_statistics", 1)?;
        let name = match self {
            NormKind::Layer => "layer_norm",
            NormKind::Rms => "rms_norm",
        };
        let mut grads = vec![None; 1 + self.parameters()];
        if (1..=self.parameters()).any(|i| g.wants[i]) {
            let mut operands = vec![d, x, statistics];
            let existing: Vec<_> = (1..=self.parameters()).filter_map(|i| g.take_existing(i)).collect();
            if !existing.is_empty() && existing.len() != self.parameters() {
                return Err("gain and offset must be used together".into());
            }
            operands.extend(existing);
            let of = g.emit(&format!("{name}.d_weight"), operands, Attrs::new())?;
            of.into_iter().enumerate().for_each(|(i, t)| grads[1 + i] = Some(t));
        }
        if g.wants[0] {
            let mut operands = vec![d, x, statistics, weight];
            operands.extend(g.take_existing(0));
            grads[0] = Some(g.emit(&format!("{name}.d_input"), operands, Attrs::new())?[0]);
        }
        Ok(grads)
    }

    pub(super) fn infer_d_input(self, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.len() != 5 {
            rule::arity(operands, 4)?;
        }
        let width = rule::same_width(operands, 0, 1)?;
        if rule::width(operands, 2)? != self.statistics() {
            return Err(format!("the statistics have type {}, not {} a row", operands[2], self.statistics()));
        }
        rule::fixed(operands, 3, &[width])?;
        if operands.len() == 5 {
            rule::same_width(operands, 0, 4)?;
        }
        Ok(vec![rule::rows_like(operands, width)])
    }

    pub(super) fn infer_d_weight(self, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.len() != 3 + self.parameters() {
            rule::arity(operands, 3)?;
        }
        let width = rule::same_width(operands, 0, 1)?;
        (3..operands.len()).try_for_each(|i| rule::fixed(operands, i, &[width]))?;
        if rule::width(operands, 2)? != self.statistics() {
            return Err(format!("the statistics have type {}, not {} a row", operands[2], self.statistics()));
        }
        Ok(vec![rule::fixed_type(&[width]); self.parameters()])
    }

    pub(super) fn cost(self, sig: &Signature, rows: usize) -> Cost {
        let n = sig.operands[0].shape.elements() as f64 * rows as f64;
        Cost { flops: 8.0 * n, bytes: 8.0 * n }
    }

    pub(super) fn reference(self, sig: &Signature, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let eps = sig.attrs.float("eps").ok()?;
        let (input, n) = (&x[0], x[0].width as f64);
        let rows = input.data.chunks(input.width).flat_map(|row| {
            let mean = if self == NormKind::Layer { row.iter().sum::<f64>() / n } else { 0.0 };
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            let scale = 1.0 / (variance + eps).sqrt();
            let offset = |i: usize| if self == NormKind::Layer { x[2].data[i] } else { 0.0 };
            row.iter().enumerate().map(move |(i, v)| (v - mean) * scale * x[1].data[i] + offset(i)).collect::<Vec<_>>()
        });
        Some(vec![RefTensor { data: rows.collect(), ..input.clone() }])
    }

    pub(super) fn cases(self) -> Vec<Case> {
        let ty = |w: usize| TensorType { extent: RowExtent::Step, ..rule::fixed_type(&[w]) };
        let case = |name, w: usize, slots, rows| Case {
            name,
            attrs: Attrs::new().with("eps", Attr::Float(1e-5)),
            inputs: vec![ty(w)],
            slots,
            rows,
            int_limit: 0,
        };
        vec![case("rows", 37, 2, 5), case("two_row_tiles", 16, 2, 48)]
    }
}

fn eps(attrs: &Attrs) -> Result<f32, String> {
    match attrs.float("eps")? {
        e if e.is_finite() && e >= 0.0 => Ok(e as f32),
        e => Err(format!("eps = {e} must be a finite number, not negative")),
    }
}

/// Forward.
pub(super) struct NormKernel {
    kind: NormKind,
    eps: f32,
    save: bool,
}

impl NormKernel {
    pub fn boxed(kind: NormKind, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let save = sig.attrs.bool_or("save_statistics", false)?;
        Ok(Box::new(NormKernel { kind, eps: eps(&sig.attrs)?, save }))
    }
}

impl Kernel for NormKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let bias = (self.kind == NormKind::Layer).then(|| o.fixed(2));
        let parameters = NormParameters { weight: o.fixed(1), bias, eps: self.eps };
        let mut statistics = self.save.then(|| o.output(1, rows.clone(), 0..self.kind.statistics()));
        let mut out = o.output(0, rows.clone(), 0..o.output_width(0));
        let isa = o.isa();
        if o.in_place(0, 0) {
            match self.kind {
                NormKind::Layer => norm::layer_norm_inplace(isa, &mut out, parameters, statistics.as_mut()),
                NormKind::Rms => norm::rms_norm_inplace(isa, &mut out, parameters, statistics.as_mut()),
            }
        } else {
            let x = o.input(0).slice_rows(rows);
            match self.kind {
                NormKind::Layer => norm::layer_norm(isa, &x, parameters, &mut out, statistics.as_mut()),
                NormKind::Rms => norm::rms_norm(isa, &x, parameters, &mut out, statistics.as_mut()),
            }
        }
    }
}

/// d_input: operands d_out, x, statistics, weight, and optionally a gradient to add to.
pub(super) struct NormDInputKernel {
    pub accumulate: bool,
}

impl Kernel for NormDInputKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        use crate::kernels::elementwise::copy;
        use crate::kernels::vector::map::Write;
        let rows = tile_rows(tile, o.rows().len());
        let (isa, weight) = (o.isa(), o.fixed(3));
        let x = o.input(1).slice_rows(rows.clone());
        let statistics = o.input(2).slice_rows(rows.clone());
        let mut out = o.output(0, rows.clone(), 0..o.output_width(0));
        if !self.accumulate && o.in_place(0, 0) {
            return backward::norm_backward_input_inplace(isa, &x, &statistics, weight, &mut out);
        }
        let d_out = o.input(0).slice_rows(rows.clone());
        if self.accumulate && !o.in_place(4, 0) {
            copy(&o.input(4).slice_rows(rows), &mut out);
        }
        let write = if self.accumulate { Write::Add } else { Write::Overwrite };
        backward::norm_backward_input(isa, &x, &statistics, weight, &d_out, &mut out, write);
    }
}

/// d_weight (and d_bias): tiles split the columns; rows run in ascending tiles of [`ROW_TILE`].
///
/// Operands: d_out, x, statistics, and optionally the sums that the results continue.
pub(super) struct NormDWeightKernel {
    pub kind: NormKind,
    pub accumulate: bool,
}

/// Columns of one tile.
const COLUMNS: usize = 64;

impl Kernel for NormDWeightKernel {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        if o.rows().is_empty() { 0 } else { o.output_width(0).div_ceil(COLUMNS) }
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        use crate::kernels::vector::map::Write;
        debug_assert!(ROW_TILE.is_power_of_two());
        let columns = tile * COLUMNS..((tile + 1) * COLUMNS).min(o.output_width(0));
        let cut = |i: usize| o.input(i).columns(columns.start, columns.len());
        let mut d_weight = o.fixed_output(0, columns.clone());
        let mut d_bias = (self.kind == NormKind::Layer).then(|| o.fixed_output(1, columns.clone()));
        backward::norm_backward_weight(
            o.isa(),
            &cut(1),
            &o.input(2),
            &cut(0),
            0,
            d_weight.row_mut(0),
            d_bias.as_mut().map(|b| b.row_mut(0)),
            if self.accumulate { Write::Add } else { Write::Overwrite },
        );
    }
}
