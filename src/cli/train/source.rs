//! What is trained, and on which tokens.

use super::super::model::{checkpoint_at, graph_of, parse_sets};
use crate::error::{Error, Result};
use crate::graph::{Attr, Graph};
use crate::spec;
use crate::text::Tokenizer;
use crate::train::{Settings, TokenSource, model};
use crate::weights::{Checkpoint, ModelConfig, TokenizerSource};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A spec, or a checkpoint with its graph.
pub struct ModelSource {
    /// The graph that gives logits.
    pub graph: Graph,
    /// Where the initial weights are; `None` from scratch.
    pub checkpoint: Option<Checkpoint>,
}

impl ModelSource {
    /// Opens what `--model` names.
    ///
    /// # Errors
    /// What the spec or the checkpoint's reader refuses.
    pub fn open(name: &str, size: Option<&str>, set: &[String]) -> Result<Self> {
        let sets = parse_sets(set)?;
        let path = PathBuf::from(name);
        if spec::builtin(name).is_some() || path.extension().is_some_and(|e| e == "sg") || !path.exists() {
            let graph = spec::compile(&spec::load(name)?, &sets, size)?;
            return Ok(ModelSource { graph, checkpoint: None });
        }
        if size.is_some() {
            return Err(Error::Usage("--size goes with a spec; a checkpoint has its size".into()));
        }
        let checkpoint = checkpoint_at(&path, &sets)?;
        Ok(ModelSource { graph: graph_of(checkpoint.config(), &sets)?, checkpoint: Some(checkpoint) })
    }

    /// A dimension of the model.
    ///
    /// # Errors
    /// When the spec does not define it.
    pub fn dim(&self, name: &str) -> Result<usize> {
        match self.graph.constants.get(name) {
            Some(Attr::Int(i)) if *i > 0 => Ok(*i as usize),
            _ => Err(Error::Request(format!("the model has no dimension {name}"))),
        }
    }

    /// The tokenizer of text data.
    ///
    /// # Errors
    /// When none is named and the model brings none.
    pub fn tokenizer(&self, named: Option<&str>) -> Result<Tokenizer> {
        match (named, &self.checkpoint) {
            (Some(name), _) => Tokenizer::named(name),
            (None, Some(checkpoint)) => Tokenizer::for_checkpoint(checkpoint),
            (None, None) => Tokenizer::for_vocab_size(self.dim("V")?),
        }
    }

    /// The configuration to save the trained model with; `None` when no Hugging Face model computes what the spec says.
    pub fn config(&self) -> Option<ModelConfig> {
        match &self.checkpoint {
            Some(checkpoint) => Some(checkpoint.config().clone()),
            None => model::config_of(&self.graph),
        }
    }

    /// The tokenizer to save the trained model with.
    pub fn tokenizer_source(&self, named: Option<&str>) -> TokenizerSource {
        if let Some(checkpoint) = &self.checkpoint {
            return checkpoint.tokenizer().clone();
        }
        let directory = PathBuf::from(named.unwrap_or_default());
        let path = directory.join("tokenizer.json");
        if path.is_file() { TokenizerSource::Json { directory, path } } else { TokenizerSource::None }
    }
}

/// Training and validation tokens, checked against the vocabulary.
pub struct Data {
    /// To train on.
    pub train: Arc<TokenSource>,
    /// To measure on.
    pub validation: Option<Arc<TokenSource>>,
}

impl Data {
    /// Opens token files or reads text.
    ///
    /// # Errors
    /// Files that cannot be read; text without a tokenizer; tokens that the model does not know.
    pub fn open(settings: &Settings, source: &ModelSource) -> Result<Self> {
        let open = |path: &Path| TokenSource::open(path, || source.tokenizer(settings.tokenizer.as_deref()));
        let mut train = open(&settings.data)?;
        let validation = match &settings.val {
            Some(path) => Some(open(path)?),
            None if settings.val_fraction > 0.0 => train.split_validation(settings.val_fraction),
            None => None,
        };
        let vocabulary = source.dim("V")?;
        train.check_vocab_size(vocabulary)?;
        validation.as_ref().map_or(Ok(()), |v| v.check_vocab_size(vocabulary))?;
        Ok(Data { train: Arc::new(train), validation: validation.map(Arc::new) })
    }
}
