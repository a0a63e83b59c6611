//! The arena: one preallocated block, and the views of it that a running node gets.
//!
//! Every pointer handed out here comes from a verified plan: buffers that are alive at the same step do not overlap, each is large
//! enough for its tensor at full capacity, and offsets are multiples of 64 bytes.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::kernels::gemm::Matrix;
use crate::kernels::isa::Isa;
use crate::kernels::param::Param;
use crate::kernels::view::{View, ViewMut};
use crate::ops::{HalfRows, KeptRows, Operands, RowSet, Weight};
use crate::tensor::{DType, RowExtent};
use bumpalo::Bump;
use std::alloc::Layout;
use std::ops::Range;
use std::ptr::NonNull;

/// One block of memory, aligned to 64 bytes and to a huge page if it fills one, allocated once.
pub struct Arena {
    base: NonNull<u8>,
    len: usize,
    _bump: Bump,
}

// SAFETY: the arena owns its memory; access to it is through views whose contracts forbid races.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Allocates `bytes` bytes. Their content is undefined until a step writes it; persistent regions are zeroed by the caller.
    ///
    /// # Errors
    /// When the system has not that much memory.
    pub fn new(bytes: u64) -> Result<Self> {
        let refuse =
            || Error::Request(format!("cannot allocate an arena of {bytes} bytes; lower --rows, --slots or --threads"));
        let len = usize::try_from(bytes).map_err(|_| refuse())?;
        let align = if len >= HUGE_PAGE { HUGE_PAGE } else { 64 };
        let layout = Layout::from_size_align(len.max(64), align).map_err(|_| refuse())?;
        let bump = Bump::try_with_capacity(layout.size() + layout.align()).map_err(|_| refuse())?;
        let base = bump.try_alloc_layout(layout).map_err(|_| refuse())?;
        ask_for_huge_pages(base, len / HUGE_PAGE * HUGE_PAGE);
        Ok(Arena { base, len, _bump: bump })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of byte `offset`, from which `len` bytes lie inside the arena.
    ///
    /// # Panics
    /// When they do not.
    pub(super) fn at(&self, offset: u64, len: u64) -> *mut u8 {
        let end = offset.checked_add(len).expect("offsets of a verified plan do not overflow");
        assert!(end <= self.len as u64, "bytes {offset}..{end} of an arena of {} bytes", self.len);
        // SAFETY: inside the allocation by the assertion.
        unsafe { self.base.as_ptr().add(offset as usize) }
    }

    /// Fills bytes with a value; nothing else may use them meanwhile.
    pub(super) fn fill(&mut self, offset: u64, len: u64, value: u8) {
        let p = self.at(offset, len);
        // SAFETY: in bounds by `at`; `&mut self` excludes other users.
        unsafe { p.write_bytes(value, len as usize) }
    }

    /// Bytes that the caller knows to be written, as values of `T`.
    pub(super) fn slice<T: bytemuck::AnyBitPattern>(&self, offset: u64, elements: usize) -> &[T] {
        let p = self.at(offset, (elements * size_of::<T>()) as u64);
        assert!(p.addr().is_multiple_of(align_of::<T>()));
        // SAFETY: in bounds by `at`, aligned by the assertion, any bit pattern is a value; `&self` excludes writers, which all take `&mut`
        // or run inside `Executor::run`, which does.
        unsafe { std::slice::from_raw_parts(p.cast(), elements) }
    }

    /// Bytes as values of `T`, to write.
    pub(super) fn slice_mut<T: bytemuck::AnyBitPattern>(&mut self, offset: u64, elements: usize) -> &mut [T] {
        let p = self.at(offset, (elements * size_of::<T>()) as u64);
        assert!(p.addr().is_multiple_of(align_of::<T>()));
        // SAFETY: as `slice`, and `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(p.cast(), elements) }
    }
}

/// Bytes of a huge page where there are any.
const HUGE_PAGE: usize = 2 << 20;

