//! What a running node sees of the arena.

use super::{BoundNode, LiveRows, Place, ScratchSlot, Set, Slot};
use crate::kernels::gemm::Matrix;
use crate::kernels::isa::Isa;
use crate::kernels::param::Param;
use crate::kernels::view::{View, ViewMut};
use crate::ops::{HalfRows, KeptRows, Operands, RowSet, Weight};
use crate::tensor::{DType, RowExtent};
use std::ops::Range;

/// What a kernel sees: one node, one worker.
pub(in crate::exec) struct NodeOperands<'a, 'w> {
    pub node: &'a BoundNode<'w>,
    pub rows: &'a LiveRows,
    pub context: usize,
    pub workers: usize,
    /// See [`Operands::workers_are_apart`].
    pub apart: bool,
    pub isa: Isa,
    pub scratch: ScratchSlot,
}

impl NodeOperands<'_, '_> {
    /// Memory row of each live row in a tensor of this extent; `None` when row i is simply row i.
    fn index(&self, extent: RowExtent) -> Option<&[u32]> {
        match (self.node.set, extent) {
            (_, RowExtent::Kept) => Some(self.rows.set(self.node.set).kept()),
            (Set::Wanted, RowExtent::Step) => Some(&self.rows.wanted_in_step),
            _ => None,
        }
    }

    fn view<T>(&self, slot: &Slot, dtype: DType) -> View<'_, T> {
        assert_eq!(slot.dtype, dtype, "a kernel reads an operand as another type");
        let rows = self.rows.set(self.node.set).len();
        assert!(rows <= slot.capacity || self.index(slot.extent).is_some(), "{rows} rows, room for {}", slot.capacity);
        // SAFETY: the buffer has room for `capacity` rows of `width` elements; `rows` is at most that, and indices come from row sets
        // that the executor checked against the same capacities. Nodes that write it ran before (verified order), and the only writer
        // now would be this node through an alias, which kernels take through `output` alone.
        unsafe { View::from_raw(slot.arena().cast(), rows, slot.width, slot.width, self.index(slot.extent)) }
    }

    /// Every row that there is room for; `T` is the type that the slot's dtype stands for.
    fn all_rows<'v, T>(slot: &Slot) -> View<'v, T> {
        // SAFETY: all `capacity` rows are inside the buffer. Rows that were never computed hold arbitrary bits, which are values of the
        // three types that `kept` asks for.
        unsafe { View::from_raw(slot.arena().cast_const().cast(), slot.capacity, slot.width, slot.width, None) }
    }

    /// Rows and columns of a per-row output; `T` is the type that the slot's dtype stands for.
    fn rows_of<T>(&self, slot: &Slot, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_, T> {
        assert!(slot.extent != RowExtent::Fixed);
        assert!(
            rows.start <= rows.end && rows.end <= self.rows().len() && columns.end <= slot.width,
            "{rows:?} × {columns:?}"
        );
        let index = self.index(slot.extent).map(|i| &i[rows.clone()]);
        assert!(rows.end <= slot.capacity || index.is_some());
        let first = if index.is_some() { 0 } else { rows.start };
        // SAFETY: inside the buffer by the assertions and the row sets' construction; no other live buffer overlaps it (verified plan);
        // tiles of a phase ask for disjoint parts (the contract of `Operands`).
        unsafe {
            let start = slot.arena().cast::<T>().add(first * slot.width + columns.start);
            ViewMut::from_raw(start, rows.len(), slot.width, columns.len(), index)
        }
    }

    fn row_of<T>(ptr: *mut u8, len: usize, elements: Range<usize>) -> ViewMut<'static, T> {
        assert!(
            elements.start <= elements.end && elements.end * size_of::<T>() <= len,
            "elements {elements:?} of {len} bytes"
        );
        // SAFETY: in bounds by the assertion; 64-byte aligned start; alive and not used by others as the caller argues.
        unsafe { ViewMut::from_raw(ptr.cast::<T>().add(elements.start), 1, elements.len(), elements.len(), None) }
    }
}

impl Operands for NodeOperands<'_, '_> {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn rows(&self) -> &RowSet {
        self.rows.set(self.node.set)
    }

    fn context(&self) -> usize {
        self.context
    }

    fn workers(&self) -> usize {
        self.workers
    }

    fn workers_are_apart(&self) -> bool {
        self.apart
    }

