//! Every checkpoint format gives the same tensors under the same names.

use safetensors::SafeTensors;
use staticgrad::tensor::{DType, Shape};
use staticgrad::weights::{Checkpoint, ConstValue, Family, Format, Orientation, TokenizerSource, parameters};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn open(path: impl AsRef<Path>) -> Checkpoint {
    Checkpoint::open(path.as_ref(), &[]).unwrap()
}

/// The values of `name`, linear weights as `[in, out]`.
fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let mut out = vec![f32::NAN; checkpoint.info(name).unwrap().shape.elements()];
    checkpoint.read_f32_as(name, Orientation::InOut, &mut out).unwrap();
    out
}

/// Every parameter of the model is there with the right shape, and nothing else is.
fn assert_complete(checkpoint: &Checkpoint) {
    let wanted = parameters(checkpoint.config()).unwrap();
    for p in &wanted {
        checkpoint.require(&p.name, &p.shape, p.orientation).unwrap();
    }
    checkpoint.refuse_extra(wanted.iter().map(|p| p.name.as_str())).unwrap();
}

#[test]
fn three_layouts_of_gpt2_tiny_agree() {
    let directory = open(fixture("gpt2-tiny"));
    assert_eq!(directory.format(), Format::HuggingFace);
    assert_eq!(directory.config().family, Family::Gpt2);
    let dims: Vec<(&str, i64)> = directory.config().dims.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    assert_eq!(dims, [("V", 97), ("T", 32), ("C", 64), ("H", 4), ("L", 2), ("F", 256)]);
    assert_eq!((directory.config().bos, directory.config().eos.as_slice()), (Some(0), &[0][..]));
    for (file, format) in [
        ("llmc_model.bin", Format::Llmc),
        ("seed_weights.bin", Format::Raw),
        ("model.safetensors", Format::HuggingFace),
    ] {
        let other = open(fixture("gpt2-tiny").join(file));
        assert_eq!(other.format(), format);
        assert_eq!(other.config().dims, directory.config().dims);
        assert_eq!(other.config().consts, directory.config().consts);
        assert_complete(&other);
        assert_eq!(other.tensors().len(), directory.tensors().len());
        for t in directory.tensors() {
            assert_eq!(values(&directory, &t.name), values(&other, &t.name), "{file} {}", t.name);
        }
    }
}

#[test]
fn headerless_dimensions_can_be_given_by_hand() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights.bin");
    std::fs::copy(fixture("gpt2-tiny/seed_weights.bin"), &path).unwrap();
    let set: Vec<(String, String)> = [("V", "97"), ("T", "32"), ("C", "64"), ("H", "4"), ("L", "2")]
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .to_vec();
    let checkpoint = Checkpoint::open(&path, &set).unwrap();
    assert_eq!(checkpoint.config().dim("F").unwrap(), 256);
    assert_eq!(values(&checkpoint, "ln_f.bias"), values(&open(fixture("gpt2-tiny")), "ln_f.bias"));
    let error = Checkpoint::open(&path, &set[..4]).unwrap_err().to_string();
    assert!(error.contains("L is missing") && error.contains("--set"), "{error}");
}

