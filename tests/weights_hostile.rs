//! Damaged checkpoints: one clear line and never a panic.

use staticgrad::error::Result;
use staticgrad::weights::Checkpoint;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Opens and reads everything.
fn read_all(path: &Path) -> Result<usize> {
    let checkpoint = Checkpoint::open(path, &[])?;
    let mut values = 0;
    for t in checkpoint.tensors() {
        let mut out = vec![0.0; t.shape.elements()];
        checkpoint.read_f32(&t.name, &mut out)?;
        values += out.len();
    }
    Ok(values)
}

/// A copy of one checkpoint in a directory of its own, to damage.
struct Victim {
    directory: tempfile::TempDir,
    file: &'static str,
    bytes: Vec<u8>,
}

impl Victim {
    fn new(folder: &str, file: &'static str, config: bool) -> Victim {
        let directory = tempfile::tempdir().unwrap();
        if config {
            std::fs::copy(fixture(folder).join("config.json"), directory.path().join("config.json")).unwrap();
        }
        let bytes = std::fs::read(fixture(folder).join(file)).unwrap();
        Victim { directory, file, bytes }
    }

    fn all() -> Vec<Victim> {
        vec![
            Victim::new("gpt2-tiny", "model.safetensors", true),
            Victim::new("gpt2-tiny", "llmc_model.bin", false),
            Victim::new("gpt2-tiny", "seed_weights.bin", true),
            Victim::new("gguf-mini", "gpt2.gguf", false),
            Victim::new("gguf-mini", "llama.gguf", false),
        ]
    }

    fn read(&self, bytes: &[u8]) -> Result<usize> {
        let path = self.directory.path().join(self.file);
        std::fs::write(&path, bytes).unwrap();
        read_all(&path)
    }

    fn error(&self, bytes: &[u8]) -> String {
        let error = self.read(bytes).unwrap_err().to_string();
        assert!(error.contains(self.file) && !error.contains('\n'), "{error}");
        error
    }

    /// The file with `new` in place of the bytes at `at`.
    fn with(&self, at: usize, new: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    }
}

/// xorshift64*: positions and bits of damage.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

#[test]
fn every_truncation_is_refused() {
    for victim in Victim::all() {
        assert!(victim.read(&victim.bytes).unwrap() > 10_000, "{}", victim.file);
        let len = victim.bytes.len();
        // Every length of the first bytes, then samples, then every length near the end.
        let lengths = (0..200).chain((200..len).step_by(len / 150)).chain(len - 40..len);
        for n in lengths {
            victim.error(&victim.bytes[..n]);
        }
    }
}

#[test]
fn extra_bytes_are_refused_where_the_format_says_the_size() {
    for victim in Victim::all().into_iter().filter(|v| !v.file.ends_with("gguf")) {
        let mut longer = victim.bytes.clone();
        longer.extend([0; 4]);
        victim.error(&longer);
    }
}

#[test]
fn flipped_bits_never_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for victim in Victim::all() {
        let header = match victim.file {
            "llmc_model.bin" => 64,
            "model.safetensors" => 8 + u64::from_le_bytes(*victim.bytes.first_chunk().unwrap()) as usize,
            _ => 3500.min(victim.bytes.len()),
        };
        let mut refused = 0;
        for _ in 0..400 {
            let mut bytes = victim.bytes.clone();
            for _ in 0..=random.below(3) {
                bytes[random.below(header)] ^= 1 << random.below(8);
            }
            match victim.read(&bytes) {
                Ok(_) => {}
                Err(e) => {
                    refused += 1;
                    assert!(!e.to_string().is_empty());
                }
            }
        }
        // Headerless files have nothing to check in their values.
        assert!(refused > 50 || victim.file == "seed_weights.bin", "{}: {refused}", victim.file);
    }
}

#[test]
fn lying_gguf_headers() {
    let gguf = Victim::new("gguf-mini", "llama.gguf", false);
    let huge = (1u64 << 60).to_le_bytes();
    assert!(gguf.error(&gguf.with(8, &huge)).contains("the number of tensors is 1152921504606846976"));
    assert!(gguf.error(&gguf.with(16, &huge)).contains("the number of metadata values is"));
    assert!(gguf.error(&gguf.with(24, &huge)).contains("the length of a metadata key is"));
    assert!(gguf.error(&gguf.with(4, &[2])).contains("GGUF version 2 is not read"));
    assert!(gguf.error(&gguf.with(4, &[0, 0, 0, 3])).contains("big-endian"));
    let table = |name: &str| {
        let at = gguf.bytes.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
        at + name.len()
    };
    // After a name: u32 rank, u64 × rank dimensions, u32 type, u64 offset.
    let at = table("blk.0.ffn_down.weight");
    assert!(gguf.error(&gguf.with(at, &[9])).contains("'blk.0.ffn_down.weight' has 9 dimensions"));
    assert!(gguf.error(&gguf.with(at + 4, &huge)).contains("is larger than memory can be"));
    assert!(gguf.error(&gguf.with(at + 4, &[95])).contains("rows of 95 values, not whole blocks of 32"));
    assert!(gguf.error(&gguf.with(at + 20, &[77])).contains("has type number 77"));
    assert!(gguf.error(&gguf.with(at + 24, &[1])).contains("not a multiple of the alignment 32"));
    assert!(gguf.error(&gguf.with(at + 24, &huge)).contains("truncated or damaged"));
    assert!(gguf.error(&gguf.with(at + 24, &[0; 8])).contains("overlap"));
    assert!(gguf.error(&gguf.with(at - 1, b"X")).contains("has no place in a llama model"));
    let at = table("blk.1.ffn_down.weight");
    assert!(gguf.error(&gguf.with(at - 17, b"0")).contains("two tensors are called 'blk.0.ffn_down.weight'"));
}

