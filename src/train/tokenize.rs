//! Text files to a training and a validation token file.

use super::token_file::{TokenWidth, TokenWriter};
use crate::disk::keep_input;
use crate::error::{Error, Result};
use crate::text::{EncodeOptions, Tokenizer};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// How to turn text into token files.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenizeOptions {
    /// Share of the tokens, taken from the end, that goes into the validation file; 0 makes none.
    pub val_fraction: f64,
    /// The end-of-text token goes before each text and after each blank line, so that every blank-line-separated section is
    /// a document of its own (as llm.c prepares Tiny Shakespeare).
    pub sections: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizeReport {
    /// The training file and its number of tokens.
    pub train: (PathBuf, usize),
    /// The validation file, if one was asked for.
    pub validation: Option<(PathBuf, usize)>,
}

/// Tokenises `files`, in order, into `out` and, with a validation fraction, into its sibling ([`validation_path`]). Each file is
/// a document: the end-of-text token goes before it, if the tokenizer has one. Holds the text of one file and all tokens in
/// memory; the files appear whole or not at all.
pub fn tokenize(
    files: &[PathBuf],
    tokenizer: &Tokenizer,
    options: TokenizeOptions,
    out: &Path,
) -> Result<TokenizeReport> {
    if !(0.0..1.0).contains(&options.val_fraction) {
        return Err(Error::Usage(format!(
            "validation fraction {}: it must be at least 0 and below 1",
            options.val_fraction
        )));
    }
    let validation_out = if options.val_fraction > 0.0 { Some(validation_path(out)?) } else { None };
    for path in files {
        keep_input(path, out)?;
        validation_out.iter().try_for_each(|out| keep_input(path, out))?;
    }
    let mut tokens = Vec::new();
    for path in files {
        encode_document(path, tokenizer, options.sections, &mut tokens)?;
    }
    let width = TokenWidth::for_vocab_size(tokenizer.vocab_size());
    let write = |path: &Path, tokens: &[u32]| {
        let mut writer = TokenWriter::create(path, width)?;
        writer.push(tokens)?;
        writer.finish().map(|count| (path.to_path_buf(), count))
    };
    let (train, validation) = tokens.split_at(train_count(tokens.len(), options.val_fraction));
    if train.is_empty() || (validation_out.is_some() && validation.is_empty()) {
        let (what, instead) = match &validation_out {
            Some(_) => (
                format!("a training and a validation file with --val-fraction {}", options.val_fraction),
                "more text or another fraction",
            ),
            None => ("a token file".to_string(), "more text"),
        };
        return Err(Error::Request(format!("{} tokens are too few for {what}; give {instead}", tokens.len())));
    }
    let validation = validation_out.map(|out| write(&out, validation)).transpose()?;
    Ok(TokenizeReport { train: write(out, train)?, validation })
}

/// `train.bin` → `val.bin`, `x_train.bin` → `x_val.bin`, `x.bin` → `x_val.bin`.
fn validation_path(out: &Path) -> Result<PathBuf> {
    let stem = out.file_stem().ok_or_else(|| Error::file(out, "not the name of a token file"))?;
    let mut name = match stem.to_str().and_then(|stem| stem.strip_suffix("train")) {
        Some(start) => OsString::from(format!("{start}val")),
        None => [stem, "_val".as_ref()].into_iter().collect(),
    };
    name.push(".");
    name.push(out.extension().unwrap_or("bin".as_ref()));
    Ok(out.with_file_name(name))
}

/// Tokens that stay for training when the last share is set aside.
pub(super) fn train_count(total: usize, val_fraction: f64) -> usize {
    (total as f64 * (1.0 - val_fraction)).floor() as usize
}

