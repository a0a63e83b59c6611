//! The arena: one preallocated block, and the views of it that a running node gets.
//!
//! Every pointer handed out here comes from a verified plan: buffers that are alive at the same step do not overlap, each is large
//! enough for its tensor at full capacity, and offsets are multiples of 64 bytes.
#![allow(unsafe_code)]

mod operands;

use crate::error::{Error, Result};
use crate::kernels::param::Param;
use crate::ops::RowSet;
use crate::tensor::{DType, RowExtent};
use bumpalo::Bump;
pub(super) use operands::NodeOperands;
use std::alloc::Layout;
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
        let refuse = || {
            Error::Request(format!(
                "cannot allocate an arena of {bytes} bytes; ask for fewer rows, sequences or threads"
            ))
        };
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