/// Asks for huge pages under the first `len` bytes of untouched memory, whole pages of them: products walk over matrices in strides of many
/// small pages. What follows keeps small pages, so that no page reaches beyond the arena. Where the system declines, only speed differs.
fn ask_for_huge_pages(base: NonNull<u8>, len: usize) {
    #[cfg(target_os = "linux")]
    if len > 0 {
        // SAFETY: the range is inside the arena's allocation and aligned to its start; the advice changes no content.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (base, len);
}

/// Hands memory that start-up freed back to the system, where the allocator can: parsing a checkpoint's vocabulary leaves megabytes of it.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call takes no pointer and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Where a tensor is: in the arena, or a parameter outside of it.
#[derive(Clone, Copy)]
pub(super) enum Place<'w> {
    Arena(*mut u8),
    Param(Param<'w>),
}

/// An operand or output, resolved once at start-up.
#[derive(Clone, Copy)]
pub(super) struct Slot<'w> {
    pub place: Place<'w>,
    pub dtype: DType,
    pub extent: RowExtent,
    /// Rows that there is room for.
    pub capacity: usize,
    /// Elements in a row, or in all when the extent is fixed.
    pub width: usize,
    /// Elements in the last dimension (a matrix's columns).
    pub last: usize,
}

// SAFETY: a slot is an address and sizes; what may be done with the address is decided by `NodeOperands`.
unsafe impl Send for Slot<'_> {}
// SAFETY: as above.
unsafe impl Sync for Slot<'_> {}

impl Slot<'_> {
    fn arena(&self) -> *mut u8 {
        match self.place {
            Place::Arena(p) => p,
            Place::Param(_) => panic!("a parameter outside the arena is read as rows"),
        }
    }
}

/// A piece of scratch: address and bytes.
#[derive(Clone, Copy)]
pub(super) struct ScratchSlot {
    pub ptr: *mut u8,
    pub len: usize,
}

// SAFETY: as for `Slot`.
unsafe impl Send for ScratchSlot {}
// SAFETY: as for `Slot`.
unsafe impl Sync for ScratchSlot {}

/// The live rows of a run, for each row space.
#[derive(Default)]
pub(super) struct LiveRows {
    /// Rows that are new in this call.
    pub new: RowSet,
    /// Rows whose results are wanted.
    pub wanted: RowSet,
    /// For each wanted row its place among the new rows.
    pub wanted_in_step: Vec<u32>,
    /// Every row from the first on, for ops whose skipping is switched off.
    pub all: RowSet,
    /// Whether `all` is kept up to date (full plans only).
    pub track_all: bool,
}

/// Which of [`LiveRows`] a node runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    New,
    Wanted,
    All,
}

impl LiveRows {
    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.new.clear();
        self.wanted.clear();
        self.wanted_in_step.clear();
        self.all.clear();
    }

    /// Appends rows `first .. first + count` of a slot, the last `wanted` of which are wanted.
    pub fn push(&mut self, slot: usize, first: usize, count: usize, wanted: usize, context: usize) {
        let end = self.new.len() + count;
        self.new.push(slot, first, count, context);
        self.wanted.push(slot, first + count - wanted, wanted, context);
        self.wanted_in_step.extend((end - wanted..end).map(|r| r as u32));
        if self.track_all {
            self.all.push(slot, 0, first + count, context);
        }
    }

    pub fn set(&self, set: Set) -> &RowSet {
        match set {
            Set::New => &self.new,
            Set::Wanted => &self.wanted,
            Set::All => &self.all,
        }
    }
}

/// A node resolved against the arena.
pub(super) struct BoundNode<'w> {
    pub operands: Vec<Slot<'w>>,
    pub outputs: Vec<Slot<'w>>,
    pub shared: ScratchSlot,
    /// The (operand, output) pairs that share memory.
    pub in_place: Vec<(usize, usize)>,
    pub set: Set,
}

/// What a kernel sees: one node, one worker.
pub(super) struct NodeOperands<'a, 'w> {
    pub node: &'a BoundNode<'w>,
    pub rows: &'a LiveRows,
    pub context: usize,
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