    fn input(&self, operand: usize) -> View<'_, f32> {
        self.view(&self.node.operands[operand], DType::F32)
    }

    fn integers(&self, operand: usize) -> View<'_, i32> {
        self.view(&self.node.operands[operand], DType::I32)
    }

    fn kept(&self, operand: usize) -> KeptRows<'_> {
        let slot = &self.node.operands[operand];
        match slot.dtype {
            DType::F32 => KeptRows::F32(Self::all_rows(slot)),
            DType::F16 => KeptRows::F16(Self::all_rows(slot)),
            DType::BF16 => KeptRows::Bf16(Self::all_rows(slot)),
            other => panic!("rows are kept as {other}"),
        }
    }

    fn kept_memory(&self, operand: usize, row: usize) -> *const u8 {
        let slot = &self.node.operands[operand];
        slot.arena().cast_const().cast::<u8>().wrapping_add(row * slot.width * slot.dtype.block_bytes())
    }

    fn fixed(&self, operand: usize) -> &[f32] {
        let slot = &self.node.operands[operand];
        match slot.place {
            Place::Param(Param::Plain(values)) => values,
            Place::Param(Param::Packed(_)) => panic!("a packed matrix is read as plain values"),
            Place::Param(Param::PlainBf16(_)) => panic!("a bf16 matrix is read as f32 values"),
            Place::Arena(p) => {
                assert!(slot.dtype == DType::F32 && slot.extent == RowExtent::Fixed);
                // SAFETY: the buffer holds `width` values written by an earlier step or by the caller; nobody writes it in this step.
                unsafe { std::slice::from_raw_parts(p.cast_const().cast(), slot.width) }
            }
        }
    }

    fn fixed_integers(&self, operand: usize) -> &[i32] {
        let slot = &self.node.operands[operand];
        assert!(slot.dtype == DType::I32 && slot.extent == RowExtent::Fixed);
        // SAFETY: as in `fixed`.
        unsafe { std::slice::from_raw_parts(slot.arena().cast_const().cast(), slot.width) }
    }

    fn weight(&self, operand: usize) -> Weight<'_> {
        let slot = &self.node.operands[operand];
        match slot.place {
            Place::Param(Param::Packed(matrix)) => Weight::Packed(matrix),
            Place::Param(Param::PlainBf16(values)) => {
                Weight::Plain(Matrix::Bf16(View::new(values, slot.width / slot.last.max(1), slot.last, slot.last)))
            }
            Place::Arena(p) if slot.dtype == DType::BF16 => {
                assert_eq!(slot.extent, RowExtent::Fixed);
                // SAFETY: the buffer holds `width` values written by the caller; nobody writes it in this step.
                let values = unsafe { std::slice::from_raw_parts(p.cast_const().cast(), slot.width) };
                Weight::Plain(Matrix::Bf16(View::new(values, slot.width / slot.last.max(1), slot.last, slot.last)))
            }
            _ => {
                let values = self.fixed(operand);
                let view = View::new(values, slot.width / slot.last.max(1), slot.last, slot.last);
                Weight::Plain(Matrix::F32(view))
            }
        }
    }

    fn output_width(&self, output: usize) -> usize {
        self.node.outputs[output].width
    }

    fn output(&self, output: usize, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_, f32> {
        let slot = &self.node.outputs[output];
        assert_eq!(slot.dtype, DType::F32, "a kernel writes an output as another type");
        self.rows_of(slot, rows, columns)
    }

    fn half_output(&self, output: usize, rows: Range<usize>) -> HalfRows<'_> {
        let slot = &self.node.outputs[output];
        match slot.dtype {
            DType::F16 => HalfRows::F16(self.rows_of(slot, rows, 0..slot.width)),
            DType::BF16 => HalfRows::Bf16(self.rows_of(slot, rows, 0..slot.width)),
            other => panic!("a kernel writes an output of {other} in half precision"),
        }
    }

    fn fixed_output(&self, output: usize, elements: Range<usize>) -> ViewMut<'_, f32> {
        let slot = &self.node.outputs[output];
        assert!(slot.dtype == DType::F32 && slot.extent == RowExtent::Fixed);
        Self::row_of(slot.arena(), slot.width * 4, elements)
    }

    fn fixed_output_matrix(&self, output: usize, columns: Range<usize>) -> ViewMut<'_, f32> {
        let slot = &self.node.outputs[output];
        assert!(slot.dtype == DType::F32 && slot.extent == RowExtent::Fixed && columns.end <= slot.last);
        let rows = slot.width / slot.last.max(1);
        // SAFETY: `rows × last` elements are the whole buffer; tiles of a phase ask for disjoint columns (the contract of `Operands`).
        unsafe {
            ViewMut::from_raw(slot.arena().cast::<f32>().add(columns.start), rows, slot.last, columns.len(), None)
        }
    }

    fn fixed_output_block(&self, output: usize, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_, f32> {
        let slot = &self.node.outputs[output];
        let (dtype, all) = (slot.dtype, slot.width / slot.last.max(1));
        assert!(dtype == DType::F32 && slot.extent == RowExtent::Fixed, "a kernel writes an output as another type");
        assert!(rows.start <= rows.end && rows.end <= all && columns.start <= columns.end && columns.end <= slot.last);
        // SAFETY: inside the buffer of `all × last` elements by the assertions; tiles of a phase ask for disjoint blocks (the contract of
        // `Operands`).
        unsafe {
            let start = slot.arena().cast::<f32>().add(rows.start * slot.last + columns.start);
            ViewMut::from_raw(start, rows.len(), slot.last, columns.len(), None)
        }
    }

    fn fixed_in_place(&self, operand: usize, elements: Range<usize>) -> ViewMut<'_, f32> {
        let slot = &self.node.operands[operand];
        assert!(slot.dtype == DType::F32 && slot.extent == RowExtent::Fixed);
        Self::row_of(slot.arena(), slot.width * 4, elements)
    }

    fn fixed_in_place_bf16(&self, operand: usize, elements: Range<usize>) -> ViewMut<'_, half::bf16> {
        let slot = &self.node.operands[operand];
        assert!(slot.dtype == DType::BF16 && slot.extent == RowExtent::Fixed);
        Self::row_of(slot.arena(), slot.width * 2, elements)
    }

    fn in_place(&self, operand: usize, output: usize) -> bool {
        self.node.in_place.contains(&(operand, output))
    }

    fn is_in_place(&self, output: usize) -> bool {
        self.node.in_place.iter().any(|&(_, o)| o == output)
    }

    fn shared(&self, elements: Range<usize>) -> View<'_, f32> {
        let ScratchSlot { ptr, len } = self.node.shared;
        assert!(
            elements.start <= elements.end && elements.end * 4 <= len,
            "elements {elements:?} of {len} bytes of scratch"
        );
        // SAFETY: in bounds by the assertion; written by an earlier phase of this node; nobody writes it in this phase.
        unsafe { View::from_raw(ptr.cast::<f32>().add(elements.start), 1, elements.len(), elements.len(), None) }
    }

    fn shared_rows(&self, start: usize, rows: usize, width: usize) -> View<'_, f32> {
        let ScratchSlot { ptr, len } = self.node.shared;
        assert!((start + rows * width) * 4 <= len, "{rows} rows of {width} from {start} in {len} bytes of scratch");
        // SAFETY: in bounds by the assertion; a tile reads only rows that it, or an earlier phase, has written.
        unsafe { View::from_raw(ptr.cast::<f32>().add(start), rows, width, width, None) }
    }

    fn shared_mut(&self, elements: Range<usize>) -> ViewMut<'_, f32> {
        Self::row_of(self.node.shared.ptr, self.node.shared.len, elements)
    }

    fn shared_block(&self, start: usize, width: usize, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_, f32> {
        let ScratchSlot { ptr, len } = self.node.shared;
        assert!(rows.start <= rows.end && columns.start <= columns.end && columns.end <= width);
        assert!(
            (start + rows.end * width) * 4 <= len,
            "rows {rows:?} of {width} from {start} in {len} bytes of scratch"
        );
        // SAFETY: in bounds by the assertions; tiles of a phase ask for disjoint blocks (the contract of `Operands`).
        unsafe {
            let first = ptr.cast::<f32>().add(start + rows.start * width + columns.start);
            ViewMut::from_raw(first, rows.len(), width, columns.len(), None)
        }
    }

    fn scratch(&self) -> ViewMut<'_, f32> {
        Self::row_of(self.scratch.ptr, self.scratch.len, 0..self.scratch.len / 4)
    }
}
