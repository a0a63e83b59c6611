//! Parameters in the form that the kernels read: one region, packed tensor by tensor, or mapped from a compiled file.

use super::{Checkpoint, NamedTensor, Orientation};
use crate::disk::MappedFile;
use crate::error::{Error, Result};
use crate::graph::{Graph, Layout, TensorId};
use crate::kernels::linear::{self, PackedMatrix, Source};
use crate::kernels::param::Param;
use crate::tensor::{DType, Shape};
use memmap2::MmapMut;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Element types of weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsType {
    /// The file's own type, tensor by tensor.
    Native,
    /// Every matrix in this type.
    Only(DType),
}

impl WeightsType {
    /// From the command line's word.
    ///
    /// # Errors
    /// An unknown word, with the known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "native" => Ok(WeightsType::Native),
            "f32" | "f16" | "bf16" | "q8_0" | "q4_0" => {
                Ok(WeightsType::Only(DType::from_name(name).expect("a known type")))
            }
            _ => Err(Error::Usage(format!("--weights-type {name}: unknown; use native, f32, f16, bf16, q8_0 or q4_0"))),
        }
    }
}

/// Where a parameter lies in the region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Parameter.
    pub name: String,
    /// Element type; plain parameters are f32.
    pub dtype: DType,
    /// Outputs and inputs of a packed matrix; `None` for plain values.
    pub matrix: Option<(usize, usize)>,
    /// Where it starts, in bytes; a multiple of 64.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
    /// XXH3 of the bytes; 0 where nothing was written to or read from a file.
    pub checksum: u64,
}

/// Bytes that parameters lie in.
enum Region {
    Owned(MmapMut),
    Mapped { file: Arc<MappedFile>, start: usize, len: usize },
}

impl Region {
    fn bytes(&self) -> &[u8] {
        match self {
            Region::Owned(map) => map,
            Region::Mapped { file, start, len } => &file.bytes()[*start..*start + *len],
        }
    }
}

/// All parameters of a graph.
pub struct ParamStore {
    region: Region,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

const ALIGN: usize = 64;

impl ParamStore {
    /// Loads and packs every parameter of `graph`, one tensor at a time; the checkpoint's pages are released as it goes.
    ///
    /// # Errors
    /// A tensor that is missing, extra or of another shape (both shapes are named); a type that does not fit a matrix.
    pub fn load(graph: &Graph, checkpoint: &Checkpoint, types: WeightsType) -> Result<Self> {
        let names: Vec<&str> = graph.params().map(|t| graph.tensor(t).name.as_str()).collect();
        let mut entries = Vec::with_capacity(names.len());
        let mut total = 0usize;
        for t in graph.params() {
            let entry = plan_entry(graph, checkpoint, types, t, total)?;
            total = (entry.offset + entry.len).next_multiple_of(ALIGN);
            entries.push(entry);
        }
        checkpoint.refuse_extra(names.iter().copied())?;
        let refuse = |e| Error::Request(format!("cannot allocate {total} bytes for weights: {e}"));
        let mut map = MmapMut::map_anon(total.max(1)).map_err(refuse)?;
        // Large pages keep address translation out of the way of streaming; where the system has none, nothing changes.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        for (t, entry) in graph.params().zip(&entries) {
            let bytes = &mut map[entry.offset..entry.offset + entry.len];
            fill(graph, checkpoint, t, entry, bytes)?;
            checkpoint.release(&entry.name);
        }
        checkpoint.release_all();
        Ok(Self::from_parts(Region::Owned(map), entries))
    }

    /// Uses packed weights where a compiled file maps them. `entries` were read from the file and are checked here.
    ///
    /// # Errors
    /// Entries that are not inside the region or whose sizes do not fit their types.
    pub fn map(file: Arc<MappedFile>, start: usize, len: usize, entries: Vec<Entry>) -> Result<Self> {
        let path = file.path();
        if start.checked_add(len).is_none_or(|end| end > file.bytes().len()) {
            return Err(Error::file_at(path, start as u64, "has weights outside the file; it is truncated or damaged"));
        }
        for e in &entries {
            let size = match e.matrix {
                Some((n, k)) => linear::packed_bytes(e.dtype, n, k)?,
                None => e.len / 4 * 4,
            };
            let inside = e.offset.checked_add(e.len).is_some_and(|end| end <= len);
            if !inside || size != e.len || !e.offset.is_multiple_of(ALIGN) {
                return Err(Error::file_at(
                    path,
                    start as u64,
                    format!("has a damaged entry for {}; compile it again", e.name),
                ));
            }
        }
        Ok(Self::from_parts(Region::Mapped { file, start, len }, entries))
    }

    fn from_parts(region: Region, entries: Vec<Entry>) -> Self {
        let index = entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
        ParamStore { region, entries, index }
    }

    /// All bytes: weights as they are in memory.
    pub fn bytes(&self) -> &[u8] {
        self.region.bytes()
    }

