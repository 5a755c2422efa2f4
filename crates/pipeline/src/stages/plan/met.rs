//! How often the run meets each probe's text: the exposure columns of `positions`.

use crate::config::Probe;
use anyhow::Result;
use arrow_array::{ArrayRef, UInt32Array, new_null_array};
use arrow_schema::DataType;
use std::ops::Range;
use std::sync::Arc;
use training_order::{DocumentCopies, ProbeExposure, TrainingIndex, TrainingOrder};

/// The exposures of a corpus' probes, in their order; nothing where the run file does not ask for them.
pub(crate) struct Met {
    exposures: Vec<(u32, ProbeExposure)>,
    /// Nothing where the corpus is preshuffled.
    copies: Vec<DocumentCopies>,
}

impl Met {
    /// For a run that does not ask.
    pub(super) fn nothing() -> Self {
        Self {
            exposures: Vec::new(),
            copies: Vec::new(),
        }
    }

    /// Counts what the run meets of each probe, by one pass over the corpus.
    ///
    /// # Errors
    ///
    /// When the corpus cannot be read.
    pub(crate) fn count(
        order: &TrainingOrder,
        probe: &Probe,
        training_indices: &[TrainingIndex],
    ) -> Result<Self> {
        let first = u32::from(probe.offset);
        let tokens = first..first + u32::from(probe.k) + u32::from(probe.l);
        let exposures = order.probe_exposures(training_indices, tokens)?;
        let steps = training_indices
            .iter()
            .map(|index| order.position(*index).step);
        let copies = if order.mixture().is_some() {
            order.document_copies(training_indices, first)?
        } else {
            Vec::new()
        };
        Ok(Self {
            exposures: steps.zip(exposures).collect(),
            copies,
        })
    }

    /// The columns from `exposures_before` to `copies_after`, of some of the probes.
    pub(crate) fn columns(&self, probes: Range<usize>) -> Vec<ArrayRef> {
        let none = || new_null_array(&DataType::UInt32, probes.len());
        let exposures = self.exposures.get(probes.clone());
        let exposure = |of: fn(&(u32, ProbeExposure)) -> Option<u32>| match exposures {
            Some(exposures) => Arc::new(exposures.iter().map(of).collect::<UInt32Array>()),
            None => none(),
        };
        let copies = self.copies.get(probes.clone());
        let copy = |of: fn(&DocumentCopies) -> u32| match copies {
            Some(copies) => Arc::new(copies.iter().map(of).map(Some).collect::<UInt32Array>()),
            None => none(),
        };
        vec![
            exposure(|(_, met)| Some(met.before)),
            exposure(|(_, met)| Some(met.after)),
            exposure(|(_, met)| Some(met.same_step)),
            exposure(|(_, met)| Some(met.before_at_start)),
            exposure(|(_, met)| Some(met.after_at_start)),
            exposure(|(step, met)| nearest(*step, met)),
            copy(|copies| copies.before),
            copy(|copies| copies.after),
        ]
    }
}

/// The step of the nearest other occurrence, the earlier of two that are equally near.
fn nearest(step: u32, met: &ProbeExposure) -> Option<u32> {
    if met.same_step > 0 {
        return Some(step);
    }
    let both = met.nearest_before.into_iter().chain(met.nearest_after);
    both.min_by_key(|other| other.abs_diff(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_two_is_the_earlier() {
        let met = |before, after, same_step| ProbeExposure {
            nearest_before: before,
            nearest_after: after,
            same_step,
            ..ProbeExposure::default()
        };
        assert_eq!(nearest(10, &met(Some(7), Some(13), 0)), Some(7));
        assert_eq!(nearest(10, &met(Some(6), Some(13), 0)), Some(13));
        assert_eq!(nearest(10, &met(None, Some(90), 0)), Some(90));
        assert_eq!(nearest(10, &met(Some(9), None, 1)), Some(10));
        assert_eq!(nearest(10, &met(None, None, 0)), None);
    }
}
