//! The run file as it is written: TOML, kebab-case keys, unknown ones refused with a suggestion.

use super::Layout;
use super::analysis::Interval;
use super::checkpoints::Checkpoints;
use super::keys::KEYS;
use crate::corpora::OrderSource;
use crate::judges::{JudgeChoice, Measure};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RunFile {
    pub(super) suite: String,
    pub(super) out: String,
    pub(super) device: Option<String>,
    pub(super) devices: Option<Vec<String>>,
    pub(super) precision: String,
    pub(super) layout: Option<Layout>,
    pub(super) probe: ProbeTable,
    #[serde(default)]
    pub(super) memorization_by_time: TimeTable,
    #[serde(default)]
    pub(super) trend: TrendTable,
    #[serde(default)]
    pub(super) corpus: Vec<CorpusTable>,
    #[serde(default)]
    pub(super) model: Vec<ModelTable>,
}

/// `[probe]`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ProbeTable {
    pub(super) k: u16,
    pub(super) l: u16,
    pub(super) offset: u16,
    pub(super) judge: JudgeChoice,
    #[serde(default)]
    pub(super) measures: Vec<Measure>,
    #[serde(default)]
    pub(super) suppress_eos: bool,
    pub(super) near_tie: Option<f32>,
    #[serde(default)]
    pub(super) recheck: bool,
    pub(super) batch_size: Option<u32>,
    pub(super) part_size: u32,
}

/// `[memorization-by-time]`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct TimeTable {
    pub(super) steps: Option<u32>,
    pub(super) bins: Option<u32>,
    #[serde(default)]
    pub(super) interval: Interval,
}

/// `[trend]`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct TrendTable {
    pub(super) exposures: Option<Vec<u32>>,
    #[serde(default)]
    pub(super) margins: Vec<f64>,
    pub(super) permutations: Option<u32>,
    pub(super) seed: Option<u32>,
}

/// `[[corpus]]`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct CorpusTable {
    pub(super) name: String,
    pub(super) data: Option<String>,
    pub(super) mixture: Option<Vec<MixtureTable>>,
    pub(super) weighted_sampler_alpha: Option<f64>,
    pub(super) order: Option<OrderSource>,
    pub(super) maps: Option<String>,
    pub(super) split: Option<String>,
    pub(super) tokenizer: Option<String>,
    pub(super) sequence_length: u32,
    pub(super) batch_size: Option<u32>,
    pub(super) micro_batch_size: Option<u32>,
    pub(super) gradient_accumulation_steps: Option<u32>,
    pub(super) data_parallel_size: Option<u32>,
    pub(super) steps: u32,
    pub(super) seed: u32,
    pub(super) sample: Option<SampleTable>,
    pub(super) list: Option<ListTable>,
    pub(super) windows: Option<WindowsTable>,
    #[serde(default)]
    pub(super) exposures: bool,
    pub(super) contrast: Option<ContrastTable>,
}

/// `[corpus.sample]`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct SampleTable {
    pub(super) every: u32,
    pub(super) rows: u32,
    pub(super) seed: u32,
}

/// `[corpus.list]`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ListTable {
    pub(super) file: String,
}

/// `[corpus.windows]`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct WindowsTable {
    pub(super) steps: u32,
    pub(super) rows: Option<u32>,
    pub(super) seed: Option<u32>,
}

/// `[corpus.contrast]`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ContrastTable {
    pub(super) models: Vec<String>,
    pub(super) checkpoints: Vec<u32>,
    pub(super) every: Option<u32>,
    pub(super) rows: Option<u32>,
    pub(super) seed: Option<u32>,
}

/// `[[corpus.mixture]]`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct MixtureTable {
    pub(super) data: String,
    pub(super) weight: Option<f64>,
}

/// `[[model]]`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ModelTable {
    pub(super) name: String,
    pub(super) corpus: String,
    pub(super) folder: Option<String>,
    pub(super) verdicts: Option<String>,
    pub(super) revision_factor: Option<u32>,
    pub(super) checkpoints: Checkpoints,
    pub(super) probes_per_second: Option<f64>,
    pub(super) assumed_rate: Option<f64>,
}

/// Reads the text of a run file.
///
/// # Errors
///
/// All unknown keys, each with its line and the nearest known key; or else the first value that is
/// missing or of the wrong type, as the TOML reader shows it.
pub(super) fn parse(text: &str) -> Result<RunFile, Vec<String>> {
    let table = DeTable::parse(text).map_err(|error| vec![format!("it is no TOML\n{error}")])?;
    let mut unknown = Vec::new();
    find_unknown(table.get_ref(), "", text, &mut unknown);
    if !unknown.is_empty() {
        return Err(unknown);
    }
    toml::from_str(text).map_err(|error| {
        vec![
            format!("a value does not fit\n{error}")
                .trim_end()
                .to_owned(),
        ]
    })
}

/// Adds a problem for each key below `parent` that no entry of [`KEYS`] documents.
fn find_unknown(table: &DeTable<'_>, parent: &str, text: &str, problems: &mut Vec<String>) {
    for (key, value) in table {
        let path = join(parent, key.get_ref());
        if KEYS.iter().any(|known| known.path == path) {
            continue;
        }
        let children = format!("{path}.");
        if !KEYS.iter().any(|known| known.path.starts_with(&children)) {
            problems.push(unknown_key(key, parent, text));
            continue;
        }
        match value.get_ref() {
            DeValue::Table(inner) => find_unknown(inner, &path, text, problems),
            DeValue::Array(items) => {
                for item in items {
                    if let DeValue::Table(inner) = item.get_ref() {
                        find_unknown(inner, &path, text, problems);
                    }
                }
            }
            // A plain value where a table belongs: the typed reader says so.
            _ => {}
        }
    }
}

fn unknown_key(key: &Spanned<std::borrow::Cow<'_, str>>, parent: &str, text: &str) -> String {
    let before = text.get(..key.span().start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let prefix = join(parent, "");
    let siblings = KEYS
        .iter()
        .filter_map(|known| known.path.strip_prefix(prefix.as_str()));
    let siblings: std::collections::BTreeSet<&str> =
        siblings.filter_map(|rest| rest.split('.').next()).collect();
    let nearest = siblings
        .iter()
        .map(|sibling| (strsim::jaro_winkler(sibling, key.get_ref()), *sibling))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity > 0.7);
    let cure = match nearest {
        Some((_, sibling)) => format!("did you mean `{sibling}`?"),
        None => format!(
            "known here: {}",
            siblings.into_iter().collect::<Vec<_>>().join(", ")
        ),
    };
    format!(
        "line {line}: unknown key `{}`; {cure}",
        join(parent, key.get_ref())
    )
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}
