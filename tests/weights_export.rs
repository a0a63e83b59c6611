//! Exported checkpoints hold what they were made from; the real transformers and llama.cpp agree where `PEERS` names a Python
//! that has them.

use staticgrad::error::Result;
use staticgrad::kernels::quant;
use staticgrad::tensor::DType;
use staticgrad::text::{EncodeOptions, Tokenizer};
use staticgrad::weights::{
    Checkpoint, Export, ExportFormat, GgufTokenizer, ModelConfig, Parameter, ParameterRows, TokenizerSource, parameters,
};
use std::path::{Path, PathBuf};
use std::process::Command;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn open(path: impl AsRef<Path>) -> Checkpoint {
    Checkpoint::open(path.as_ref(), &[]).unwrap()
}

fn export(from: &Checkpoint, format: ExportFormat, dtype: DType, to: &Path) -> Result<()> {
    let export = Export { config: from.config(), tokenizer: from.tokenizer(), format, dtype };
    export.write(to, &mut |part, out| from.read_rows(part, out))
}

fn values(checkpoint: &Checkpoint, p: &Parameter) -> Vec<f32> {
    let mut out = vec![f32::NAN; p.shape.elements()];
    checkpoint.read_parameter(p, &mut out).unwrap();
    out
}

fn assert_same_model(a: &Checkpoint, b: &Checkpoint) {
    assert_eq!((a.config().family, &a.config().dims), (b.config().family, &b.config().dims));
    assert_eq!(a.config().consts, b.config().consts);
    let list = parameters(a.config()).unwrap();
    for p in &list {
        assert!(values(a, p) == values(b, p), "{}", p.name);
    }
    b.refuse_extra(list.iter().map(|p| p.name.as_str())).unwrap();
}

#[test]
fn every_format_reads_back_the_same() {
    let directory = tempfile::tempdir().unwrap();
    for model in ["gpt2-tiny", "llama-tiny", "gguf-mini/llama.gguf", "gguf-mini/gpt2.gguf"] {
        let original = open(fixture(model));
        for format in [ExportFormat::HuggingFace, ExportFormat::Gguf] {
            let to = directory.path().join(format!("{}.{}", model.replace('/', "-"), format.name()));
            export(&original, format, DType::F32, &to).unwrap();
            assert_same_model(&original, &open(&to));
        }
    }
    let hf = open(directory.path().join("gpt2-tiny.hf"));
    let original = open(fixture("gpt2-tiny"));
    assert_eq!((hf.config().bos, &hf.config().eos), (original.config().bos, &original.config().eos));
}

