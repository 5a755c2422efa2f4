//! The learning rate of an optimizer step.

use serde::Serialize;

/// GPT-NeoX's schedule with `lr-decay-style: cosine`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Schedule {
    /// `lr`, reached at the end of the warm-up.
    pub(crate) max: f64,
    /// `min_lr`.
    pub(crate) min: f64,
    /// Steps of the linear warm-up: `warmup` × `train-iters`.
    pub(crate) warmup_steps: u32,
    /// `lr-decay-iters`.
    pub(crate) decay_steps: u32,
}

impl Schedule {
    /// The rate that the optimizer step `step`, counted from 0, was taken with; the first one's is 0.
    ///
    /// GPT-NeoX's `megatron/learning_rates.py`, `AnnealingLR.get_lr`, whose cosine spans `decay_steps` from the end of the warm-up
    /// on and so does not reach its own end.
    #[expect(clippy::cast_possible_truncation, reason = "an f32 column")]
    pub(crate) fn learning_rate(self, step: u32) -> f32 {
        let rate = if self.warmup_steps > 0 && step <= self.warmup_steps {
            self.max * f64::from(step) / f64::from(self.warmup_steps)
        } else {
            let last = self.decay_steps.saturating_sub(self.warmup_steps);
            let decayed = f64::from(step.min(last)) - f64::from(self.warmup_steps);
            let cosine = (std::f64::consts::PI * decayed / f64::from(self.decay_steps)).cos();
            (self.max / 2.0 * (cosine + 1.0)).max(self.min)
        };
        rate as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_trainer() {
        let pythia = Schedule {
            max: 1e-3,
            min: 1e-4,
            warmup_steps: 1430,
            decay_steps: 143_000,
        };
        // AnnealingLR(start_lr=1e-3, warmup_iter=1430, total_iters=143000, decay_style="cosine", min_lr=1e-4).
        for (step, rate) in [
            (0, 0.0),
            (1, 6.993_006_993e-7),
            (715, 5e-4),
            (1430, 1e-3),
            (1431, 1e-3),
            (71_500, 5.157_053_795e-4),
            (100_000, 2.198_675_026e-4),
            (142_999, 1e-4),
        ] {
            let found = f64::from(pythia.learning_rate(step));
            assert!((found - rate).abs() < 1e-9, "{step}: {found}, not {rate}");
        }
    }
}