#[test]
fn llmc_bf16_is_the_rounded_f32() {
    let f32_file = std::fs::read(fixture("gpt2-tiny/llmc_model.bin")).unwrap();
    let mut bf16_file = f32_file[..1024].to_vec();
    bf16_file[4] = 5;
    let (values_in, _) = f32_file[1024..].as_chunks::<4>();
    bf16_file.extend(values_in.iter().flat_map(|b| half::bf16::from_f32(f32::from_le_bytes(*b)).to_le_bytes()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.bin");
    std::fs::write(&path, bf16_file).unwrap();
    let (narrow, wide) = (open(&path), open(fixture("gpt2-tiny/llmc_model.bin")));
    assert_complete(&narrow);
    for t in wide.tensors() {
        let rounded: Vec<f32> = values(&wide, &t.name).iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
        assert_eq!(rounded, values(&narrow, &t.name), "{}", t.name);
    }
}

#[test]
fn llama_tiny_is_complete() {
    let checkpoint = open(fixture("llama-tiny"));
    let config = checkpoint.config();
    assert_eq!((config.family, config.spec), (Family::Llama, "llama"));
    for (name, value) in [("V", 97), ("T", 64), ("C", 64), ("H", 4), ("KV", 2), ("D", 16), ("L", 2), ("F", 160)] {
        assert_eq!(config.dim(name).unwrap(), value, "{name}");
    }
    assert_eq!((config.float("eps").unwrap(), config.float("rope_theta").unwrap()), (1e-5, 1e4));
    assert!(config.tied());
    assert_complete(&checkpoint);
}

/// `gguf-py` wrote these files, row permutation of q and k included, beside what they hold under Hugging Face names.
fn assert_gguf(name: &str) -> Checkpoint {
    let checkpoint = open(fixture(&format!("gguf-mini/{name}.gguf")));
    assert_eq!(checkpoint.format(), Format::Gguf);
    assert_complete(&checkpoint);
    let bytes = std::fs::read(fixture(&format!("gguf-mini/{name}.safetensors"))).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(expected.len(), checkpoint.tensors().len());
    for p in parameters(checkpoint.config()).unwrap() {
        let tensor = expected.tensor(&p.name).unwrap();
        let wanted: Vec<f32> = tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!(tensor.shape(), p.shape.dims());
        let mut found = vec![f32::NAN; wanted.len()];
        checkpoint.read_f32_as(&p.name, p.orientation.unwrap_or(Orientation::OutIn), &mut found).unwrap();
        assert_eq!(found, wanted, "{}", p.name);
    }
    checkpoint
}

#[test]
fn gguf_of_gpt2() {
    let checkpoint = assert_gguf("gpt2");
    assert_eq!(checkpoint.info("h.0.mlp.c_fc.weight").unwrap().dtype, DType::Q8_0);
    assert_eq!(checkpoint.info("h.0.mlp.c_fc.weight").unwrap().orientation, Some(Orientation::OutIn));
    assert_eq!(*checkpoint.tokenizer(), TokenizerSource::None);
    assert!(checkpoint.config().tied());
}

#[test]
fn gguf_of_llama_with_its_tokenizer() {
    let checkpoint = assert_gguf("llama");
    assert!(!checkpoint.config().tied());
    assert_eq!(checkpoint.config().float("rope_theta").unwrap(), 50_000.0);
    assert_eq!(checkpoint.info("model.layers.0.self_attn.q_proj.weight").unwrap().dtype, DType::Q4_0);
    let TokenizerSource::Gguf(tokenizer) = checkpoint.tokenizer() else { panic!("no tokenizer") };
    assert_eq!((tokenizer.model.as_str(), tokenizer.pre.as_deref()), ("gpt2", Some("smollm")));
    assert_eq!((tokenizer.tokens.len(), tokenizer.token_types.last()), (40, Some(&3)));
    assert_eq!(tokenizer.merges, ["a b", "c d"]);
    assert_eq!((tokenizer.bos, tokenizer.eos, tokenizer.add_bos), (Some(1), Some(39), Some(false)));
    assert_eq!(tokenizer.chat_template.as_deref(), Some("{{ messages }}"));
    assert_eq!(checkpoint.config().eos, [39]);
}

#[test]
fn released_pages_come_back() {
    let checkpoint = open(fixture("gpt2-tiny"));
    let before = values(&checkpoint, "wte.weight");
    checkpoint.release("wte.weight");
    checkpoint.release("no such tensor");
    assert_eq!(values(&checkpoint, "wte.weight"), before);
}

#[test]
fn errors_name_the_nearest_tensor_and_both_shapes() {
    let checkpoint = open(fixture("gpt2-tiny"));
    let error = checkpoint.require("h.0.attn.c_atn.weight", &Shape::new([64, 192]), None).unwrap_err().to_string();
    assert!(error.contains("'h.0.attn.c_atn.weight'; the nearest is 'h.0.attn.c_attn.weight'"), "{error}");
    let error = checkpoint.require("wte.weight", &Shape::new([96, 64]), None).unwrap_err().to_string();
    assert!(error.contains("'wte.weight' has shape [97, 64], the model needs [96, 64]"), "{error}");
    let error = checkpoint.refuse_extra(["wte.weights"].into_iter()).unwrap_err().to_string();
    assert!(error.contains("the model has no '"), "{error}");
}

/// A model directory with `config.json` changed, `model.safetensors` made of `tensors`.
fn directory(config: &str, tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config).unwrap();
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), b)| {
        (*name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), b).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(directory.path().join("model.safetensors"), file).unwrap();
    directory
}

