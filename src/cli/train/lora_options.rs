//! Options of `train` for low-rank adapters.

use crate::error::{Error, Result};
use crate::train::{Adapters, Precision};
use clap::Args;

/// Adapters instead of parameters.
#[derive(Args)]
pub struct LoraArgs {
    /// Train low-rank adapters of this rank on the frozen checkpoint --model, recomputing norms and activations; the adapter is stored in PEFT's
    /// layout, for `merge`.
    #[arg(long, value_name = "N")]
    lora_rank: Option<usize>,
    /// Products of adapters are scaled by X / rank [default: twice the rank].
    #[arg(long, value_name = "X")]
    lora_alpha: Option<f64>,
    /// Linears to adapt, by the last parts of their names, such as q_proj,v_proj or attn.c_attn; all is all but the head [default: all].
    #[arg(long, value_name = "LIST|all", value_delimiter = ',')]
    lora_targets: Vec<String>,
    /// What the frozen matrices are kept in: f32, or bf16 in half the memory [default: f32].
    #[arg(long, value_name = "TYPE")]
    base_type: Option<Precision>,
}

impl LoraArgs {
    /// What the options say.
    ///
    /// # Errors
    /// Options of adapters without a rank.
    pub fn adapters(&self) -> Result<Option<Adapters>> {
        let Some(rank) = self.lora_rank else {
            let given = [
                ("lora-alpha", self.lora_alpha.is_some()),
                ("lora-targets", !self.lora_targets.is_empty()),
                ("base-type", self.base_type.is_some()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                None => Ok(None),
                Some((option, _)) => Err(Error::Usage(format!("--{option} needs --lora-rank N"))),
            };
        };
        let alpha = self.lora_alpha.unwrap_or(2.0 * rank as f64);
        Ok(Some(Adapters { rank, alpha, targets: self.targets(), base_type: self.base_type.unwrap_or_default() }))
    }

    fn targets(&self) -> Vec<String> {
        if self.lora_targets == ["all"] { Vec::new() } else { self.lora_targets.clone() }
    }

    /// Whether any option is given.
    pub fn is_given(&self) -> bool {
        self.differs_from(None).is_some()
    }

    /// The first option that is given and differs from those of a run that is continued.
    pub fn differs_from(&self, stored: Option<&Adapters>) -> Option<&'static str> {
        let rank = self.lora_rank.is_some() && self.lora_rank != stored.map(|s| s.rank);
        let alpha = self.lora_alpha.is_some() && self.lora_alpha != stored.map(|s| s.alpha);
        let targets = !self.lora_targets.is_empty() && Some(&self.targets()) != stored.map(|s| &s.targets);
        let base = self.base_type.is_some() && self.base_type != stored.map(|s| s.base_type);
        [("lora-rank", rank), ("lora-alpha", alpha), ("lora-targets", targets), ("base-type", base)]
            .into_iter()
            .find_map(|(option, differs)| differs.then_some(option))
    }
}
