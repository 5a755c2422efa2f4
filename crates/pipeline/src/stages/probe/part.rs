//! A finished unit becomes a parquet part.

use super::backlog::Job;
use crate::config::Run;
use crate::judges::{Judged, Recheck};
use crate::mark::Mark;
use crate::stages::footer_of_probes;
use crate::tables::{BatchWriter, VERDICTS, stage};
use anyhow::Result;
use arrow_array::{ArrayRef, BooleanArray, Float32Array, StringArray, UInt16Array, UInt32Array};
use gpt_neox::Likelihood;
use std::sync::Arc;

/// What the judge gave on the probes of a unit.
#[derive(Default)]
pub(super) struct Verdicts {
    pub(super) training_indices: Vec<u32>,
    pub(super) judged: Vec<Judged>,
    pub(super) recheck: Recheck,
}

/// Writes the part of a unit; asks `still` whether it may take its place.
///
/// # Errors
///
/// Those of `still`, and when it cannot be written.
pub(super) fn write(
    run: &Run,
    job: &Job<'_>,
    verdicts: Verdicts,
    still: impl Fn() -> Result<()>,
) -> Result<()> {
    let Verdicts {
        training_indices,
        judged,
        recheck,
    } = verdicts;
    let mut footer = footer_of_probes(run);
    let own = [
        ("fingerprint", job.unit.fingerprint.clone()),
        ("unit", job.unit.part.display().to_string()),
        ("n_rechecked", recheck.n.to_string()),
        ("n_recheck_changed", recheck.n_changed.to_string()),
    ];
    footer
        .0
        .extend(own.map(|(key, value)| (key.to_owned(), value)));
    let weights = job.unit.weights.clone();
    footer
        .0
        .extend(weights.map(|weights| ("weights".to_owned(), weights)));
    let l = usize::from(run.probe.l);
    let verdicts = || judged.iter().map(|judged| judged.verdict);
    let memorized = verdicts().map(|verdict| Some(verdict.memorized(l)));
    let near_tie = judged.iter().map(|judged| Some(judged.near_tie));
    let likelihood = |value: fn(Likelihood) -> f32| -> ArrayRef {
        let values = verdicts().map(|verdict| verdict.likelihood.map(value));
        Arc::new(values.collect::<Float32Array>())
    };
    let n_top1 = verdicts().map(|verdict| verdict.likelihood.map(|likelihood| likelihood.n_top1));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            judged.iter().map(|_| job.corpus),
        )),
        Arc::new(UInt32Array::from(training_indices)),
        Arc::new(UInt16Array::from_iter_values(
            verdicts().map(|verdict| verdict.n_prefix_matched),
        )),
        Arc::new(memorized.collect::<BooleanArray>()),
        Arc::new(Float32Array::from_iter_values(
            verdicts().map(|verdict| verdict.margin),
        )),
        Arc::new(near_tie.collect::<BooleanArray>()),
        Arc::new(
            verdicts()
                .map(|verdict| verdict.n_matched)
                .collect::<UInt16Array>(),
        ),
        likelihood(|likelihood| likelihood.surprisal),
        likelihood(|likelihood| likelihood.logp_suffix),
        Arc::new(n_top1.collect::<UInt16Array>()),
    ];
    let ((), part) = stage(&job.unit.path, Mark::Table(VERDICTS.name), |file| {
        let mut writer = BatchWriter::new(file, &VERDICTS, &footer)?;
        writer.write(columns)?;
        writer.finish()?;
        Ok(())
    })?;
    still()?;
    part.land()
}
