//! `embedding(tokens; table)`: y[t] = table[tokens[t]].
//!
//! tokens: one i32 per row; table: [V, C]; y: rows × C. d_table[v] = Σ dy[t] over the rows with token v, in ascending rows.

use super::tiling::{part, row_tiles, tile_rows};
use super::{Case, Cost, GradBuilder, Kernel, Op, Operands, ParamSpec, RefTensor, RowDep, Signature, Weight, rule};
use crate::graph::{Attr, Attrs, Init, Layout, TensorId};
use crate::kernels::elementwise::{fill, scatter_add_rows};
use crate::tensor::{DType, RowExtent, Shape, TensorType};

/// Token embedding.
pub struct Embedding;
/// `embedding.d_table(d_out, tokens[, d])`: gradient of the table, added to `d` when given.
pub struct EmbeddingDTable;

impl Op for Embedding {
    fn keyword(&self) -> &'static str {
        "embedding"
    }
    fn doc(&self) -> &'static str {
        "embedding(tokens, PATH, rows = V, width = C): row tokens[t] of a [V, C] table."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["rows", "width"]
    }
    fn params(&self, attrs: &Attrs, _inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        let shape = Shape::new([attrs.size("rows")?, attrs.size("width")?]);
        Ok(vec![ParamSpec { suffix: "weight", shape, init: Init::Normal(0.02), decay: true, layout: Layout::OutIn }])
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        rule::arity(operands, 2)?;
        rule::integer_rows(operands, 0)?;
        let (rows, width) = (attrs.size("rows")?, attrs.size("width")?);
        if rows == 0 || width == 0 {
            return Err(format!("a table of shape [{rows}, {width}] is empty"));
        }
        rule::fixed(operands, 1, &[rows, width])?;
        Ok(vec![rule::rows_like(operands, width)])
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let (Some(d), true) = (g.d_outputs[0], g.wants[1]) else { return Ok(vec![None; 2]) };
        let attrs = Attrs::new().with("rows", Attr::Int(g.attrs().size("rows")? as i64));
        let mut operands = vec![d, g.operand(0)];
        operands.extend(g.take_existing(1));
        let d_table = g.emit("embedding.d_table", operands, attrs)?[0];
        Ok(vec![None, Some(d_table)])
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let n = sig.outputs[0].shape.elements() as f64 * rows as f64;
        Cost { flops: 0.0, bytes: 8.0 * n }
    }
    fn kernel(&self, _sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        Ok(Box::new(Gather))
    }
    fn reference(&self, _sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let width = x[1].width;
        let row = |t: &f64| &x[1].data[*t as usize * width..][..width];
        let data = x[0].data.iter().flat_map(row).copied().collect();
        Some(vec![RefTensor { rows: x[0].rows, width, data }])
    }
    fn cases(&self) -> Vec<Case> {
        let tokens = TensorType { dtype: DType::I32, extent: RowExtent::Step, shape: Shape::new([1]) };
        let attrs = Attrs::new().with("rows", Attr::Int(11)).with("width", Attr::Int(37));
        vec![Case { name: "rows", attrs, inputs: vec![tokens], slots: 2, rows: 9, int_limit: 11 }]
    }
}

struct Gather;

impl Kernel for Gather {
    fn tiles(&self, o: &dyn Operands, _phase: usize) -> usize {
        row_tiles(o.rows().len())
    }

    fn run(&self, o: &dyn Operands, _phase: usize, tile: usize) {
        let rows = tile_rows(tile, o.rows().len());
        let tokens = o.integers(0).slice_rows(rows.clone());
        let mut out = o.output(0, rows.clone(), 0..o.output_width(0));
        for i in 0..rows.len() {
            let token = tokens.row(i)[0] as usize;
            match o.weight(1) {
                Weight::Packed(table) => table.row_into(token, out.row_mut(i)),
                Weight::Plain(table) => out.row_mut(i).copy_from_slice(table.row(token)),
            }
        }
    }
}

impl Op for EmbeddingDTable {
    fn keyword(&self) -> &'static str {
        "embedding.d_table"
    }
    fn doc(&self) -> &'static str {
        "embedding.d_table(d_out, tokens[, d]): sums of d_out over the rows of each token, added to d when given."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["rows"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.len() != 3 {
            rule::arity(operands, 2)?;
        }
        rule::integer_rows(operands, 1)?;
        let shape = [attrs.size("rows")?, rule::width(operands, 0)?];
        if operands.len() == 3 {
            rule::fixed(operands, 2, &shape)?;
        }
        Ok(vec![rule::fixed_type(&shape)])
    }
    fn row_dependency(&self, _attrs: &Attrs, _operand: usize) -> RowDep {
        RowDep::AllRows
    }
    fn must_alias(&self, sig: &Signature, _output: usize) -> Option<usize> {
        (sig.operands.len() == 3).then_some(2)
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let n = sig.operands[0].shape.elements() as f64 * rows as f64;
        Cost { flops: n, bytes: 12.0 * n }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let dims = sig.outputs[0].shape.dims();
        Ok(Box::new(Scatter { rows: dims[0], width: dims[1], accumulate: sig.operands.len() == 3 }))
    }
}

/// Two phases: zero the table (unless it is added to), then add rows; tiles of the second split the columns.
struct Scatter {
    rows: usize,
    width: usize,
    accumulate: bool,
}

impl Scatter {
    const ZERO_TILES: usize = 32;
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
        let tokens = o.integers(1);
        let mut table = o.fixed_output_matrix(0, columns);
        for row in 0..d_out.rows() {
            let token = tokens.row(row)[0] as u32;
            scatter_add_rows(o.isa(), &d_out.slice_rows(row..row + 1), &[token], &mut table);
        }
    }
}
