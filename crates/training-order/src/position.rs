//! The places in a training run, as types that cannot be confused.

use std::fmt;

/// Ordinal in which the trainer consumed a sequence, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrainingIndex(u64);

/// The optimizer step that consumed a sequence, and the sequence's place in that step's batch; both from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchPosition {
    /// `training_index / batch_size`
    pub step: u32,
    /// `training_index % batch_size`
    pub row: u32,
}

/// The weights after so many optimizer steps of the run, at its own batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checkpoint(u32);

impl TrainingIndex {
    /// The sequence that was consumed after `ordinal` others.
    pub const fn new(ordinal: u64) -> Self {
        Self(ordinal)
    }

    /// The number of sequences consumed before it.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TrainingIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Checkpoint {
    /// The checkpoint saved after `steps` optimizer steps; 0 is the initial weights.
    pub const fn new(steps: u32) -> Self {
        Self(steps)
    }

    /// Optimizer steps it was trained for.
    pub const fn steps(self) -> u32 {
        self.0
    }

    /// Whether it was trained on the batch of `position`: a checkpoint of n steps has seen exactly the batches
    /// with step < n.
    pub const fn has_seen(self, position: BatchPosition) -> bool {
        position.step < self.0
    }

    /// Checkpoint − step, in optimizer steps: 1 for the last batch it met, 0 and below for those to come.
    pub fn lag(self, position: BatchPosition) -> i64 {
        i64::from(self.0) - i64::from(position.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_has_seen_the_steps_before_its_number() {
        let checkpoint = Checkpoint::new(1000);
        let at = |step| BatchPosition { step, row: 7 };
        assert!(checkpoint.has_seen(at(999)));
        assert!(!checkpoint.has_seen(at(1000)));
        assert_eq!(checkpoint.lag(at(999)), 1);
        assert_eq!(checkpoint.lag(at(1000)), 0);
        assert!(!Checkpoint::new(0).has_seen(at(0)));
    }
}
