//! Who is asked what: the sets of probes of a run.

use crate::config::{CheckpointFolder, Contrast, Corpus, Model, Run};

/// The probes of one corpus that one model is asked at one checkpoint.
#[derive(Clone, Copy)]
pub(crate) struct ProbeSet<'a> {
    pub(crate) corpus: &'a Corpus,
    pub(crate) model: &'a Model,
    pub(crate) checkpoint: &'a CheckpointFolder,
    /// The model was trained on the corpus: it is asked all of its probes.
    pub(crate) own: bool,
    /// The corpus' contrast names it: it is asked the contrast's probes, with their likelihood.
    pub(crate) contrast: bool,
}

/// Every set of `run`, by model, corpus and checkpoint.
pub(crate) fn probe_sets(run: &Run) -> Vec<ProbeSet<'_>> {
    let mut sets = Vec::new();
    for model in &run.models {
        for corpus in &run.corpora {
            for checkpoint in &model.checkpoints {
                let own = model.corpus == corpus.name;
                let asks = |contrast: &Contrast| {
                    contrast.models.contains(&model.name)
                        && contrast.checkpoints.contains(&checkpoint.steps)
                };
                let contrast = corpus.contrast.as_ref().is_some_and(asks);
                if own || contrast {
                    sets.push(ProbeSet {
                        corpus,
                        model,
                        checkpoint,
                        own,
                        contrast,
                    });
                }
            }
        }
    }
    sets.sort_by_key(|set| (&set.model.name, &set.corpus.name, set.checkpoint.steps));
    sets
}

impl ProbeSet<'_> {
    /// What it is, for errors.
    pub(crate) fn name(&self) -> String {
        let (model, steps) = (&self.model.name, self.checkpoint.steps);
        if self.own {
            format!("`{model}` at checkpoint {steps}")
        } else {
            format!("`{model}` at checkpoint {steps} on `{}`", self.corpus.name)
        }
    }

    /// What it is, for progress.
    pub(crate) fn place(&self) -> String {
        let (model, steps) = (&self.model.name, self.checkpoint.steps);
        if self.own {
            format!("{model} step{steps}")
        } else {
            format!("{model} step{steps} on {}", self.corpus.name)
        }
    }
}
