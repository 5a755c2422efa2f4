//! `[[model]]`: from the table as written to a [`Model`].

use super::checkpoints::Template;
use super::run_file::ModelTable;
use super::{AssumedRate, CheckpointFolder, Corpus, Model, Problems};
use crate::suite::{SEQUENCE_LENGTH, Suite, SuiteModel};
use std::collections::BTreeSet;

/// A model whose values fit together, the corpora and the registry; its folders are not opened here.
#[expect(
    clippy::too_many_lines,
    reason = "every key of the table is looked at once, in its order"
)]
pub(super) fn check_model(
    table: ModelTable,
    corpora: &[Corpus],
    registry: &Suite,
    names: &mut BTreeSet<String>,
    problems: &mut Problems,
) -> Model {
    let ModelTable {
        name,
        corpus,
        folder,
        verdicts,
        revision_factor,
        checkpoints,
        probes_per_second,
        assumed_rate,
    } = table;
    let place = |key: &str| format!("model `{name}`: {key}");
    let known = registry.find(&name);
    // A model in a folder may be called as one likes; one without must be of the suite, which knows old names, too.
    let by_name = folder.is_none() && verdicts.is_none();
    let known = known.filter(|known| by_name || known.name == name);
    let today = known.as_ref().map_or(name.as_str(), |known| known.name);
    if today != name {
        let renamed = format!("the model `{name}` is called `{today}` since January 2023");
        problems.warnings.push(renamed);
    }
    problems.name("model: name", today, names);
    let trained_on = corpora.iter().find(|candidate| candidate.name == corpus);
    if trained_on.is_none() {
        let known: Vec<&str> = corpora.iter().map(|corpus| corpus.name.as_str()).collect();
        problems.add(
            &place("corpus"),
            format_args!("`{corpus}` is none of the corpora: {}", known.join(", ")),
        );
    }
    if let (Some(known), Some(trained_on)) = (&known, trained_on) {
        check_training(known, trained_on, &place, problems);
    }
    if folder.is_some() && verdicts.is_some() {
        problems.add(&place("verdicts"), "give `folder` or `verdicts`, not both");
    }
    let verdicts = verdicts.map(|path| problems.resolve(&place("verdicts"), &path));
    let published = known.as_ref().map(|known| known.revision_factor);
    let factor = revision_factor.or(published).unwrap_or(1);
    problems.within(&place("revision-factor"), factor, 1, 1 << 10);
    let in_hub = folder.is_none();
    let text = match (folder, &known) {
        // Nothing is loaded.
        _ if verdicts.is_some() => "{checkpoint}".to_owned(),
        (Some(folder), _) => folder,
        (None, Some(known)) => format!("hf://{}@step{{revision}}", known.repository()),
        (None, None) => {
            let near = registry.near(&name).join(", ");
            problems.add(
                &place("folder"),
                format_args!("without it the model must be one of the suite, such as {near}"),
            );
            String::new()
        }
    };
    let template = Template {
        text,
        revision_factor: factor,
    };
    if revision_factor.is_some() && !template.names_revisions() {
        problems.add(
            &place("revision-factor"),
            "`folder` has no `{revision}`: `{checkpoint}` stands for the steps themselves",
        );
    }
    let base = problems.folder.clone();
    let available = || match &known {
        Some(known) if in_hub => Ok(known.checkpoints.iter().copied().collect()),
        _ if template.text.starts_with("hf://") => Err(format!(
            "what `{}` holds is not known here: name the checkpoints, or their range",
            template.text
        )),
        _ => template.existing(&base),
    };
    let last = trained_on.map_or(i32::MAX.unsigned_abs(), |corpus| corpus.steps);
    let steps = checkpoints.resolve(available, last, &place("checkpoints"), problems);
    check_checkpoints(&steps, trained_on, known.as_ref(), &place, problems);
    if !template.varies() && steps.len() > 1 {
        problems.add(
            &place("folder"),
            format_args!(
                "`{}` names one folder for {} checkpoints: put `{{checkpoint}}` in it",
                template.text,
                steps.len()
            ),
        );
    }
    let mut folders = Vec::new();
    for steps in steps {
        let folder = problems.resolve(&place("folder"), &template.fill(steps));
        folders.push(CheckpointFolder { steps, folder });
    }
    if let Some(speed) = probes_per_second {
        problems.within(&place("probes-per-second"), speed, 1e-6, 1e12);
    }
    if let Some(rate) = assumed_rate {
        problems.within(&place("assumed-rate"), rate, 1e-9, 1.0);
    }
    let stated = assumed_rate.map(|rate| AssumedRate {
        rate,
        source: "the run file".to_owned(),
    });
    let equal = known.iter().flat_map(|known| &known.equal_checkpoints);
    Model {
        name: today.to_owned(),
        corpus,
        verdicts,
        schedule: known.as_ref().map(SuiteModel::schedule),
        equal_checkpoints: equal.map(|equal| equal.checkpoints.clone()).collect(),
        assumed_rate: stated.or_else(|| registry.published_rate(known.as_ref()?)),
        shape: known.as_ref().map(SuiteModel::shape),
        checkpoints: folders,
        probes_per_second,
    }
}

/// Refuses checkpoints that the run or the registry does not have.
fn check_checkpoints(
    checkpoints: &BTreeSet<u32>,
    trained_on: Option<&Corpus>,
    known: Option<&SuiteModel<'_>>,
    place: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) {
    if checkpoints.is_empty() {
        problems.add(&place("checkpoints"), "there is none");
    }
    for &steps in checkpoints {
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
        } else if let Some(known) = known {
            check_published(known, steps, place, problems);
        }
    }
}

/// Refuses a checkpoint of a published model that was not published, and warns of one that is known to be wrong.
fn check_published(
    known: &SuiteModel<'_>,
    steps: u32,
    place: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) {
    if !known.checkpoints.contains(&steps) {
        let nearest = known
            .checkpoints
            .iter()
            .min_by_key(|published| published.abs_diff(steps));
        let nearest = nearest.copied().unwrap_or(0);
        problems.add(
            &place("checkpoints"),
            format_args!("{steps} was not published; the nearest is {nearest}"),
        );
    }
    for bad in &known.bad_revisions {
        if bad.checkpoints.contains(&steps) {
            problems.warnings.push(format!(
                "the model `{}` at checkpoint {steps}: {} ({})",
                known.name, bad.about, bad.issue
            ));
        }
    }
}

/// Refuses a corpus in another order than that of a published model's training.
fn check_training(
    known: &SuiteModel<'_>,
    corpus: &Corpus,
    place: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) {
    let facts = [
        ("sequence-length", corpus.sequence_length, SEQUENCE_LENGTH),
        ("batch-size", corpus.batch_size, known.batch_size),
        ("steps", corpus.steps, known.steps),
        ("seed", corpus.seed, known.seed),
    ];
    for (key, found, trained) in facts {
        if found != trained {
            problems.add(
                &place("corpus"),
                format_args!(
                    "`{}` has the {key} {found}, the suite's `{}` was trained with {trained}",
                    corpus.name, known.name
                ),
            );
        }
    }
}
