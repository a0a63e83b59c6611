//! The loops that are timed, for each instruction set.
#![allow(unsafe_code)]

use super::Arithmetic;
use crate::kernels::isa::Isa;
use std::hint::black_box;

/// Sums `values` in 64 lanes: enough independent additions that only memory limits.
#[inline(always)]
fn read_body(values: &[f32]) -> f32 {
    let mut sums = [0f32; 64];
    for chunk in values.chunks_exact(64) {
        for (s, v) in sums.iter_mut().zip(chunk) {
            *s += v;
        }
    }
    sums.iter().sum()
}

#[inline(always)]
fn update_body(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        *m = 0.5 * *m + 0.5 * g;
        *v = 0.5 * *v + 0.5 * g;
        *p -= 1e-9 * (*m + *v);
    }
}

/// 96 independent multiply-adds in each round.
fn multiply_add_body(rounds: usize) -> f32 {
    let mut sums = [[0f32; 16]; 6];
    let (a, b) = (black_box(0.999f32), black_box(0.001f32));
    for _ in 0..rounds {
        for sums in &mut sums {
            for s in sums {
                *s = *s * a + b;
            }
        }
    }
    sums.iter().flatten().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{read_body, update_body};
    use crate::kernels::tiles::{self, Config, ROW_BYTES, ROWS};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub fn read_avx512(values: &[f32]) -> f32 {
        read_body(values)
    }

    #[target_feature(enable = "avx2")]
    pub fn read_avx2(values: &[f32]) -> f32 {
        read_body(values)
    }

    #[target_feature(enable = "avx512f,fma")]
    pub fn update_avx512(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        update_body(p, g, m, v);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn update_avx2(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        update_body(p, g, m, v);
    }

    /// Independent chains of one instruction.
    macro_rules! chains {
        ($name:ident, $chains:literal, $features:literal, $zero:expr, $operand:expr, $step:expr) => {
            #[target_feature(enable = $features)]
            pub fn $name(rounds: usize) {
                let operand = black_box($operand);
                let mut sums = [$zero; $chains];
                for _ in 0..rounds {
                    for s in &mut sums {
                        *s = $step(*s, operand);
                    }
                }
                black_box(sums);
            }
        };
    }

    chains!(f32_avx2, 12, "avx2,fma", _mm256_setzero_ps(), _mm256_set1_ps(0.5), |s, a| _mm256_fmadd_ps(s, a, a));
    chains!(f32_avx512, 16, "avx512f", _mm512_setzero_ps(), _mm512_set1_ps(0.5), |s, a| _mm512_fmadd_ps(s, a, a));
    chains!(bf16_avx512, 16, "avx512f,avx512bf16", _mm512_setzero_ps(), _mm512_set1_epi32(0), |s, a| {
        // SAFETY: both are 64 bytes without invalid values.
        let a: __m512bh = unsafe { std::mem::transmute::<__m512i, __m512bh>(a) };
        _mm512_dpbf16_ps(s, a, a)
    });
    chains!(int8_avx512, 16, "avx512f,avx512vnni", _mm512_setzero_si512(), _mm512_set1_epi32(0), |s, a| {
        _mm512_dpbusd_epi32(s, a, a)
    });
    /// Four independent products of full tiles in each round.
    ///
    /// # Safety
    /// Tiles are allowed.
    pub unsafe fn tiles(rounds: usize, bf16: bool) {
        const CONFIG: Config = {
            let mut config = Config::new();
            let mut tile = 0;
            while tile < 8 {
                config = config.with(tile, ROWS, ROW_BYTES);
                tile += 1;
            }
            config
        };
        // SAFETY: all registers are configured (and cleared), none is loaded from memory.
        unsafe {
            CONFIG.load();
            for _ in 0..rounds {
                if bf16 {
                    tiles::dot_bf16::<0, 4, 6>();
                    tiles::dot_bf16::<1, 4, 7>();
                    tiles::dot_bf16::<2, 5, 6>();
                    tiles::dot_bf16::<3, 5, 7>();
                } else {
                    tiles::dot_i8_u8::<0, 4, 6>();
                    tiles::dot_i8_u8::<1, 4, 7>();
                    tiles::dot_i8_u8::<2, 5, 6>();
                    tiles::dot_i8_u8::<3, 5, 7>();
                }
            }
            tiles::release();
        }
    }

    chains!(int16_avx512, 16, "avx512f,avx512bw", _mm512_setzero_si512(), _mm512_set1_epi32(0), |s, a| {
        _mm512_add_epi32(s, _mm512_madd_epi16(s, a))
    });
}

pub(super) fn read(isa: Isa, values: &[f32]) -> f32 {
    match isa {
        // SAFETY: an `Isa` is only handed out when the CPU has it (here and below).
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe { x86::read_avx512(values) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::read_avx2(values) },
        _ => read_body(values),
    }
}

pub(super) fn update(isa: Isa, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    match isa {
        // SAFETY: an `Isa` is only handed out when the CPU has it.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe { x86::update_avx512(p, g, m, v) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::update_avx2(p, g, m, v) },
        _ => update_body(p, g, m, v),
    }
}

/// Runs `rounds` rounds and returns how many operations that was.
pub(super) fn arithmetic(isa: Isa, kind: Arithmetic, rounds: usize) -> f64 {
    let n = rounds as f64;
    match (isa, kind) {
        // SAFETY: an `Isa` is only handed out when the CPU has it.
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx, Arithmetic::Bf16 | Arithmetic::Int8) => {
            unsafe { x86::tiles(rounds, kind == Arithmetic::Bf16) };
            n * 4.0 * 16.0 * 16.0 * if kind == Arithmetic::Bf16 { 64.0 } else { 128.0 }
        }
        // SAFETY: an `Isa` is only handed out when the CPU has it; dot products and VNNI are asked for (here and below).
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Arithmetic::Bf16) if isa.uses_bf16_dots() => {
            unsafe { x86::bf16_avx512(rounds) };
            n * 16.0 * 64.0
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Arithmetic::Int8) if isa.has_vnni() => {
            unsafe { x86::int8_avx512(rounds) };
            n * 16.0 * 128.0
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Arithmetic::Int8) => {
            unsafe { x86::int16_avx512(rounds) };
            n * 16.0 * 64.0
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Amx, _) => {
            unsafe { x86::f32_avx512(rounds) };
            n * 16.0 * 32.0
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, _) => {
            unsafe { x86::f32_avx2(rounds) };
            n * 12.0 * 16.0
        }
        _ => {
            black_box(multiply_add_body(rounds));
            n * 96.0 * 2.0
        }
    }
}
