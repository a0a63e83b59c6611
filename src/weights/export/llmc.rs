//! llm.c model files, versions 3 (f32) and 5 (bf16).

use super::super::llmc::{HEADER_BYTES, MAGIC, file_order};
use super::super::model_config::Family;
use super::super::tensors::Orientation;
use super::{Export, PieceWriter, ReadRows};
use crate::disk::write_atomically;
use crate::error::{Error, Result};
use crate::tensor::DType;
use byteorder::{ByteOrder, LittleEndian};
use std::path::Path;

/// Vocabularies are padded to a multiple of this.
const PADDING: usize = 128;
/// The one epsilon that llm.c knows.
const EPS: f64 = 1e-5;

/// Writes the file.
pub(super) fn write(export: &Export<'_>, path: &Path, read: &mut ReadRows<'_>) -> Result<()> {
    let config = export.config;
    let refuse = |why: &str| Err(Error::file(path, format!("llm.c cannot hold this model: {why}")));
    if config.family != Family::Gpt2 {
        return refuse("it is not a GPT-2");
    }
    let dim = |name: &str| config.dim(name);
    let (v, t, c, h, l) = (dim("V")?, dim("T")?, dim("C")?, dim("H")?, dim("L")?);
    if !config.tied() {
        return refuse("its head is not the token embedding");
    }
    if dim("F")? != 4 * c {
        return refuse("its inner width is not four times its channels");
    }
    if config.float("eps")? != EPS {
        return refuse("the epsilon of its norms is not 1e-5");
    }
    let padded = v.next_multiple_of(PADDING);
    let mut header = vec![0; HEADER_BYTES];
    let version = if export.dtype == DType::BF16 { 5 } else { 3 };
    for (i, value) in [MAGIC as usize, version, t, v, l, h, c, padded].into_iter().enumerate() {
        LittleEndian::write_u32(&mut header[4 * i..], value as u32);
    }
    write_atomically(path, |w| {
        w.put(&header)?;
        let mut pieces = PieceWriter::default();
        for p in file_order(export.parameters()?) {
            let written = pieces.write(w, &p, (export.dtype, Orientation::OutIn, None), read)?;
            if p.name == "wte.weight" {
                w.put(&vec![0; written / v * (padded - v)])?;
            }
        }
        Ok(())
    })
}
