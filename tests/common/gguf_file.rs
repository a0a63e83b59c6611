//! Writes small GGUF files with weights of any type.
#![allow(dead_code, reason = "each test binary uses a part")]

use staticgrad::kernels::quant::quantize;
use staticgrad::tensor::DType;
use std::path::Path;

/// A tensor: name, dimensions with rows first, type.
pub type Tensor = (String, Vec<usize>, DType);

/// Pseudo-random words, the same in every run.
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In −1..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }
}

/// GGUF's number of a type.
fn number(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 8,
        DType::Q4K => 12,
        DType::Q6K => 14,
        DType::BF16 => 30,
        other => panic!("{other} is not written here"),
    }
}

/// `count` values of a standard deviation near 0.06 in blocks of `dtype`; those that no quantiser here makes are made of random quants.
fn data(random: &mut Random, count: usize, dtype: DType) -> Vec<u8> {
    let f16 = |x: f32| half::f16::from_f32(x).to_le_bytes();
    let block: &mut dyn FnMut() -> Vec<u8> = match dtype {
        // f16 scale, f16 minimum, scales and minima of 6 bits, nibbles.
        DType::Q4K => {
            &mut || [f16(4e-4), f16(3e-3)].concat().into_iter().chain((4..144).map(|_| random.byte())).collect()
        }
        // Quants of 6 bits, a scale of 8 bits for each 16, f16 scale.
        DType::Q6K => &mut || {
            let mut bytes: Vec<u8> = (0..192).map(|_| random.byte()).collect();
            bytes.extend((0..16).map(|_| (random.byte() % 33) as i8 as u8));
            bytes.extend(f16(2e-4));
            bytes
        },
        _ => {
            let values: Vec<f32> = (0..count).map(|_| 0.1 * random.unit()).collect();
            let mut bytes = vec![0; dtype.bytes_for(count).expect("whole blocks")];
            quantize(dtype, &values, &mut bytes);
            return bytes;
        }
    };
    (0..count / 256).flat_map(|_| block()).collect()
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.bytes());
}

/// A tokenizer whose tokens are the 256 bytes, as GPT-2 writes them in characters, and one that ends a text: how many values, and they.
fn byte_tokenizer() -> (u64, Vec<u8>) {
    let (mut out, mut hidden) = (Vec::new(), 256..);
    let mut tokens: Vec<String> = (0..256u32)
        .map(|byte| match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte,
            _ => hidden.next().expect("there are more"),
        })
        .map(|code| char::from_u32(code).expect("a character").to_string())
        .collect();
    tokens.push("<|end|>".into());
    for (key, value) in [("model", "gpt2"), ("pre", "gpt-2")] {
        text(&mut out, &format!("tokenizer.ggml.{key}"));
        out.extend(8u32.to_le_bytes());
        text(&mut out, value);
    }
    let array = |out: &mut Vec<u8>, key: &str, kind: u32| {
        text(out, &format!("tokenizer.ggml.{key}"));
        out.extend(9u32.to_le_bytes().into_iter().chain(kind.to_le_bytes()));
        out.extend((tokens.len() as u64).to_le_bytes());
    };
    array(&mut out, "tokens", 8);
    tokens.iter().for_each(|token| text(&mut out, token));
    array(&mut out, "token_type", 5);
    (0..tokens.len()).for_each(|i| out.extend(if i < 256 { 1i32 } else { 3 }.to_le_bytes()));
    text(&mut out, "tokenizer.ggml.eos_token_id");
    out.extend(4u32.to_le_bytes().into_iter().chain(256u32.to_le_bytes()));
    (5, out)
}

