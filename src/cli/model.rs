//! From `--model PATH` to a graph, a plan, weights and a tokenizer.

use super::embedded;
use crate::disk::keep_input;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::Capacity;
use crate::passes::kept_type::keep_as;
use crate::passes::{Layout, Mode};
use crate::plan::container::{self, Section};
use crate::plan::file::PlanFile;
use crate::plan::{Plan, compile};
use crate::spec;
use crate::tensor::DType;
use crate::text::Tokenizer;
use crate::weights::{Checkpoint, ConstValue, Entry, GgufTokenizer, ModelConfig, ParamStore, WeightsType};
use clap::Args;
use std::path::{Path, PathBuf};

/// Options of every command that loads a model.
#[derive(Args, Clone)]
pub struct ModelArgs {
    /// A Hugging Face directory, a .gguf, a .bin, or a plan made by `compile` [default: the model inside the program, a byte-level
    /// GPT-2 trained on Shakespeare].
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Weights for a plan that holds none.
    #[arg(long, value_name = "PATH")]
    pub weights: Option<PathBuf>,
    /// Types of the weights in memory: native keeps the file's, f32 is the reference path.
    #[arg(long, value_name = "TYPE", default_value = "native")]
    pub weights_type: String,
    /// Type in which keys and values are kept: f32, f16 or bf16 [default: f32, or as a plan was compiled].
    #[arg(long, value_name = "TYPE")]
    pub kv_type: Option<String>,
    /// Set a dimension or constant of the spec (repeatable), such as C=64.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

impl ModelArgs {
    /// Refuses to write over the model or its weights.
    ///
    /// # Errors
    /// `output` is one of them.
    pub fn keep(&self, output: &Path) -> Result<()> {
        self.model.iter().chain(&self.weights).try_for_each(|input| keep_input(input, output))
    }
}

/// An opened model: what to compute, and where its weights are.
pub struct Model {
    source: Source,
    path: PathBuf,
    weights_type: WeightsType,
}

enum Source {
    /// A checkpoint, with keys and values as asked for; the plan is made to measure.
    Checkpoint { graph: Box<Graph>, checkpoint: Box<Checkpoint> },
    /// A plan file, with a checkpoint beside it or weights inside.
    Plan { file: PlanFile, plan: Box<Plan>, weights: PlanWeights },
}

enum PlanWeights {
    Checkpoint(Box<Checkpoint>),
    Inside(Section, Vec<Entry>),
}

/// A `--kv-type`.
///
/// # Errors
/// An unknown word, with the known ones.
pub fn parse_kv_type(word: Option<&str>) -> Result<DType> {
    match word.unwrap_or("f32") {
        "f32" => Ok(DType::F32),
        "f16" => Ok(DType::F16),
        "bf16" => Ok(DType::BF16),
        other => Err(Error::Usage(format!("--kv-type {other}: unknown; use f32, f16 or bf16"))),
    }
}

/// `NAME=VALUE` pairs.
///
/// # Errors
/// A pair without `=`.
pub fn parse_sets(sets: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |s: &String| {
        let (name, value) =
            s.split_once('=').ok_or_else(|| Error::Usage(format!("--set {s}: write --set NAME=VALUE")))?;
        Ok((name.trim().to_string(), value.trim().to_string()))
    };
    sets.iter().map(pair).collect()
}

/// The spec overrides that a checkpoint's configuration stands for.
pub fn config_overrides(config: &ModelConfig) -> Vec<(String, String)> {
    let dims = config.dims.iter().map(|(name, value)| (name.clone(), value.to_string()));
    let consts = config.consts.iter().map(|(name, value)| {
        let value = match value {
            ConstValue::Float(x) => format!("{x:?}"),
            ConstValue::Bool(b) => b.to_string(),
        };
        let name = if name == "rope_theta" { "theta" } else { name };
        (name.to_string(), value)
    });
    let pad = config.pad.map(|token| ("pad".to_string(), token.to_string()));
    dims.chain(consts).chain(pad).collect()
}

/// The graph that a checkpoint's configuration stands for.
///
/// # Errors
/// What the spec refuses.
pub fn graph_of(config: &ModelConfig, sets: &[(String, String)]) -> Result<Graph> {
    let source =
        spec::builtin(config.spec).ok_or_else(|| Error::Request(format!("no spec for {} models", config.spec)))?;
    let mut overrides = config_overrides(config);
    overrides
        .extend(sets.iter().filter(|(name, _)| overrides.iter().all(|(n, _)| n != name)).cloned().collect::<Vec<_>>());
    spec::compile(&source, &overrides, None)
}

fn is_plan(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 8];
    path.is_file()
        && std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok()
        && &magic == container::MAGIC
}

/// The checkpoint at `path`, with overrides as [`Checkpoint::open`] takes them.
///
/// # Errors
/// A compiled plan; what [`Checkpoint::open`] refuses.
pub fn checkpoint_at(path: &Path, sets: &[(String, String)]) -> Result<Checkpoint> {
    if is_plan(path) {
        return Err(Error::file(path, "is a compiled plan; give the checkpoint that it was compiled from"));
    }
    Checkpoint::open(path, sets)
}

