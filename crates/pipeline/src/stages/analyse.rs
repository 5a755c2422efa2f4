//! `analyse`: is a sequence met late more likely to be memorized? From `memorization` alone, without corpus or model.

mod by_time;
mod contrast;
mod group;
mod source;
mod strata;
mod surprisal;
mod table_rows;

use crate::config::Analysis;
use crate::failure;
use crate::mark::Mark;
use crate::progress;
use crate::tables::{
    BatchWriter, CORPUS_CONTRAST, Column, Footer, MEMORIZATION, MEMORIZATION_BY_TIME, Pending,
    QUANTILES, SURPRISAL_TREND, Staged, TREND, Table, UNIFORMITY, stage,
};
use anyhow::{Context, Result, bail};
use arrow_array::ArrayRef;
use group::{Group, Key, SEEN};
use pipeline::statistics::{StepCount, q_values};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use source::{Block, Source};
use std::collections::BTreeMap;
use std::path::Path;
use strata::{QuantileRow, TrendRow, UniformityRow};

/// The tables of the stage, in the order in which they are written.
pub(crate) const ANALYSED: [&Table; 6] = [
    &MEMORIZATION_BY_TIME,
    &TREND,
    &SURPRISAL_TREND,
    &CORPUS_CONTRAST,
    &UNIFORMITY,
    &QUANTILES,
];

/// What `memorization` must say of itself for an analysis to repeat.
struct Provenance {
    suite: String,
    k: u16,
    l: u16,
    offset: u16,
    corpora: BTreeMap<String, CorpusFacts>,
    analysis: Analysis,
    footer: Footer,
}

/// What the tables say of a corpus beside its name.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct CorpusFacts {
    pub(crate) steps: u32,
    pub(crate) seed: u32,
}

/// What the stage found.
pub(crate) struct Analysed {
    /// Rows of each table of [`ANALYSED`].
    pub(crate) n_rows: [u64; 6],
    pub(crate) rates: Vec<Rates>,
    /// A line for each model and corpus: at its last checkpoint, among what it had seen.
    pub(crate) conclusions: Vec<Conclusion>,
}

/// One corpus, model and checkpoint, for a person to read.
pub(crate) struct Rates {
    pub(crate) key: Key,
    /// Memorized and all.
    pub(crate) all: (u64, u64),
    /// The same among the seen ones of the first half of the steps trained so far; nothing where the model was trained on
    /// another corpus.
    pub(crate) early: Option<(u64, u64)>,
    /// The same for the second half.
    pub(crate) late: Option<(u64, u64)>,
}

/// The answer for one model.
pub(crate) struct Conclusion {
    pub(crate) key: Key,
    pub(crate) rate_ratio: Option<f64>,
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) sentence: String,
}

/// Reads `memorization` at `source`, a file or a folder, and makes the tables of [`ANALYSED`] for the folder `out`. `analysis` takes
/// the place of what the table says of it. The tables take their places when all of them are whole.
///
/// # Errors
///
/// When the table is missing, damaged, not of this program, or holds rows out of order or twice; when a table cannot be
/// written.
pub(crate) fn analyse(
    source: &Path,
    out: &Path,
    analysis: Option<&Analysis>,
    pending: &mut Pending,
) -> Result<Analysed> {
    progress::during("analysing", None, |_| {
        analysed(source, out, analysis, pending)
    })
}

fn analysed(
    source: &Path,
    out: &Path,
    analysis: Option<&Analysis>,
    pending: &mut Pending,
) -> Result<Analysed> {
    let source = Source::find(source)?;
    let mut provenance = Provenance::of(&source)?;
    if let Some(analysis) = analysis {
        provenance.analyse_by(analysis);
    }
    let analysis = &provenance.analysis;
    let groups = groups(&source, analysis)?;
    let mut by_time = Vec::new();
    for group in &groups {
        let facts = provenance.facts(&group.key.corpus)?;
        by_time.extend(by_time::by_time(group, analysis, facts.steps));
    }
    let rows = |of: fn(&Group) -> Vec<TrendRow>| -> Vec<TrendRow> {
        groups.par_iter().flat_map_iter(of).collect()
    };
    let mut trend = rows(Group::trend);
    find_families(&mut trend);
    let surprisal = surprisal::surprisal_trends(&groups, analysis);
    let contrast = contrast::contrasts(&groups, analysis);
    let uniformity: Vec<UniformityRow> =
        groups.par_iter().flat_map_iter(Group::uniformity).collect();
    let quantiles: Vec<QuantileRow> = groups.par_iter().flat_map_iter(Group::quantiles).collect();
    let columns = [
        table_rows::by_time(&by_time, &provenance)?,
        table_rows::trend(&trend, &provenance)?,
        table_rows::surprisal(&surprisal, &provenance)?,
        table_rows::contrast(&contrast, &provenance)?,
        table_rows::uniformity(&uniformity, &provenance)?,
        table_rows::quantiles(&quantiles, &provenance)?,
    ];
    let margins = further_margins(analysis);
    let mut n_rows = [0; 6];
    let mut files = Vec::new();
    for ((table, columns), n) in ANALYSED.into_iter().zip(columns).zip(&mut n_rows) {
        let further = if table.name == TREND.name {
            margins.as_slice()
        } else {
            &[]
        };
        let (n_written, file) = write(table, further, columns, out, &provenance.footer)?;
        *n = n_written;
        files.push(file);
    }
    files.into_iter().try_for_each(|file| pending.add(file))?;
    Ok(Analysed {
        n_rows,
        rates: groups.iter().map(rates).collect(),
        conclusions: trend.iter().filter_map(TrendRow::conclude).collect(),
    })
}

