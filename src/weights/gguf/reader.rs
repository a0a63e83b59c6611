//! A cursor over the bytes of a GGUF header. Nothing is believed: every count is checked against the bytes that are left
//! before anything is allocated for it.

use crate::error::{Error, Result};
use byteorder::{ByteOrder, LittleEndian};
use std::path::Path;

/// Reads numbers and strings from front to back.
pub(super) struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Reader { path, bytes, at: 0 }
    }

    /// Position of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// An error at byte `at`.
    pub fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T> {
        Err(Error::file_at(self.path, at as u64, message))
    }

    /// The next `n` bytes, which hold `what`.
    pub fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        if n > rest.len() {
            let message = format!("{what} takes {n} bytes, {} are left; the file is truncated or damaged", rest.len());
            return self.fail(self.at, message);
        }
        self.at += n;
        Ok(&rest[..n])
    }

    pub fn u32(&mut self, what: &str) -> Result<u32> {
        self.take(4, what).map(LittleEndian::read_u32)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64> {
        self.take(8, what).map(LittleEndian::read_u64)
    }

    /// A count of things that take at least `least` bytes each, refused when the file cannot hold them.
    pub fn count(&mut self, least: usize, what: &str) -> Result<usize> {
        let at = self.at;
        let n = self.u64(what)?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(n) {
            Ok(n) if n.checked_mul(least).is_some_and(|b| b <= left) => Ok(n),
            _ => self.fail(
                at,
                format!("{what} is {n}, more than the {left} bytes that are left can hold; the file is damaged"),
            ),
        }
    }

    /// A string: u64 length, then UTF-8.
    pub fn string(&mut self, what: &str) -> Result<&'a str> {
        let n = self.count(1, &format!("the length of {what}"))?;
        let at = self.at;
        let bytes = self.take(n, what)?;
        std::str::from_utf8(bytes).or_else(|_| self.fail(at, format!("{what} is not UTF-8; the file is damaged")))
    }
}
