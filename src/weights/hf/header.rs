//! The header of a safetensors file: u64 length, then JSON `{name: {dtype, shape, data_offsets}}`.

use crate::disk::MappedFile;
use crate::error::{Error, Result};
use safetensors::tensor::TensorInfo;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Bytes in front of the header.
const PREFIX: usize = 8;
/// The format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// One tensor of the header.
pub(super) struct StoredTensor {
    /// Name as stored.
    pub name: String,
    /// Type, shape and offsets within the data section.
    pub info: TensorInfo,
    /// First byte in the file.
    pub start: usize,
}

/// Whether a file starts like safetensors, which has no magic number: a plausible length, then an object.
pub(in super::super) fn is_safetensors(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk::<PREFIX>().map_or(0, |b| u64::from_le_bytes(*b));
    bytes.get(PREFIX) == Some(&b'{') && (2..=MAX_HEADER).contains(&length)
}

/// Reads and checks the header: names are unique, every tensor's bytes are as many as its shape takes, and together the
/// tensors fill the data section without gaps or overlaps, as the format demands. In the order of the bytes.
pub(super) fn read_header(file: &MappedFile) -> Result<Vec<StoredTensor>> {
    let (path, bytes) = (file.path(), file.bytes());
    let Some(prefix) = bytes.first_chunk::<PREFIX>() else {
        return Err(Error::file_at(path, bytes.len() as u64, "too short for a safetensors file; it is truncated"));
    };
    let length = u64::from_le_bytes(*prefix);
    if length > MAX_HEADER || length > (bytes.len() - PREFIX) as u64 {
        let message = format!(
            "the safetensors header claims {length} bytes, the file has {}; it is truncated or damaged",
            bytes.len()
        );
        return Err(Error::file_at(path, 0, message));
    }
    let data_start = PREFIX + length as usize;
    let listed = Header::parse(&bytes[PREFIX..data_start]).map_err(|e| {
        let at = PREFIX as u64 + e.column() as u64;
        Error::file_at(path, at, format!("the safetensors header is not valid: {e}"))
    })?;
    let mut tensors: Vec<StoredTensor> =
        listed.into_iter().map(|(name, info)| StoredTensor { name, start: 0, info }).collect();
    tensors.sort_by_key(|t| t.info.data_offsets);
    let mut end = 0;
    for t in &mut tensors {
        let (begin, stop) = t.info.data_offsets;
        let refuse = |message: String| Err(Error::file(path, format!("tensor '{}' {message}", t.name)));
        let bits = t.info.shape.iter().try_fold(t.info.dtype.bitsize(), |a, &d| a.checked_mul(d));
        if bits.is_none_or(|b| !b.is_multiple_of(8) || Some(b / 8) != stop.checked_sub(begin)) {
            let (dtype, shape) = (t.info.dtype, &t.info.shape);
            return refuse(format!("is {dtype} {shape:?}, which does not take the bytes {begin}..{stop} it is given"));
        }
        if begin < end {
            return refuse(format!("overlaps the one before it: bytes {begin}..{stop}, which ends at {end}"));
        }
        if begin > end {
            return refuse(format!("starts at byte {begin} of the data, leaving a gap after {end}"));
        }
        end = stop;
        if end > bytes.len() - data_start {
            let have = bytes.len() - data_start;
            return refuse(format!("ends at byte {end} of the data, the file has {have}; it is truncated"));
        }
        t.start = data_start + begin;
    }
    if data_start + end != bytes.len() {
        let extra = bytes.len() - data_start - end;
        let message = format!("{extra} bytes follow the last tensor; the file is damaged");
        return Err(Error::file_at(path, (data_start + end) as u64, message));
    }
    Ok(tensors)
}

/// Reads the header object, refusing a name that comes twice (a map would keep the last one silently).
struct Header;

impl Header {
    fn parse(json: &[u8]) -> serde_json::Result<Vec<(String, TensorInfo)>> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let list = reader.deserialize_map(Header)?;
        reader.end()?;
        Ok(list)
    }
}

impl<'de> Visitor<'de> for Header {
    type Value = Vec<(String, TensorInfo)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor names to {dtype, shape, data_offsets}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!("two tensors are called '{name}'")));
            }
            list.push((name, map.next_value()?));
        }
        Ok(list)
    }
}