/// Appends the tokens of a text file, with the end-of-text token before it and, if asked for, after each blank line.
pub(super) fn encode_document(path: &Path, tokenizer: &Tokenizer, sections: bool, tokens: &mut Vec<u32>) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        Error::file_at(path, error.utf8_error().valid_up_to() as u64, "not UTF-8: is this a text file?")
    })?;
    if !sections {
        tokens.extend(tokenizer.separator());
        return tokenizer.encode_into(&text, EncodeOptions::TEXT, tokens);
    }
    let separator = tokenizer.separator().ok_or_else(|| {
        Error::Usage(format!("the tokenizer '{}' has no end-of-text token to put between sections", tokenizer.name()))
    })?;
    // The blank line stays with the section before it. A text that ends in one ends in an empty section, as published.
    let mut rest = text.as_str();
    loop {
        tokens.push(separator);
        let end = rest.find("\n\n").map_or(rest.len(), |at| at + 2);
        let (section, after) = rest.split_at(end);
        tokenizer.encode_into(section, EncodeOptions::TEXT, tokens)?;
        if !section.ends_with("\n\n") {
            return Ok(());
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::super::TokenFile;
    use super::*;

    const END: u32 = 50_256;

    fn read(path: &Path) -> Vec<u32> {
        let file = TokenFile::open(path).unwrap();
        (0..file.len()).map(|i| file.get(i)).collect()
    }

    #[test]
    fn files_become_documents_and_the_end_is_validation() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
            directory.path().join(name)
        };
        let files = [file("a.txt", "Hello world"), file("b.txt", "Hello")];
        let out = directory.path().join("train.bin");
        let options = TokenizeOptions { val_fraction: 0.4, sections: false };
        let report = tokenize(&files, &Tokenizer::gpt2(), options, &out).unwrap();
        assert_eq!(report.train, (out.clone(), 3));
        assert_eq!(report.validation, Some((directory.path().join("val.bin"), 2)));
        assert_eq!((read(&out), read(&directory.path().join("val.bin"))), (vec![END, 15496, 995], vec![END, 15496]));
        let whole = tokenize(&files, &Tokenizer::bytes(), TokenizeOptions::default(), &out).unwrap();
        assert_eq!((whole.train.1, whole.validation), (16, None), "bytes have no end-of-text token");
    }

    #[test]
    fn sections_are_documents() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        let encode = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let mut tokens = Vec::new();
            encode_document(&path, &Tokenizer::gpt2(), true, &mut tokens).map(|()| tokens)
        };
        // 628 is a blank line, 198 a newline.
        assert_eq!(encode("Hello\n\nHello").unwrap(), [END, 15496, 628, END, 15496]);
        assert_eq!(encode("Hello\n\n").unwrap(), [END, 15496, 628, END]);
        assert_eq!(encode("a\n\n\nb").unwrap(), [END, 64, 628, END, 198, 65]);
        let none = encode_document(&path, &Tokenizer::bytes(), true, &mut Vec::new()).unwrap_err();
        assert_eq!(none.exit_code(), 2);
    }

    #[test]
    fn names_of_the_validation_file() {
        for (out, validation) in [
            ("d/train.bin", "d/val.bin"),
            ("x_train.bin", "x_val.bin"),
            ("x.bin", "x_val.bin"),
            ("x.v2.bin", "x.v2_val.bin"),
            ("x", "x_val.bin"),
        ] {
            assert_eq!(validation_path(Path::new(out)).unwrap(), Path::new(validation));
        }
        assert!(validation_path(Path::new("..")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_text() {
        use std::os::unix::ffi::OsStrExt;
        let name = |bytes| Path::new(std::ffi::OsStr::from_bytes(bytes)).to_path_buf();
        assert_eq!(validation_path(&name(b"d/\xff.bin")).unwrap(), name(b"d/\xff_val.bin"));
    }

    #[test]
    fn texts_are_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let (text, out) = (directory.path().join("x_val.bin"), directory.path().join("x.bin"));
        std::fs::write(&text, "Hello").unwrap();
        let run = |out: &Path, val_fraction| {
            let options = TokenizeOptions { val_fraction, sections: false };
            tokenize(std::slice::from_ref(&text), &Tokenizer::bytes(), options, out)
        };
        for refused in [run(&text, 0.0), run(&out, 0.5)] {
            assert!(refused.unwrap_err().to_string().contains("would be overwritten"));
        }
        assert_eq!(std::fs::read(&text).unwrap(), b"Hello");
        run(&out, 0.0).unwrap();
    }

    #[test]
    fn bad_input_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, out) = (directory.path().join("a.txt"), directory.path().join("train.bin"));
        let run = |fraction| {
            let options = TokenizeOptions { val_fraction: fraction, sections: false };
            tokenize(std::slice::from_ref(&path), &Tokenizer::bytes(), options, &out).unwrap_err().to_string()
        };
        assert!(run(0.0).contains("cannot read"));
        std::fs::write(&path, [b'a', 0xFF]).unwrap();
        assert!(run(0.0).contains("not UTF-8") && run(0.0).contains("at byte 1"));
        std::fs::write(&path, "").unwrap();
        assert!(run(0.0).contains("too few"));
        assert!(run(1.0).contains("below 1") && run(f64::NAN).contains("below 1"));
        assert!(!out.exists());
    }
}