const CONFIG: &str =
    r#"{"model_type": "gpt2", "vocab_size": 2, "n_positions": 2, "n_embd": 2, "n_head": 1, "n_layer": 1}"#;

#[test]
fn the_head_is_tied_when_absent_or_equal() {
    let wte = ("transformer.wte.weight", vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]);
    let mask = ("transformer.h.0.attn.bias", vec![1, 1, 2, 2], vec![0.0; 4]);
    let head = |v: Vec<f32>| ("lm_head.weight", vec![2, 2], v);
    let tied = directory(CONFIG, &[wte.clone(), mask]);
    let checkpoint = open(tied.path());
    assert!(
        checkpoint.config().tied() && checkpoint.config().consts.contains(&("tied".into(), ConstValue::Bool(true)))
    );
    assert_eq!(checkpoint.tensors().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["wte.weight"]);
    let equal = directory(CONFIG, &[wte.clone(), head(vec![1.0, 2.0, 3.0, 4.0])]);
    assert!(open(equal.path()).config().tied());
    assert!(open(equal.path()).info("lm_head.weight").is_none());
    let different = directory(CONFIG, &[wte.clone(), head(vec![1.0, 2.0, 3.0, 5.0])]);
    assert!(!open(different.path()).config().tied());
    let head = open(different.path()).info("lm_head.weight").unwrap().clone();
    assert_eq!(head.orientation, Some(Orientation::OutIn));
    let untied = CONFIG.replace('}', ", \"tie_word_embeddings\": false}");
    let error = Checkpoint::open(directory(&untied, &[wte]).path(), &[]).unwrap_err().to_string();
    assert!(error.contains("lm_head.weight is missing"), "{error}");
}

