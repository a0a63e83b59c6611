//! GGUF's names for tensors and Hugging Face's.

use super::super::model_config::Family;

/// Names outside the layers: GGUF, Hugging Face.
const GPT2: [(&str, &str); 5] = [
    ("token_embd.weight", "wte.weight"),
    ("position_embd.weight", "wpe.weight"),
    ("output_norm.weight", "ln_f.weight"),
    ("output_norm.bias", "ln_f.bias"),
    ("output.weight", "lm_head.weight"),
];
const LLAMA: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Modules of a layer: `blk.{i}.` + first, `h.{i}.` + second.
const GPT2_LAYER: [(&str, &str); 6] = [
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];
/// Modules of a layer: `blk.{i}.` + first, `model.layers.{i}.` + second.
const LLAMA_LAYER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The names outside the layers, the modules of a layer, and what Hugging Face puts in front of a layer's number.
type Table = (&'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)], &'static str);

fn table(family: Family) -> Table {
    match family {
        Family::Gpt2 => (&GPT2, &GPT2_LAYER, "h."),
        Family::Llama => (&LLAMA, &LLAMA_LAYER, "model.layers."),
    }
}

/// Hugging Face's name of the GGUF tensor `name`, if a model of `layers` layers has it.
pub fn hugging_face(family: Family, name: &str, layers: usize) -> Option<String> {
    let (outside, modules, prefix) = table(family);
    if let Some((_, hf)) = outside.iter().find(|(gguf, _)| *gguf == name) {
        return Some(hf.to_string());
    }
    let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, part) = rest.split_once('.')?;
    let layer: usize = number.parse().ok()?;
    let (_, hf) = modules.iter().find(|(gguf, _)| *gguf == module)?;
    let known = part == "weight" || part == "bias" && family == Family::Gpt2;
    // The number must be in its canonical spelling: `blk.00` is not layer 0 a second time.
    (known && layer < layers && layer.to_string() == number).then(|| format!("{prefix}{layer}.{hf}.{part}"))
}

/// GGUF's name of the Hugging Face tensor `name`.
pub fn gguf(family: Family, name: &str) -> Option<String> {
    let (outside, modules, prefix) = table(family);
    if let Some((gguf, _)) = outside.iter().find(|(_, hf)| *hf == name) {
        return Some(gguf.to_string());
    }
    let (layer, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    let (module, part) = rest.rsplit_once('.')?;
    let (gguf, _) = modules.iter().find(|(_, hf)| *hf == module)?;
    Some(format!("blk.{layer}.{gguf}.{part}"))
}

/// Whether the Hugging Face tensor `name` is the weight of a linear layer, if it is a matrix.
pub(super) fn is_linear(family: Family, name: &str) -> bool {
    name != family.embedding() && name != "wpe.weight" && name.ends_with(".weight")
}

/// Whether converters reorder the rows of the Hugging Face tensor `name` for rotation of adjacent pairs.
pub fn is_rotated(name: &str) -> bool {
    name.ends_with(".self_attn.q_proj.weight") || name.ends_with(".self_attn.k_proj.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (family, theirs, ours) in [
            (Family::Gpt2, "blk.11.attn_qkv.bias", "h.11.attn.c_attn.bias"),
            (Family::Gpt2, "position_embd.weight", "wpe.weight"),
            (Family::Llama, "blk.0.attn_k.weight", "model.layers.0.self_attn.k_proj.weight"),
            (Family::Llama, "blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight"),
            (Family::Llama, "output.weight", "lm_head.weight"),
        ] {
            assert_eq!(hugging_face(family, theirs, 12).as_deref(), Some(ours));
            assert_eq!(gguf(family, ours).as_deref(), Some(theirs));
        }
    }

    #[test]
    fn strangers_have_no_name() {
        for name in
            ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.12.attn_q.weight", "blk.00.attn_q.weight", "blk.", ""]
        {
            assert_eq!(hugging_face(Family::Llama, name, 12), None, "{name}");
        }
    }
}
