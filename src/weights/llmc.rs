//! llm.c's model files: 256 × i32 of header, then tensors grouped over all layers, matrices `[out, in]`.

use super::format::{Format, Parts};
use super::layout::{Parameter, parameters};
use super::model_config::ModelConfig;
use super::tensors::{Entry, Orientation, RowOrder, TensorInfo};
use super::tokenizer_source::TokenizerSource;
use crate::disk::MappedFile;
use crate::error::{Error, Result};
use crate::tensor::DType;
use byteorder::{ByteOrder, LittleEndian};

/// First number of a model file.
pub const MAGIC: u32 = 20240326;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 1024;

/// GPT-2's vocabulary, whose last token ends a text.
const GPT2_VOCABULARY: i64 = 50257;

/// Reads the header and lays out the tensors. Padding rows of the vocabulary are left out.
pub(super) fn open(file: MappedFile) -> Result<Parts> {
    let (path, bytes) = (file.path(), file.bytes());
    if bytes.len() < HEADER_BYTES {
        let message =
            format!("an llm.c header takes {HEADER_BYTES} bytes, the file has {}; it is truncated", bytes.len());
        return Err(Error::file_at(path, bytes.len() as u64, message));
    }
    let field = |i: usize| i64::from(LittleEndian::read_i32(&bytes[4 * i..]));
    let dtype = match field(1) {
        3 => DType::F32,
        5 => DType::BF16,
        other => {
            let message =
                format!("llm.c model version {other} is not read (3, f32, and 5, bf16, are); export it again");
            return Err(Error::file_at(path, 4, message));
        }
    };
    let (t, v, l, h, c, padded) = (field(2), field(3), field(4), field(5), field(6), field(7));
    let mut config = ModelConfig::gpt2([v, t, c, h, l, c.saturating_mul(4)], 1e-5, true);
    config.validate(path)?;
    if padded < v {
        return Err(Error::file_at(path, 28, format!("the padded vocabulary {padded} is smaller than {v}")));
    }
    if v == GPT2_VOCABULARY {
        config.eos = vec![v as u32 - 1];
        config.bos = Some(v as u32 - 1);
    }
    let padding = (padded - v) as usize * c as usize;
    let mut entries = Vec::new();
    let mut at = Some(HEADER_BYTES);
    for p in file_order(parameters(&config)?) {
        let info = TensorInfo {
            shape: p.shape_as(Orientation::OutIn),
            orientation: p.orientation.map(|_| Orientation::OutIn),
            dtype,
            name: p.name,
        };
        let len = info.shape.checked_elements().and_then(|n| dtype.bytes_for(n));
        let padding = if info.name == "wte.weight" { dtype.bytes_for(padding) } else { Some(0) };
        let start = at;
        at = start.zip(len).zip(padding).and_then(|((a, n), p)| a.checked_add(n)?.checked_add(p));
        if let (Some(start), Some(len)) = (start, len) {
            entries.push(Entry { info, file: 0, start, len, rows: RowOrder::Plain });
        }
    }
    if at != Some(bytes.len()) {
        let expected = at.map_or("more bytes than can be addressed".into(), |n| format!("{n} bytes"));
        let message = format!("the header's dimensions take {expected}, the file has {}", bytes.len());
        return Err(Error::file_at(path, bytes.len() as u64, message + "; it is truncated or damaged"));
    }
    Ok(Parts { format: Format::Llmc, config, tokenizer: TokenizerSource::None, entries, files: vec![file] })
}

/// Orders GPT-2's parameters as llm.c does: embeddings, then each kind of tensor for all layers, then the last norm.
pub(super) fn file_order(list: Vec<Parameter>) -> Vec<Parameter> {
    let kind = |p: &Parameter| -> usize {
        let name = p.name.strip_prefix("h.").and_then(|n| n.split_once('.')).map(|(_, kind)| kind);
        match name {
            Some(kind) => 2 + KINDS.iter().position(|k| *k == kind).expect("every kind of tensor of a layer is listed"),
            None if p.name.starts_with('w') => usize::from(p.name.starts_with("wpe")),
            None => 2 + KINDS.len(),
        }
    };
    let mut list = list;
    // Stable: layers, and the last norm's weight and bias, keep their order.
    list.sort_by_key(kind);
    list
}

/// The tensors of a layer in llm.c's order.
const KINDS: [&str; 12] = [
    "ln_1.weight",
    "ln_1.bias",
    "attn.c_attn.weight",
    "attn.c_attn.bias",
    "attn.c_proj.weight",
    "attn.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
];