#[test]
fn lying_safetensors_headers() {
    let file = Victim::new("gpt2-tiny", "model.safetensors", true);
    let write = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        file.error(&bytes)
    };
    let tensor = |name: &str, dtype: &str, shape: &str, a: u64, b: u64| {
        format!(r#""{name}": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [{a}, {b}]}}"#)
    };
    let one = tensor("a", "F32", "[2]", 0, 8);
    for (header, data, message) in [
        (format!("{{{one}}}"), 4, "ends at byte 8 of the data, the file has 4"),
        (format!("{{{one}}}"), 12, "4 bytes follow the last tensor"),
        (format!("{{{one}, {one}}}"), 8, "two tensors are called 'a'"),
        (format!("{{{one}, {}}}", tensor("b", "F32", "[2]", 4, 12)), 12, "tensor 'b' overlaps"),
        (format!("{{{one}, {}}}", tensor("b", "F32", "[2]", 12, 20)), 20, "tensor 'b' starts at byte 12 of the data"),
        (format!("{{{}}}", tensor("a", "F32", "[3]", 0, 8)), 8, "does not take the bytes 0..8"),
        (format!("{{{}}}", tensor("a", "F32", "[4611686018427387904, 4]", 0, 8)), 8, "does not take the bytes"),
        (format!("{{{}}}", tensor("a", "F32", "[2]", 8, 0)), 8, "does not take the bytes 8..0"),
        (format!("{{{}}}", tensor("a", "F12", "[2]", 0, 8)), 8, "unknown variant `F12`"),
        (format!("{{{}}}", tensor("a", "I64", "[1]", 0, 8)), 8, "'a' has type I64; F32, F16 and BF16 are read"),
        (format!("{{{one}, {}}}", tensor("transformer.a", "F32", "[2]", 8, 16)), 16, "two tensors are called 'a'"),
        ("{]".to_string(), 8, "header is not valid"),
    ] {
        let error = write(&header, data);
        assert!(error.contains(message), "{header}: {error}");
    }
    let error = file.error(&file.with(0, &(1u64 << 20).to_le_bytes()));
    assert!(error.contains("claims 1048576 bytes"), "{error}");
}

#[test]
fn lying_llmc_headers() {
    let file = Victim::new("gpt2-tiny", "llmc_model.bin", false);
    let with = |field: usize, value: i32| file.error(&file.with(4 * field, &value.to_le_bytes()));
    assert!(with(1, 4).contains("llm.c model version 4 is not read"));
    assert!(with(2, 64).contains("bytes, the file has 442368"));
    assert!(with(4, i32::MAX).contains("dimension L is 2147483647"));
    assert!(with(6, 66).contains("66 channels do not divide into 4 heads"));
    assert!(with(6, i32::MAX).contains("dimension F is 8589934588"));
    assert!(with(6, 1 << 28).contains("the file has 442368"));
    assert!(with(7, 96).contains("the padded vocabulary 96 is smaller than 97"));
    assert!(with(7, i32::MAX).contains("the file has 442368"));
    assert!(with(3, -1).contains("dimension V is -1"));
    assert!(with(0, 20240520).contains("an llm.c token file, not a model"));
}

#[test]
fn what_is_not_a_checkpoint_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.bin");
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Checkpoint::open(&path, &[]).unwrap_err().to_string()
    };
    assert!(error(b"").contains("the file is empty"));
    assert!(error(b"PK\x03\x04....").contains("PyTorch pickle"));
    assert!(error(b"hello there").contains("no known magic number (it starts with 68 65 6c 6c 6f 20 74 68)"));
    let missing = Checkpoint::open(&directory.path().join("nothing"), &[]).unwrap_err().to_string();
    assert!(missing.contains("nothing: cannot open: No such file"), "{missing}");
    let empty = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(empty.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("no model.safetensors"), "{error}");
    std::fs::copy(fixture("gpt2-tiny/model.safetensors"), empty.path().join("model.safetensors")).unwrap();
    let error = Checkpoint::open(empty.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("config.json: cannot open"), "{error}");
    std::fs::write(empty.path().join("config.json"), "[").unwrap();
    let error = Checkpoint::open(empty.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("config.json: not valid JSON"), "{error}");
}
