//! How the work of `probe` is cut: one unit, one parquet part, one fingerprint of all it depends on.

use super::sets::ProbeSet;
use crate::config::{Probe, Run, Weights};
use crate::corpora::OrderSource;
use crate::failure;
use crate::fingerprint;
use crate::inputs::{Content, Inputs, contents};
use crate::tables::{POSITIONS, VERDICTS, read_frame, read_metadata};
use anyhow::{Context, Result};
use polars::prelude::{ChunkCompareEq, DataFrame};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The verdicts of one model, at one checkpoint, on some probes: what one part holds.
pub(super) struct Unit {
    pub(super) path: PathBuf,
    /// Training indices of the probed sequences, ascending.
    pub(super) training_indices: Vec<u32>,
    /// Whether the likelihood is asked for, whatever the run's measures.
    pub(super) likelihood: bool,
    /// Of everything that decides the part's content.
    pub(super) fingerprint: String,
    /// Of the checkpoint's weights, where a model is asked.
    pub(super) weights: Option<String>,
}

/// Whether a unit's part is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Finished,
    Missing,
}

/// What decides the content of a part; where the inputs lie does not, nor does anything that changes
/// only speed.
#[derive(Serialize)]
struct Basis<'a> {
    table_version: u32,
    suite: &'a str,
    corpus: &'a str,
    order: Option<OrderSource>,
    split: Option<String>,
    weights: Option<&'a Weights>,
    sequence_length: u32,
    batch_size: u32,
    steps: u32,
    seed: u32,
    corpus_files: Vec<Content<'a>>,
    model: &'a str,
    checkpoint: u32,
    checkpoint_files: Vec<Content<'a>>,
    probe: &'a Probe,
    likelihood: bool,
    device: String,
    precision: String,
    training_indices: &'a [u32],
}

/// The probes of a corpus, by training index.
pub(super) struct Planned {
    pub(super) training_indices: Vec<u32>,
    /// Whether each is one of the corpus' contrast.
    pub(super) contrast: Vec<bool>,
}

/// The planned probes of `corpus`, ascending.
///
/// # Errors
///
/// When `positions` is missing or damaged.
pub(super) fn planned(run: &Run, corpus: &str) -> Result<Planned> {
    let path = run.out.join(POSITIONS.path);
    if !path.exists() {
        return Err(failure::failed(
            format_args!("there are no positions at `{}`", path.display()),
            "run the stage `plan` first, or all of them without `--only`",
        ));
    }
    let frame = read_frame(&path, &POSITIONS)?;
    let columns = || -> Result<Planned> {
        let frame: DataFrame = frame.filter(&frame.column("corpus")?.str()?.equal(corpus))?;
        let training_indices = frame.column("training_index")?.u32()?.into_no_null_iter();
        let contrast = frame.column("contrast")?.bool()?.iter();
        Ok(Planned {
            training_indices: training_indices.collect(),
            contrast: contrast.map(|contrast| contrast == Some(true)).collect(),
        })
    };
    columns().with_context(|| format!("reading the training indices in `{}`", path.display()))
}

impl Planned {
    /// The training indices that a set is asked with its contrast's likelihood, or those without.
    pub(super) fn of(&self, set: &ProbeSet<'_>, likelihood: bool) -> Vec<u32> {
        let wanted = |contrast: bool| match (set.contrast && contrast, likelihood) {
            (with, true) => with,
            (with, false) => set.own && !with,
        };
        let both = self.training_indices.iter().zip(&self.contrast);
        let asked = both.filter(|(_, contrast)| wanted(**contrast));
        asked.map(|(index, _)| *index).collect()
    }
}

/// The units of a set: those without the contrast's likelihood, then those with it.
///
/// # Errors
///
/// When a fingerprint cannot be taken.
pub(super) fn cut(
    run: &Run,
    inputs: &Inputs,
    set: &ProbeSet<'_>,
    planned: &Planned,
) -> Result<Vec<Unit>> {
    let (corpus, model, checkpoint) = (set.corpus, set.model, set.checkpoint);
    let corpus_files = inputs
        .corpus_files
        .get(&corpus.name)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let key = (model.name.clone(), checkpoint.steps);
    let checkpoint_files = inputs
        .checkpoint_files
        .get(&key)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let folder = folder(&run.out)
        .join(format!("model={}", model.name))
        .join(format!("checkpoint={}", checkpoint.steps));
    let weights = inputs.weights(&model.name, checkpoint.steps)?;
    let mut units = Vec::new();
    for (likelihood, kind) in [(false, ""), (true, "contrast-")] {
        let asked = planned.of(set, likelihood);
        for (number, training_indices) in asked.chunks(run.probe.part_size as usize).enumerate() {
            let basis = Basis {
                table_version: VERDICTS.version,
                suite: &run.suite,
                corpus: &corpus.name,
                order: inputs.sources.get(&corpus.name).copied(),
                split: corpus.split.map(|split| split.to_string()),
                weights: corpus.data.weights(),
                sequence_length: corpus.sequence_length,
                batch_size: corpus.batch_size,
                steps: corpus.steps,
                seed: corpus.seed,
                corpus_files: contents(corpus_files),
                model: &model.name,
                checkpoint: checkpoint.steps,
                checkpoint_files: contents(checkpoint_files),
                probe: &run.probe,
                likelihood,
                device: run.device.to_string(),
                precision: run.precision.to_string(),
                training_indices,
            };
            units.push(Unit {
                path: folder.join(format!("part-{}-{kind}{number:05}.parquet", corpus.name)),
                training_indices: training_indices.to_vec(),
                likelihood,
                fingerprint: fingerprint::of_values(&basis)?,
                weights: weights.clone(),
            });
        }
    }
    Ok(units)
}

/// The folder of all verdicts.
pub(crate) fn folder(out: &Path) -> PathBuf {
    out.join(VERDICTS.name)
}

impl Unit {
    /// Looks for the unit's part.
    ///
    /// # Errors
    ///
    /// When a part lies there that is damaged or was made from something else.
    pub(super) fn state(&self) -> Result<State> {
        const CURE: &str =
            "discard the old output with `--fresh`, or name another folder with `--out`";
        if !self.path.exists() {
            return Ok(State::Missing);
        }
        let (metadata, n_rows) = read_metadata(&self.path).map_err(|error| {
            failure::failed(
                format_args!("the part `{}` is damaged: {error:#}", self.path.display()),
                CURE,
            )
        })?;
        let same = metadata.get("fingerprint") == Some(&self.fingerprint);
        if !same || n_rows != self.training_indices.len() as u64 {
            return Err(failure::failed(
                format_args!(
                    "the part `{}` was made by another run: other inputs, settings or probes",
                    self.path.display()
                ),
                CURE,
            ));
        }
        Ok(State::Finished)
    }
}
