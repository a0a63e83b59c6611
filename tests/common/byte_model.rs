//! A small GPT-2 over bytes, written as a Hugging Face directory: it brings no tokenizer and needs none.

use safetensors::tensor::{Dtype, TensorView};
use std::path::{Path, PathBuf};

/// Tokens that the model knows.
pub const VOCABULARY: usize = 256;
/// Rows of its context.
pub const CONTEXT: usize = 32;
/// Channels.
pub const CHANNELS: usize = 16;

/// A tensor on its way into a file.
pub struct Stored {
    /// Name in the checkpoint.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Element type in the header.
    pub dtype: Dtype,
    /// Little-endian values.
    pub data: Vec<u8>,
}

/// The tensors of the model, pseudo-random.
pub fn tensors() -> Vec<Stored> {
    let c = CHANNELS;
    let shapes: [(&str, &[usize]); 16] = [
        ("wte.weight", &[VOCABULARY, c]),
        ("wpe.weight", &[CONTEXT, c]),
        ("h.0.ln_1.weight", &[c]),
        ("h.0.ln_1.bias", &[c]),
        ("h.0.attn.c_attn.weight", &[c, 3 * c]),
        ("h.0.attn.c_attn.bias", &[3 * c]),
        ("h.0.attn.c_proj.weight", &[c, c]),
        ("h.0.attn.c_proj.bias", &[c]),
        ("h.0.ln_2.weight", &[c]),
        ("h.0.ln_2.bias", &[c]),
        ("h.0.mlp.c_fc.weight", &[c, 4 * c]),
        ("h.0.mlp.c_fc.bias", &[4 * c]),
        ("h.0.mlp.c_proj.weight", &[4 * c, c]),
        ("h.0.mlp.c_proj.bias", &[c]),
        ("ln_f.weight", &[c]),
        ("ln_f.bias", &[c]),
    ];
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    shapes
        .iter()
        .map(|(name, shape)| {
            let data = (0..shape.iter().product::<usize>()).flat_map(|_| next().to_le_bytes()).collect();
            Stored { name: (*name).into(), shape: shape.to_vec(), dtype: Dtype::F32, data }
        })
        .collect()
}

/// Writes `tensors` with a configuration to the new directory `directory`.
pub fn write(directory: &Path, tensors: &[Stored]) -> PathBuf {
    std::fs::create_dir(directory).expect("a new directory");
    let config = serde_json::json!({
        "model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
        "vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_embd": CHANNELS, "n_head": 2, "n_layer": 1, "n_inner": null
    });
    std::fs::write(directory.join("config.json"), config.to_string()).expect("a file");
    safetensors_file(&directory.join("model.safetensors"), tensors);
    directory.to_path_buf()
}

/// Writes one safetensors file.
pub fn safetensors_file(path: &Path, tensors: &[Stored]) {
    let views = tensors.iter().map(|t| {
        let view = TensorView::new(t.dtype, t.shape.clone(), &t.data).expect("the data has the size of the shape");
        (t.name.as_str(), view)
    });
    let bytes = safetensors::serialize(views, None).expect("tensors of unequal names");
    std::fs::write(path, bytes).expect("a file");
}

/// A `[batch, length]` tensor of integers.
pub fn integers(name: &str, [batch, length]: [usize; 2], values: &[i32]) -> Stored {
    let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Stored { name: name.into(), shape: vec![batch, length], dtype: Dtype::I32, data }
}
