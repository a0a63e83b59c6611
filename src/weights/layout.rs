//! The parameters of a model family: names, shapes and orientation as Hugging Face stores them.

use super::model_config::{Family, ModelConfig};
use super::tensors::{Orientation, transposed};
use crate::error::Result;
use crate::tensor::Shape;

/// One parameter of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Hugging Face name without `transformer.`.
    pub name: String,
    /// Shape as Hugging Face stores it.
    pub shape: Shape,
    /// Orientation of linear weights as Hugging Face stores them; none for embeddings, norms and biases.
    pub orientation: Option<Orientation>,
}

impl Parameter {
    /// Shape in orientation `wanted`.
    pub fn shape_as(&self, wanted: Orientation) -> Shape {
        match self.orientation {
            Some(o) if o != wanted => transposed(&self.shape),
            _ => self.shape.clone(),
        }
    }
}

/// All parameters, in the order in which PyTorch lists them: embeddings, then layer by layer, then the last norm, then
/// `lm_head.weight` unless tied.
pub fn parameters(config: &ModelConfig) -> Result<Vec<Parameter>> {
    let mut list = match config.family {
        Family::Gpt2 => gpt2(config)?,
        Family::Llama => llama(config)?,
    };
    if !config.tied() {
        let (v, c) = (config.dim("V")?, config.dim("C")?);
        list.push(matrix("lm_head.weight", [v, c], Some(Orientation::OutIn)));
    }
    Ok(list)
}

fn matrix(name: impl Into<String>, shape: [usize; 2], orientation: Option<Orientation>) -> Parameter {
    Parameter { name: name.into(), shape: Shape::new(shape), orientation }
}

fn vector(name: impl Into<String>, len: usize) -> Parameter {
    Parameter { name: name.into(), shape: Shape::new([len]), orientation: None }
}

fn gpt2(config: &ModelConfig) -> Result<Vec<Parameter>> {
    let (v, t, c) = (config.dim("V")?, config.dim("T")?, config.dim("C")?);
    let (l, f) = (config.dim("L")?, config.dim("F")?);
    let mut list = vec![matrix("wte.weight", [v, c], None), matrix("wpe.weight", [t, c], None)];
    for i in 0..l {
        for (name, inputs, outputs) in [
            ("ln_1", None, c),
            ("attn.c_attn", Some(c), 3 * c),
            ("attn.c_proj", Some(c), c),
            ("ln_2", None, c),
            ("mlp.c_fc", Some(c), f),
            ("mlp.c_proj", Some(f), c),
        ] {
            let weight = format!("h.{i}.{name}.weight");
            list.push(match inputs {
                Some(inputs) => matrix(weight, [inputs, outputs], Some(Orientation::InOut)),
                None => vector(weight, outputs),
            });
            list.push(vector(format!("h.{i}.{name}.bias"), outputs));
        }
    }
    list.push(vector("ln_f.weight", c));
    list.push(vector("ln_f.bias", c));
    Ok(list)
}

fn llama(config: &ModelConfig) -> Result<Vec<Parameter>> {
    let (v, c, l, f) = (config.dim("V")?, config.dim("C")?, config.dim("L")?, config.dim("F")?);
    let (h, kv, d) = (config.dim("H")?, config.dim("KV")?, config.dim("D")?);
    let mut list = vec![matrix("model.embed_tokens.weight", [v, c], None)];
    for i in 0..l {
        for (name, outputs, inputs) in [
            ("self_attn.q_proj", h * d, c),
            ("self_attn.k_proj", kv * d, c),
            ("self_attn.v_proj", kv * d, c),
            ("self_attn.o_proj", c, h * d),
            ("mlp.gate_proj", f, c),
            ("mlp.up_proj", f, c),
            ("mlp.down_proj", c, f),
        ] {
            let name = format!("model.layers.{i}.{name}.weight");
            list.push(matrix(name, [outputs, inputs], Some(Orientation::OutIn)));
        }
        list.push(vector(format!("model.layers.{i}.input_layernorm.weight"), c));
        list.push(vector(format!("model.layers.{i}.post_attention_layernorm.weight"), c));
    }
    list.push(vector("model.norm.weight", c));
    Ok(list)
}
