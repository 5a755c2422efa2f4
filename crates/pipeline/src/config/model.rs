//! `[[model]]`: from the table as written to a [`Model`].

use super::run_file::ModelTable;
use super::{CheckpointFolder, Corpus, Model, Problems, absolute};
use std::collections::BTreeSet;
use std::path::Path;

/// A model whose values fit together and the corpora; its folders are not opened here.
pub(super) fn check_model(
    table: ModelTable,
    folder: &Path,
    corpora: &[Corpus],
    names: &mut BTreeSet<String>,
    problems: &mut Problems,
) -> Model {
    const STEP: &str = "{checkpoint}";
    const REVISION: &str = "{revision}";
    let ModelTable {
        name,
        corpus,
        folder: template,
        revision_factor,
        checkpoints,
    } = table;
    let place = |key: &str| format!("model `{name}`: {key}");
    problems.name("model: name", &name, names);
    let trained_on = corpora.iter().find(|candidate| candidate.name == corpus);
    if trained_on.is_none() {
        let known: Vec<&str> = corpora.iter().map(|corpus| corpus.name.as_str()).collect();
        problems.add(
            &place("corpus"),
            format_args!("`{corpus}` is none of the corpora: {}", known.join(", ")),
        );
    }
    if !template.contains(STEP) && !template.contains(REVISION) && checkpoints.len() > 1 {
        problems.add(
            &place("folder"),
            format_args!(
                "`{template}` names one folder for {} checkpoints: put `{STEP}` in it",
                checkpoints.len()
            ),
        );
    }
    if revision_factor.is_some() && !template.contains(REVISION) {
        problems.add(
            &place("revision-factor"),
            format_args!("`folder` has no `{REVISION}`: `{STEP}` stands for the steps themselves"),
        );
    }
    let factor = revision_factor.unwrap_or(1);
    problems.within(&place("revision-factor"), factor, 1, 1 << 10);
    if checkpoints.is_empty() {
        problems.add(&place("checkpoints"), "there is none");
    }
    let mut seen = BTreeSet::new();
    for &steps in &checkpoints {
        if !seen.insert(steps) {
            problems.add(
                &place("checkpoints"),
                format_args!("{steps} is given twice"),
            );
        }
        if let Some(corpus) = trained_on
            && steps > corpus.steps
        {
            problems.add(
                &place("checkpoints"),
                format_args!(
                    "{steps} lies after the last step of `{}`, {}",
                    corpus.name, corpus.steps
                ),
            );
        }
    }
    // Ascending, so that tables and bars come in the order of training.
    let checkpoints = seen.into_iter().map(|steps| CheckpointFolder {
        steps,
        folder: {
            let revision = u64::from(steps) * u64::from(factor);
            let filled = template
                .replace(STEP, &steps.to_string())
                .replace(REVISION, &revision.to_string());
            absolute(&folder.join(filled))
        },
    });
    Model {
        checkpoints: checkpoints.collect(),
        name,
        corpus,
    }
}
