//! `position_embedding(tokens; table)`: y[t] = table[position of row t in its sequence].
//!
//! tokens: gives the rows, its values are not read; table: [T, C]; y: rows × C. d_table[p] = Σ dy over the rows at position p, ascending slots.

use super::tiling::{part, row_tiles, tile_rows};
use super::{Capacity, Case, Cost, GradBuilder, Kernel, Op, Operands, ParamSpec, RefTensor, RowDep, Signature, rule};
use crate::graph::{Attr, Attrs, Layout, TensorId};
use crate::kernels::elementwise::{fill, scatter_add_rows};
use crate::tensor::{DType, RowExtent, Shape, TensorType};

/// Learned position embedding.
pub struct PositionEmbedding;
/// `position_embedding.d_table(d_out[, d])`: gradient of the table, added to `d` when given.
pub struct PositionEmbeddingDTable;

/// The table has a position for every row of a sequence.
fn positions_suffice(sig: &Signature, capacity: &Capacity) -> Result<(), String> {
    let positions = sig.attrs.size("rows")?;
    if capacity.context <= positions {
        return Ok(());
    }
    Err(format!("has {positions} positions, but the plan is for {} rows a sequence; lower --rows", capacity.context))
}

impl Op for PositionEmbedding {
    fn keyword(&self) -> &'static str {
        "position_embedding"
    }
    fn doc(&self) -> &'static str {
        "position_embedding(tokens, PATH, rows = T, width = C): row of a [T, C] table for the position of each token."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["rows", "width"]
    }
    fn params(&self, attrs: &Attrs, _inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        rule::table(attrs, Layout::Plain)
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::rows_of_table(attrs, operands, rule::fixed)
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let (Some(d), true) = (g.d_outputs[0], g.wants[1]) else { return Ok(vec![None; 2]) };
        let attrs = Attrs::new().with("rows", Attr::Int(g.attrs().size("rows")? as i64));
        let mut operands = vec![d];
        operands.extend(g.take_existing(1));
        let d_table = g.emit("position_embedding.d_table", operands, attrs)?[0];
        Ok(vec![None, Some(d_table)])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let n = sig.outputs[0].shape.elements() as f64 * rows as f64;
        Cost { flops: 0.0, bytes: 8.0 * n }
    }
    fn check_capacity(&self, sig: &Signature, capacity: &Capacity) -> Result<(), String> {
        positions_suffice(sig, capacity)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(Gather { width: sig.attrs.size("width")? }))
    }
    fn reference(&self, _sig: &Signature, case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let width = x[1].width;
        let data = (0..case.slots).flat_map(|_| x[1].data[..case.rows * width].iter().copied()).collect();
        Some(vec![RefTensor { rows: case.slots * case.rows, width, data }])
    }
    fn cases(&self) -> Vec<Case> {
        let tokens = TensorType { dtype: DType::I32, extent: RowExtent::Step, shape: Shape::new([1]) };
        let attrs = Attrs::new().with("rows", Attr::Int(9)).with("width", Attr::Int(37));
        vec![Case { name: "rows", attrs, inputs: vec![tokens], slots: 2, rows: 7, int_limit: 5 }]
    }
}

struct Gather {
    width: usize,
}

impl Kernel for Gather {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let table = o.fixed(1);
        let mut out = o.output(0, rows.clone(), 0..self.width);
        for (i, &position) in o.rows().positions()[rows].iter().enumerate() {
            out.row_mut(i).copy_from_slice(&table[position as usize * self.width..][..self.width]);
        }
    }
}

impl Op for PositionEmbeddingDTable {
    fn keyword(&self) -> &'static str {
        "position_embedding.d_table"
    }
    fn doc(&self) -> &'static str {
        "position_embedding.d_table(d_out[, d]): sums of d_out over the rows of each position, continuing d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["rows"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let shape = [attrs.size("rows")?, rule::width(operands, 0)?];
        if operands.len() == 2 {
            rule::fixed(operands, 1, &shape)?;
        } else {
            rule::arity(operands, 1)?;
        }
        Ok(vec![rule::fixed_type(&shape)])
    }
    fn must_alias(&self, sig: &Signature, _output: usize) -> Option<usize> {
        (sig.operands.len() == 2).then_some(1)
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let n = sig.operands[0].shape.elements() as f64 * rows as f64;
        Cost { flops: n, bytes: 12.0 * n }
    }
    fn check_capacity(&self, sig: &Signature, capacity: &Capacity) -> Result<(), String> {
        positions_suffice(sig, capacity)
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let dims = sig.outputs[0].shape.dims();
        Ok(Box::new(Scatter { rows: dims[0], width: dims[1], accumulate: sig.operands.len() == 2 }))
    }
}

/// Zero the table (unless it is added to), then add rows; tiles of the second phase split the columns.
struct Scatter {
    rows: usize,
    width: usize,
    accumulate: bool,
}

impl Scatter {
    const ZERO_TILES: usize = 8;
    /// A cache line of f32 at least, so that tiles do not share one.
    const COLUMNS: usize = 64;
}

impl Kernel for Scatter {
    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        match phase {
            0 if self.accumulate => 0,
            0 => Self::ZERO_TILES,
            _ if o.rows().is_empty() => 0,
            _ => self.width.div_ceil(Self::COLUMNS),
        }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        if phase == 0 {
            return fill(&mut o.fixed_output(0, part(tile, Self::ZERO_TILES, self.rows * self.width)), 0.0);
        }
        let columns = tile * Self::COLUMNS..((tile + 1) * Self::COLUMNS).min(self.width);
        let d_out = o.input(0).columns(columns.start, columns.len());
        scatter_add_rows(o.isa(), &d_out, o.rows().positions(), &mut o.fixed_output_matrix(0, columns));
    }
}