impl Model {
    /// Opens a model of any kind.
    ///
    /// # Errors
    /// Missing or damaged files, weights that do not fit, with what to do.
    pub fn open(args: &ModelArgs) -> Result<Model> {
        let weights_type = WeightsType::from_name(&args.weights_type)?;
        let kv_type = parse_kv_type(args.kv_type.as_deref())?;
        let sets = parse_sets(&args.set)?;
        let Some(path) = args.model.clone().filter(|path| is_plan(path)) else {
            if args.weights.is_some() {
                return Err(Error::Usage("--weights goes with a plan file as --model".into()));
            }
            let checkpoint = Box::new(match &args.model {
                Some(path) => Checkpoint::open(path, &sets)?,
                None => embedded::checkpoint(&sets)?,
            });
            let graph = Box::new(keep_as(&graph_of(checkpoint.config(), &sets)?, kv_type)?);
            let path = checkpoint.path().to_path_buf();
            return Ok(Model { source: Source::Checkpoint { graph, checkpoint }, path, weights_type });
        };
        if !sets.is_empty() {
            return Err(Error::Usage("--set cannot change a compiled plan; compile it again".into()));
        }
        if args.kv_type.is_some() {
            return Err(Error::Usage("--kv-type cannot change a compiled plan; compile it again".into()));
        }
        let file = PlanFile::open(&path)?;
        let plan = Box::new(file.plan()?);
        if plan.mode == Mode::Train {
            return Err(Error::file(&path, "is a plan for training; compile it again with --mode infer"));
        }
        let weights = match &args.weights {
            Some(weights) => PlanWeights::Checkpoint(Box::new(checkpoint_at(weights, &[])?)),
            None => {
                let (section, entries) = file.weight_index()?.ok_or_else(|| {
                    Error::Usage(format!("{} is a plan without weights; add --weights PATH", path.display()))
                })?;
                PlanWeights::Inside(section, entries)
            }
        };
        Ok(Model { source: Source::Plan { file, plan, weights }, path, weights_type })
    }

    /// The graph as the spec gives it, with the checkpoint.
    ///
    /// # Errors
    /// On a compiled plan; `what` asked for it.
    pub fn checkpoint(&self, what: &str) -> Result<(&Graph, &Checkpoint)> {
        match &self.source {
            Source::Checkpoint { graph, checkpoint } => Ok((graph, checkpoint)),
            Source::Plan { .. } => {
                Err(Error::Usage(format!("{what} needs a checkpoint as --model, not a compiled plan")))
            }
        }
    }

    /// Logits in a row.
    ///
    /// # Errors
    /// When the graph gives none.
    pub fn logits_width(&self) -> Result<usize> {
        let graph = self.graph();
        let logits = graph.output("logits").ok_or_else(|| Error::Plan("the graph has no result 'logits'".into()))?;
        Ok(graph.ty(logits).shape.elements())
    }

    /// The graph, before or after lowering.
    pub fn graph(&self) -> &Graph {
        match &self.source {
            Source::Checkpoint { graph, .. } => graph,
            Source::Plan { plan, .. } => &plan.graph,
        }
    }

    /// A dimension of the model.
    ///
    /// # Errors
    /// When the graph does not define it.
    pub fn dim(&self, name: &str) -> Result<usize> {
        match self.graph().constants.get(name) {
            Some(crate::graph::Attr::Int(i)) if *i > 0 => Ok(*i as usize),
            _ => Err(Error::Request(format!("the model has no dimension {name}"))),
        }
    }

    /// Rows that a sequence may have: the model's context, or what a plan keeps.
    ///
    /// # Errors
    /// When the graph does not define T.
    pub fn context(&self) -> Result<usize> {
        match &self.source {
            Source::Checkpoint { .. } => self.dim("T"),
            Source::Plan { plan, .. } => Ok(plan.capacity.context),
        }
    }

    /// Capacity of a compiled plan; `None` when the plan is made to measure.
    pub fn capacity(&self) -> Option<Capacity> {
        match &self.source {
            Source::Checkpoint { .. } => None,
            Source::Plan { plan, .. } => Some(plan.capacity),
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// When the model brings none and its vocabulary is no known one.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.source {
            Source::Checkpoint { checkpoint, .. }
            | Source::Plan { weights: PlanWeights::Checkpoint(checkpoint), .. } => {
                Tokenizer::for_checkpoint(checkpoint)
            }
            Source::Plan { file, .. } => match file.text::<Option<GgufTokenizer>>()?.flatten() {
                Some(metadata) => Tokenizer::from_gguf(&self.path.display().to_string(), &metadata),
                None => Tokenizer::for_vocab_size(self.dim("V")?),
            },
        }
    }

    /// A plan: the one that was compiled, or one made to measure.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn plan(&self, capacity: Capacity) -> Result<Plan> {
        match &self.source {
            Source::Checkpoint { graph, .. } => compile((**graph).clone(), Mode::Infer(Layout::Compact), capacity),
            Source::Plan { plan, .. } => Ok((**plan).clone()),
        }
    }

    /// The parameters of a plan, packed or mapped.
    ///
    /// # Errors
    /// Tensors that are missing, extra or of another shape.
    pub fn store(&self, plan: &Plan) -> Result<ParamStore> {
        match &self.source {
            Source::Checkpoint { checkpoint, .. }
            | Source::Plan { weights: PlanWeights::Checkpoint(checkpoint), .. } => {
                ParamStore::load(&plan.graph, checkpoint, self.weights_type)
            }
            Source::Plan { file, weights: PlanWeights::Inside(section, entries), .. } => {
                if self.weights_type != WeightsType::Native {
                    return Err(Error::Usage("--weights-type cannot change a compiled model; compile it again".into()));
                }
                ParamStore::map(file.mapped().clone(), section.offset, section.len, entries.clone())
            }
        }
    }

    /// Name of the model, for reports.
    pub fn name(&self) -> String {
        self.path.file_name().map_or_else(|| self.path.display().to_string(), |n| n.to_string_lossy().into_owned())
    }
}
