//! The container of plan files: a checked header and sections, little-endian.
//!
//! | offset | what |
//! | --- | --- |
//! | 0 | magic `STATGRAD` |
//! | 8 | u32 version ([`VERSION`]) |
//! | 12 | u32 number of sections, at most [`MAX_SECTIONS`] |
//! | 16 | per section 32 bytes: u32 kind, u32 zero, u64 offset, u64 length, u64 XXH3 of the section |
//! | 16 + 32·n | u64 XXH3 of everything before |
//!
//! Sections start at multiples of 64 bytes, so that packed weights can be used where they are mapped.

use crate::disk::AtomicFile;
use crate::error::{Error, Result};
use byteorder::{ByteOrder, LittleEndian, WriteBytesExt};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// First bytes of a plan file.
pub const MAGIC: &[u8; 8] = b"STATGRAD";
/// Version of the container and of what its sections hold.
pub const VERSION: u32 = 1;
/// More sections than any file needs; guards against lying headers.
pub const MAX_SECTIONS: u32 = 16;
/// Alignment of sections in bytes.
pub const SECTION_ALIGN: usize = 64;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// The plan: graph, capacity, aliases, buffers (JSON).
    Plan = 1,
    /// Directory of packed weights (JSON).
    WeightIndex = 2,
    /// Packed weights, as the kernels read them.
    Weights = 3,
    /// Tokenizer and stop tokens (JSON).
    Text = 4,
}

impl SectionKind {
    fn from_code(code: u32) -> Option<Self> {
        [SectionKind::Plan, SectionKind::WeightIndex, SectionKind::Weights, SectionKind::Text]
            .into_iter()
            .find(|&k| k as u32 == code)
    }
}

/// A section found in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Where it starts in the file.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
    /// XXH3 of its bytes.
    pub checksum: u64,
}

/// Size of the header with `sections` sections.
fn header_len(sections: usize) -> usize {
    16 + 32 * sections + 8
}

/// Reads and checks the header of a plan file. Contents of sections are checked by [`Section::bytes`].
///
/// # Errors
/// Wrong magic or version, a checksum that does not match, sections outside the file: each with its byte offset.
pub fn read_header(path: &Path, file: &[u8]) -> Result<Vec<Section>> {
    if file.len() < header_len(0) {
        return Err(Error::file(path, format!("is {} bytes long, too short for a plan file", file.len())));
    }
    if &file[..8] != MAGIC {
        return Err(Error::file_at(path, 0, "is not a plan file (wrong magic); make one with staticgrad compile -o"));
    }
    let version = LittleEndian::read_u32(&file[8..]);
    if version != VERSION {
        return Err(Error::file_at(
            path,
            8,
            format!("has version {version}, this program reads {VERSION}; compile it again"),
        ));
    }
    let count = LittleEndian::read_u32(&file[12..]);
    let end = header_len(count.min(MAX_SECTIONS) as usize);
    if count > MAX_SECTIONS || file.len() < end {
        return Err(Error::file_at(
            path,
            12,
            format!("claims {count} sections, which do not fit; the file is damaged"),
        ));
    }
    if xxh3_64(&file[..end - 8]) != LittleEndian::read_u64(&file[end - 8..]) {
        return Err(Error::file_at(path, end as u64 - 8, "has a damaged header (checksum differs); compile it again"));
    }
    (0..count as usize)
        .map(|i| {
            let at = 16 + 32 * i;
            let entry = &file[at..at + 32];
            let code = LittleEndian::read_u32(entry);
            let kind = SectionKind::from_code(code)
                .ok_or_else(|| Error::file_at(path, at as u64, format!("has a section of unknown kind {code}")))?;
            let (offset, len) = (LittleEndian::read_u64(&entry[8..]), LittleEndian::read_u64(&entry[16..]));
            let fits = offset.checked_add(len).is_some_and(|e| e <= file.len() as u64) && offset >= end as u64;
            if !fits || !offset.is_multiple_of(SECTION_ALIGN as u64) {
                let message = format!(
                    "has a section of {len} bytes at {offset}, outside the file; the file is truncated or damaged"
                );
                return Err(Error::file_at(path, at as u64 + 8, message));
            }
            let checksum = LittleEndian::read_u64(&entry[24..]);
            Ok(Section { kind, offset: offset as usize, len: len as usize, checksum })
        })
        .collect()
}

