//! How the work of `probe` is cut: one unit, one parquet part, one fingerprint of all it depends on.

use super::cuts::{Cut, Cuts, Which};
use super::sets::ProbeSet;
use crate::config::{Probe, Run, Weights, device_kind};
use crate::corpora::OrderSource;
use crate::failure;
use crate::fingerprint;
use crate::inputs::{Content, Inputs, contents};
use crate::tables::{VERDICTS, read_metadata, read_own, verify};
use anyhow::Result;
use polars::prelude::DataFrame;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

const CURE: &str = "discard the old output with `--fresh`, or name another folder with `--out`";

/// The units of a set, numbered from 0: those without the contrast's likelihood, then those with it.
pub(super) struct Units<'a> {
    pub(super) set: ProbeSet<'a>,
    kinds: Vec<Kind<'a>>,
    /// The fingerprint of the checkpoint's weights.
    weights: Option<String>,
    /// Of all verdicts.
    folder: PathBuf,
}

/// Units of a set that are asked the same.
struct Kind<'a> {
    which: Which,
    likelihood: bool,
    cuts: &'a [Cut],
    /// The fingerprint of all that they have in common.
    basis: String,
}

/// The verdicts of one set on some sequences: what one part holds.
#[derive(Clone, Debug)]
pub(super) struct Unit<'a> {
    /// What it is called: its part, below the folder of the verdicts.
    pub(super) part: PathBuf,
    /// Where that is.
    pub(super) path: PathBuf,
    pub(super) cut: &'a Cut,
    pub(super) which: Which,
    /// Whether the likelihood is asked for, whatever the run's measures.
    pub(super) likelihood: bool,
    /// Of everything that decides the part's content.
    pub(super) fingerprint: String,
    /// Of the checkpoint's weights.
    pub(super) weights: Option<String>,
}

/// Whether a unit's part is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// With what the part says of itself.
    Finished(BTreeMap<String, String>),
    Missing,
}

/// What decides the content of a set's parts, beside the training indices; where the inputs lie does not, nor does anything
/// that changes only speed.
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
    /// Its kind: one card is as good as another.
    device: String,
    precision: String,
}

/// The folder of all verdicts.
pub(crate) fn folder(out: &Path) -> PathBuf {
    out.join(VERDICTS.name)
}

/// The folder of a set's parts, below the folder of the verdicts.
pub(crate) fn set_folder(set: &ProbeSet<'_>) -> PathBuf {
    let model = format!("model={}", set.model.name);
    Path::new(&model).join(format!("checkpoint={}", set.checkpoint.steps))
}

/// The file of a part.
fn part_name(set: &ProbeSet<'_>, likelihood: bool, place: usize) -> String {
    let asked = if likelihood { "contrast-" } else { "" };
    format!("part-{}-{asked}{place:05}.parquet", set.corpus.name)
}

/// The names of a set's parts, in its folder.
pub(crate) fn part_names(cuts: &Cuts, set: &ProbeSet<'_>) -> impl Iterator<Item = (String, u64)> {
    asked(set).iter().flat_map(move |&(which, likelihood)| {
        let cuts = cuts.of(&set.corpus.name, which).iter().enumerate();
        cuts.map(move |(place, cut)| (part_name(set, likelihood, place), cut.n))
    })
}

