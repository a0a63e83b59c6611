//! `rope(x; heads, theta, pairing, dim)`: rotary position embedding (Su et al., 2021).
//!
//! x, y: rows × (heads·D). In each head, pair i of the first `dim` elements turns by the angle position·theta^(−2i/dim):
//! (a, b) → (a·cos − b·sin, b·cos + a·sin). Pairs are (i, i + dim/2) for `half`, (2i, 2i + 1) for `adjacent`.
//! The derivative is the rotation by the opposite angle: the same op with `inverse = true`.

use super::tiling::{row_tiles, tile_rows};
use super::{Capacity, Case, Cost, GradBuilder, Kernel, Op, Operands, RefTensor, Signature, rule};
use crate::graph::{Attr, Attrs, TensorId};
use crate::kernels::rope::{Pairing, Rope, rope_frequency, rope_inplace, rope_table};
use crate::tensor::{RowExtent, TensorType};
use std::sync::{Arc, Mutex};

/// Rotary position embedding, as an op of its own: the rotated key is what is kept.
pub struct RopeOp;

struct Settings {
    heads: usize,
    theta: f64,
    pairing: Pairing,
    rotary_dim: usize,
    inverse: bool,
}

fn settings(attrs: &Attrs, width: usize) -> Result<Settings, String> {
    let heads = attrs.size("heads")?;
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(format!("{width} features do not divide into {heads} heads"));
    }
    let rotary_dim = attrs.size_or("dim", width / heads)?;
    if !rotary_dim.is_multiple_of(2) || rotary_dim > width / heads {
        return Err(format!("dim = {rotary_dim} must be even and at most the head size {}", width / heads));
    }
    let theta = attrs.float_or("theta", 10000.0)?;
    if !(theta.is_finite() && theta > 0.0) {
        return Err(format!("theta = {theta} must be positive"));
    }
    let pairing = match attrs.str_or("pairing", "half")? {
        "half" => Pairing::HalfSplit,
        "adjacent" => Pairing::Adjacent,
        other => return Err(format!("pairing = \"{other}\" is unknown; use \"half\" or \"adjacent\"")),
    };
    Ok(Settings { heads, theta, pairing, rotary_dim, inverse: attrs.bool_or("inverse", false)? })
}

impl Op for RopeOp {
    fn keyword(&self) -> &'static str {
        "rope"
    }
    fn doc(&self) -> &'static str {
        "rope(x, heads = H, theta = 10000.0, pairing = \"half\" | \"adjacent\", dim = rotary size): rotates pairs of each head by the position."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["heads", "theta", "pairing", "dim", "inverse"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 1)?;
        let width = rule::width(operands, 0)?;
        settings(attrs, width)?;
        Ok(vec![rule::rows_like(operands, width)])
    }
    fn may_alias(&self, _sig: &Signature, _operand: usize, _output: usize) -> bool {
        true
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let Some(d) = g.d_outputs[0] else { return Ok(vec![None]) };
        let inverse = !g.attrs().bool_or("inverse", false)?;
        let attrs = g.attrs().with("inverse", Attr::Bool(inverse));
        Ok(vec![Some(g.emit("rope", vec![d], attrs)?[0])])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        super::pointwise::pointwise_cost(sig, rows, 3.0, 2.0)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let width = sig.operands[0].shape.elements();
        Ok(Box::new(
            RopeKernel { settings: settings(&sig.attrs, width)?, head_dim: 0, table: Arc::new([]) }.sized(width),
        ))
    }
    fn reference(&self, sig: &Signature, case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let s = settings(&sig.attrs, x[0].width).ok()?;
        let d = x[0].width / s.heads;
        let mut y = x[0].clone();
        for (row, out) in y.data.chunks_mut(x[0].width).enumerate() {
            for head in out.chunks_mut(d) {
                for i in 0..s.rotary_dim / 2 {
                    let angle = (row % case.rows) as f64 * rope_frequency(s.theta, s.rotary_dim, i);
                    let angle = if s.inverse { -angle } else { angle };
                    let (p, q) = match s.pairing {
                        Pairing::HalfSplit => (i, i + s.rotary_dim / 2),
                        Pairing::Adjacent => (2 * i, 2 * i + 1),
                    };
                    let (a, b) = (head[p], head[q]);
                    head[p] = a * angle.cos() - b * angle.sin();
                    head[q] = b * angle.cos() + a * angle.sin();
                }
            }
        }
        Some(vec![y])
    }
    fn cases(&self) -> Vec<Case> {
        let ty = TensorType { extent: RowExtent::Step, ..rule::fixed_type(&[36]) };
        let attrs = |pairing: &str, dim: i64| {
            Attrs::new()
                .with("heads", Attr::Int(3))
                .with("pairing", Attr::Str(pairing.into()))
                .with("dim", Attr::Int(dim))
        };
        let case = |name, attrs| Case { name, attrs, inputs: vec![ty.clone()], slots: 2, rows: 9, int_limit: 0 };
        vec![
            case("half", attrs("half", 12)),
            case("adjacent", attrs("adjacent", 12)),
            case("partial", attrs("half", 8)),
        ]
    }
}

struct RopeKernel {
    settings: Settings,
    head_dim: usize,
    table: Arc<[f32]>,
}

impl RopeKernel {
    fn sized(mut self, width: usize) -> Self {
        self.head_dim = width / self.settings.heads;
        self
    }
}

/// Tables made so far, so that all layers share one.
type Tables = Mutex<Vec<(u64, usize, usize, Arc<[f32]>)>>;

fn shared_table(theta: f64, rotary_dim: usize, positions: usize) -> Arc<[f32]> {
    static TABLES: Tables = Mutex::new(Vec::new());
    let mut tables = TABLES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let found = tables.iter().find(|(t, d, p, _)| *t == theta.to_bits() && *d == rotary_dim && *p >= positions);
    if let Some((.., table)) = found {
        return Arc::clone(table);
    }
    let mut table = vec![0.0; positions * rotary_dim];
    rope_table(|i| rope_frequency(theta, rotary_dim, i), rotary_dim, positions, &mut table);
    let table: Arc<[f32]> = table.into();
    tables.push((theta.to_bits(), rotary_dim, positions, Arc::clone(&table)));
    table
}

impl Kernel for RopeKernel {
    fn prepare(&mut self, capacity: &Capacity) {
        self.table = shared_table(self.settings.theta, self.settings.rotary_dim, capacity.context);
    }

    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let Settings { pairing, rotary_dim, inverse, .. } = self.settings;
        let mut out = super::pointwise::output_with(o, 0, rows.clone());
        let rope = Rope { head_dim: self.head_dim, rotary_dim, pairing, inverse, table: &self.table };
        rope_inplace(o.isa(), &mut out, &o.rows().positions()[rows], &rope);
    }
}
