//! Which instruction set the kernels use, chosen once at start-up.

#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Names AVX-512 without the extensions that [`Isa::has_vnni`], [`Isa::has_bf16_conversions`] and [`Isa::uses_bf16_dots`] tell of.
const PLAIN_AVX512: &str = "avx512f";
/// Names AVX-512 with bf16 dot products wherever the CPU has them.
const AVX512_BF16: &str = "avx512bf16";

/// Which extensions of AVX-512 may be used where the CPU has them.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extensions {
    None,
    /// Those that make a kernel faster on this CPU.
    Faster,
    All,
}

#[cfg(target_arch = "x86_64")]
fn extensions() -> Extensions {
    static ALLOWED: OnceLock<Extensions> = OnceLock::new();
    *ALLOWED.get_or_init(|| match std::env::var("STATICGRAD_ISA").as_deref() {
        Ok(PLAIN_AVX512) => Extensions::None,
        Ok(AVX512_BF16) => Extensions::All,
        _ => Extensions::Faster,
    })
}

/// Whether a bf16 dot product (`vdpbf16ps`: two products per lane) takes less time than the two fused multiply-adds that do the same on
/// widened values. No CPU tells; its maker does, and the answer has to be the same in every run, so nothing is timed.
///
/// Measured with 512-bit registers: on AMD Zen 4 dots do twice the operations of multiply-adds; on Intel Emerald Rapids half of them (180
/// against 360 GFLOP/s on two cores), as one dot starts every other cycle, but two multiply-adds in each. Of dots of other makers nothing is
/// known, and products of multiply-adds are of use everywhere.
#[cfg(target_arch = "x86_64")]
fn bf16_dots_are_faster() -> bool {
    made_by_amd()
}

/// Whether the CPU names AMD as its maker.
#[cfg(not(target_arch = "x86_64"))]
fn made_by_amd() -> bool {
    false
}

/// Whether the CPU names AMD as its maker.
#[cfg(target_arch = "x86_64")]
fn made_by_amd() -> bool {
    static AMD: OnceLock<bool> = OnceLock::new();
    *AMD.get_or_init(|| {
        // SAFETY: every x86-64 CPU has the instruction and its leaf 0.
        #[allow(unused_unsafe, reason = "safe from Rust 1.92 on")]
        let leaf = unsafe { std::arch::x86_64::__cpuid(0) };
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    })
}

/// Whether the CPU has CLFLUSHOPT (leaf 7 of CPUID, EBX bit 23; Intel SDM volume 2A), which no detection of the standard library names.
#[cfg(target_arch = "x86_64")]
pub(super) fn flushes_lines() -> bool {
    static FLUSHES: OnceLock<bool> = OnceLock::new();
    *FLUSHES.get_or_init(|| {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        // SAFETY: every x86-64 CPU has the instruction, and leaf 0 tells the last leaf.
        #[allow(unused_unsafe, reason = "safe from Rust 1.92 on")]
        let bits = unsafe { if __cpuid(0).eax < 7 { 0 } else { __cpuid_count(7, 0).ebx } };
        bits >> 23 & 1 == 1
    })
}

/// An instruction-set path. Every kernel exists for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, written to be autovectorised by the compiler for its baseline target.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL; see [`Isa::has_vnni`], [`Isa::has_bf16_conversions`] and
    /// [`Isa::uses_bf16_dots`].
    Avx512,
    /// [`Isa::Avx512`] with VNNI and BF16, and tile registers ([`super::tiles`]) for products of bf16 values and of bytes.
    Amx,
}