    /// The directory of [`ParamStore::bytes`].
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// As [`ParamStore::entries`], with the checksums of the bytes as they are now: to write to a file.
    pub fn checked_entries(&self) -> Vec<Entry> {
        let sum = |e: &Entry| Entry { checksum: xxh3_64(&self.bytes()[e.offset..e.offset + e.len]), ..e.clone() };
        self.entries.par_iter().map(sum).collect()
    }

    /// A parameter by name.
    pub fn get(&self, name: &str) -> Option<Param<'_>> {
        let e = &self.entries[*self.index.get(name)?];
        let bytes = &self.bytes()[e.offset..e.offset + e.len];
        Some(match e.matrix {
            Some((n, k)) => Param::Packed(PackedMatrix::new(e.dtype, n, k, bytes).expect("the entry was checked")),
            None => Param::Plain(bytemuck::cast_slice(bytes)),
        })
    }

    /// Compares every parameter with its checksum.
    ///
    /// # Errors
    /// The first damaged parameter by name.
    pub fn verify(&self) -> Result<()> {
        let damaged =
            self.entries.par_iter().find_any(|e| xxh3_64(&self.bytes()[e.offset..e.offset + e.len]) != e.checksum);
        damaged.map_or(Ok(()), |e| {
            Err(Error::Weights(format!("{} is damaged (checksum differs); compile it again", e.name)))
        })
    }

    /// The element types in use with the bytes of each, largest first.
    pub fn types(&self) -> Vec<(DType, usize)> {
        let mut types: Vec<(DType, usize)> = Vec::new();
        for e in &self.entries {
            match types.iter_mut().find(|(d, _)| *d == e.dtype) {
                Some((_, bytes)) => *bytes += e.len,
                None => types.push((e.dtype, e.len)),
            }
        }
        types.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        types
    }
}

/// Outputs and inputs of a matrix stored in `layout`.
fn matrix(layout: Layout, shape: &Shape) -> Option<(usize, usize)> {
    match (layout, shape.dims()) {
        (Layout::OutIn, &[n, k]) | (Layout::InOut, &[k, n]) => Some((n, k)),
        _ => None,
    }
}

fn orientation(layout: Layout) -> Option<Orientation> {
    match layout {
        Layout::OutIn => Some(Orientation::OutIn),
        Layout::InOut => Some(Orientation::InOut),
        Layout::Plain => None,
    }
}

fn plan_entry(graph: &Graph, checkpoint: &Checkpoint, types: WeightsType, t: TensorId, start: usize) -> Result<Entry> {
    let tensor = graph.tensor(t);
    let layout = graph.param(t).map_or(Layout::Plain, |p| p.layout);
    let info = checkpoint.require(&tensor.name, &tensor.ty.shape, orientation(layout))?;
    let matrix = matrix(layout, &tensor.ty.shape);
    let (dtype, len) = match matrix {
        None => (DType::F32, 4 * tensor.ty.shape.elements()),
        Some((n, k)) => {
            let dtype = match types {
                WeightsType::Native => info.dtype,
                WeightsType::Only(dtype) => dtype,
            };
            let len = linear::packed_bytes(dtype, n, k).map_err(|e| Error::Weights(format!("{}: {e}", tensor.name)))?;
            (dtype, len)
        }
    };
    Ok(Entry { name: tensor.name.clone(), dtype, matrix, offset: start, len, checksum: 0 })
}

fn fill(graph: &Graph, checkpoint: &Checkpoint, t: TensorId, entry: &Entry, bytes: &mut [u8]) -> Result<()> {
    match entry.matrix {
        None => checkpoint.read_f32(&entry.name, bytemuck::cast_slice_mut(bytes)),
        Some((n, k)) => {
            let tensor = checkpoint.get(&entry.name)?;
            let stored = tensor.info.orientation.or(orientation(graph.param(t).map_or(Layout::Plain, |p| p.layout)));
            pack(&tensor, stored == Some(Orientation::InOut), entry.dtype, n, k, bytes)
        }
    }
}

/// Packs one matrix, panels in parallel.
fn pack(tensor: &NamedTensor, transposed: bool, dtype: DType, n: usize, k: usize, bytes: &mut [u8]) -> Result<()> {
    if tensor.info.dtype == dtype && !transposed {
        return in_panels(&Source::Stored(&tensor.data), dtype, n, k, bytes);
    }
    let mut values = vec![0.0f32; n * k];
    tensor.read_f32(&mut values);
    let rows: &(dyn Fn(usize, &mut [f32]) + Sync) = if transposed {
        &|row, out| out.iter_mut().zip(values[row..].iter().step_by(n)).for_each(|(o, v)| *o = *v)
    } else {
        &|row, out| out.copy_from_slice(&values[row * k..(row + 1) * k])
    };
    in_panels(&Source::Rows(rows), dtype, n, k, bytes)
}

fn in_panels(source: &Source, dtype: DType, n: usize, k: usize, bytes: &mut [u8]) -> Result<()> {
    let panel = linear::panel_bytes(dtype, k)?;
    bytes.par_chunks_mut(panel).enumerate().try_for_each(|(p, dst)| linear::pack(dtype, n, k, source, p..p + 1, dst))
}
