//! The header of a GGUF file: metadata and tensor table, checked against the size of the file.

use super::TYPES;
use super::reader::Reader;
use super::value::Value;
use crate::disk::MappedFile;
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape};
use std::collections::{HashMap, HashSet};

/// The version that is read.
pub const VERSION: u32 = 3;
/// Where the data starts is a multiple of this, unless `general.alignment` says otherwise.
pub const DEFAULT_ALIGNMENT: usize = 32;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 4;

/// One tensor of the table.
pub(super) struct StoredTensor {
    /// GGUF name.
    pub name: String,
    /// Row-major shape, outermost first (the file has the fastest first).
    pub shape: Vec<usize>,
    pub dtype: DType,
    /// First byte in the file.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
    /// Where the table describes it.
    pub described_at: usize,
}

/// Metadata and tensor table.
pub(super) struct Header {
    pub metadata: HashMap<String, Value>,
    pub tensors: Vec<StoredTensor>,
}

impl Header {
    pub fn read(file: &MappedFile) -> Result<Header> {
        let mut reader = Reader::new(file.path(), file.bytes());
        reader.take(4, "the magic number")?;
        let version = reader.u32("the version")?;
        if version == VERSION.swap_bytes() {
            return reader.fail(4, "a big-endian GGUF file; only little-endian ones are read");
        }
        if version != VERSION {
            return reader
                .fail(4, format!("GGUF version {version} is not read (version {VERSION} is); convert the file again"));
        }
        // A tensor takes at least a name's length, a number of dimensions, a type and an offset; a value a length and a type.
        let tensor_count = reader.count(24, "the number of tensors")?;
        let value_count = reader.count(13, "the number of metadata values")?;
        let mut metadata = HashMap::new();
        for _ in 0..value_count {
            let at = reader.at();
            let key = reader.string("a metadata key")?;
            let value = Value::read(&mut reader, key)?;
            if metadata.insert(key.to_string(), value).is_some() {
                return reader.fail(at, format!("metadata key '{key}' comes twice; the file is damaged"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Int(n)) if *n > 0 && *n <= 1 << 30 && (*n as usize).is_power_of_two() => *n as usize,
            Some(other) => {
                return Err(Error::file(file.path(), format!("general.alignment is {other:?}, not a power of two")));
            }
        };
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            let tensor = read_tensor(&mut reader, alignment)?;
            if !names.insert(tensor.name.clone()) {
                return reader.fail(tensor.described_at, format!("two tensors are called '{}'", tensor.name));
            }
            tensors.push(tensor);
        }
        let data_start = reader.at().next_multiple_of(alignment);
        place(file, &mut tensors, data_start)?;
        Ok(Header { metadata, tensors })
    }
}

/// Reads one row of the tensor table; `start` is still relative to the data.
fn read_tensor(reader: &mut Reader<'_>, alignment: usize) -> Result<StoredTensor> {
    let described_at = reader.at();
    let name = reader.string("a tensor name")?.to_string();
    let rank = reader.u32("the number of dimensions")? as usize;
    let fail = |reader: &Reader<'_>, message: String| reader.fail(described_at, format!("tensor '{name}' {message}"));
    if !(1..=MAX_DIMS).contains(&rank) {
        return fail(reader, format!("has {rank} dimensions; from 1 to {MAX_DIMS} are allowed"));
    }
    let mut shape = Vec::with_capacity(rank);
    for _ in 0..rank {
        let n = reader.u64("a dimension")?;
        match usize::try_from(n) {
            Ok(n) if n > 0 => shape.insert(0, n),
            _ => return fail(reader, format!("has a dimension of {n}; the file is damaged")),
        }
    }
    let number = reader.u32("the tensor type")?;
    let Some((_, dtype)) = TYPES.iter().find(|(n, _)| *n == number) else {
        let known: Vec<&str> = TYPES.iter().map(|(_, d)| d.name()).collect();
        return fail(reader, format!("has type number {number}; the types that are read are {}", known.join(", ")));
    };
    // Blocks lie along a row, so it is the row that must divide into blocks.
    let row = shape[rank - 1];
    if !row.is_multiple_of(dtype.block_len()) {
        return fail(
            reader,
            format!("of type {dtype} has rows of {row} values, not whole blocks of {}", dtype.block_len()),
        );
    }
    let Some(len) = Shape::new(shape.clone()).checked_elements().and_then(|n| dtype.bytes_for(n)) else {
        return fail(reader, format!("of shape {shape:?} is larger than memory can be; the file is damaged"));
    };
    let offset = reader.u64("the tensor offset")?;
    match usize::try_from(offset) {
        Ok(start) if start.is_multiple_of(alignment) => {
            Ok(StoredTensor { shape, dtype: *dtype, start, len, described_at, name })
        }
        _ => fail(reader, format!("is at offset {offset}, not a multiple of the alignment {alignment}")),
    }
}

/// Makes `start` absolute, and refuses tensors that overlap or end beyond the file.
fn place(file: &MappedFile, tensors: &mut [StoredTensor], data_start: usize) -> Result<()> {
    let size = file.bytes().len();
    for t in tensors.iter_mut() {
        let end = t.start.checked_add(t.len).and_then(|e| e.checked_add(data_start));
        if end.is_none_or(|e| e > size) {
            let (name, offset, len) = (&t.name, t.start, t.len);
            let message = format!(
                "tensor '{name}' takes {len} bytes at offset {offset} of the data, which starts at {data_start}; \
                 the file has {size} bytes: it is truncated or damaged"
            );
            return Err(Error::file_at(file.path(), t.described_at as u64, message));
        }
        t.start += data_start;
    }
    let mut order: Vec<&StoredTensor> = tensors.iter().collect();
    order.sort_by_key(|t| t.start);
    for pair in order.windows(2) {
        if pair[0].start + pair[0].len > pair[1].start {
            let message = format!("tensors '{}' and '{}' overlap; the file is damaged", pair[0].name, pair[1].name);
            return Err(Error::file_at(file.path(), pair[1].described_at as u64, message));
        }
    }
    Ok(())
}
