//! llm.c's multiple-choice evaluations (HellaSwag and alike): a context, a few endings, one of them right.
//!
//! A header of 256 little-endian i32: magic 20240522, version 1, examples, bytes of the longest example. Then, for each
//! example, a stream of u16: 65535, bytes of the example, its index, the right ending, the number of endings (4), context
//! length and tokens, and for each ending length and tokens.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

const MAGIC: i32 = 20_240_522;
const HEADER_BYTES: usize = 1024;
const START: u16 = 65_535;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Number in the data set.
    pub index: u32,
    /// Which ending is right.
    pub label: usize,
    /// Tokens that every ending follows.
    pub context: Vec<u32>,
    /// The endings to choose from.
    pub endings: Vec<Vec<u32>>,
}

/// All questions of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalFile {
    /// In file order.
    pub examples: Vec<Example>,
}

impl EvalFile {
    /// Reads and checks a file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        Self::read(path, file)
    }

    /// The header before the rest, which is not read unless it is of such a file.
    fn read(path: &Path, mut file: impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        let io = |e| Error::io(path, "read", e);
        file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(io)?;
        Self::check_header(path, &bytes)?;
        file.read_to_end(&mut bytes).map_err(io)?;
        Self::parse(path, &bytes)
    }

    /// The number of examples that a header promises.
    fn check_header(path: &Path, bytes: &[u8]) -> Result<i32> {
        if bytes.len() < HEADER_BYTES {
            return Err(Error::file(path, format!("{} bytes are too few for the header of an eval file", bytes.len())));
        }
        let word = |i: usize| i32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes"));
        if word(0) != MAGIC || word(1) != 1 {
            return Err(Error::file_at(
                path,
                0,
                format!(
                    "magic {} version {}, expected llm.c's multiple-choice format, {MAGIC} version 1",
                    word(0),
                    word(1)
                ),
            ));
        }
        Ok(word(2))
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let count = Self::check_header(path, bytes)?;
        let mut reader = Reader { path, bytes, at: HEADER_BYTES };
        let mut examples = Vec::new();
        for number in 0..count {
            examples.push(reader.example(number)?);
        }
        if reader.at != bytes.len() || count < 0 {
            return Err(reader.error(format!(
                "{} examples promised, but {} bytes follow",
                count,
                bytes.len() - reader.at
            )));
        }
        Ok(Self { examples })
    }

    /// Tokens of the longest context with one ending: the rows a model needs.
    pub fn longest(&self) -> usize {
        let length =
            |example: &Example| example.context.len() + example.endings.iter().map(Vec::len).max().unwrap_or(0);
        self.examples.iter().map(length).max().unwrap_or(0)
    }

    /// Errors if a token does not fit a model's vocabulary.
    pub fn check_vocab_size(&self, path: &Path, vocab_size: usize) -> Result<()> {
        for example in &self.examples {
            let mut tokens = example.context.iter().chain(example.endings.iter().flatten());
            if let Some(token) = tokens.find(|token| **token as usize >= vocab_size) {
                return Err(Error::file(
                    path,
                    format!(
                        "token {token} of example {} is outside the model's vocabulary of {vocab_size}",
                        example.index
                    ),
                ));
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn error(&self, message: String) -> Error {
        Error::file_at(self.path, self.at as u64, message)
    }

    fn next(&mut self, what: &str) -> Result<u16> {
        let Some(pair) = self.bytes.get(self.at..self.at + 2) else {
            return Err(self.error(format!("the file ends before {what}: truncated?")));
        };
        self.at += 2;
        Ok(u16::from_le_bytes([pair[0], pair[1]]))
    }

    fn tokens(&mut self, what: &str) -> Result<Vec<u32>> {
        let length = usize::from(self.next(what)?);
        let Some(bytes) = self.bytes.get(self.at..self.at + 2 * length) else {
            return Err(self.error(format!("{what} has {length} tokens, but the file ends before them: truncated?")));
        };
        self.at += 2 * length;
        Ok(bytes.chunks_exact(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))).collect())
    }

    fn example(&mut self, number: i32) -> Result<Example> {
        let start = self.at;
        if self.next("an example")? != START {
            self.at = start;
            return Err(self.error(format!("example {number} does not start with {START}")));
        }
        let size = usize::from(self.next("the size of an example")?);
        let index = u32::from(self.next("the index of an example")?);
        let label = usize::from(self.next("the label of an example")?);
        let count = self.next("the number of endings")?;
        let context = self.tokens("the context")?;
        let endings = (0..count).map(|_| self.tokens("an ending")).collect::<Result<Vec<_>>>()?;
        if self.at - start != size {
            return Err(self.error(format!("example {number} says {size} bytes, but takes {}", self.at - start)));
        }
        if label >= endings.len() {
            return Err(self.error(format!("example {number} says ending {label} of {} is right", endings.len())));
        }
        if context.is_empty() || endings.iter().any(Vec::is_empty) {
            return Err(self.error(format!("example {number} has an empty context or ending")));
        }
        Ok(Example { index, label, context, endings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(count: i32, streams: &[&[u16]]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [MAGIC, 1, count, 0].iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(streams.iter().flat_map(|s| s.iter()).flat_map(|t| t.to_le_bytes()));
        bytes
    }

    const FIRST: &[u16] = &[START, 34, 7, 1, 4, 2, 10, 11, 1, 20, 1, 21, 2, 22, 23, 1, 24];

    fn message(bytes: &[u8]) -> String {
        EvalFile::parse(Path::new("e.bin"), bytes).expect_err("an error").to_string()
    }

    #[test]
    fn examples_are_read() {
        let evals = EvalFile::parse(Path::new("e.bin"), &file(2, &[FIRST, FIRST])).unwrap();
        let expected = Example {
            index: 7,
            label: 1,
            context: vec![10, 11],
            endings: vec![vec![20], vec![21], vec![22, 23], vec![24]],
        };
        assert_eq!(evals.examples, [expected.clone(), expected]);
        assert_eq!(evals.longest(), 4);
        assert!(evals.check_vocab_size(Path::new("e.bin"), 25).is_ok());
        assert!(
            evals.check_vocab_size(Path::new("e.bin"), 24).unwrap_err().to_string().contains("token 24 of example 7")
        );
    }

    #[test]
    fn broken_files_are_refused() {
        let good = file(1, &[FIRST]);
        assert!(message(&good[..good.len() - 1]).contains("truncated"));
        assert!(message(&good[..good.len() - 4]).contains("truncated"));
        assert!(message(&good[..500]).contains("too few"));
        // As /dev/zero, which has no end.
        let endless = EvalFile::read(Path::new("e.bin"), std::io::repeat(0)).expect_err("an error").to_string();
        assert!(endless.contains("magic 0"), "{endless}");
        assert!(message(&file(2, &[FIRST])).contains("truncated"));
        assert!(message(&file(0, &[FIRST])).contains("34 bytes follow"));
        assert!(message(&file(-1, &[])).contains("-1 examples"));
        let with = |at: usize, value: u16| {
            let mut stream = FIRST.to_vec();
            stream[at] = value;
            message(&file(1, &[&stream]))
        };
        assert!(with(0, 5).contains("does not start with 65535"));
        assert!(with(1, 36).contains("says 36 bytes, but takes 34"));
        assert!(with(3, 4).contains("ending 4 of 4"));
        assert!(with(5, 9999).contains("9999 tokens"));
        let mut magic = good;
        magic[0] = 0;
        assert!(message(&magic).contains("multiple-choice"));
    }
}