#[test]
fn llmc_export_is_the_file_that_pytorch_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("model.bin");
    export(&open(fixture("gpt2-tiny")), ExportFormat::Llmc, DType::F32, &to).unwrap();
    assert!(std::fs::read(&to).unwrap() == std::fs::read(fixture("gpt2-tiny/llmc_model.bin")).unwrap());
    export(&open(fixture("gpt2-tiny")), ExportFormat::Llmc, DType::BF16, &to).unwrap();
    assert_eq!(open(&to).info("wte.weight").unwrap().dtype, DType::BF16);
    let error = export(&open(fixture("llama-tiny")), ExportFormat::Llmc, DType::F32, &to).unwrap_err().to_string();
    assert!(error.contains("llm.c cannot hold this model: it is not a GPT-2"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn narrow_types_hold_the_rounded_values() {
    let directory = tempfile::tempdir().unwrap();
    let original = open(fixture("llama-tiny"));
    let name = "model.layers.1.mlp.down_proj.weight";
    let p = parameters(original.config()).unwrap().into_iter().find(|p| p.name == name).unwrap();
    for (format, dtype) in [
        (ExportFormat::HuggingFace, DType::BF16),
        (ExportFormat::HuggingFace, DType::F16),
        (ExportFormat::Gguf, DType::F16),
        (ExportFormat::Gguf, DType::Q8_0),
        (ExportFormat::Gguf, DType::Q4_0),
    ] {
        let to = directory.path().join(format!("{dtype}.{}", format.name()));
        export(&original, format, dtype, &to).unwrap();
        let narrow = open(&to);
        assert_eq!(narrow.info(name).unwrap().dtype, dtype);
        let wide = values(&original, &p);
        let mut bytes = vec![0; dtype.bytes_for(wide.len()).unwrap()];
        quant::quantize(dtype, &wide, &mut bytes);
        let mut rounded = vec![0.0; wide.len()];
        quant::dequantize(dtype, &bytes, &mut rounded);
        assert!(values(&narrow, &p) == rounded, "{dtype}");
    }
    let error = export(&original, ExportFormat::HuggingFace, DType::Q8_0, directory.path()).unwrap_err();
    assert_eq!(error.to_string(), "hf is not written as q8_0; choose one of f32, f16, bf16");
}

#[test]
fn tokenizers_survive_a_change_of_format() {
    let directory = tempfile::tempdir().unwrap();
    let original = open(fixture("gguf-mini/llama.gguf"));
    let (hf, gguf) = (directory.path().join("hf"), directory.path().join("model.gguf"));
    export(&original, ExportFormat::HuggingFace, DType::F32, &hf).unwrap();
    let as_hf = open(&hf);
    assert!(matches!(as_hf.tokenizer(), TokenizerSource::Json { .. }));
    export(&as_hf, ExportFormat::Gguf, DType::F32, &gguf).unwrap();
    assert_eq!(open(&gguf).tokenizer(), original.tokenizer());
    let copy = directory.path().join("copy");
    export(&as_hf, ExportFormat::HuggingFace, DType::F32, &copy).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        assert!(std::fs::read(hf.join(file)).unwrap() == std::fs::read(copy.join(file)).unwrap());
    }
}

#[test]
fn a_reader_that_fails_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let original = open(fixture("gpt2-tiny"));
    let export = Export {
        config: original.config(),
        tokenizer: &TokenizerSource::None,
        format: ExportFormat::Gguf,
        dtype: DType::F32,
    };
    let stop = |part: &ParameterRows, _: &mut [f32]| {
        if part.parameter.name == "ln_f.bias" { Err(staticgrad::error::Error::Weights("stop".into())) } else { Ok(()) }
    };
    assert!(export.write(&directory.path().join("x.gguf"), &mut { stop }).is_err());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Runs a script of `tests/peers` with the Python that `PEERS` names, or says that it does not.
fn peers(script: &str, arguments: &[&Path]) -> Option<String> {
    let Some(python) = std::env::var_os("PEERS") else {
        eprintln!("skipped: PEERS is not set (a Python with torch, transformers and llama-cpp-python)");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn transformers_and_llama_cpp_compute_the_same_logits() {
    let directory = tempfile::tempdir().unwrap();
    for model in ["gpt2-tiny", "llama-tiny"] {
        let original = open(fixture(model));
        let (hf, gguf) = (directory.path().join(format!("{model}.hf")), directory.path().join(format!("{model}.gguf")));
        let q8 = directory.path().join(format!("{model}.q8_0.gguf"));
        export(&original, ExportFormat::HuggingFace, DType::F32, &hf).unwrap();
        export(&original, ExportFormat::Gguf, DType::F32, &gguf).unwrap();
        export(&original, ExportFormat::Gguf, DType::Q8_0, &q8).unwrap();
        let Some(printed) = peers("logits.py", &[&fixture(model), &hf, &gguf, &q8]) else { return };
        let errors: Vec<f64> = printed.lines().map(|l| l.parse().unwrap()).collect();
        eprintln!("{model}: transformers {:.1e}, llama.cpp f32 {:.1e}, q8_0 {:.1e}", errors[0], errors[1], errors[2]);
        // llama.cpp looks GELU up in a table of f16, and multiplies by q8_0 weights with quantised activations.
        assert!(errors[0] == 0.0 && errors[1] < 2e-3 && errors[2] < 5e-2, "{model}: {errors:?}");
    }
}

const LINES: &str = "Hello, world! It's 2024-10-31.\n  indented\tand tabbed   text \nnaïve café — 日本語 🙂\nfn main() { println!(\"{}\", 12345); }\n<|endoftext|>ROMEO: what's  this?";

/// A model small enough to write in no time, with the vocabulary of a real one.
fn tiny_config(v: usize) -> ModelConfig {
    ModelConfig::gpt2([v as i64, 8, 32, 1, 1, 32], 1e-5, true)
}

/// Exports `tokenizer` both ways and compares the ids of both peers with `expected`, one line each per line of text.
fn assert_peers_tokenize(tokenizer: GgufTokenizer, expected: Option<&[String]>, more: &[&Path]) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = tiny_config(tokenizer.tokens.len());
    (config.bos, config.eos) = (tokenizer.bos, tokenizer.eos.into_iter().collect());
    let source = TokenizerSource::Gguf(Box::new(tokenizer));
    let (hf, gguf) = (directory.path().join("hf"), directory.path().join("model.gguf"));
    for (format, to) in [(ExportFormat::HuggingFace, &hf), (ExportFormat::Gguf, &gguf)] {
        let export = Export { config: &config, tokenizer: &source, format, dtype: DType::F32 };
        export.write(to, &mut |_, _| Ok(())).unwrap();
    }
    let lines = directory.path().join("lines");
    std::fs::write(&lines, LINES).unwrap();
    let arguments: Vec<&Path> = [lines.as_path(), &hf, &gguf].into_iter().chain(more.iter().copied()).collect();
    let Some(printed) = peers("token_ids.py", &arguments) else { return };
    let printed: Vec<&str> = printed.lines().collect();
    let per_source: Vec<&[&str]> = printed.chunks(LINES.lines().count()).collect();
    assert_eq!(per_source.len(), 2 + more.len());
    for source in &per_source {
        assert_eq!(source, &per_source[0]);
        if let Some(expected) = expected {
            assert_eq!(*source, expected);
        }
    }
}

#[test]
fn peers_tokenize_with_the_gpt2_vocabulary_rebuilt_from_ranks() {
    let gpt2 = Tokenizer::gpt2();
    let tokens: Vec<&[u8]> = (0..gpt2.vocab_size() as u32).map(|id| gpt2.token_bytes(id).unwrap()).collect();
    let eot = gpt2.vocab_size() as u32 - 1;
    let tokenizer = GgufTokenizer::byte_level(&tokens, &[eot], Some(eot), Some(eot), "gpt-2");
    assert_eq!((tokenizer.merges.len(), tokenizer.merges[0].as_str()), (50_000, "Ġ t"));
    let ids = |line| {
        let ids = gpt2.encode(line, EncodeOptions::PROMPT).unwrap();
        ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_peers_tokenize(tokenizer, Some(&LINES.lines().map(ids).collect::<Vec<_>>()), &[]);
}

#[test]
fn peers_tokenize_bytes() {
    let bytes: Vec<[u8; 1]> = (0..=255u8).map(|b| [b]).collect();
    let tokens: Vec<&[u8]> = bytes.iter().map(|b| b.as_slice()).collect();
    let expected: Vec<String> =
        LINES.lines().map(|l| l.bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(" ")).collect();
    assert_peers_tokenize(GgufTokenizer::byte_level(&tokens, &[], None, None, "gpt-2"), Some(&expected), &[]);
}

#[test]
fn peers_tokenize_with_the_vocabulary_of_a_real_model() {
    let Some(path) = std::env::var_os("SMOLLM2_GGUF").map(PathBuf::from) else {
        eprintln!("skipped: SMOLLM2_GGUF is not set (the path of SmolLM2-135M-Instruct.Q4_1.gguf)");
        return;
    };
    let checkpoint = open(&path);
    let TokenizerSource::Gguf(tokenizer) = checkpoint.tokenizer() else { panic!("no tokenizer") };
    assert_peers_tokenize((**tokenizer).clone(), None, &[&path]);
}
