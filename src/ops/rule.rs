//! Words that shape rules share.

use super::ParamSpec;
use crate::graph::{Attrs, Init, Layout};
use crate::tensor::{DType, RowExtent, Shape, TensorType};

/// Exactly `n` operands.
pub fn arity(operands: &[TensorType], n: usize) -> Result<(), String> {
    if operands.len() == n { Ok(()) } else { Err(format!("takes {n} operands, not {}", operands.len())) }
}

/// Operand `i` is f32 rows of one feature dimension; returns its width.
pub fn width(operands: &[TensorType], i: usize) -> Result<usize, String> {
    let t = operands.get(i).ok_or_else(|| format!("operand {i} is missing"))?;
    match (t.dtype, t.extent, t.shape.dims()) {
        (DType::F32, e, &[w]) if e != RowExtent::Fixed && w > 0 => Ok(w),
        _ => Err(format!("operand {i} must be f32 rows of one dimension, not {t}")),
    }
}

/// Operand `i` is one i32 per row.
pub fn integer_rows(operands: &[TensorType], i: usize) -> Result<(), String> {
    let t = operands.get(i).ok_or_else(|| format!("operand {i} is missing"))?;
    if t.dtype == DType::I32 && t.extent != RowExtent::Fixed && t.shape.dims() == [1] {
        Ok(())
    } else {
        Err(format!("operand {i} must be one i32 per row, not {t}"))
    }
}

/// Operand `i` is a fixed f32 tensor of this shape.
pub fn fixed(operands: &[TensorType], i: usize, dims: &[usize]) -> Result<(), String> {
    fixed_as(operands, i, DType::F32, dims)
}

/// Operand `i` is a fixed tensor of this type and shape.
pub fn fixed_as(operands: &[TensorType], i: usize, dtype: DType, dims: &[usize]) -> Result<(), String> {
    let t = operands.get(i).ok_or_else(|| format!("operand {i} is missing"))?;
    if t.dtype == dtype && t.extent == RowExtent::Fixed && t.shape.dims() == dims {
        Ok(())
    } else {
        Err(format!("operand {i} has type {t}, but {dtype} {} is expected", Shape::new(dims)))
    }
}

/// Operand `i` is a matrix that products read: f32, or bf16 where it is frozen.
pub fn weight(operands: &[TensorType], i: usize, dims: &[usize]) -> Result<(), String> {
    fixed_as(operands, i, DType::BF16, dims).or_else(|_| fixed(operands, i, dims))
}

/// Two operands are rows of the same width.
pub fn same_width(operands: &[TensorType], i: usize, j: usize) -> Result<usize, String> {
    let (a, b) = (width(operands, i)?, width(operands, j)?);
    if a == b { Ok(a) } else { Err(format!("operands {i} and {j} have different features: [{a}] and [{b}]")) }
}

/// Operands `i` and `j` are rows of one width and one type that rows are kept in (f32, f16, bf16).
pub fn stored_width(operands: &[TensorType], i: usize, j: usize) -> Result<usize, String> {
    let get = |i: usize| operands.get(i).ok_or_else(|| format!("operand {i} is missing"));
    let (a, b) = (get(i)?, get(j)?);
    if a.dtype == DType::F32 {
        return same_width(operands, i, j);
    }
    match (a.dtype, a.extent, a.shape.dims()) {
        (DType::F16 | DType::BF16, e, &[w]) if e != RowExtent::Fixed && w > 0 => {
            if a.dtype == b.dtype && a.shape == b.shape && b.extent != RowExtent::Fixed {
                Ok(w)
            } else {
                Err(format!("operands {i} and {j} have different types: {a} and {b}"))
            }
        }
        _ => Err(format!("operand {i} must be rows of one dimension in f32, f16 or bf16, not {a}")),
    }
}

/// f32 rows of `width` features, with the extent of a result of these operands.
pub fn rows_like(operands: &[TensorType], width: usize) -> TensorType {
    TensorType { dtype: DType::F32, extent: crate::ops::build::result_extent(operands), shape: Shape::new([width]) }
}

/// A fixed f32 tensor.
pub fn fixed_type(dims: &[usize]) -> TensorType {
    TensorType { dtype: DType::F32, extent: RowExtent::Fixed, shape: Shape::new(dims) }
}

/// The table of an op that picks a row of it for each token: `rows` × `width`.
pub fn table(attrs: &Attrs, layout: Layout) -> Result<Vec<ParamSpec>, String> {
    let shape = Shape::new([attrs.size("rows")?, attrs.size("width")?]);
    Ok(vec![ParamSpec { suffix: "weight", shape, init: Init::Normal(0.02), decay: true, layout }])
}

/// A rule for operand `i` of this shape.
type OperandRule = fn(&[TensorType], usize, &[usize]) -> Result<(), String>;

/// The result of such an op, whose operands are the tokens and the table; `table` says what the table may be.
pub fn rows_of_table(attrs: &Attrs, operands: &[TensorType], table: OperandRule) -> Result<Vec<TensorType>, String> {
    arity(operands, 2)?;
    integer_rows(operands, 0)?;
    let (rows, width) = (attrs.size("rows")?, attrs.size("width")?);
    if rows == 0 || width == 0 {
        return Err(format!("a table of shape [{rows}, {width}] is empty"));
    }
    table(operands, 1, &[rows, width])?;
    Ok(vec![rows_like(operands, width)])
}