impl Isa {
    /// The path in use: the best one this CPU has, or the one that `STATICGRAD_ISA` names (`portable`, `avx2`, `avx512`, `amx`; `avx512f` is
    /// AVX-512 as on CPUs without VNNI and bf16, `avx512bf16` with bf16 dot products even if they are slower here).
    ///
    /// An unknown or unsupported name is reported by [`Isa::from_environment`], which `main` calls first; here it would be
    /// a broken invariant.
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| Isa::from_environment().unwrap_or_else(|e| panic!("{e}")))
    }

    /// Reads `STATICGRAD_ISA`, falling back to detection when it is not set.
    ///
    /// # Errors
    /// One line when the name is unknown or the CPU lacks the instruction set.
    pub fn from_environment() -> Result<Isa, String> {
        let Ok(name) = std::env::var("STATICGRAD_ISA") else { return Ok(Isa::best()) };
        let wanted = match name.as_str() {
            "portable" => Isa::Portable,
            "avx2" => Isa::Avx2,
            "avx512" | PLAIN_AVX512 | AVX512_BF16 => Isa::Avx512,
            "amx" => Isa::Amx,
            other => {
                return Err(format!(
                    "STATICGRAD_ISA={other}: unknown instruction set; use portable, avx2, avx512, {PLAIN_AVX512}, {AVX512_BF16} or amx"
                ));
            }
        };
        if Isa::available().contains(&wanted) && (name != AVX512_BF16 || wanted.has_bf16_conversions()) {
            Ok(wanted)
        } else {
            Err(format!("STATICGRAD_ISA={name}: this CPU does not have it; the best here is {}", Isa::best().name()))
        }
    }

    /// The paths that this CPU can run, slowest first; without [`Isa::Amx`] where `STATICGRAD_ISA` takes AVX-512's extensions away.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            if avx2 {
                found.push(Isa::Avx2);
            }
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                found.push(Isa::Avx512);
                if extensions() != Extensions::None
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512bf16")
                    && super::tiles::allowed()
                {
                    found.push(Isa::Amx);
                }
            }
        }
        found
    }

    /// The fastest available path.
    pub fn best() -> Isa {
        *Isa::available().last().expect("the portable path is always there")
    }

    /// Lower-case name, as `STATICGRAD_ISA` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }

    /// Whether the path may use AVX-512 F, BW, DQ and VL.
    pub fn has_avx512(self) -> bool {
        self >= Isa::Avx512
    }

    /// Whether the path may use 512-bit VNNI (`vpdpbusd`).
    pub fn has_vnni(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.has_avx512() && extensions() != Extensions::None && is_x86_feature_detected!("avx512vnni");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether the path may use AVX-512 BF16: conversions (`vcvtneps2bf16`), which are faster than rounding by integer arithmetic everywhere, and
    /// dot products, which are not ([`Isa::uses_bf16_dots`]).
    pub fn has_bf16_conversions(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.has_avx512() && extensions() != Extensions::None && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether products of bf16 values are dot products (`vdpbf16ps`): the CPU has them, and they are faster there than multiply-adds on widened
    /// values, or `STATICGRAD_ISA=avx512bf16` asks for them.
    pub fn uses_bf16_dots(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.has_bf16_conversions() && (extensions() == Extensions::All || bf16_dots_are_faster());
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether writing a cache line that another core has read takes several times as long as writing one that nobody holds, or that only the
    /// other core holds. No CPU tells this either; what Zen 4 does is taken to hold for AMD.
    ///
    /// Measured between two cores of AMD Zen 4 over 384 KB: lines that only the other core holds are written at 73 GB/s, lines that both hold
    /// at 9, past the caches at 29; where the cores have no outer cache in common, at 27, 1.8 and 28.
    pub fn takes_lines_back_slowly(self) -> bool {
        made_by_amd()
    }

    /// Whether several arrays that are walked side by side come from memory fastest when nothing is asked for ahead of them; its maker tells.
    ///
    /// Measured with the optimiser's four arrays on two cores of AMD Zen 4: without asking ahead 58.0 ms, half a page ahead 60.0; where each core
    /// has its own way to memory, 32.5 and 40.1. On Intel half a page ahead is faster.
    pub fn prefetches_streams_itself(self) -> bool {
        made_by_amd()
    }

    /// Whether the path has VNNI and scaling by a power of two (`vscalefps`) runs beside dot products instead of in their place. Its maker
    /// tells.
    ///
    /// Measured on AMD Zen 4, where it runs on the units of additions: a kernel of eight dot products and two multiply-adds with and without
    /// it takes as long, with a multiplication in its place a tenth longer.
    pub fn scales_beside_products(self) -> bool {
        self.has_vnni() && made_by_amd()
    }

    /// Whether a core reads memory faster in one stream than in several side by side. As with bf16 dots no CPU tells, and its maker does.
    ///
    /// Measured with two cores beside a plain read: on AMD Zen 4 one stream of f16 weights at 101 % and four at 78 to 92 % of it, whatever is
    /// asked for ahead; on Intel Emerald Rapids one at two thirds of what four read.
    pub fn reads_one_stream_fastest(self) -> bool {
        made_by_amd()
    }
}
