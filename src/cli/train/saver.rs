//! What a run leaves in its directory.

use super::{CURVE, LOG};
use crate::error::Result;
use crate::tensor::DType;
use crate::train::{Log, Run, chart, model};
use crate::weights::{ModelConfig, TokenizerSource};
use std::path::{Path, PathBuf};

/// Points of a curve in the picture; more are averaged.
const CURVE_POINTS: usize = 600;

/// What is written to the run's directory, and how.
pub struct Saver<'a> {
    pub directory: &'a Path,
    pub checkpoint: PathBuf,
    pub config: Option<ModelConfig>,
    pub tokenizer: TokenizerSource,
    pub dtype: DType,
    pub title: String,
}

impl Saver<'_> {
    /// The checkpoint, then what is made from it.
    pub fn save(&self, run: &Run) -> Result<()> {
        run.save(&self.checkpoint)?;
        self.model(run, self.directory)?;
        let records = Log::read(&self.directory.join(LOG))?;
        if records.iter().any(|r| r.loss.or(r.val_loss).is_some_and(f64::is_finite)) {
            let records = chart::thinned(&records, CURVE_POINTS);
            chart::write_loss_curve(&self.directory.join(CURVE), &self.title, &records)?;
        }
        Ok(())
    }

    /// The model, or the adapters that are trained.
    pub fn model(&self, run: &Run, directory: &Path) -> Result<()> {
        let settings = &run.state().settings;
        match (&self.config, &settings.lora) {
            (None, _) => Ok(()),
            (Some(config), None) => model::export(run.trainer(), config, &self.tokenizer, self.dtype, directory),
            (Some(config), Some(lora)) => {
                model::export_adapters(run.trainer(), lora, config, &settings.model, self.dtype, directory)
            }
        }
    }
}
