//! An open checkpoint: its configuration, its tensors, and the maps they live in.

use super::format::{Format, Parts, open_file};
use super::hf;
use super::layout::Parameter;
use super::model_config::ModelConfig;
use super::nearest::nearest;
use super::rows::{self, ParameterRows};
use super::tensors::{Entry, NamedTensor, Orientation, RowOrder, TensorInfo, split_pairs};
use super::tokenizer_source::TokenizerSource;
use crate::disk::MappedFile;
use crate::error::{Error, Result};
use crate::tensor::Shape;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A checkpoint, mapped. Tensor bytes are read when asked for.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    config: ModelConfig,
    tokenizer: TokenizerSource,
    files: Vec<MappedFile>,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens a Hugging Face directory, a `.safetensors`, a GGUF file, an llm.c model or a headerless f32 file; the content
    /// decides which, not the name. `overrides` are `--set NAME=VALUE` pairs: they replace dimensions and constants of the
    /// configuration and give a headerless file its dimensions; names the configuration does not have are left to the graph spec.
    pub fn open(path: &Path, overrides: &[(String, String)]) -> Result<Checkpoint> {
        let parts = if path.is_dir() { hf::open_directory(path)? } else { open_file(path, overrides)? };
        Self::from_parts(path, parts, overrides)
    }

    /// As [`Checkpoint::open`] for a Hugging Face model that is part of the program: its `config.json` and `model.safetensors`.
    /// `name` is for messages.
    pub fn embedded(
        name: &str,
        config: &str,
        weights: &'static [u8],
        overrides: &[(String, String)],
    ) -> Result<Checkpoint> {
        let parts = hf::from_memory(Path::new(name), config, MappedFile::embedded(name, weights))?;
        Self::from_parts(Path::new(name), parts, overrides)
    }

    fn from_parts(path: &Path, parts: Parts, overrides: &[(String, String)]) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint {
            path: path.to_path_buf(),
            format: parts.format,
            config: parts.config,
            tokenizer: parts.tokenizer,
            files: parts.files,
            index: HashMap::with_capacity(parts.entries.len()),
            entries: parts.entries,
        };
        checkpoint.settle_head()?;
        checkpoint.config.set(overrides)?;
        checkpoint.config.validate(path)?;
        for (i, entry) in checkpoint.entries.iter().enumerate() {
            if checkpoint.index.insert(entry.info.name.clone(), i).is_some() {
                return Err(Error::file(path, format!("two tensors are called '{}'", entry.info.name)));
            }
        }
        Ok(checkpoint)
    }

    /// A head equal to the token embedding is the tied one and leaves the list; a different one is used whatever the
    /// configuration says; a missing one must be tied.
    fn settle_head(&mut self) -> Result<()> {
        let at = |name: &str| self.entries.iter().position(|e| e.info.name == name);
        let (head, embedding) = (at("lm_head.weight"), at(self.config.family.embedding()));
        match head {
            Some(h) => {
                let same = embedding.is_some_and(|e| {
                    let (h, e) = (&self.entries[h], &self.entries[e]);
                    h.info.dtype == e.info.dtype && h.info.shape == e.info.shape && self.stored(h) == self.stored(e)
                });
                if same {
                    self.entries.remove(h);
                }
                self.config.set_tied(same);
            }
            None if !self.config.tied() => {
                let message =
                    "lm_head.weight is missing and tie_word_embeddings is false; the checkpoint is incomplete";
                return Err(Error::file(&self.path, message));
            }
            None => {}
        }
        Ok(())
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which format it is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Spec, dimensions, constants and special tokens.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tokenizer as GGUF metadata, to embed in a compiled model; `None` when the checkpoint brings none.
    ///
    /// # Errors
    /// Tokenizer files that cannot be read or have no such form.
    pub fn tokenizer_metadata(&self) -> Result<Option<super::GgufTokenizer>> {
        super::tokenizer_json::as_gguf(&self.tokenizer, &self.config)
    }

    /// What to build the tokenizer from.
    pub fn tokenizer(&self) -> &TokenizerSource {
        &self.tokenizer
    }

    /// Every tensor, in the file's order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.entries.iter().map(|e| &e.info)
    }

    /// Bytes that all tensors take in the file.
    pub fn weight_bytes(&self) -> usize {
        self.entries.iter().map(|e| e.len).sum()
    }

    /// The tensor called `name`, if there is one.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.entries[i].info)
    }

    /// The tensor called `name` when its shape, in orientation `orientation` for linear weights, is `shape`. The error names
    /// the nearest tensor, or both shapes.
    pub fn require(&self, name: &str, shape: &Shape, orientation: Option<Orientation>) -> Result<&TensorInfo> {
        let info = &self.entry(name)?.info;
        let found = orientation.map_or_else(|| info.shape.clone(), |o| info.shape_as(o));
        if found != *shape {
            let path = self.path.display();
            return Err(Error::Weights(format!("{path}: '{name}' has shape {found}, the model needs {shape}")));
        }
        Ok(info)
    }

    /// Refuses a tensor that is not among the names `used`, naming the nearest of them.
    pub fn refuse_extra<'a>(&self, used: impl Iterator<Item = &'a str>) -> Result<()> {
        let used: HashSet<&str> = used.collect();
        match self.tensors().find(|t| !used.contains(t.name.as_str())) {
            None => Ok(()),
            Some(extra) => {
                let mut names: Vec<&str> = used.into_iter().collect();
                names.sort_unstable();
                let hint = nearest(&extra.name, names.into_iter()).map(|n| format!("; the nearest it has is '{n}'"));
                let (path, name) = (self.path.display(), &extra.name);
                Err(Error::Weights(format!("{path}: the model has no '{name}'{}", hint.unwrap_or_default())))
            }
        }
    }

    /// The tensor called `name` with its bytes.
    pub fn get(&self, name: &str) -> Result<NamedTensor<'_>> {
        let entry = self.entry(name)?;
        let stored = self.stored(entry);
        let data = match entry.rows {
            RowOrder::Plain => Cow::Borrowed(stored),
            RowOrder::AdjacentPairs { head } => {
                let rows = entry.info.shape.dims()[0];
                Cow::Owned(split_pairs(stored, stored.len() / rows, head))
            }
        };
        Ok(NamedTensor { info: &entry.info, data })
    }

    /// Dequantises the tensor called `name` to `out` in stored order.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let tensor = self.get(name)?;
        self.check_len(tensor.info, out)?;
        tensor.read_f32(out);
        Ok(())
    }

    /// Dequantises the tensor called `name` to `out` in orientation `wanted` (tensors without one in stored order).
    pub fn read_f32_as(&self, name: &str, wanted: Orientation, out: &mut [f32]) -> Result<()> {
        let entry = self.entry(name)?;
        self.check_len(&entry.info, out)?;
        let rows = match *entry.info.shape_as(wanted).dims() {
            [rows, _] => rows,
            _ => 1,
        };
        rows::read(entry, self.stored(entry), wanted, 0..rows, out);
        Ok(())
    }

    /// Dequantises rows of a parameter to `out`, after checking its shape.
    ///
    /// # Panics
    /// When `out` has another number of values.
    pub fn read_rows(&self, part: &ParameterRows<'_>, out: &mut [f32]) -> Result<()> {
        let p = part.parameter;
        self.require(&p.name, &p.shape, p.orientation)?;
        let entry = self.entry(&p.name)?;
        rows::read(entry, self.stored(entry), part.orientation, part.rows.clone(), out);
        Ok(())
    }

    /// Dequantises `parameter` to `out` as Hugging Face stores it, after checking its shape.
    pub fn read_parameter(&self, parameter: &Parameter, out: &mut [f32]) -> Result<()> {
        self.require(&parameter.name, &parameter.shape, parameter.orientation)?;
        match parameter.orientation {
            Some(orientation) => self.read_f32_as(&parameter.name, orientation, out),
            None => self.read_f32(&parameter.name, out),
        }
    }

    /// Gives all pages of the files back to the system, directories included. What is read later comes from the files again.
    pub fn release_all(&self) {
        self.files.iter().for_each(|file| file.release(0, file.bytes().len()));
    }

    /// Gives the mapped pages of `name` back to the system; reading the tensor again maps them anew.
    pub fn release(&self, name: &str) {
        if let Some(&i) = self.index.get(name) {
            let e = &self.entries[i];
            self.files[e.file].release(e.start, e.len);
        }
    }

    fn stored(&self, entry: &Entry) -> &[u8] {
        &self.files[entry.file].bytes()[entry.start..][..entry.len]
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.index.get(name).map(|&i| &self.entries[i]).ok_or_else(|| {
            let hint = nearest(name, self.tensors().map(|t| t.name.as_str()));
            let hint = hint.map(|n| format!("; the nearest is '{n}'")).unwrap_or_default();
            Error::Weights(format!("{}: there is no tensor '{name}'{hint}", self.path.display()))
        })
    }

    fn check_len(&self, info: &TensorInfo, out: &[f32]) -> Result<()> {
        let (name, shape) = (&info.name, &info.shape);
        if shape.elements() != out.len() {
            let path = self.path.display();
            return Err(Error::Weights(format!("{path}: '{name}' has shape {shape}, not {} values", out.len())));
        }
        Ok(())
    }
}
