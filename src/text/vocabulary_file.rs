//! Vocabulary files that list the bytes of each token as (u8 length, bytes), in id order.
//!
//! llm.c's `gpt2_tokenizer.bin` has a header of 256 little-endian u32: magic 20240328, version 1 or 2, vocabulary size,
//! and in version 2 the end-of-text id. The C++ ancestor's file is the bare pairs.

use super::token_table::TokenTable;
use crate::error::{Error, Result};
use std::path::Path;

const MAGIC: u32 = 20_240_328;
const HEADER_BYTES: usize = 1024;
/// Version 1 does not say which token ends a text: it always holds GPT-2's vocabulary.
const GPT2_END_OF_TEXT: u32 = 50_256;
const END_OF_TEXT: &[u8] = b"<|endoftext|>";

/// What such a file holds.
pub(super) struct VocabularyFile {
    pub table: TokenTable,
    pub end_of_text: Option<u32>,
}

/// Reads either layout; `path` is only for messages.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<VocabularyFile> {
    let word = |i: usize| bytes.get(4 * i..4 * i + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if word(0) != Some(MAGIC) {
        let table = parse_pairs(path, bytes, 0, None)?;
        let end_of_text = (0u32..).zip(table.iter()).find(|(_, token)| *token == END_OF_TEXT).map(|(id, _)| id);
        return Ok(VocabularyFile { table, end_of_text });
    }
    if bytes.len() < HEADER_BYTES {
        return Err(Error::file_at(path, bytes.len() as u64, "an llm.c tokenizer file cut short within its header"));
    }
    let (version, count, stated_end) = (word(1).unwrap_or(0), word(2).unwrap_or(0), word(3).unwrap_or(0));
    let end_of_text = match version {
        1 => GPT2_END_OF_TEXT,
        2 => stated_end,
        _ => {
            return Err(Error::file_at(
                path,
                4,
                format!("llm.c tokenizer version {version}; versions 1 and 2 are known"),
            ));
        }
    };
    if end_of_text >= count {
        return Err(Error::file_at(
            path,
            12,
            format!("the end-of-text token is {end_of_text}, outside the vocabulary of {count}"),
        ));
    }
    let table = parse_pairs(path, bytes, HEADER_BYTES, Some(count as usize))?;
    Ok(VocabularyFile { table, end_of_text: Some(end_of_text) })
}

/// (length, bytes) pairs from `offset` to exactly the end of the file.
fn parse_pairs(path: &Path, bytes: &[u8], offset: usize, count: Option<usize>) -> Result<TokenTable> {
    let mut table = TokenTable::default();
    let mut at = offset;
    while at < bytes.len() && count.is_none_or(|count| table.len() < count) {
        let length = usize::from(bytes[at]);
        let Some(token) = bytes.get(at + 1..at + 1 + length) else {
            return Err(Error::file_at(
                path,
                at as u64,
                format!("token {} has {length} bytes, but the file ends before them: truncated?", table.len()),
            ));
        };
        table.push(token);
        at += 1 + length;
    }
    match count {
        Some(count) if table.len() < count => Err(Error::file_at(
            path,
            at as u64,
            format!("the header promises {count} tokens, the file holds {}: truncated?", table.len()),
        )),
        _ if at < bytes.len() => {
            Err(Error::file_at(path, at as u64, format!("{} bytes after the last token", bytes.len() - at)))
        }
        _ => Ok(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(words: &[u32]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    fn message(bytes: &[u8]) -> String {
        parse(Path::new("t.bin"), bytes).err().expect("an error").to_string()
    }

    #[test]
    fn both_layouts_are_read() {
        let pairs = b"\x01a\x02bc\x0d<|endoftext|>".to_vec();
        let bare = parse(Path::new("v"), &pairs).unwrap();
        assert_eq!((bare.table.len(), bare.end_of_text), (3, Some(2)));
        let mut file = header(&[MAGIC, 2, 3, 1]);
        file.extend(&pairs);
        let llmc = parse(Path::new("v"), &file).unwrap();
        assert_eq!((llmc.table.get(1), llmc.end_of_text), (Some(&b"bc"[..]), Some(1)));
    }

    #[test]
    fn broken_files_are_refused() {
        assert!(message(b"\x01a\x05bc").contains("token 1 has 5 bytes"));
        assert!(message(&header(&[MAGIC, 2, 3, 1])).contains("promises 3 tokens"));
        assert!(message(&header(&[MAGIC, 9, 3, 1])).contains("version 9"));
        assert!(message(&header(&[MAGIC, 2, 3, 7])).contains("outside the vocabulary"));
        assert!(message(&header(&[MAGIC, 2])[..40]).contains("header"));
        let mut long = header(&[MAGIC, 2, 1, 0]);
        long.extend(b"\x01a\x01b");
        assert!(message(&long).contains("2 bytes after the last token"));
    }
}
