//! What a run would take and could find, before anything is spent.

use super::planned::{n_lacking, planned};
use super::sets::{ProbeSet, probe_sets};
use crate::config::{AssumedRate, Corpus, Model, Run};
use crate::inputs::Inputs;
use anyhow::{Context, Result};
use pipeline::statistics::smallest_detectable;
use std::collections::BTreeMap;
use training_order::{BatchPosition, Checkpoint, TrainingIndex};

/// What is asked of one corpus.
pub(crate) struct CorpusSurvey {
    pub(crate) name: String,
    /// Which sequences are probed, in words.
    pub(crate) selection: String,
    pub(crate) n_probes: u64,
    /// Those that models of other corpora are asked, too.
    n_contrast: u64,
    /// Those that the run never reached.
    pub(crate) n_untrained: u64,
    /// Sequences of a window that the loader does not serve.
    pub(crate) n_lacking: u64,
    /// Tokens of all probes.
    pub(crate) n_tokens: u64,
    /// What they take in the corpus' files.
    pub(crate) n_bytes: u64,
}

/// What is asked of one model about one corpus.
pub(crate) struct ModelSurvey {
    pub(crate) name: String,
    pub(crate) corpus: String,
    pub(crate) n_checkpoints: u64,
    pub(crate) n_verdicts: u64,
    /// Tokens of the probes, at every checkpoint.
    pub(crate) n_tokens: u64,
    /// Bytes read from the corpus, at every checkpoint.
    pub(crate) n_bytes: u64,
    /// Probes decided in a second, where the run file says so.
    pub(crate) probes_per_second: Option<f64>,
    /// Where it was trained on the corpus.
    pub(crate) window: Option<Window>,
}

/// What a model could show at its last checkpoint.
pub(crate) struct Window {
    pub(crate) checkpoint: u32,
    /// Probes that it has seen.
    pub(crate) n_seen: u64,
    /// Probes that it has not.
    pub(crate) n_unseen: u64,
    pub(crate) assumed: Option<AssumedRate>,
    /// The smallest trend that the seen probes would show, given the assumed rate.
    pub(crate) trend: Option<Trend>,
}

/// The smallest log-linear trend that 80 % of runs would find at the 5 % level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trend {
    /// Memorized sequences expected.
    pub(crate) n_hits: f64,
    /// β1: change of the log rate from the first step to the checkpoint.
    pub(crate) slope: f64,
    /// The rate of the second half over that of the first, exp(β1 / 2).
    pub(crate) halves_ratio: f64,
}

/// Sums over the probes that a checkpoint has seen, of their time u = (step + ½) / checkpoint.
#[derive(Clone, Copy, Default)]
struct Moments {
    n: u64,
    sum: f64,
    squares: f64,
}

/// Goes through the selections of all corpora, and writes nothing.
///
/// # Errors
///
/// When a list cannot be read.
pub(crate) fn survey(run: &Run, inputs: &Inputs) -> Result<(Vec<CorpusSurvey>, Vec<ModelSurvey>)> {
    let sets = probe_sets(run);
    let (mut corpora, mut models) = (Vec::new(), Vec::new());
    for corpus in &run.corpora {
        let lasts = run.models_of(&corpus.name).filter_map(last);
        let mut seen: BTreeMap<Checkpoint, Moments> =
            lasts.map(|last| (last, Moments::default())).collect();
        let found = survey_corpus(run, inputs, corpus, &mut seen)?;
        let asked = sets.iter().filter(|set| set.corpus.name == corpus.name);
        let asked: Vec<&ProbeSet<'_>> = asked.collect();
        for sets in asked.chunk_by(|a, b| a.model.name == b.model.name) {
            models.push(survey_model(sets, &found, &seen));
        }
        corpora.push(found);
    }
    Ok((corpora, models))
}

fn survey_corpus(
    run: &Run,
    inputs: &Inputs,
    corpus: &Corpus,
    seen: &mut BTreeMap<Checkpoint, Moments>,
) -> Result<CorpusSurvey> {
    let order = inputs.orders.get(&corpus.name);
    let order = order.context("the corpus was opened")?;
    let len = u64::from(run.probe.k) + u64::from(run.probe.l);
    let widths: Vec<u64> = order
        .datasets()
        .map(|dataset| dataset.token_type().width())
        .collect();
    let (mut n_probes, mut n_contrast, mut n_untrained, mut n_bytes) = (0, 0, 0, 0);
    for index in planned(run, inputs, corpus)? {
        let index = TrainingIndex::new(index?);
        n_probes += 1;
        n_untrained += u64::from(!order.consumes(index));
        let member = match widths.as_slice() {
            [only] => Some(only),
            several => order.member(index).and_then(|member| several.get(member)),
        };
        n_bytes += member.map_or(0, |width| width * len);
        let position = order.position(index);
        n_contrast += u64::from(corpus.in_contrast(position));
        for (checkpoint, moments) in seen.iter_mut() {
            if checkpoint.has_seen(position) {
                moments.add(position, *checkpoint);
            }
        }
    }
    Ok(CorpusSurvey {
        name: corpus.name.clone(),
        selection: corpus.selection.to_string(),
        n_probes,
        n_contrast,
        n_untrained,
        n_lacking: n_lacking(run, inputs, corpus)?,
        n_tokens: n_probes * len,
        n_bytes,
    })
}

