//! What a trainer holds between steps: parameters, moments, gradients, by name.

use super::Trainer;
use crate::graph::{TensorId, TensorKind};
use crate::kernels::param::Param;
use crate::passes::{autodiff, optimizer};
use crate::tensor::DType;

impl<'p> Trainer<'p> {
    /// Names of all parameters, in the order of the graph.
    pub fn parameters(&self) -> impl Iterator<Item = &'p str> {
        let graph = &self.executor().plan().graph;
        graph.params().map(|t| graph.tensor(t).name.as_str())
    }

    /// Names of the parameters that updates change, in the order of the graph.
    pub fn trained(&self) -> impl Iterator<Item = &'p str> {
        let graph = &self.executor().plan().graph;
        let trained = |&t: &TensorId| graph.param(t).is_some_and(|p| p.trainable);
        graph.params().filter(trained).map(|t| graph.tensor(t).name.as_str())
    }

    /// Values of a parameter, as the checkpoint stores them; `None` where they are kept in another type than f32.
    pub fn parameter(&self, name: &str) -> Option<&[f32]> {
        self.named(name, |kind| matches!(kind, TensorKind::Param(_)))
            .filter(|&t| self.is_f32(t))
            .map(|t| self.executor().tensor(t))
    }

    /// As [`Trainer::parameter`], to fill.
    pub fn parameter_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        self.named(name, |kind| matches!(kind, TensorKind::Param(_)))
            .filter(|&t| self.is_f32(t))
            .map(|t| self.executor_mut().tensor_mut(t))
    }

    /// A parameter as another plan's executor reads it where it is.
    pub fn parameter_in_place(&self, name: &str) -> Option<Param<'_>> {
        match self.stored(name)? {
            (DType::BF16, bytes) => Some(Param::PlainBf16(bytemuck::cast_slice(bytes))),
            _ => self.parameter(name).map(Param::Plain),
        }
    }

    /// First and second moment of a trainable parameter; `None` where they are kept in another type than f32.
    pub fn moments(&self, name: &str) -> Option<[&[f32]; 2]> {
        let moment = |suffix: &str| {
            let t = self.named(&format!("{name}{suffix}"), |kind| *kind == TensorKind::State)?;
            self.is_f32(t).then(|| self.executor().tensor(t))
        };
        Some([moment(optimizer::FIRST_MOMENT)?, moment(optimizer::SECOND_MOMENT)?])
    }

    /// Element type and bytes of a parameter or state by its whole name, such as `wte.weight.first_moment`: what checkpoints hold.
    pub fn stored(&self, name: &str) -> Option<(DType, &[u8])> {
        let t = self.named(name, is_stored)?;
        Some((self.executor().plan().graph.ty(t).dtype, self.executor().tensor(t)))
    }

    /// As [`Trainer::stored`], to fill.
    pub fn stored_mut(&mut self, name: &str) -> Option<(DType, &mut [u8])> {
        let t = self.named(name, is_stored)?;
        Some((self.executor().plan().graph.ty(t).dtype, self.executor_mut().tensor_mut(t)))
    }

    /// Gradient of a parameter after the micro-steps of a step, before the update. Needs a plan that keeps gradients
    /// ([`Training::keep_gradients`](crate::passes::Training)), accumulates, or has no optimiser. `None` also for a parameter whose several
    /// uses (tied embeddings) accumulate apart until the update.
    pub fn gradient(&self, name: &str) -> Option<&[f32]> {
        let output = self.executor().plan().graph.output(&format!("{}{name}", autodiff::GRADIENT));
        let sum =
            |number: &str| self.named(&format!("{name}{}{number}", autodiff::SUM), |kind| *kind == TensorKind::State);
        let accumulated = || sum("").filter(|_| sum("_1").is_none());
        output.or_else(accumulated).map(|t| self.executor().tensor(t))
    }

    fn named(&self, name: &str, is: impl Fn(&TensorKind) -> bool) -> Option<TensorId> {
        let graph = &self.executor().plan().graph;
        graph.find(name).filter(|&t| is(&graph.tensor(t).kind))
    }

    fn is_f32(&self, t: TensorId) -> bool {
        self.executor().plan().graph.ty(t).dtype == DType::F32
    }
}

fn is_stored(kind: &TensorKind) -> bool {
    matches!(kind, TensorKind::Param(_) | TensorKind::State)
}