/// Fills in the q values. The family is fixed: every model at its last checkpoint, among what it had seen; all else is
/// exploratory and has none.
fn find_families(rows: &mut [TrendRow]) {
    let mut last: BTreeMap<(String, String), u32> = BTreeMap::new();
    let asked = |key: &Key| (key.model.clone(), key.corpus.clone());
    for row in rows.iter() {
        let checkpoint = last.entry(asked(&row.key)).or_default();
        *checkpoint = row.key.checkpoint.max(*checkpoint);
    }
    let mut family: Vec<&mut TrendRow> = rows
        .iter_mut()
        .filter(|row| row.stratum == SEEN)
        .filter(|row| last.get(&asked(&row.key)) == Some(&row.key.checkpoint))
        .collect();
    for row in &mut family {
        row.primary = true;
    }
    family.retain(|row| row.p().is_some());
    let ps: Vec<f64> = family.iter().filter_map(|row| row.p()).collect();
    for (row, q) in family.into_iter().zip(q_values(&ps)) {
        row.q = Some(q);
    }
}

impl Provenance {
    fn of(source: &Source) -> Result<Self> {
        let entries = source.metadata()?;
        let entry = |key: &str| {
            entries.get(key).with_context(|| {
                format!(
                    "`{}` does not say its `{key}` in its metadata",
                    source.path.display()
                )
            })
        };
        let kept = ["suite", "k", "l", "offset", "corpora", "analysis"];
        let mut footer = kept
            .map(|key| Ok((key.to_owned(), entry(key)?.clone())))
            .into_iter()
            .collect::<Result<BTreeMap<_, _>>>()?;
        // Where models were asked.
        let weights = entries.get("weights");
        footer.extend(weights.map(|weights| ("weights".to_owned(), weights.clone())));
        Ok(Self {
            suite: entry("suite")?.clone(),
            k: entry("k")?.parse()?,
            l: entry("l")?.parse()?,
            offset: entry("offset")?.parse()?,
            corpora: serde_json::from_str(entry("corpora")?)?,
            analysis: serde_json::from_str(entry("analysis")?)?,
            footer: Footer(footer),
        })
    }

    fn analyse_by(&mut self, analysis: &Analysis) {
        self.analysis = analysis.clone();
        let text = serde_json::to_string(analysis).unwrap_or_default();
        self.footer.0.insert("analysis".to_owned(), text);
    }

    fn facts(&self, corpus: &str) -> Result<CorpusFacts> {
        let facts = self.corpora.get(corpus).copied();
        facts.with_context(|| format!("the table's metadata does not know its corpus `{corpus}`"))
    }
}

/// A column for each further margin of the run.
fn further_margins(analysis: &Analysis) -> Vec<(String, f64)> {
    let margins = analysis.margins.iter();
    margins
        .map(|margin| (format!("tost_p_{margin:.2}"), *margin))
        .filter(|(name, _)| TREND.columns.iter().all(|column| column.name != name))
        .collect()
}

fn write(
    table: &'static Table,
    further: &[(String, f64)],
    columns: Vec<ArrayRef>,
    out: &Path,
    footer: &Footer,
) -> Result<(u64, Staged)> {
    let kind = TREND
        .columns
        .iter()
        .find(|column| column.name == "tost_p_1.05")
        .map(|column: &Column| column.kind.arrow_type());
    let further = further
        .iter()
        .filter_map(|(name, _)| Some((name.as_str(), kind.clone()?)));
    let further: Vec<_> = further.collect();
    stage(&out.join(table.path), Mark::Table(table.name), |file| {
        let mut writer = BatchWriter::with_further(file, table, footer, &further)?;
        writer.write(columns)?;
        writer.finish()
    })
}

/// Reads the table once: what is kept of it are counts by step, the places of the memorized, and surprisals.
fn groups(source: &Source, analysis: &Analysis) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let take = |block: &Block| -> Result<()> {
        match groups.last_mut() {
            Some(group) if group.key == block.key => return group.add(block),
            Some(group) => {
                if group.key > block.key {
                    bail!(
                        "the rows of `{}` at checkpoint {} stand behind those of `{}` at {}",
                        block.key.model,
                        block.key.checkpoint,
                        group.key.model,
                        group.key.checkpoint
                    );
                }
                group.finish();
            }
            None => {}
        }
        let mut group = Group::new(block, &analysis.exposures);
        group.add(block)?;
        groups.push(group);
        Ok(())
    };
    source.read(take).map_err(|error| {
        failure::failed(
            format_args!("the table `{}`: {error:#}", source.path.display()),
            format_args!(
                "rows ascend by {}, each once: sort the table and drop duplicates, or write it anew with `pipeline run FILE --only join`",
                MEMORIZATION.sorted_by.join(", ")
            ),
        )
    })?;
    if groups.is_empty() {
        bail!("the table `{}` has no rows", source.path.display());
    }
    if let Some(group) = groups.last_mut() {
        group.finish();
    }
    Ok(groups)
}

fn rates(group: &Group) -> Rates {
    let sum = |wanted: &dyn Fn(&StepCount) -> bool, stratum: Option<&group::Stratum>| {
        let steps = stratum.map_or(&[][..], |stratum| &stratum.steps);
        let steps = steps.iter().filter(|count| wanted(count));
        steps.fold((0, 0), |(hits, n), count| {
            (hits + u64::from(count.hits), n + u64::from(count.n))
        })
    };
    let early = |count: &StepCount| u64::from(count.step) * 2 < u64::from(group.key.checkpoint);
    let seen = group.stratum(SEEN);
    Rates {
        key: group.key.clone(),
        all: sum(&|_| true, group.stratum(group::ALL)),
        early: group.own.then(|| sum(&early, seen)),
        late: group.own.then(|| sum(&|count| !early(count), seen)),
    }
}
