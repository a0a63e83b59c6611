//! `embedding(tokens; table)`: y[t] = table[tokens[t]].
//!
//! tokens: one i32 per row; table: [V, C]; y: rows × C. d_table[v] = Σ dy[t] over the rows with token v, in ascending rows.
//! Row `padding` of the table, where that attribute is not negative, gets no gradient (as in PyTorch's `nn.Embedding`).

use super::tiling::{part, row_tiles, tile_rows};
use super::{
    Capacity, Case, Cost, GradBuilder, Kernel, Op, Operands, ParamSpec, RefTensor, RowDep, Scratch, Signature, Weight,
    rule,
};
use crate::graph::{Attr, Attrs, Layout, TensorId, TensorKind};
use crate::kernels::elementwise::{add_slices, fill};
use crate::kernels::gemm::Matrix;
use crate::kernels::vector::map::{Write, widen};
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
        "embedding(tokens, PATH, rows = V, width = C, padding = -1): row tokens[t] of a [V, C] table; row padding gets no gradient."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["rows", "width", "padding"]
    }
    fn params(&self, attrs: &Attrs, _inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        rule::table(attrs, Layout::OutIn)
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        padding(attrs)?;
        rule::rows_of_table(attrs, operands, rule::weight)
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        let (Some(d), true) = (g.d_outputs[0], g.wants[1]) else { return Ok(vec![None; 2]) };
        let attrs = Attrs::new().with("rows", Attr::Int(g.attrs().size("rows")? as i64));
        let mut operands = vec![d, g.operand(0)];
        let existing = g.take_existing(1);
        let sums = existing.is_some_and(|t| !matches!(g.graph.tensor(t).kind, TensorKind::State));
        let mut attrs = attrs.with("add_sums", Attr::Bool(sums));
        if let Some(token) = padding(&g.attrs())? {
            attrs.set("padding", Attr::Int(token.into()));
        }
        operands.extend(existing);
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

/// The token whose row gets no gradient.
fn padding(attrs: &Attrs) -> Result<Option<u32>, String> {
    match attrs.get("padding") {
        None => Ok(None),
        Some(Attr::Int(token)) => Ok(u32::try_from(*token).ok()),
        Some(other) => Err(format!("attribute padding must be a token, not {other}")),
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
                Weight::Plain(Matrix::F32(table)) => out.row_mut(i).copy_from_slice(table.row(token)),
                Weight::Plain(Matrix::Bf16(table)) => {
                    widen(o.isa(), table.row(token), out.row_mut(i), Write::Overwrite);
                }
            }
        }
    }
}

impl Op for EmbeddingDTable {
    fn keyword(&self) -> &'static str {
        "embedding.d_table"
    }
    fn doc(&self) -> &'static str {
        "embedding.d_table(d_out, tokens[, d], add_sums = false, padding = -1): sums of d_out over the rows of each token but padding, continuing d row by row when given; add_sums adds the finished sums to d instead."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["rows", "add_sums", "padding"]
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        if operands.len() != 3 {
            rule::arity(operands, 2)?;
        }
        rule::integer_rows(operands, 1)?;
        let shape = [attrs.size("rows")?, rule::width(operands, 0)?];
        attrs.bool_or("add_sums", false)?;
        padding(attrs)?;
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
        let start = match (sig.operands.len(), sig.attrs.bool_or("add_sums", false)?) {
            (2, _) => Start::Zero,
            (_, false) => Start::Continue,
            (_, true) => Start::AddSums,
        };
        Ok(Box::new(Scatter { rows: dims[0], width: dims[1], start, padding: padding(&sig.attrs)? }))
    }
}

/// What the sums start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Nothing.
    Zero,
    /// The value that is there: rows are added to it one by one.
    Continue,
    /// Nothing; the finished sum is added to the value that is there.
    AddSums,
}

/// Two phases: order the rows by token and zero the table, then add rows; tiles of the second split the columns.
struct Scatter {
    rows: usize,
    width: usize,
    start: Start,
    padding: Option<u32>,
}

impl Scatter {
    const ZERO_TILES: usize = 32;
    /// A cache line of f32 at least, so that tiles do not share one.
    const COLUMNS: usize = 64;

    /// Writes (token, row) pairs to the shared scratch, sorted.
    fn sort(o: &dyn Operands) {
        let tokens = o.integers(1);
        let mut scratch = o.shared_mut(0..2 * tokens.rows());
        let pairs: &mut [[u32; 2]] = bytemuck::cast_slice_mut(scratch.row_mut(0));
        for (row, pair) in pairs.iter_mut().enumerate() {
            *pair = [tokens.row(row)[0] as u32, row as u32];
        }
        pairs.sort_unstable();
    }
}

impl Kernel for Scatter {
    fn scratch(&self, capacity: &Capacity) -> Scratch {
        Scratch { shared: 8 * capacity.step_rows, per_worker: 0 }
    }

    fn phases(&self) -> usize {
        2
    }

    fn tiles(&self, o: &dyn Operands, phase: usize) -> usize {
        match phase {
            _ if o.rows().is_empty() => 0,
            0 if self.start == Start::Zero => 1 + Self::ZERO_TILES,
            0 => 1,
            _ => self.width.div_ceil(Self::COLUMNS),
        }
    }

    fn run(&self, o: &dyn Operands, phase: usize, tile: usize) {
        if phase == 0 {
            return match tile.checked_sub(1) {
                None => Self::sort(o),
                Some(tile) => fill(&mut o.fixed_output(0, part(tile, Self::ZERO_TILES, self.rows * self.width)), 0.0),
            };
        }
        let columns = tile * Self::COLUMNS..((tile + 1) * Self::COLUMNS).min(self.width);
        let d_out = o.input(0).columns(columns.start, columns.len());
        let scratch = o.shared(0..2 * d_out.rows());
        let pairs: &[[u32; 2]] = bytemuck::cast_slice(scratch.row(0));
        let mut table = o.fixed_output_matrix(0, columns.clone());
        for run in pairs.chunk_by(|a, b| a[0] == b[0]).filter(|run| Some(run[0][0]) != self.padding) {
            let out = table.row_mut(run[0][0] as usize);
            let mut sum = [0.0; Self::COLUMNS];
            let sum = &mut sum[..columns.len()];
            if self.start == Start::Continue {
                sum.copy_from_slice(out);
            }
            for &[_, row] in run {
                add_slices(o.isa(), sum, d_out.row(row as usize));
            }
            match self.start {
                Start::AddSums => add_slices(o.isa(), out, sum),
                _ => out.copy_from_slice(sum),
            }
        }
    }
}
