//! Checkpoints of training: one safetensors file with the weights that are trained and their moments, whose metadata says the rest.
//!
//! The file takes its place by a rename after it is on the disk, so a kill at any moment leaves the previous one or the new one.

use super::loader::Position;
use super::settings::{Planning, Settings};
use crate::disk::AtomicFile;
use crate::error::{Error, Result};
use crate::exec::Trainer;
use crate::graph::Graph;
use crate::passes::optimizer::{FIRST_MOMENT, SECOND_MOMENT};
use crate::tensor::DType;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Key of the state in the file's metadata.
const KEY: &str = "staticgrad.training";
/// Version of [`State`].
const VERSION: u32 = 2;
/// No header of ours is longer.
const MAX_HEADER: u64 = 100_000_000;

/// Everything of a run beside weights and moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of this structure.
    pub version: u32,
    /// Optimiser steps done.
    pub step: u64,
    /// Where the next batch starts. Random numbers are functions of seed, step and position: there is no other random state.
    pub position: Position,
    /// Seconds of training so far.
    pub seconds: f64,
    /// Step and validation loss of the best validation so far.
    pub best: Option<(u64, f64)>,
    /// Model, data and hyperparameters.
    pub settings: Settings,
    /// Name of the spec's model.
    pub model_name: String,
    /// Resolved dimensions and constants of the spec, as text, which keeps every bit.
    pub constants: BTreeMap<String, String>,
    /// Tokens of the training data.
    pub data_tokens: u64,
    /// XXH3 of the frozen parameters, as 16 hexadecimal digits, when there are some: they are not in the file.
    #[serde(default)]
    pub frozen: Option<String>,
    /// XXH3 of this structure's text without it and of the values, in the order of the file, as 16 hexadecimal digits.
    pub checksum: String,
}

impl State {
    /// A state at step 0.
    pub fn new(settings: Settings, graph: &Graph, data_tokens: u64) -> Self {
        State {
            version: VERSION,
            step: 0,
            position: Position::default(),
            seconds: 0.0,
            best: None,
            settings,
            model_name: graph.name.clone(),
            constants: graph.constants.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
            data_tokens,
            frozen: None,
            checksum: String::new(),
        }
    }
}

/// XXH3 of the parameters that no update changes; `None` when there are none.
pub fn frozen_checksum(trainer: &Trainer) -> Option<String> {
    let mut hash = Xxh3::new();
    let trained: HashSet<&str> = trainer.trained().collect();
    let frozen: Vec<&str> = trainer.parameters().filter(|name| !trained.contains(name)).collect();
    for name in &frozen {
        hash.update(trainer.stored(name).expect("the trainer holds every parameter").1);
    }
    (!frozen.is_empty()).then(|| format!("{:016x}", hash.digest()))
}

/// Names of the arrays of the checkpoint, in the order of the file: what is trained, each with its moments.
fn arrays(trainer: &Trainer) -> Vec<String> {
    let names =
        trainer.trained().flat_map(|name| ["", FIRST_MOMENT, SECOND_MOMENT].map(|suffix| format!("{name}{suffix}")));
    names.filter(|name| trainer.stored(name).is_some()).collect()
}

/// Element type in a safetensors file.
fn file_type(dtype: DType) -> Dtype {
    if dtype == DType::BF16 { Dtype::BF16 } else { Dtype::F32 }
}

