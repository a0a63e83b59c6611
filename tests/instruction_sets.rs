//! `STATICGRAD_ISA`: each path that the CPU has runs the built-in model, others are refused in one line.

use std::process::{Command, Output};

fn run_under(isa: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_staticgrad"))
        .env("STATICGRAD_ISA", isa)
        .args(["run", "ROMEO:", "--max-tokens", "3", "--weights-type", "bf16", "--kv-type", "bf16"])
        .output()
        .expect("the program starts")
}

#[test]
fn paths_run_where_the_cpu_has_them_and_are_refused_elsewhere() {
    let mut paths = vec![("portable", true)];
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
        paths.push(("amx", staticgrad::kernels::isa::Isa::available().contains(&staticgrad::kernels::isa::Isa::Amx)));
        paths.extend([("avx2", avx2), ("avx512f", avx512), ("avx512", avx512), ("avx512bf16", bf16)]);
    }
    for (isa, supported) in paths {
        let output = run_under(isa);
        let message = String::from_utf8_lossy(&output.stderr);
        if supported {
            assert!(output.status.success() && output.stdout.len() > "ROMEO:".len(), "{isa}: {message}");
        } else {
            assert!(!output.status.success(), "{isa}");
            assert!(message.contains(&format!("STATICGRAD_ISA={isa}: this CPU does not have it")), "{message}");
        }
    }
}

#[test]
fn unknown_paths_are_refused_with_those_there_are() {
    let output = run_under("sse9");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert_eq!(message.lines().count(), 1, "{message}");
    for word in ["STATICGRAD_ISA=sse9", "portable", "avx2", "avx512f", "avx512bf16", "amx"] {
        assert!(message.contains(word), "{message}");
    }
}
