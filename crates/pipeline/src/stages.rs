//! The stages of a run: they meet only in the parquet files of the output folder.

mod analyse;
mod cuts;
pub(crate) mod export;
mod join;
mod plan;
mod planned;
mod probe;
mod sets;
mod survey;
mod units;

pub(crate) use analyse::{ANALYSED, Analysed, Conclusion, Rates, analyse, is_dataset};
pub(crate) use cuts::Cuts;
pub(crate) use export::export_tokens;
pub(crate) use join::{ForeignVerdicts, check_coverage, join};
pub(crate) use plan::plan;
pub(crate) use probe::{How, probe};
pub(crate) use sets::probe_sets;
pub(crate) use survey::{CorpusSurvey, ModelSurvey, Trend, survey};
pub(crate) use units::{folder as verdicts_folder, part_names, set_folder};

use crate::config::Run;
use crate::inputs::Inputs;
use crate::tables::Footer;
use analyse::CorpusFacts;
use anyhow::Result;
use std::collections::BTreeMap;

/// How verdicts are summed up, in a table's metadata.
const ANALYSIS: &str = "analysis";

/// The entries of a table about models: those of every table, and `weights`, by model and checkpoint the fingerprint of
/// the weights that it depends on.
fn footer_of_models(run: &Run, inputs: &Inputs) -> Result<Footer> {
    let mut weights: BTreeMap<&str, BTreeMap<u32, String>> = BTreeMap::new();
    for model in &run.models {
        for checkpoint in &model.checkpoints {
            if let Some(found) = inputs.weights(&model.name, checkpoint.steps)? {
                let of_model = weights.entry(&model.name).or_default();
                of_model.insert(checkpoint.steps, found);
            }
        }
    }
    let mut footer = footer(run);
    if !weights.is_empty() {
        let weights = serde_json::to_string(&weights)?;
        footer.0.insert("weights".to_owned(), weights);
    }
    Ok(footer)
}

/// The entries of a table that says nothing of how verdicts are summed up: another analysis changes no byte of it.
fn footer_of_probes(run: &Run) -> Footer {
    let mut footer = footer(run);
    footer.0.remove(ANALYSIS);
    footer
}

/// The entries that every other table of a run carries.
fn footer(run: &Run) -> Footer {
    let corpora: BTreeMap<&str, CorpusFacts> = run
        .corpora
        .iter()
        .map(|corpus| {
            let facts = CorpusFacts {
                steps: corpus.steps,
                seed: corpus.seed,
                batch_size: Some(corpus.batch_size),
            };
            (corpus.name.as_str(), facts)
        })
        .collect();
    let entries = [
        ("suite", run.suite.clone()),
        ("k", run.probe.k.to_string()),
        ("l", run.probe.l.to_string()),
        ("offset", run.probe.offset.to_string()),
        // Numbers under text keys are always JSON.
        (
            "corpora",
            serde_json::to_string(&corpora).unwrap_or_default(),
        ),
        (
            ANALYSIS,
            serde_json::to_string(&run.analysis).unwrap_or_default(),
        ),
    ];
    Footer(entries.map(|(key, value)| (key.to_owned(), value)).into())
}
