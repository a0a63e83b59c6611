//! llm.c's token files: a header of 256 little-endian i32 (magic, version, count), then the tokens.
//!
//! Magic 20240520 with version 1 holds u16, magic 20240801 with version 7 holds u32 (llm.c's Llama 3 variant).

use crate::disk::{AtomicFile, MappedFile};
use crate::error::{Error, Result};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 1024;

/// Bytes of one token in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenWidth {
    /// Vocabularies up to 65536.
    U16,
    /// Larger ones.
    U32,
}

impl TokenWidth {
    /// The narrowest width that holds every id of a vocabulary.
    pub fn for_vocab_size(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 { Self::U16 } else { Self::U32 }
    }

    /// Bytes per token.
    pub fn bytes(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    fn magic_and_version(self) -> (i32, i32) {
        match self {
            Self::U16 => (20_240_520, 1),
            Self::U32 => (20_240_801, 7),
        }
    }
}

/// A token file, mapped.
pub struct TokenFile {
    file: MappedFile,
    width: TokenWidth,
    count: usize,
}

impl TokenFile {
    /// Maps a file and checks its header and its exact size.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let map = file.bytes();
        if map.len() < HEADER_BYTES {
            return Err(Error::file(
                path,
                format!(
                    "{} bytes are too few for the header of a token file; make one with `staticgrad tokenize`",
                    map.len()
                ),
            ));
        }
        let word = |i: usize| i32::from_le_bytes(map[4 * i..4 * i + 4].try_into().expect("four bytes"));
        let known = |width: &TokenWidth| width.magic_and_version().0 == word(0);
        let width = [TokenWidth::U16, TokenWidth::U32].into_iter().find(known).ok_or_else(|| {
            let message = format!(
                "magic {} is not that of a token file (20240520 or 20240801); make one with `staticgrad tokenize`",
                word(0)
            );
            Error::file_at(path, 0, message)
        })?;
        let (_, version) = width.magic_and_version();
        if word(1) != version {
            return Err(Error::file_at(path, 4, format!("token file version {}, expected {version}", word(1))));
        }
        let count =
            usize::try_from(word(2)).map_err(|_| Error::file_at(path, 8, format!("{} tokens promised", word(2))))?;
        let expected = HEADER_BYTES + width.bytes() * count;
        if map.len() != expected {
            return Err(Error::file_at(
                path,
                8,
                format!(
                    "{count} tokens promised, so the file should be {expected} bytes long, but it is {}",
                    map.len()
                ),
            ));
        }
        Ok(Self { file, width, count })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Bytes of the map.
    pub fn mapped_bytes(&self) -> usize {
        self.file.bytes().len()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Token `index`.
    pub fn get(&self, index: usize) -> u32 {
        let (bytes, at) = (self.file.bytes(), HEADER_BYTES + self.width.bytes() * index);
        match self.width {
            TokenWidth::U16 => u32::from(u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))),
            TokenWidth::U32 => u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")),
        }
    }
}

/// Writes a token file piece by piece; it appears when finished.
pub struct TokenWriter {
    path: PathBuf,
    file: AtomicFile,
    width: TokenWidth,
    count: usize,
}

impl TokenWriter {
    /// Starts a file.
    pub fn create(path: &Path, width: TokenWidth) -> Result<Self> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(&[0; HEADER_BYTES]).map_err(|e| Error::io(path, "write", e))?;
        Ok(Self { path: path.to_path_buf(), file, width, count: 0 })
    }

    /// Appends tokens. Errors on one that is too wide for the file.
    pub fn push(&mut self, tokens: &[u32]) -> Result<()> {
        for &token in tokens {
            let written = match self.width {
                TokenWidth::U16 => {
                    let narrow = u16::try_from(token).map_err(|_| {
                        Error::Tokenizer(format!("token {token} does not fit the u16 of {}", self.path.display()))
                    })?;
                    self.file.write_all(&narrow.to_le_bytes())
                }
                TokenWidth::U32 => self.file.write_all(&token.to_le_bytes()),
            };
            written.map_err(|e| Error::io(&self.path, "write", e))?;
        }
        self.count += tokens.len();
        Ok(())
    }

    /// Completes the header and puts the file in place; returns the number of tokens.
    pub fn finish(mut self) -> Result<usize> {
        let count = i32::try_from(self.count).map_err(|_| {
            Error::file(
                &self.path,
                format!("{} tokens are more than the format's 2147483647: use several files", self.count),
            )
        })?;
        let (magic, version) = self.width.magic_and_version();
        let header: Vec<u8> = [magic, version, count].iter().flat_map(|word| word.to_le_bytes()).collect();
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&header))
            .map_err(|e| Error::io(&self.path, "write", e))?;
        self.file.commit()?;
        Ok(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, width: TokenWidth, tokens: &[u32]) {
        let mut writer = TokenWriter::create(path, width).unwrap();
        tokens.chunks(3).for_each(|piece| writer.push(piece).unwrap());
        assert_eq!(writer.finish().unwrap(), tokens.len());
    }

    fn message(path: &Path) -> String {
        TokenFile::open(path).err().expect("an error").to_string()
    }

    #[test]
    fn both_widths_round_trip() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.bin");
        for (width, tokens) in [(TokenWidth::U16, vec![0, 1, 65_535, 7]), (TokenWidth::U32, vec![0, 128_255, u32::MAX])]
        {
            write(&path, width, &tokens);
            assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, 1024 + width.bytes() * tokens.len());
            let file = TokenFile::open(&path).unwrap();
            assert_eq!((0..file.len()).map(|i| file.get(i)).collect::<Vec<_>>(), tokens);
        }
        let mut writer = TokenWriter::create(&path, TokenWidth::U16).unwrap();
        assert!(writer.push(&[65_536]).unwrap_err().to_string().contains("65536"));
    }

    #[test]
    fn broken_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.bin");
        write(&path, TokenWidth::U16, &[1, 2, 3]);
        let good = std::fs::read(&path).unwrap();
        let put = |at: usize, value: i32, cut: usize| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            bytes.truncate(bytes.len() - cut);
            std::fs::write(&path, bytes).unwrap();
            message(&path)
        };
        assert!(put(0, 20_240_520, 1).contains("should be 1030 bytes long, but it is 1029"));
        assert!(put(8, 4, 0).contains("4 tokens promised"));
        assert!(put(8, -1, 0).contains("-1 tokens promised"));
        assert!(put(0, 77, 0).contains("magic 77"));
        assert!(put(4, 2, 0).contains("version 2, expected 1"));
        std::fs::write(&path, [0; 10]).unwrap();
        assert!(message(&path).contains("10 bytes are too few"));
        std::fs::write(&path, []).unwrap();
        assert!(message(&path).contains("is empty"));
        assert!(message(&directory.path().join("absent")).contains("cannot open"));
    }
}
