//! Checkpoints: every format that weights come in, as one list of named tensors over mapped files.
//!
//! | source | told by | module |
//! | --- | --- | --- |
//! | Hugging Face directory, or one `.safetensors` with its `config.json` | a directory, or the safetensors header | [`hf`] |
//! | GGUF v3 (`gpt2`, `llama`) | `GGUF` | [`gguf`] |
//! | llm.c model, versions 3 and 5 | 20240326 | [`llmc`] |
//! | headerless f32 in the C++ ancestor's order | none of the above | [`raw`] |
//!
//! Tensors go by their Hugging Face names without the `transformer.` prefix, whatever the source calls them. Nothing is read
//! but headers until a tensor is asked for.

pub mod adapter;
mod checkpoint;
pub mod debug_state;
pub mod export;
mod files;
mod format;
pub mod gguf;
pub mod hf;
mod json_config;
mod layout;
pub mod llmc;
mod model_config;
mod nearest;
pub mod raw;
mod rows;
mod store;
mod tensors;
mod tokenizer_json;
mod tokenizer_source;

pub use checkpoint::Checkpoint;
pub use export::{AdapterExport, AdapterMatrix, Export, ExportFormat};
pub use format::Format;
pub use layout::{Parameter, parameters};
pub use model_config::{ConstValue, Family, ModelConfig};
pub use nearest::nearest;
pub use rows::{PIECE_BYTES, ParameterRows};
pub use store::{Entry, ParamStore, WeightsType};
pub use tensors::{NamedTensor, Orientation, TensorInfo};
pub use tokenizer_source::{GgufTokenizer, TokenizerSource};