/// Writes a checkpoint.
///
/// # Errors
/// What the system refuses; the file at `path` is then the previous one.
pub fn save(path: &Path, trainer: &Trainer, state: &State) -> Result<()> {
    let mut end = 0;
    let mut infos = Vec::new();
    let described = |e: &dyn std::fmt::Display| Error::file(path, format!("cannot be described: {e}"));
    let text = serde_json::to_string(&State { checksum: String::new(), ..state.clone() }).map_err(|e| described(&e))?;
    let mut hash = Xxh3::new();
    hash.update(text.as_bytes());
    let names = arrays(trainer);
    let stored = |name: &String| trainer.stored(name).expect("its names are those of arrays");
    for name in &names {
        let (dtype, bytes) = stored(name);
        let info = TensorInfo {
            dtype: file_type(dtype),
            shape: vec![bytes.len() / dtype.block_bytes()],
            data_offsets: (end, end + bytes.len()),
        };
        infos.push((name.clone(), info));
        end += bytes.len();
        hash.update(bytes);
    }
    let text = replace_checksum(&text, "", &format!("{:016x}", hash.digest()));
    let metadata = Metadata::new(Some(HashMap::from([(KEY.to_string(), text)])), infos).map_err(|e| described(&e))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| described(&e))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = AtomicFile::create(path)?;
    let failed = |e| Error::io(path, "write", e);
    file.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| file.write_all(&header)).map_err(failed)?;
    names.iter().try_for_each(|name| file.write_all(stored(name).1)).map_err(failed)?;
    file.commit()
}

/// The text of a state with another checksum. Quotes inside of its strings are escaped, so no other place looks like it.
fn replace_checksum(text: &str, old: &str, new: &str) -> String {
    let field = |sum: &str| format!("\"checksum\":\"{sum}\"");
    text.replacen(&field(old), &field(new), 1)
}

/// An opened checkpoint: its state, and where to read the values.
pub struct Saved {
    state: State,
    /// Of the state's text without its checksum.
    hash: Xxh3,
    metadata: Metadata,
    file: File,
}

impl Saved {
    /// Reads the header.
    ///
    /// # Errors
    /// A file that is not a checkpoint of training, or of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::io(path, "read", e);
        let refuse = |e: &dyn std::fmt::Display| Error::file(path, format!("not a checkpoint of training: {e}"));
        let mut file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut length = [0; 8];
        if size >= 8 {
            file.read_exact(&mut length).map_err(failed)?;
        }
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER.min(size.saturating_sub(8)) || length == 0 {
            return Err(refuse(&"its header does not fit the file; it is truncated or damaged"));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| refuse(&e))?;
        let whole = (8 + length).saturating_add(metadata.data_len() as u64);
        if size != whole {
            return Err(refuse(&format!("it has {size} bytes instead of {whole}; it is truncated or damaged")));
        }
        let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| refuse(&"it has no state"))?;
        let state: State = serde_json::from_str(text).map_err(|e| refuse(&e))?;
        if state.version != VERSION {
            return Err(refuse(&format!("version {}, expected {VERSION}", state.version)));
        }
        let mut hash = Xxh3::new();
        hash.update(replace_checksum(text, &state.checksum, "").as_bytes());
        Ok(Saved { state, hash, metadata, file })
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Continues with a plan made another way.
    pub fn set_planning(&mut self, planning: Planning) {
        self.state.settings.planning = planning;
    }

    /// Reads weights and moments into a trainer of the same graph.
    ///
    /// # Errors
    /// Arrays that are missing or of another length; a checksum that differs.
    pub fn load(mut self, path: &Path, trainer: &mut Trainer) -> Result<State> {
        let failed = |e| Error::io(path, "read", e);
        let mut end = 0;
        for name in arrays(trainer) {
            let (dtype, bytes) = trainer.stored_mut(&name).expect("its names are those of arrays");
            let expected = (end, end + bytes.len());
            let fits = |i: &TensorInfo| i.dtype == file_type(dtype) && i.data_offsets == expected;
            if !self.metadata.info(&name).is_some_and(fits) {
                return Err(Error::file(path, format!("'{name}' is missing or has another size; start a new run")));
            }
            end = expected.1;
            self.file.read_exact(bytes).map_err(failed)?;
            self.hash.update(bytes);
        }
        if format!("{:016x}", self.hash.digest()) != self.state.checksum {
            return Err(Error::file(
                path,
                "is damaged: its checksum differs; restore a copy of it, or start a new run",
            ));
        }
        Ok(self.state)
    }
}
