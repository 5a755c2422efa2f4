//! `[[corpus]]`: from the table as written to a [`Corpus`].

use super::run_file::{ContrastTable, CorpusTable, MixtureTable};
use super::selection::{Rows, check_selection};
use super::{Contrast, Corpus, Data, Model, Probe, Problems, Sample, Weights};
use crate::corpora::OrderSource;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A corpus whose values fit together; its files are not opened here.
#[expect(
    clippy::too_many_lines,
    reason = "every key of the table is looked at once, in its order"
)]
pub(super) fn check_corpus(
    table: CorpusTable,
    probe: &Probe,
    names: &mut BTreeSet<String>,
    problems: &mut Problems,
) -> Corpus {
    let CorpusTable {
        name,
        data,
        mixture,
        weighted_sampler_alpha,
        order,
        maps,
        split,
        tokenizer,
        sequence_length,
        batch_size,
        micro_batch_size,
        gradient_accumulation_steps,
        data_parallel_size,
        steps,
        seed,
        sample,
        list,
        windows,
        exposures,
        contrast,
    } = table;
    let place = |key: &str| format!("corpus `{name}`: {key}");
    problems.name("corpus: name", &name, names);
    problems.within(&place("sequence-length"), sequence_length, 1, 1 << 20);
    let layout = [
        micro_batch_size,
        gradient_accumulation_steps,
        data_parallel_size,
    ];
    let batch_size = check_batch_size(batch_size, layout, &place("batch-size"), problems);
    problems.within(&place("steps"), steps, 1, i32::MAX.unsigned_abs());
    if u64::from(batch_size) * u64::from(steps) > u64::from(u32::MAX) {
        problems.add(
            &place("steps"),
            format_args!(
                "{steps} steps of {batch_size} are more than {} sequences",
                u32::MAX
            ),
        );
    }
    let needed = u32::from(probe.offset) + u32::from(probe.k) + u32::from(probe.l);
    if u64::from(needed) > u64::from(sequence_length) + 1 {
        problems.add(
            &place("sequence-length"),
            format_args!(
                "a probe takes offset + k + l = {needed} tokens, a sequence has {}",
                u64::from(sequence_length) + 1
            ),
        );
    }
    let data = match (data, mixture) {
        (Some(path), None) => Data::One(problems.resolve(&place("data"), &path)),
        (None, Some(members)) if !members.is_empty() => {
            if order.is_some_and(|order| order != OrderSource::Seed) || maps.is_some() {
                problems.add(
                    &place("mixture"),
                    "its order is rebuilt from the seed: leave out `order` and `maps`",
                );
            }
            check_mixture(&members, weighted_sampler_alpha, &place, problems)
        }
        _ => {
            problems.add(&place("data"), "give either `data` or a `mixture`");
            Data::One(PathBuf::new())
        }
    };
    if weighted_sampler_alpha.is_some() && matches!(data, Data::One(_)) {
        problems.add(
            &place("weighted-sampler-alpha"),
            "there is no `mixture` to weight",
        );
    }
    if maps.is_some() && order.is_some_and(|order| order != OrderSource::Maps) {
        problems.add(
            &place("maps"),
            "`order` says that they are not used: leave one of the two out",
        );
    }
    let split = split.and_then(|split| {
        split
            .parse()
            .map_err(|error| problems.add(&place("split"), error))
            .ok()
    });
    let shape = (steps, batch_size);
    let selection = check_selection(sample, list, windows, shape, &place, problems);
    let contrast = contrast.map(|table| {
        let ContrastTable {
            models,
            checkpoints,
            every,
            rows,
            seed,
        } = table;
        let whole = every.is_none() && rows.is_none() && seed.is_none();
        let (every, rows) = (every.unwrap_or(1), rows.unwrap_or(batch_size));
        Contrast {
            models: models.into_iter().collect(),
            checkpoints: checkpoints.into_iter().collect(),
            sample: (!whole).then(|| Sample {
                every: problems.within(&place("contrast.every"), every, 1, steps.max(1)),
                rows: Rows {
                    rows: problems.within(&place("contrast.rows"), rows, 1, batch_size),
                    seed: seed.unwrap_or(0),
                },
            }),
        }
    });
    Corpus {
        data,
        order,
        maps: maps.map(|path| problems.resolve(&place("maps"), &path)),
        split,
        tokenizer: tokenizer.map(|path| problems.resolve(&place("tokenizer"), &path)),
        name,
        sequence_length,
        batch_size,
        steps,
        seed,
        selection,
        exposures,
        contrast,
    }
}

/// Refuses a contrast of models or checkpoints that the run does not have.
pub(super) fn check_contrast(corpus: &Corpus, models: &[Model], problems: &mut Problems) {
    let Some(contrast) = &corpus.contrast else {
        return;
    };
    let place = |key: &str| format!("corpus `{}`: contrast.{key}", corpus.name);
    if contrast.models.is_empty() {
        problems.add(&place("models"), "there is none");
    }
    if contrast.checkpoints.is_empty() {
        problems.add(&place("checkpoints"), "there is none");
    }
    for name in &contrast.models {
        let Some(model) = models.iter().find(|model| &model.name == name) else {
            problems.add(
                &place("models"),
                format_args!("`{name}` is none of the models of this run file"),
            );
            continue;
        };
        let known: BTreeSet<u32> = model.checkpoints.iter().map(|known| known.steps).collect();
        for steps in &contrast.checkpoints {
            if !known.contains(steps) {
                problems.add(
                    &place("checkpoints"),
                    format_args!("the model `{name}` has no checkpoint {steps} in this run file"),
                );
            }
        }
    }
}

fn check_mixture(
    members: &[MixtureTable],
    alpha: Option<f64>,
    place: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) -> Data {
    let weights = if let Some(alpha) = alpha {
        if members.iter().any(|member| member.weight.is_some()) {
            problems.add(
                &place("mixture.weight"),
                "`weighted-sampler-alpha` makes the weights: leave one of the two out",
            );
        }
        if !alpha.is_finite() || alpha < 0.0 {
            problems.add(
                &place("weighted-sampler-alpha"),
                format_args!("{alpha} is no number from 0"),
            );
        }
        Weights::ByDocuments { alpha }
    } else {
        for weight in members.iter().filter_map(|member| member.weight) {
            problems.within(&place("mixture.weight"), weight, 0.0, f64::MAX);
        }
        let given = members.iter().map(|member| member.weight);
        Weights::Given(given.collect::<Option<_>>().unwrap_or_else(|| {
            problems.add(
                &place("mixture.weight"),
                "each dataset needs one, or the corpus a `weighted-sampler-alpha`",
            );
            Vec::new()
        }))
    };
    let members = members
        .iter()
        .map(|member| problems.resolve(&place("mixture.data"), &member.data));
    Data::Mixture {
        members: members.collect(),
        weights,
    }
}

fn check_batch_size(
    batch_size: Option<u32>,
    layout: [Option<u32>; 3],
    place: &str,
    problems: &mut Problems,
) -> u32 {
    let product = match (batch_size, layout) {
        (Some(batch_size), [None, None, None]) => u64::from(batch_size),
        (None, [Some(micro), Some(accumulation), Some(ranks)]) => u64::from(micro)
            .saturating_mul(u64::from(accumulation))
            .saturating_mul(u64::from(ranks)),
        _ => {
            problems.add(
                place,
                "give either `batch-size`, or all of `micro-batch-size`, `gradient-accumulation-steps` and `data-parallel-size`",
            );
            1
        }
    };
    let product = problems.within(place, product, 1, 1 << 20);
    u32::try_from(product).unwrap_or(u32::MAX)
}