/// Which sequences a set is asked, and whether with the contrast's likelihood.
fn asked(set: &ProbeSet<'_>) -> &'static [(Which, bool)] {
    match (set.own, set.contrast) {
        (true, true) => &[(Which::Plain, false), (Which::Contrast, true)],
        (true, false) => &[(Which::All, false)],
        (false, _) => &[(Which::Contrast, true)],
    }
}

impl<'a> Units<'a> {
    /// Cuts the planned sequences that a set is asked.
    ///
    /// # Errors
    ///
    /// When a fingerprint cannot be taken.
    pub(super) fn cut(
        run: &'a Run,
        inputs: &'a Inputs,
        cuts: &'a Cuts,
        set: ProbeSet<'a>,
    ) -> Result<Self> {
        let kinds = asked(&set).iter().map(|&(which, likelihood)| {
            Ok(Kind {
                which,
                likelihood,
                cuts: cuts.of(&set.corpus.name, which),
                basis: basis(run, inputs, &set, likelihood)?,
            })
        });
        Ok(Self {
            kinds: kinds.collect::<Result<_>>()?,
            weights: inputs.weights(&set.model.name, set.checkpoint.steps)?,
            set,
            folder: folder(&run.out),
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        let n: usize = self.kinds.iter().map(|kind| kind.cuts.len()).sum();
        n as u64
    }

    /// The numbers of those with the contrast's likelihood, or of those without.
    pub(super) fn numbers(&self, likelihood: bool) -> Range<u64> {
        let mut first = 0;
        for kind in &self.kinds {
            let end = first + kind.cuts.len() as u64;
            if kind.likelihood == likelihood {
                return first..end;
            }
            first = end;
        }
        first..first
    }

    /// The unit of that number; nothing behind the last.
    ///
    /// # Errors
    ///
    /// When its fingerprint cannot be taken.
    pub(super) fn get(&self, number: u64) -> Result<Option<Unit<'a>>> {
        let mut place = usize::try_from(number)?;
        for kind in &self.kinds {
            match kind.cuts.get(place) {
                Some(cut) => return self.unit(kind, cut, place).map(Some),
                None => place -= kind.cuts.len(),
            }
        }
        Ok(None)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<Unit<'a>>> {
        (0..self.len()).filter_map(|number| self.get(number).transpose())
    }

    fn unit(&self, kind: &Kind<'a>, cut: &'a Cut, place: usize) -> Result<Unit<'a>> {
        let part = set_folder(&self.set).join(part_name(&self.set, kind.likelihood, place));
        Ok(Unit {
            path: self.folder.join(&part),
            part,
            cut,
            which: kind.which,
            likelihood: kind.likelihood,
            fingerprint: fingerprint::of_values(&(&kind.basis, &cut.digest))?,
            weights: self.weights.clone(),
        })
    }
}

/// The fingerprint of what the units of a set have in common.
fn basis(run: &Run, inputs: &Inputs, set: &ProbeSet<'_>, likelihood: bool) -> Result<String> {
    let (corpus, model, checkpoint) = (set.corpus, set.model, set.checkpoint);
    let corpus_files = inputs.corpus_files.get(&corpus.name);
    let key = (model.name.clone(), checkpoint.steps);
    let checkpoint_files = inputs.checkpoint_files.get(&key);
    fingerprint::of_values(&Basis {
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
        corpus_files: contents(corpus_files.map(Vec::as_slice).unwrap_or_default()),
        model: &model.name,
        checkpoint: checkpoint.steps,
        checkpoint_files: contents(checkpoint_files.map(Vec::as_slice).unwrap_or_default()),
        probe: &run.probe,
        likelihood,
        device: device_kind(run.device),
        precision: run.precision.to_string(),
    })
}

impl Unit<'_> {
    /// How many sequences it is about.
    pub(super) fn n(&self) -> u64 {
        self.cut.n
    }

    /// Looks for the unit's part, without reading its rows.
    ///
    /// # Errors
    ///
    /// When a part lies there that is damaged or was made from something else.
    pub(super) fn state(&self) -> Result<State> {
        if !self.path.exists() {
            return Ok(State::Missing);
        }
        let (metadata, n_rows) = read_metadata(&self.path).map_err(|error| self.damaged(&error))?;
        let same = metadata.get("fingerprint") == Some(&self.fingerprint);
        if !same || n_rows != self.n() {
            // What it says may be what has changed.
            verify(&self.path).map_err(|error| self.damaged(&error))?;
            return Err(failure::failed(
                format_args!(
                    "the part `{}` was made by another run: other inputs, settings or probes",
                    self.path.display()
                ),
                CURE,
            ));
        }
        Ok(State::Finished(metadata))
    }

    /// The rows of the unit's part.
    ///
    /// # Errors
    ///
    /// When the part is not as it was written.
    pub(super) fn read(&self) -> Result<DataFrame> {
        read_own(&self.path, &VERDICTS).map_err(|error| self.damaged(&error))
    }

    fn damaged(&self, error: &anyhow::Error) -> anyhow::Error {
        if let Some(cure) = failure::of_system(error) {
            let path = self.path.display();
            return failure::failed(
                format_args!("the part `{path}` cannot be read: {error:#}"),
                cure,
            );
        }
        failure::failed(
            format_args!("the part `{}` is damaged: {error:#}", self.path.display()),
            format_args!("remove this part, and it is made anew; or {CURE}"),
        )
    }
}