impl Section {
    /// The section's bytes, after comparing their checksum.
    ///
    /// # Errors
    /// When the bytes changed.
    pub fn bytes<'a>(&self, path: &Path, file: &'a [u8]) -> Result<&'a [u8]> {
        let bytes = self.unchecked_bytes(file);
        if xxh3_64(bytes) != self.checksum {
            return Err(Error::file_at(
                path,
                self.offset as u64,
                "has a damaged section (checksum differs); compile it again",
            ));
        }
        Ok(bytes)
    }

    /// The section's bytes as they are (packed weights carry a checksum per tensor).
    pub fn unchecked_bytes<'a>(&self, file: &'a [u8]) -> &'a [u8] {
        &file[self.offset..self.offset + self.len]
    }
}

/// A section to write: its kind, its length in bytes, and what writes exactly that many bytes.
pub type SectionSource<'a> = (SectionKind, u64, Box<dyn FnMut(&mut dyn Write) -> Result<()> + 'a>);

/// Writes a plan file, whole or not at all.
///
/// # Errors
/// What the system or a source reports; `path` is then untouched.
pub fn write(path: &Path, mut sections: Vec<SectionSource>) -> Result<()> {
    let mut out = AtomicFile::create(path)?;
    let end = header_len(sections.len());
    let pad = |n: u64| n.next_multiple_of(SECTION_ALIGN as u64) - n;
    out.put(&vec![0; end])?;
    let mut at = end as u64;
    let mut entries = Vec::new();
    for (kind, len, source) in &mut sections {
        let padding = pad(at);
        out.put(&[0; SECTION_ALIGN][..padding as usize])?;
        at += padding;
        let mut hashed = Hashed { out: &mut out, hash: Xxh3::new(), written: 0 };
        source(&mut hashed)?;
        assert_eq!(hashed.written, *len, "a section source wrote another length than it promised");
        entries.push((*kind as u32, at, *len, hashed.hash.digest()));
        at += *len;
    }
    let mut header = Vec::with_capacity(end);
    header.extend_from_slice(MAGIC);
    let word = |e: std::io::Error| Error::io(path, "write", e);
    header.write_u32::<LittleEndian>(VERSION).map_err(word)?;
    header.write_u32::<LittleEndian>(entries.len() as u32).map_err(word)?;
    for (kind, offset, len, checksum) in entries {
        header.write_u32::<LittleEndian>(kind).map_err(word)?;
        header.write_u32::<LittleEndian>(0).map_err(word)?;
        for value in [offset, len, checksum] {
            header.write_u64::<LittleEndian>(value).map_err(word)?;
        }
    }
    let checksum = xxh3_64(&header);
    header.write_u64::<LittleEndian>(checksum).map_err(word)?;
    out.seek(SeekFrom::Start(0)).map_err(word)?;
    out.put(&header)?;
    out.commit()
}

struct Hashed<'a, W: Write> {
    out: &'a mut W,
    hash: Xxh3,
    written: u64,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(path: &Path) {
        let text: SectionSource =
            (SectionKind::Text, 5, Box::new(|w| w.write_all(b"hello").map_err(|e| Error::io("x", "write", e))));
        let plan: SectionSource =
            (SectionKind::Plan, 100, Box::new(|w| w.write_all(&[7; 100]).map_err(|e| Error::io("x", "write", e))));
        write(path, vec![text, plan]).expect("writes");
    }

    #[test]
    fn sections_come_back_and_damage_is_found() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("a.plan");
        sample(&path);
        let file = std::fs::read(&path).expect("reads");
        let sections = read_header(&path, &file).expect("a sound header");
        assert_eq!(sections.len(), 2);
        assert_eq!(sections[0].bytes(&path, &file).expect("sound"), b"hello");
        assert_eq!(sections[1].bytes(&path, &file).expect("sound"), [7; 100]);
        for i in 0..header_len(2) {
            let mut bad = file.clone();
            bad[i] ^= 0x40;
            assert!(read_header(&path, &bad).is_err(), "flipped header byte {i} was accepted");
        }
        let mut bad = file.clone();
        *bad.last_mut().expect("not empty") ^= 1;
        assert!(sections[1].bytes(&path, &bad).is_err());
        for len in 0..file.len() {
            let cut = &file[..len];
            assert!(read_header(&path, cut).is_err(), "a file cut to {len} bytes was accepted");
        }
    }

    #[test]
    fn a_failing_source_leaves_no_file() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("a.plan");
        let source: SectionSource = (SectionKind::Text, 5, Box::new(|_| Err(Error::Request("no".into()))));
        assert!(write(&path, vec![source]).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).expect("lists").count(), 0);
    }
}
