//! Learning-rate schedules.

use std::f64::consts::PI;
use std::str::FromStr;

use crate::error::{Error, Result};

/// How the learning rate falls after the warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Stays at the peak.
    Constant,
    /// A straight line from the peak to the minimum.
    Linear,
    /// Half a cosine from the peak to the minimum (Loshchilov and Hutter, 2017).
    Cosine,
    /// Stays at the peak, then falls as 1 - sqrt over the last part of training (Hu et al., 2024; Hägele et al., 2024).
    WarmupStableDecay,
}

impl ScheduleKind {
    /// The names that the command line and checkpoints use.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("constant", Self::Constant),
        ("linear", Self::Linear),
        ("cosine", Self::Cosine),
        ("warmup-stable-decay", Self::WarmupStableDecay),
    ];
}

impl FromStr for ScheduleKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|&(_, kind)| kind).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            Error::Usage(format!("unknown schedule '{name}'; known are {}", names.join(", ")))
        })
    }
}

/// The learning rate of every step, a pure function of the step.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Schedule {
    /// How it falls.
    pub kind: ScheduleKind,
    /// Learning rate at the end of the warmup.
    pub peak: f64,
    /// Learning rate at step `steps` and later; [`ScheduleKind::Constant`] never gets there.
    pub minimum: f64,
    /// Steps of linear warmup: step 0 has `peak / warmup`, step `warmup - 1` has the peak.
    pub warmup: u64,
    /// Steps in all.
    pub steps: u64,
    /// Steps of the final fall; only [`ScheduleKind::WarmupStableDecay`] reads it.
    pub decay: u64,
}

impl Schedule {
    /// Checks that the numbers fit together.
    pub fn validate(&self) -> Result<()> {
        let usage = |message: String| Err(Error::Usage(message));
        if !(self.peak.is_finite() && self.peak > 0.0) {
            return usage(format!("learning rate {}: it must be above 0 and finite", self.peak));
        }
        if !(self.minimum >= 0.0 && self.minimum <= self.peak) {
            return usage(format!(
                "minimum learning rate {}: it must lie between 0 and the peak {}",
                self.minimum, self.peak
            ));
        }
        if self.warmup > self.steps {
            return usage(format!("{} warmup steps are more than the {} steps in all", self.warmup, self.steps));
        }
        if self.kind == ScheduleKind::WarmupStableDecay && self.decay > self.steps - self.warmup {
            return usage(format!(
                "{} decay steps are more than the {} steps after the warmup",
                self.decay,
                self.steps - self.warmup
            ));
        }
        Ok(())
    }

    /// The learning rate of a step, counted from 0. Computed in f64 and rounded once.
    pub fn learning_rate(&self, step: u64) -> f32 {
        self.exact(step) as f32
    }

    fn exact(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let start = match self.kind {
            ScheduleKind::Constant => return self.peak,
            ScheduleKind::Linear | ScheduleKind::Cosine => self.warmup,
            ScheduleKind::WarmupStableDecay => self.steps.saturating_sub(self.decay),
        };
        if step >= self.steps {
            return self.minimum;
        }
        if step <= start {
            return self.peak;
        }
        let progress = (step - start) as f64 / (self.steps - start) as f64;
        let share = match self.kind {
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            ScheduleKind::WarmupStableDecay => 1.0 - progress.sqrt(),
            ScheduleKind::Linear | ScheduleKind::Constant => 1.0 - progress,
        };
        self.minimum + share * (self.peak - self.minimum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, peak: 1.0, minimum: 0.1, warmup: 4, steps: 104, decay: 25 }
    }

    #[test]
    fn warmup_is_a_line_to_the_peak() {
        for (_, kind) in ScheduleKind::NAMES {
            let rates: Vec<f32> = (0..5).map(|step| schedule(kind).learning_rate(step)).collect();
            assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0]);
        }
        let cold = Schedule { warmup: 0, ..schedule(ScheduleKind::Cosine) };
        assert_eq!(cold.learning_rate(0), 1.0);
    }

    #[test]
    fn each_kind_falls_its_own_way() {
        let at = |kind, step| schedule(kind).learning_rate(step);
        assert_eq!(at(ScheduleKind::Constant, 1000), 1.0);
        assert_eq!(at(ScheduleKind::Linear, 54), 0.55);
        assert!((at(ScheduleKind::Linear, 79) - 0.325).abs() < 1e-7);
        assert_eq!(at(ScheduleKind::Cosine, 54), 0.55);
        assert!((at(ScheduleKind::Cosine, 29) - (0.1 + 0.9 * 0.853_553_4)).abs() < 1e-6);
        assert_eq!(at(ScheduleKind::WarmupStableDecay, 79), 1.0);
        assert!((at(ScheduleKind::WarmupStableDecay, 95) - (0.1 + 0.9 * 0.2)).abs() < 1e-6);
        for (_, kind) in &ScheduleKind::NAMES[1..] {
            assert_eq!(at(*kind, 104), 0.1);
            assert_eq!(at(*kind, 9999), 0.1);
        }
    }

    #[test]
    fn names_are_parsed_and_nonsense_is_refused() {
        for (name, kind) in ScheduleKind::NAMES {
            assert_eq!(name.parse::<ScheduleKind>().unwrap(), kind);
            assert!(schedule(kind).validate().is_ok());
        }
        assert!("cosin".parse::<ScheduleKind>().unwrap_err().to_string().contains("known are constant"));
        let base = schedule(ScheduleKind::WarmupStableDecay);
        for broken in [
            Schedule { peak: 0.0, ..base },
            Schedule { peak: f64::NAN, ..base },
            Schedule { minimum: 2.0, ..base },
            Schedule { warmup: 200, ..base },
            Schedule { decay: 101, ..base },
        ] {
            assert_eq!(broken.validate().unwrap_err().exit_code(), 2);
        }
    }
}