#[test]
fn shards_are_one_checkpoint() {
    let one = directory(CONFIG, &[("wte.weight", vec![2, 2], vec![1.0; 4])]);
    let two = directory(CONFIG, &[("wpe.weight", vec![2, 2], vec![2.0; 4])]);
    let path = one.path();
    std::fs::rename(path.join("model.safetensors"), path.join("model-1.safetensors")).unwrap();
    std::fs::copy(two.path().join("model.safetensors"), path.join("model-2.safetensors")).unwrap();
    let index = |map: &str| {
        let json = format!("{{\"weight_map\": {{{map}}}}}");
        std::fs::write(path.join("model.safetensors.index.json"), json).unwrap();
        Checkpoint::open(path, &[])
    };
    let both = r#""wte.weight": "model-1.safetensors", "wpe.weight": "model-2.safetensors""#;
    let checkpoint = index(both).unwrap();
    assert_eq!((values(&checkpoint, "wte.weight"), values(&checkpoint, "wpe.weight")), (vec![1.0; 4], vec![2.0; 4]));
    let error = |map: &str| index(map).unwrap_err().to_string();
    assert!(error(&both.replace("model-2", "model-3")).contains("model-3.safetensors: cannot open"));
    assert!(
        error(&both.replace("wpe.weight", "h.0.ln_1.bias")).contains("'h.0.ln_1.bias' is not in 'model-2.safetensors'")
    );
    assert!(error(&both.replace("model-2", "../model-2")).contains("which is not a file name"));
    std::fs::copy(path.join("model-1.safetensors"), path.join("model-2.safetensors")).unwrap();
    assert!(error(r#""wte.weight": "model-1.safetensors", "w": "model-2.safetensors""#).contains("'w' is not in"));
    let doubled = error(r#""wte.weight": "model-1.safetensors", "transformer.wte.weight": "model-2.safetensors""#);
    assert!(doubled.contains("is not in"), "{doubled}");
}

#[test]
fn options_that_are_not_implemented_are_refused_by_name() {
    let llama = r#"{"model_type": "llama", "vocab_size": 2, "max_position_embeddings": 2, "hidden_size": 4,
        "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 2}"#;
    let refusal = |config: &str, option: &str| {
        let config = config.replace('}', &format!(", {option}}}"));
        let dir = directory(&config, &[("model.embed_tokens.weight", vec![2, 4], vec![0.0; 8])]);
        Checkpoint::open(dir.path(), &[]).map(|_| ()).unwrap_err().to_string()
    };
    for (config, option, named) in [
        (CONFIG, r#""scale_attn_by_inverse_layer_idx": true"#, "scale_attn_by_inverse_layer_idx = true"),
        (CONFIG, r#""reorder_and_upcast_attn": true"#, "reorder_and_upcast_attn = true"),
        (CONFIG, r#""add_cross_attention": true"#, "add_cross_attention = true"),
        (CONFIG, r#""scale_attn_weights": false"#, "scale_attn_weights = false"),
        (CONFIG, r#""activation_function": "relu""#, "activation_function \"relu\""),
        (CONFIG, r#""n_head": 0"#, "dimension H is 0"),
        (CONFIG, r#""n_embd": "x""#, "n_embd must be an integer"),
        (CONFIG, r#""eos_token_id": -1"#, "eos_token_id must be a token id"),
        (llama, r#""attention_bias": true"#, "attention_bias = true"),
        (llama, r#""mlp_bias": true"#, "mlp_bias = true"),
        (llama, r#""hidden_act": "gelu""#, "hidden_act \"gelu\""),
        (llama, r#""rope_scaling": {"type": "linear", "factor": 2.0}"#, "rope_scaling of type \"linear\""),
        (llama, r#""rope_parameters": {"rope_type": "llama3"}"#, "rope_parameters of type \"llama3\""),
        (llama, r#""quantization_config": {"bits": 4}"#, "quantization_config"),
        (llama, r#""model_type": "mamba""#, "model_type \"mamba\""),
    ] {
        let error = refusal(config, option);
        assert!(error.contains(named) && error.contains("config.json"), "{option}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn rope_theta_and_head_size_come_from_either_place() {
    let config = |extra: &str| {
        format!(
            r#"{{"model_type": "llama", "vocab_size": 2, "max_position_embeddings": 2, "hidden_size": 4, {extra}
            "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 2, "tie_word_embeddings": true}}"#
        )
    };
    let read = |extra: &str| {
        let dir = directory(&config(extra), &[("model.embed_tokens.weight", vec![2, 4], vec![0.0; 8])]);
        let c = open(dir.path());
        (c.config().float("rope_theta").unwrap(), c.config().dim("D").unwrap())
    };
    assert_eq!(read(""), (10_000.0, 2));
    assert_eq!(read(r#""rope_theta": 5e5, "#), (5e5, 2));
    assert_eq!(read(r#""rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "head_dim": 6, "#), (1e6, 6));
}

#[test]
fn the_real_gguf_model_opens() {
    let Some(path) = std::env::var_os("SMOLLM2_GGUF").map(PathBuf::from) else {
        eprintln!("skipped: SMOLLM2_GGUF is not set (the path of SmolLM2-135M-Instruct.Q4_1.gguf)");
        return;
    };
    let checkpoint = open(&path);
    assert_complete(&checkpoint);
    assert!(checkpoint.config().tied());
    assert_eq!(checkpoint.config().dim("KV").unwrap(), 3);
    assert_eq!(checkpoint.info("model.layers.0.mlp.up_proj.weight").unwrap().dtype, DType::Q4_1);
    let TokenizerSource::Gguf(tokenizer) = checkpoint.tokenizer() else { panic!("no tokenizer") };
    assert_eq!((tokenizer.tokens.len(), tokenizer.merges.len()), (49152, 48900));
}