/// Writes a file: architecture, integers and fractions among its metadata, tensors of pseudo-random values. Norms' weights are one. A
/// vocabulary of 257 gets a tokenizer.
pub fn write(path: &Path, architecture: &str, integers: &[(&str, u32)], fractions: &[(&str, f32)], tensors: &[Tensor]) {
    let tokenizer = (tensors[0].1[0] == 257).then(byte_tokenizer).unwrap_or_default();
    let (mut head, mut body, mut random) = (b"GGUF".to_vec(), Vec::new(), Random(0x2545_f491_4f6c_dd1d));
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((1 + tokenizer.0 + integers.len() as u64 + fractions.len() as u64).to_le_bytes());
    text(&mut head, "general.architecture");
    head.extend(8u32.to_le_bytes());
    text(&mut head, architecture);
    for (key, value) in integers {
        text(&mut head, &format!("{architecture}.{key}"));
        head.extend(4u32.to_le_bytes().into_iter().chain(value.to_le_bytes()));
    }
    for (key, value) in fractions {
        text(&mut head, &format!("{architecture}.{key}"));
        head.extend(6u32.to_le_bytes().into_iter().chain(value.to_le_bytes()));
    }
    head.extend(tokenizer.1);
    for (name, dims, dtype) in tensors {
        text(&mut head, name);
        head.extend((dims.len() as u32).to_le_bytes());
        dims.iter().rev().for_each(|&d| head.extend((d as u64).to_le_bytes()));
        head.extend(number(*dtype).to_le_bytes());
        head.extend((body.len() as u64).to_le_bytes());
        let count = dims.iter().product();
        if name.ends_with("norm.weight") {
            body.extend((0..count).flat_map(|_| 1f32.to_le_bytes()));
        } else {
            body.extend(data(&mut random, count, *dtype));
        }
        body.resize(body.len().next_multiple_of(32), 0);
    }
    head.resize(head.len().next_multiple_of(32), 0);
    head.extend(body);
    std::fs::write(path, head).expect("a file");
}

/// The types that stay as they are in memory.
pub const KEPT: [DType; 7] = [DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q4K, DType::Q6K];

/// A Llama of two layers over bytes, with every type of [`KEPT`] among its matrices.
pub fn mixed_llama(path: &Path) {
    let (vocabulary, channels, kept, inner) = (257, 256, 128, 512);
    let mut tensors: Vec<Tensor> = vec![("token_embd.weight".into(), vec![vocabulary, channels], DType::Q8_0)];
    for layer in 0..2 {
        let matrices = [
            ("attn_q", channels, channels),
            ("attn_k", kept, channels),
            ("attn_v", kept, channels),
            ("attn_output", channels, channels),
            ("ffn_gate", inner, channels),
            ("ffn_up", inner, channels),
            ("ffn_down", channels, inner),
        ];
        for (i, (name, n, k)) in matrices.into_iter().enumerate() {
            tensors.push((format!("blk.{layer}.{name}.weight"), vec![n, k], KEPT[(i + 3 * layer) % KEPT.len()]));
        }
        for name in ["attn_norm", "ffn_norm"] {
            tensors.push((format!("blk.{layer}.{name}.weight"), vec![channels], DType::F32));
        }
    }
    tensors.push(("output_norm.weight".into(), vec![channels], DType::F32));
    let integers = [
        ("block_count", 2),
        ("context_length", 64),
        ("embedding_length", channels as u32),
        ("feed_forward_length", inner as u32),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", 64),
    ];
    let fractions = [("attention.layer_norm_rms_epsilon", 1e-5), ("rope.freq_base", 10_000.0)];
    write(path, "llama", &integers, &fractions, &tensors);
}

/// A GPT-2 over bytes with matrices of `dtype`, of `layers` · 12 · `channels`² values.
pub fn byte_gpt2(path: &Path, dtype: DType, layers: u32, channels: usize, context: usize) {
    let c = channels;
    let mut tensors: Vec<Tensor> = vec![
        ("token_embd.weight".into(), vec![256, c], dtype),
        ("position_embd.weight".into(), vec![context, c], DType::F32),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, dims: &[usize], dtype| {
            tensors.push((format!("blk.{layer}.{name}"), dims.to_vec(), dtype));
        };
        for (name, n, k) in
            [("attn_qkv", 3 * c, c), ("attn_output", c, c), ("ffn_up", 4 * c, c), ("ffn_down", c, 4 * c)]
        {
            add(&format!("{name}.weight"), &[n, k], dtype);
            add(&format!("{name}.bias"), &[n], DType::F32);
        }
        for name in ["attn_norm", "ffn_norm"] {
            add(&format!("{name}.weight"), &[c], DType::F32);
            add(&format!("{name}.bias"), &[c], DType::F32);
        }
    }
    for name in ["output_norm.weight", "output_norm.bias"] {
        tensors.push((name.into(), vec![c], DType::F32));
    }
    let integers = [
        ("block_count", layers),
        ("context_length", context as u32),
        ("embedding_length", c as u32),
        ("feed_forward_length", 4 * c as u32),
        ("attention.head_count", c as u32 / 64),
    ];
    write(path, "gpt2", &integers, &[("attention.layer_norm_epsilon", 1e-5)], &tensors);
}
