//! Which instruction set the kernels use, chosen once at start-up.

use std::sync::OnceLock;

/// Names AVX-512 without the extensions that [`Isa::has_vnni`] and [`Isa::has_bf16`] tell of.
const PLAIN_AVX512: &str = "avx512f";

/// Whether extensions of AVX-512 may be used where the CPU has them.
#[cfg(target_arch = "x86_64")]
fn has_extensions() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| std::env::var("STATICGRAD_ISA").as_deref() != Ok(PLAIN_AVX512))
}

/// An instruction-set path. Every kernel exists for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, written to be autovectorised by the compiler for its baseline target.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL; see [`Isa::has_vnni`] and [`Isa::has_bf16`].
    Avx512,
}

impl Isa {
    /// The path in use: the best one this CPU has, or the one that `STATICGRAD_ISA` names (`portable`, `avx2`, `avx512`; `avx512f` is
    /// the last as on CPUs without VNNI and bf16 dot products).
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
            "avx512" | PLAIN_AVX512 => Isa::Avx512,
            other => {
                return Err(format!(
                    "STATICGRAD_ISA={other}: unknown instruction set; use portable, avx2, avx512 or {PLAIN_AVX512}"
                ));
            }
        };
        if Isa::available().contains(&wanted) {
            Ok(wanted)
        } else {
            Err(format!("STATICGRAD_ISA={name}: this CPU does not have it; the best here is {}", Isa::best().name()))
        }
    }

    /// The paths that this CPU can run, slowest first.
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
        }
    }

    /// Whether the path may use 512-bit VNNI (`vpdpbusd`).
    pub fn has_vnni(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Isa::Avx512 && has_extensions() && is_x86_feature_detected!("avx512vnni");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether the path may use 512-bit bf16 dot products (`vdpbf16ps`).
    pub fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Isa::Avx512 && has_extensions() && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}
