//! The stages of a run: they meet only in the parquet files of the output folder.

mod analyse;
mod join;
mod plan;
mod probe;
mod sets;
mod units;

pub(crate) use analyse::{ANALYSED, Analysed, Conclusion, Rates, analyse};
pub(crate) use join::join;
pub(crate) use plan::plan;
pub(crate) use probe::probe;
pub(crate) use sets::probe_sets;

use crate::config::Run;
use crate::tables::Footer;
use analyse::CorpusFacts;
use std::collections::BTreeMap;

/// The entries that every table of a run carries.
fn footer(run: &Run) -> Footer {
    let corpora: BTreeMap<&str, CorpusFacts> = run
        .corpora
        .iter()
        .map(|corpus| {
            let (steps, seed) = (corpus.steps, corpus.seed);
            (corpus.name.as_str(), CorpusFacts { steps, seed })
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
            "analysis",
            serde_json::to_string(&run.analysis).unwrap_or_default(),
        ),
    ];
    Footer(entries.map(|(key, value)| (key.to_owned(), value)).into())
}
