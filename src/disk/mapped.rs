//! Read-only memory maps.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use memmap2::{Mmap, UncheckedAdvice};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A file mapped for reading.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl MappedFile {
    /// Maps `path`, which must be a regular file that is not empty.
    pub fn open(path: &Path) -> Result<Self> {
        // Checked before opening: opening a pipe would wait for its writer.
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
        if !metadata.is_file() {
            return Err(Error::file(path, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(Error::file(path, "the file is empty"));
        }
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        // SAFETY: the map is private and read-only, and all reads stay inside its length. Bytes change, or reading faults, only
        // if another process writes or truncates the file while it is mapped; that is the stated condition of using a map. Every
        // bit pattern is valid for the bytes and numbers read from it.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "map", e))?;
        Ok(MappedFile { path: path.to_path_buf(), bytes: Bytes::Mapped(map) })
    }

    /// A file that is part of the program; `name` is for messages.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Self {
        MappedFile { path: PathBuf::from(name), bytes: Bytes::Embedded(bytes) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
        }
    }

    /// Gives the pages of a range back to the system. They are read again from the file when touched.
    pub fn release(&self, start: usize, len: usize) {
        let Bytes::Mapped(map) = &self.bytes else { return };
        // SAFETY: discarding pages of a read-only file mapping does not change what a later read sees. The range lies in the map
        // (memmap2 aligns it to pages). A failure only means that the pages stay.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, len) };
    }
}
