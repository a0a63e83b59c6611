//! Tile registers (Intel AMX): eight registers of up to 16 rows of 64 bytes, and products of them.
//!
//! Registers 0 to 7 hold what was loaded until [`Config::load`] or [`release`] clears them, so a kernel loads its configuration, works, and
//! releases. Compilers leave these registers alone. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volumes 1 (chapter 18)
//! and 2.
#![allow(unsafe_code)]

use std::arch::asm;
use std::sync::OnceLock;

/// Rows of a full tile.
pub(super) const ROWS: usize = 16;
/// Bytes of a row of a full tile.
pub(super) const ROW_BYTES: usize = 64;

/// Whether the CPU has tiles with products of bf16 and of bytes, and the operating system lets this process use them. Linux wants to be
/// asked once, because a thread's saved state grows by 8 KiB with its first use.
pub(super) fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| present() && saved_by_system() && permitted())
}

/// Bits of CPUID leaf 7, register EDX: AMX-BF16, AMX-TILE, AMX-INT8.
fn present() -> bool {
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    // SAFETY: every x86-64 CPU has the instruction.
    #[allow(unused_unsafe, reason = "safe from Rust 1.92 on")]
    let (highest, leaf) = unsafe { (std::arch::x86_64::__cpuid(0).eax, std::arch::x86_64::__cpuid_count(7, 0)) };
    highest >= 7 && leaf.edx & BITS == BITS
}

/// Whether tile configuration and tile data (bits 17 and 18 of XCR0) are among what the operating system saves for a thread.
fn saved_by_system() -> bool {
    #[target_feature(enable = "xsave")]
    fn enabled_state() -> u64 {
        // SAFETY: the operating system has enabled the instruction, as AVX-512 is only detected then.
        unsafe { std::arch::x86_64::_xgetbv(0) }
    }
    const TILES: u64 = 3 << 17;
    // SAFETY: just detected.
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("xsave")
        && unsafe { enabled_state() } & TILES == TILES
}

#[cfg(target_os = "linux")]
fn permitted() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` of `arch_prctl`: asks for a part of the state, here tile data.
    const ASK: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: the call reads its arguments only; kernels that do not know it answer with an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ASK, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Shapes of the eight registers (palette 1).
#[repr(C, align(64))]
pub(super) struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// Without registers.
    pub const fn new() -> Self {
        Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] }
    }

    /// With register `tile` of `rows` rows (1 to 16) of `row_bytes` bytes (4 to 64, whole words).
    pub const fn with(mut self, tile: usize, rows: usize, row_bytes: usize) -> Self {
        assert!(
            tile < 8
                && rows >= 1
                && rows <= ROWS
                && row_bytes >= 4
                && row_bytes <= ROW_BYTES
                && row_bytes.is_multiple_of(4)
        );
        self.rows[tile] = rows as u8;
        self.row_bytes[tile] = row_bytes as u16;
        self
    }

    /// Gives the registers their shapes and clears them.
    ///
    /// # Safety
    /// Tiles are [`allowed`].
    #[inline(always)]
    pub unsafe fn load(&self) {
        // SAFETY: reads the 64 bytes of `self`, which are a valid configuration by construction.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, preserves_flags, readonly)) }
    }
}

/// Takes the registers back to their initial state, in which switching threads does not save them.
///
/// # Safety
/// Tiles are [`allowed`].
#[inline(always)]
pub(super) unsafe fn release() {
    // SAFETY: touches tile registers only.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
}

/// Clears register `T`.
///
/// # Safety
/// A configuration with it is loaded.
#[inline(always)]
pub(super) unsafe fn zero<const T: usize>() {
    // SAFETY: touches a tile register only.
    unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, preserves_flags, nomem)) }
}

/// Loads register `T`, whose rows lie `stride` bytes apart.
///
/// # Safety
/// A configuration with it is loaded; its rows can be read.
#[inline(always)]
pub(super) unsafe fn load<const T: usize>(at: *const u8, stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!("tileloadd tmm{t}, [{at} + {stride}*1]", t = const T, at = in(reg) at, stride = in(reg) stride,
            options(nostack, preserves_flags, readonly))
    }
}

/// Stores register `T` in rows `stride` bytes apart.
///
/// # Safety
/// A configuration with it is loaded; its rows can be written.
#[inline(always)]
pub(super) unsafe fn store<const T: usize>(at: *mut u8, stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!("tilestored [{at} + {stride}*1], tmm{t}", t = const T, at = in(reg) at, stride = in(reg) stride,
            options(nostack, preserves_flags))
    }
}

/// `C[m, n] += Σ_k A[m, k] · B[k, n]` of bf16 values into f32: rows of `A` hold inputs in order, row `i` of `B` inputs `2i` and `2i + 1` of each
/// output. The even and the odd inputs of the tile are two chains of fused multiply-adds from zero, whose sum is added to `C`; denormal
/// operands and results are zero.
///
/// # Safety
/// A configuration with all three is loaded, in which `A` has as many words in a row as `B` rows.
#[inline(always)]
pub(super) unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>() {
    // SAFETY: touches tile registers only.
    unsafe {
        asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
            options(nostack, preserves_flags, nomem))
    }
}

/// As [`dot_i8_u8`] for signed bytes on both sides.
///
/// # Safety
/// As [`dot_bf16`].
#[inline(always)]
pub(super) unsafe fn dot_i8<const C: usize, const A: usize, const B: usize>() {
    // SAFETY: touches tile registers only.
    unsafe {
        asm!("tdpbssd tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
            options(nostack, preserves_flags, nomem))
    }
}

/// As [`dot_bf16`] for signed bytes `A` and unsigned bytes `B` into i32, exactly: row `i` of `B` holds inputs `4i` to `4i + 3` of each output.
///
/// # Safety
/// As [`dot_bf16`].
#[inline(always)]
pub(super) unsafe fn dot_i8_u8<const C: usize, const A: usize, const B: usize>() {
    // SAFETY: touches tile registers only.
    unsafe {
        asm!("tdpbsud tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
            options(nostack, preserves_flags, nomem))
    }
}