/// What one model is asked of one corpus, at each of its checkpoints.
fn survey_model(
    sets: &[&ProbeSet<'_>],
    corpus: &CorpusSurvey,
    seen: &BTreeMap<Checkpoint, Moments>,
) -> ModelSurvey {
    let model = sets[0].model;
    let n_probes = |set: &&ProbeSet<'_>| {
        if set.own {
            corpus.n_probes
        } else {
            corpus.n_contrast
        }
    };
    let n_verdicts: u64 = sets.iter().map(n_probes).sum();
    // Every probe is as long as any other, and as wide in the mean.
    let scaled = |of_all: u64| {
        let product = u128::from(of_all) * u128::from(n_verdicts);
        u64::try_from(product / u128::from(corpus.n_probes.max(1))).unwrap_or(u64::MAX)
    };
    let own = last(model).filter(|_| sets.iter().any(|set| set.own));
    let own = own.map(|last| {
        let moments = seen.get(&last).copied().unwrap_or_default();
        let assumed = model.assumed_rate.clone();
        Window {
            checkpoint: last.steps(),
            n_seen: moments.n,
            n_unseen: corpus.n_probes - moments.n,
            trend: assumed.as_ref().and_then(|assumed| {
                Trend::smallest(moments.count() * assumed.rate, moments.variance())
            }),
            assumed,
        }
    });
    ModelSurvey {
        name: model.name.clone(),
        corpus: corpus.name.clone(),
        n_checkpoints: sets.len() as u64,
        n_verdicts,
        n_tokens: scaled(corpus.n_tokens),
        n_bytes: scaled(corpus.n_bytes),
        probes_per_second: model.probes_per_second,
        window: own,
    }
}

fn last(model: &Model) -> Option<Checkpoint> {
    let steps = model.checkpoints.iter().map(|checkpoint| checkpoint.steps);
    steps.max().map(Checkpoint::new)
}

impl Moments {
    fn add(&mut self, position: BatchPosition, checkpoint: Checkpoint) {
        let u = (f64::from(position.step) + 0.5) / f64::from(checkpoint.steps());
        self.n += 1;
        self.sum += u;
        self.squares += u * u;
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "fewer than 2³² probes, for an estimate"
    )]
    fn count(&self) -> f64 {
        self.n as f64
    }

    fn variance(&self) -> f64 {
        let mean = self.sum / self.count();
        (self.squares / self.count() - mean * mean).max(0.0)
    }
}

impl Trend {
    /// The trend that `n_hits` can show whose times, as shares of the training so far, have this variance: 1/12 where
    /// they lie evenly, which gives SE(β1) = √(12 / n). The information of a Poisson regression on time is n · variance.
    pub(crate) fn smallest(n_hits: f64, variance: f64) -> Option<Self> {
        let information = n_hits * variance;
        (information > 0.0).then(|| {
            let slope = smallest_detectable(information.sqrt().recip());
            Self {
                n_hits,
                slope,
                halves_ratio: (slope / 2.0).exp(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trends_are_those_of_the_published_totals() {
        let slope = |n: f64| Trend::smallest(n, 1.0 / 12.0).unwrap().slope;
        // Pythia-12B and 70M as a census, and 1,600 hits.
        for (n, expected) in [(2_382_326.0, 0.0063), (463_953.0, 0.014), (1600.0, 0.24)] {
            assert!(
                (slope(n) / expected - 1.0).abs() < 0.02,
                "{n}: {}",
                slope(n)
            );
        }
        // A ratio of 1.06 between the halves needs about 6,900 hits.
        let trend = Trend::smallest(6930.0, 1.0 / 12.0).unwrap();
        assert!((trend.halves_ratio - 1.06).abs() < 1e-4, "{trend:?}");
        assert_eq!(Trend::smallest(0.0, 1.0 / 12.0), None);
        assert_eq!(Trend::smallest(100.0, 0.0), None);
    }
}
